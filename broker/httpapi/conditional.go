// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/postern-mail/postern/broker"
)

// tagged is a body with the tag of the thing that it shows (RFC 9110 §8.8.3).
type tagged[T any] struct {
	ETag string `header:"ETag" doc:"Names this state of the thing, for If-Match."`
	Body T
}

// show answers with one thing as stored, in the form that body gives it.
func show[T any](stored any, body T) *tagged[T] { return &tagged[T]{entityTag(stored), body} }

func entityTag(stored any) string { return `"` + string(broker.TagOf(stored)) + `"` }

type ifMatchKey struct{}

// takeIfMatch puts a request's If-Match into its context. A change that would
// pay no heed to it is refused: who sends it relies on it.
func (a *api) takeIfMatch(op *huma.Operation, r rule) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		given := ctx.Header("If-Match")
		if given != "" && op.Method != http.MethodGet && !r.takesIfMatch(op) {
			_, w := humago.Unwrap(ctx)
			writeProblem(w, a.problem(ctx.Context(), op, broker.Errorf(broker.Invalid, "this takes no If-Match: what it changes has no ETag")))
			return
		}
		if given != "" {
			ctx = huma.WithValue(ctx, ifMatchKey{}, given)
		}
		next(ctx)
	}
}

// staleError says that a thing is in another state than the client has read.
type staleError struct {
	refusal *broker.Error
	// current is what it is now, as a GET shows it.
	current any
}

// Error returns the refusal's text.
func (e *staleError) Error() string { return e.refusal.Error() }

// Unwrap returns the refusal.
func (e *staleError) Unwrap() error { return e.refusal }

// unchanged holds what is stored against the request's If-Match: the error is
// about a thing that has changed, and holds its current state. What it returns
// has the change itself made only if the thing is still as it was here.
//
// current is what a GET would show; it may be nil, and then stored is shown.
func unchanged(ctx context.Context, id broker.ID, stored any, current func() (any, error)) (context.Context, error) {
	given, _ := ctx.Value(ifMatchKey{}).(string)
	if given == "" || strings.TrimSpace(given) == "*" {
		return ctx, nil
	}
	tags := strings.Split(given, ",")
	for i, t := range tags {
		tags[i] = strings.TrimSpace(t) // a weak one, W/"…", matches nothing (RFC 9110 §13.1.1)
	}
	if slices.Contains(tags, entityTag(stored)) {
		return broker.WithExpected(ctx, broker.Expected{ID: id, Tag: broker.TagOf(stored)}), nil
	}
	now := stored
	if current != nil {
		var err error
		if now, err = current(); err != nil {
			return nil, err
		}
	}
	e := broker.Errorf(broker.Conflict, "it has changed since you read it; what it is now is in this answer")
	e.Reason = broker.ReasonStale
	return nil, &staleError{e, now}
}

// lostRace reports whether a change found its thing changed after its handler
// had found it unchanged: asked again, the handler says what it is now.
func lostRace(err error) bool {
	var told *staleError
	var e *broker.Error
	return errors.As(err, &e) && e.Reason == broker.ReasonStale && !errors.As(err, &told)
}
