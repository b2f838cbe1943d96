// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"errors"
	"strings"

	"github.com/emersion/go-sasl"

	"github.com/postern-mail/postern/broker"
)

// The mechanisms, in the order they are offered; EXTERNAL where the gate says
// so.
var (
	mechanisms   = []string{sasl.Plain, sasl.Login, sasl.OAuthBearer}
	withExternal = append(mechanisms[:len(mechanisms):len(mechanisms)], sasl.External)
)

// identities is what a SASL exchange yielded. token is the caller's to wipe;
// external says that the certificate is to stand for it.
type identities struct {
	username, authorization string
	token                   []byte
	external                bool
}

// mechanism is a SASL server. go-sasl has no LOGIN server; its others keep
// the password in strings, and its OAUTHBEARER panics on an empty response
// after a failure and forgets why it failed.
type mechanism struct {
	// step takes a response and returns the next challenge, or identities.
	step func(response []byte) (challenge []byte, id *identities, err error)
	// login lets the client in; failure is what it is told.
	login func(*identities) *reply
	// failed is OAUTHBEARER's refusal, which waits for a dummy response.
	failed *reply
	// failureChallenge is sent before a refusal; nil: it is told at once.
	failureChallenge []byte
	// continues is called when another response is expected.
	continues func()
}

var _ sasl.Server = (*mechanism)(nil)

var errSASL = errors.New("submission: malformed SASL response")

// Next implements sasl.Server; its errors are *smtp.SMTPError, bare, since
// go-smtp sends any other to the client verbatim.
func (m *mechanism) Next(response []byte) (challenge []byte, done bool, err error) {
	if m.failed != nil {
		return nil, false, m.failed.smtpError()
	}
	challenge, id, err := m.step(response)
	switch {
	case err != nil:
		return nil, false, replySASL.smtpError()
	case id == nil:
		m.continues()
		return challenge, false, nil
	}
	refused := m.login(id)
	clear(id.token)
	switch {
	case refused == nil:
		return nil, true, nil
	case m.failureChallenge != nil:
		m.failed = refused
		m.continues()
		return m.failureChallenge, false, nil
	}
	return nil, false, refused.smtpError()
}

// newMechanism returns the server of a mechanism; nil: it is not offered.
func newMechanism(name string, login func(*identities) *reply, continues func()) *mechanism {
	m := &mechanism{login: login, continues: continues}
	switch name {
	case sasl.Plain:
		m.step = plainStep
	case sasl.Login:
		m.step = loginSteps()
	case sasl.External:
		m.step = externalStep
	case sasl.OAuthBearer:
		m.step = oauthBearerStep
		m.failureChallenge = []byte(`{"status":"invalid_token","schemes":"bearer"}`)
	default:
		return nil
	}
	return m
}

// plainStep is RFC 4616.
func plainStep(response []byte) ([]byte, *identities, error) {
	if response == nil {
		return []byte{}, nil, nil
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 {
		return nil, nil, errSASL
	}
	return nil, newIdentities(parts[1], parts[0], parts[2]), checkIdentities(parts[1], parts[0], parts[2])
}

// externalStep is RFC 4422, appendix A: the response is the authorization
// identity alone.
func externalStep(response []byte) ([]byte, *identities, error) {
	if response == nil {
		return []byte{}, nil, nil
	}
	if len(response) > maxIdentity || bytes.ContainsFunc(response, isControl) || bytes.ContainsRune(response, '\t') {
		return nil, nil, errSASL
	}
	return nil, &identities{authorization: string(response), external: true}, nil
}

// loginSteps is draft-murchison-sasl-login: name and password are asked for
// in turn; a name may come at once.
func loginSteps() func([]byte) ([]byte, *identities, error) {
	var username []byte
	return func(response []byte) ([]byte, *identities, error) {
		switch {
		case response == nil:
			return []byte("Username:"), nil, nil
		case username == nil && len(response) == 0:
			return nil, nil, errSASL
		case username == nil:
			username = bytes.Clone(response)
			return []byte("Password:"), nil, nil
		}
		return nil, newIdentities(username, nil, response), checkIdentities(username, nil, response)
	}
}

// oauthBearerStep is RFC 7628 §3.1; the token is an app password. Of the
// key-value pairs only auth counts, host and port are hints.
func oauthBearerStep(response []byte) ([]byte, *identities, error) {
	if response == nil {
		return []byte{}, nil, nil
	}
	// gs2-header: no channel binding, then the identity.
	header, pairs, ok := bytes.Cut(response, []byte{1})
	fields := bytes.Split(header, []byte{','})
	if !ok || len(fields) != 3 || string(fields[0]) != "n" || len(fields[2]) != 0 || !bytes.HasPrefix(fields[1], []byte("a=")) {
		return nil, nil, errSASL
	}
	username, err := saslName(fields[1][len("a="):])
	if err != nil || !bytes.HasSuffix(pairs, []byte{1, 1}) {
		return nil, nil, errSASL
	}
	var token []byte
	for pair := range bytes.SplitSeq(pairs[:len(pairs)-2], []byte{1}) {
		key, value, _ := bytes.Cut(pair, []byte{'='})
		switch string(key) {
		case "auth":
			const scheme = "bearer "
			if token != nil || len(value) <= len(scheme) || !strings.EqualFold(string(value[:len(scheme)]), scheme) {
				return nil, nil, errSASL
			}
			token = value[len(scheme):]
		case "host", "port", "mthd", "path", "post", "qs":
		default:
			return nil, nil, errSASL
		}
	}
	return nil, newIdentities([]byte(username), nil, token), checkIdentities([]byte(username), nil, token)
}

// saslName undoes RFC 5801 §4's =2C and =3D.
func saslName(b []byte) (string, error) {
	s := string(b)
	plain := strings.NewReplacer("=2C", "", "=3D", "").Replace(s)
	if strings.Contains(plain, "=") {
		return "", errSASL
	}
	return strings.NewReplacer("=2C", ",", "=3D", "=").Replace(s), nil
}

func newIdentities(username, authorization, token []byte) *identities {
	return &identities{username: string(username), authorization: string(authorization), token: bytes.Clone(token)}
}

func checkIdentities(username, authorization, token []byte) error {
	if len(username) == 0 || len(username) > maxIdentity || len(authorization) > maxIdentity || len(token) == 0 {
		return errSASL
	}
	for _, b := range [][]byte{username, authorization} {
		if bytes.ContainsFunc(b, isControl) || bytes.ContainsRune(b, '\t') {
			return errSASL
		}
	}
	return nil
}

// loginOf makes the domain's Login.
func (id *identities) loginOf(w *wire) broker.Login {
	return broker.Login{
		Protocol:        broker.ProtocolSubmission,
		Username:        id.username,
		AuthorizationID: id.authorization,
		Token:           broker.NewSecret(id.token),
		External:        id.external,
		Certificate:     w.conn.Certificate(),
		RemoteAddr:      w.conn.RemoteAddrPort(),
	}
}
