// SPDX-License-Identifier: Apache-2.0

package people

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/postern-mail/postern/broker"
)

const (
	// issuerTimeout bounds each request to an issuer.
	issuerTimeout = 5 * time.Second
	// maxIdentityToken bounds a token, in octets.
	maxIdentityToken = 16 << 10
)

// Issuer is an OpenID Connect issuer whose tokens are taken.
type Issuer struct {
	// URL is the issuer's, as its tokens have it (iss).
	URL string
	// Audience is what tokens for Postern are for (aud).
	Audience string
	// Roles give people of the BPO a role by a claim, the first that fits. A
	// firm's people are known by their identity alone, which the firm's own
	// admin has noted: no issuer that the BPO configures can make one.
	Roles []RoleRule
	// Client reaches the issuer; nil: http.DefaultTransport's way.
	Client *http.Client
}

// RoleRule gives a role to whoever has a value in a claim, which is a text or a
// list of texts.
type RoleRule struct {
	Claim, Value string
	Role         broker.Role
}

// issuer is an Issuer and, once it was reached, what it says of itself.
type issuer struct {
	Issuer
	now func() time.Time

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier
}

func newIssuers(all []Issuer, now func() time.Time) ([]*issuer, error) {
	var issuers []*issuer
	for _, i := range all {
		if i.URL == "" || i.Audience == "" {
			return nil, errors.New("people: an issuer needs its URL and an audience")
		}
		for _, r := range i.Roles {
			if r.Role.OfFirm() || r.Claim == "" || r.Value == "" {
				return nil, fmt.Errorf("people: issuer %s: a role needs a claim and a value, and is admin or auditor: a firm's people are the firm's to add", i.URL)
			}
		}
		client := &http.Client{}
		if i.Client != nil {
			*client = *i.Client
		}
		client.Timeout = issuerTimeout
		i.Client = client
		issuers = append(issuers, &issuer{Issuer: i, now: now})
	}
	return issuers, nil
}

// reach returns what verifies the issuer's tokens. It asks the issuer at the
// first token, and again at the next while that fails: one that is down keeps
// nothing from starting.
func (i *issuer) reach() (*oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.verifier != nil {
		return i.verifier, nil
	}
	// The context lasts: the library fetches keys under it later. The client's
	// timeout bounds each request.
	provider, err := oidc.NewProvider(oidc.ClientContext(context.Background(), i.Client), i.URL)
	if err != nil {
		return nil, broker.Errorf(broker.Unavailable, "the identity provider cannot be reached; try again").WithCause(err)
	}
	i.verifier = provider.Verifier(&oidc.Config{ClientID: i.Audience, Now: i.now})
	return i.verifier, nil
}

// issuerOf names the issuer that a JSON Web Token says it is of (RFC 7519
// §4.1.1), before anything of it is believed.
func issuerOf(token string) (string, bool) {
	if len(token) > maxIdentityToken || strings.Count(token, ".") != 2 {
		return "", false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		return "", false
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", false
	}
	return claims.Issuer, true
}

// byIdentity tells whom an issuer's token speaks for: a person who was noted
// with that identity, or somebody of the BPO by a role's claim.
func (a *Authenticator) byIdentity(ctx context.Context, named, bearer string) (*Caller, error) {
	at := slices.IndexFunc(a.issuers, func(i *issuer) bool { return i.URL == named })
	if at < 0 {
		return nil, denied("its issuer is not known")
	}
	i := a.issuers[at]
	verifier, err := i.reach()
	if err != nil {
		return nil, err
	}
	token, err := verifier.Verify(oidc.ClientContext(ctx, i.Client), bearer)
	if err != nil {
		return nil, denied(err.Error())
	}
	if token.Subject == "" {
		return nil, denied("it names nobody")
	}
	person, err := a.People.PersonByIdentity(ctx, broker.Identity{Issuer: i.URL, Subject: token.Subject})
	if err == nil {
		return &Caller{Person: person}, nil
	}
	if broker.CodeOf(err) != broker.NotFound {
		return nil, err
	}
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return nil, denied(err.Error())
	}
	for _, r := range i.Roles {
		if r.fits(claims) {
			return &Caller{Person: &broker.Person{
				Name: token.Subject + " at " + i.URL, Role: r.Role,
				Identity: &broker.Identity{Issuer: i.URL, Subject: token.Subject},
			}}, nil
		}
	}
	return nil, denied("its subject is nobody here, and it has no claim that gives a role")
}

func (r *RoleRule) fits(claims map[string]any) bool {
	switch value := claims[r.Claim].(type) {
	case string:
		return value == r.Value
	case []any:
		return slices.Contains(value, any(r.Value))
	}
	return false
}
