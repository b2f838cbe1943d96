// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/people"
)

// Authenticator tells whom bearer tokens speak for: broker/people.
type Authenticator interface {
	// Authenticate's error is Denied, with one text whatever is wrong, or
	// Unavailable.
	Authenticate(ctx context.Context, bearer string) (*people.Caller, error)
}

// origin is where a connection comes from.
type origin struct {
	// peer is who is behind a Unix socket, where he may manage Postern.
	peer *Principal
	// shut says that whoever is behind it may not, with a token or without.
	shut bool
	// address is the client's, over TLS; empty: a Unix socket, which is not
	// limited.
	address string
}

type originKey struct{}

func originOf(ctx context.Context) origin {
	o, _ := ctx.Value(originKey{}).(origin)
	return o
}

// identify says on whose behalf r is made: a bearer token's person; without a
// token, whoever is behind the Unix socket; nil: nobody. public says that the
// request needs no token.
func (a *api) identify(r *http.Request, public bool) (*Principal, error) {
	if p := PrincipalOf(r.Context()); p != nil {
		return p, nil
	}
	from := originOf(r.Context())
	if from.shut {
		return nil, broker.Errorf(broker.Refused, "this user may not manage Postern: be root or the server's own user")
	}
	if wait := a.before.take(from.address, a.Now()); wait > 0 {
		return nil, tooMany(wait)
	}
	given := r.Header.Values("Authorization")
	if len(given) == 0 {
		switch {
		case from.peer != nil:
			return from.peer, nil
		case public:
			return stranger(), nil
		}
		return nil, broker.Errorf(broker.Denied, "an API token is needed: Authorization: Bearer TOKEN")
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	if len(given) > 1 || !strings.EqualFold(scheme, "Bearer") { // RFC 9110 §11.1
		return nil, broker.Errorf(broker.Denied, "the Authorization header is not one bearer token")
	}
	caller, err := a.Authenticator.Authenticate(r.Context(), strings.TrimSpace(token))
	if err != nil {
		if broker.CodeOf(err) == broker.Denied {
			a.Logger.Info("a token was refused", zap.String("address", from.address), zap.Error(err))
			if wait := a.failures.take(from.address, a.Now()); wait > 0 {
				return nil, tooMany(wait)
			}
		}
		return nil, err
	}
	p := &Principal{Actor: caller.Actor(), Role: caller.Person.Role, FirmID: caller.Person.FirmID}
	if caller.Token != nil {
		p.Scopes, p.TokenID = caller.Token.Scopes, caller.Token.ID
	}
	if from.address != "" {
		if wait := a.after.take(caller.Person.Name+"@"+string(caller.Person.FirmID), a.Now()); wait > 0 {
			return nil, tooMany(wait)
		}
	}
	return p, nil
}
