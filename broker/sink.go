// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"time"
)

// SinkClaim is who delivers to a sink.
type SinkClaim struct {
	Sink string
	// Node and Holder are the process.
	Node   string
	Holder ID
	// Lasts is for how long the sink is his, from each time that he keeps it on.
	Lasts time.Duration
}

// SinkProgress is what a holder has done since he said so last.
type SinkProgress struct {
	// Next is the Seq that is due next, of each log of which it has changed.
	Next map[ID]int64
	// FailingSince is since when the receiver takes nothing, and Failure why not;
	// zero: it does, and Failure says what is to be mended all the same.
	FailingSince time.Time
	Failure      string
}

// SinkState is a sink as the database has it.
type SinkState struct {
	Sink string
	// Node delivers to it; empty: nobody at the moment.
	Node         string
	FailingSince time.Time
	Failure      string
}

// SinkLag is how far behind a sink is in the logs that it covers.
type SinkLag struct {
	Events int64
	// Oldest is the time of the oldest event that is due; zero: none is.
	Oldest time.Time
}

// Sinks keeps who delivers to which sink, and how far it is: broker/store. A
// sink's place in a log is a Seq, since events' ids are not in the order of the
// commits of several nodes, and those are.
type Sinks interface {
	// ClaimSink gives a sink to a process if nobody else holds it, and returns its
	// state; nil: somebody does. A sink that is not known yet begins at the present
	// end of each log, or with fromStart at its first event. A log that begins
	// later is delivered from its first event on.
	ClaimSink(ctx context.Context, c SinkClaim, fromStart bool) (*SinkState, error)
	// KeepSink stores what the holder did, and prolongs his claim; Conflict when it
	// is no longer his, and then nothing is stored.
	KeepSink(ctx context.Context, c SinkClaim, p SinkProgress) error
	// ReleaseSinks lets go of what a node holds: when it begins and when it ends.
	ReleaseSinks(ctx context.Context, node string) error
	// SinkPositions returns the Seq that is due next by log; of a log that is not
	// there it is 0.
	SinkPositions(ctx context.Context, sink string) (map[ID]int64, error)
	// SinkStates returns all that were ever claimed.
	SinkStates(ctx context.Context) ([]*SinkState, error)
	// SinkLag counts what is due, in one log (nil: in all).
	SinkLag(ctx context.Context, sink string, firm *ID) (SinkLag, error)
	// LogEnds returns the Seq of the next event of each log.
	LogEnds(ctx context.Context) (map[ID]int64, error)
	// SubscribeAppends calls f for each log that a commit of this process has
	// added to. f must return at once: commits wait for it. What other processes
	// add shows in LogEnds alone.
	SubscribeAppends(f func(firm ID)) (cancel func())
}
