// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Tag names one state of one thing: two that are equal are the same state. It
// is made from the thing's JSON form, which is what the state stores.
type Tag string

// TagOf returns the tag of a thing of this package.
func TagOf(thing any) Tag {
	doc, err := json.Marshal(thing)
	if err != nil {
		return "" // nothing that was stored has no JSON form
	}
	return TagOfDocument(doc)
}

// TagOfDocument is TagOf for a thing's JSON form.
func TagOfDocument(doc []byte) Tag {
	sum := sha256.Sum256(doc)
	return Tag(hex.EncodeToString(sum[:16]))
}

type expectedKey struct{}

// Expected is which thing must be in which state for a change to be made.
type Expected struct {
	ID  ID
	Tag Tag
}

// WithExpected has a change of State made only if the thing is still in that
// state, in the transaction of the change: else it is Conflict, with Reason
// ReasonStale, and nothing is changed.
func WithExpected(ctx context.Context, e Expected) context.Context {
	return context.WithValue(ctx, expectedKey{}, e)
}

// ExpectedOf returns what WithExpected was given.
func ExpectedOf(ctx context.Context) (e Expected, ok bool) {
	e, ok = ctx.Value(expectedKey{}).(Expected)
	return e, ok
}

// ReasonStale is the Reason of an Error about a thing that has changed since
// it was read.
const ReasonStale = "stale"
