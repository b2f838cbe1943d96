// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"slices"

	"github.com/postern-mail/postern/broker"
)

// Principal is on whose behalf a request is made.
type Principal struct {
	// Actor is how records name him.
	Actor broker.Actor
	Role  broker.Role
	// FirmID is his firm's; empty: he is the BPO's.
	FirmID broker.ID
	// Scopes narrow the role; empty: nothing is narrowed.
	Scopes []string
	// TokenID is the API token that was shown; empty: none was.
	TokenID broker.ID
}

type principalKey struct{}

// WithPrincipal says on whose behalf a request is made. Only what has
// authenticated the caller may call it.
func WithPrincipal(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalOf returns whom WithPrincipal named; nil: nobody.
func PrincipalOf(ctx context.Context) *Principal {
	p, _ := ctx.Value(principalKey{}).(*Principal)
	return p
}

// principal is PrincipalOf for a handler, before which there always is one.
func principal(ctx context.Context) *Principal {
	p := PrincipalOf(ctx)
	if p == nil {
		panic("httpapi: a handler runs without a principal")
	}
	return p
}

// actor is how records name the caller.
func actor(ctx context.Context) broker.Actor { return principal(ctx).Actor }

// within reports whether p's scopes allow an operation of a group.
func (p *Principal) within(group string, reads bool) bool {
	return len(p.Scopes) == 0 || slices.Contains(p.Scopes, group) || reads && slices.Contains(p.Scopes, scopeRead)
}

// stranger makes the requests that need no token.
func stranger() *Principal { return &Principal{Actor: broker.Actor{Kind: "stranger"}} }
