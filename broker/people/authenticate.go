// SPDX-License-Identifier: Apache-2.0

package people

import (
	"context"
	"errors"
	"time"

	"github.com/postern-mail/postern/broker"
)

// Caller is somebody whose token was recognised.
type Caller struct {
	Person *broker.Person
	// Token is the API token that was used; nil: another way was.
	Token *broker.APIToken
}

// Actor is the caller as records name him.
func (c *Caller) Actor() broker.Actor {
	a := broker.Actor{Kind: string(c.Person.Role), Name: c.Person.Name, ID: c.Person.ID}
	if c.Token != nil {
		a.TokenID = c.Token.ID
	}
	return a
}

// Config is what an Authenticator stands on.
type Config struct {
	People broker.People
	Tokens *Tokens
	// Issuers are those whose OpenID Connect tokens are taken as well.
	Issuers []Issuer
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Authenticator tells whom bearer tokens speak for.
type Authenticator struct {
	Config
	issuers []*issuer
}

// NewAuthenticator checks the configuration.
func NewAuthenticator(c Config) (*Authenticator, error) {
	if c.People == nil || c.Tokens == nil {
		return nil, errors.New("people: NewAuthenticator needs People and Tokens")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	issuers, err := newIssuers(c.Issuers, c.Now)
	if err != nil {
		return nil, err
	}
	return &Authenticator{c, issuers}, nil
}

// Authenticate tells whom a bearer token speaks for. The error is Denied, with
// the true cause, or Unavailable.
func (a *Authenticator) Authenticate(ctx context.Context, bearer string) (*Caller, error) {
	hash, ok := a.Tokens.Hash(bearer)
	if named, isIdentity := issuerOf(bearer); !ok && isIdentity {
		return a.byIdentity(ctx, named, bearer)
	}
	if !ok {
		return nil, denied("not an API token")
	}
	token, person, err := a.People.APITokenByHash(ctx, hash)
	switch {
	case broker.CodeOf(err) == broker.NotFound:
		return nil, denied("unknown")
	case err != nil:
		return nil, err
	case !token.RevokedAt.IsZero():
		return nil, denied("revoked")
	case !a.Now().Before(token.ExpiresAt):
		return nil, denied("expired")
	case !person.RemovedAt.IsZero():
		return nil, denied("its person was removed")
	}
	return &Caller{Person: person, Token: token}, nil
}

func denied(cause string) error {
	e := broker.Errorf(broker.Denied, "the token is not good: it is unknown, expired or revoked")
	e.Reason = "token"
	return e.WithCause(errors.New(cause))
}
