// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// CredentialInput describes the body that sets a credential. It is for the
// OpenAPI document alone: the server never has the secret in a string.
type CredentialInput struct {
	Kind     broker.CredentialKind `json:"kind" enum:"password,access-token,oauth2-client,oauth2-refresh,google-service-account"`
	Username string                `json:"username,omitempty" doc:"The login name upstream, where it is not the mailbox's."`
	Secret   string                `json:"secret,omitempty" minLength:"1" writeOnly:"true" doc:"The password or access token; up to 65536 octets, without NUL. For the first two kinds."`
	Document *CredentialDocument   `json:"document,omitempty" doc:"For the other kinds, in the secret's place."`
}

// CredentialDocument describes the document of a kind that mints tokens. It is
// broker/oauth that reads it.
type CredentialDocument struct {
	Version      int    `json:"version" minimum:"1" maximum:"1"`
	ID           string `json:"id,omitempty" doc:"Names the consent; another one for each."`
	TokenURL     string `json:"token_url" example:"https://login.microsoftonline.com/TENANT/oauth2/v2.0/token" doc:"The issuer's token endpoint."`
	ClientID     string `json:"client_id,omitempty" doc:"The application's."`
	ClientEmail  string `json:"client_email,omitempty" doc:"google-service-account: the account's address."`
	ClientSecret string `json:"client_secret,omitempty" writeOnly:"true"`
	ClientAuth   string `json:"client_auth,omitempty" enum:"post,basic" doc:"Where the client secret goes: into the body, or into the Authorization header."`
	Certificate  string `json:"certificate,omitempty" doc:"In PEM: proves the client by its key, in place of a secret."`
	PrivateKey   string `json:"private_key,omitempty" writeOnly:"true" doc:"An RSA key in PEM."`
	PrivateKeyID string `json:"private_key_id,omitempty" doc:"google-service-account: the key's name."`
	Scope        string `json:"scope,omitempty" doc:"Without it, Exchange Online's or Gmail's."`
	RefreshToken string `json:"refresh_token,omitempty" writeOnly:"true" doc:"oauth2-refresh: what a consent gave."`
}

// CredentialSet is the answer: what was stored was checked first.
type CredentialSet struct {
	MailboxID broker.ID `json:"mailbox_id"`
	Mailbox   string    `json:"mailbox"`
	Version   int       `json:"version"`
}

const credentialPath = "/v1/mailboxes/{mailbox}/credential"

func (a *api) registerCredential() {
	register(a, huma.Operation{
		Method: http.MethodPut, Path: credentialPath, OperationID: "set-credential",
		Summary:     "Check a credential by logging in to IMAP and submission, then store it",
		Description: "It is stored only when both logins succeed. No route returns it.",
		// huma's validation echoes input; decodeCredential takes its place.
		SkipValidateBody: true,
	}, a.setCredential)
	body := a.huma.OpenAPI().Paths[credentialPath].Put.RequestBody
	body.Content["application/json"].Schema = a.huma.OpenAPI().Components.Schemas.
		Schema(reflect.TypeFor[CredentialInput](), true, "CredentialInput")
}

func (a *api) setCredential(ctx context.Context, in *struct {
	Mailbox string `path:"mailbox" doc:"Id or address."`
	RawBody []byte `contentType:"application/json"`
},
) (*answer[CredentialSet], error) {
	// huma puts the buffer back into a pool.
	defer clear(in.RawBody)
	c, err := decodeCredential(in.RawBody)
	if err != nil {
		return nil, err
	}
	defer func() { c.Secret.Wipe() }() // the check may replace it
	m, err := a.findMailbox(ctx, "", in.Mailbox)
	if err != nil {
		return nil, err
	}
	// From the check to the store, the endpoints must not change.
	unlock, err := a.changing.lock(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if m, err = a.reads(ctx).Mailbox(ctx, m.ID); err != nil {
		return nil, err
	}
	if err := a.actsFor(ctx, m.FirmID); err != nil {
		return nil, err
	}
	if err := a.settled(ctx, m); err != nil {
		return nil, err
	}
	version, err := a.checkAndStore(ctx, m, c)
	if err != nil {
		return nil, err
	}
	if err := a.State.CredentialSet(ctx, actor(ctx), m.ID, version); err != nil {
		a.Logger.Error("a credential was stored, and the record of it was not written",
			zap.String("mailbox", m.Address), zap.Int("version", version), zap.Error(err))
		return nil, broker.Errorf(broker.CodeOf(err), "the credential is stored, but the record of it could not be written; set it again").WithCause(err)
	}
	return &answer[CredentialSet]{CredentialSet{MailboxID: m.ID, Mailbox: m.Address, Version: version}}, nil
}

func (a *api) checkAndStore(ctx context.Context, m *broker.Mailbox, c *broker.Credential) (int, error) {
	var err error
	if c.Version, err = a.Credentials.CredentialVersion(ctx, m.FirmID, m.ID); err != nil {
		return 0, err
	}
	probing, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := a.Upstream.Probe(probing, m, c); err != nil {
		return 0, notStored(m, err)
	}
	return a.Credentials.SetCredential(ctx, m.FirmID, m.ID, c)
}

// notStored tells whoever may set a credential which servers refused it, or
// were out of reach. Texts for agents name none.
func notStored(m *broker.Mailbox, err error) error {
	e := broker.Errorf(broker.CodeOf(err), "%s: nothing was stored (tried IMAP at %s and submission at %s; the server's log says more)",
		broker.PublicText(err), address(&m.IMAP), address(&m.Submission)).WithCause(err)
	var known *broker.Error
	if errors.As(err, &known) {
		e.Field, e.Reason = known.Field, known.Reason
	}
	return e
}

func address(e *broker.Endpoint) string {
	return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) + " (" + string(e.TLS) + ")"
}

// decodeCredential reads a CredentialInput. Its errors are fixed texts without
// a cause: a decoder's error may quote the secret, and so may anything that
// names a member, since the body may be the secret itself.
func decodeCredential(body []byte) (c *broker.Credential, err error) {
	malformed := func() error {
		return broker.Errorf(broker.Invalid, "the body must be a JSON object with kind, secret or (for kinds that mint tokens) document, and username where it is not the mailbox's")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return nil, malformed()
	}
	defer func() {
		for _, raw := range members {
			clear(raw)
		}
	}()
	c = &broker.Credential{}
	var secret, document octets
	defer func() {
		if err != nil {
			clear(secret)
			clear(document)
		}
	}()
	for name, raw := range members {
		if string(raw) == "null" {
			return nil, malformed()
		}
		switch name {
		case "kind":
			err = json.Unmarshal(raw, &c.Kind)
		case "username":
			err = json.Unmarshal(raw, &c.Username)
		case "secret":
			err = json.Unmarshal(raw, &secret)
		case "document":
			document = bytes.Clone(raw)
		default:
			return nil, malformed()
		}
		if err != nil {
			return nil, malformed()
		}
	}
	if c.Kind.MintsTokens() {
		secret, document = document, secret
	}
	if document != nil {
		return nil, malformed()
	}
	c.Secret = broker.NewSecret(secret)
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// octets takes a JSON string without making a Go string of it, which could
// not be wiped: encoding/json hands the unquoted octets to UnmarshalText.
type octets []byte

func (o *octets) UnmarshalText(text []byte) error {
	*o = bytes.Clone(text)
	return nil
}
