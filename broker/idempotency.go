// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"time"
)

// RepeatKey names a request that its sender may repeat.
type RepeatKey struct {
	// Caller is whose it is: keys of two callers never meet.
	Caller string
	// Key is the sender's, 1 to 200 octets.
	Key string
	// Fingerprint is a hash of all that the request says.
	Fingerprint []byte
}

// FirstAnswer is what the first request of a key came to.
type FirstAnswer struct {
	// Done is false while it is under way, and for good when it was cut off.
	Done   bool
	Status int
	// Body is nil where the answer held a secret, which is not kept.
	Body []byte
}

// Repeats knows the requests that may be repeated: broker/store. They are
// forgotten after RepeatLifetime.
type Repeats interface {
	// BeginRequest returns nil when the request is the first of its key, and is
	// noted as under way; else what the first came to. Invalid when the key was
	// used for another request.
	BeginRequest(ctx context.Context, k RepeatKey) (*FirstAnswer, error)
	// EndRequest notes what a first request came to.
	EndRequest(ctx context.Context, k RepeatKey, a FirstAnswer) error
	// ForgetRequest has the next request of the key be a first one.
	ForgetRequest(ctx context.Context, k RepeatKey) error
}

// RepeatLifetime is how long a key is remembered.
const RepeatLifetime = 24 * time.Hour
