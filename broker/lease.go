// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"time"
)

// Leases are nodes' rights to hold sessions, where several nodes share a state:
// broker/store. A lease runs by the database's clock. Its holder counts by his
// own, from before he asked, and ends his sessions in time; everybody else waits
// a second longer. So nobody's session is taken for dead that lives.
//
// A holder is one process. The error is Unavailable when the database cannot
// answer: the lease may have been prolonged all the same.
type Leases interface {
	// TakeLease takes a node's lease for a process that holds none. What another
	// process holds is Conflict while it runs, unless takeOver says that this
	// process has just been started in its place.
	TakeLease(ctx context.Context, node string, holder ID, lasts time.Duration, takeOver bool) error
	// RenewLease prolongs the holder's lease, and reports whether he held it:
	// once it was ended, or taken over, he does not.
	RenewLease(ctx context.Context, node string, holder ID, lasts time.Duration) (held bool, err error)
	// EndLapsedSessions ends the leases that are over, and then the sessions of
	// nodes without one, each with its session.end event. by is the node that
	// does it.
	EndLapsedSessions(ctx context.Context, by string) (int, error)
}
