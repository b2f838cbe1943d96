// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"context"
	"time"

	"github.com/postern-mail/postern/broker/audit/logcopy"
)

// Source is a server that has the log, or a copy of it. It is not believed.
type Source interface {
	logcopy.Source
	// Entry returns one entry.
	Entry(ctx context.Context, seq int64) (*logcopy.Entry, error)
	// Witnessed returns checkpoints that witnesses have cosigned, of each witness its
	// newest.
	Witnessed(ctx context.Context) ([][]byte, error)
}

// firstAt finds, by halving, the first of size entries that is not before an
// instant. What it finds is checked against the entries themselves when they are
// there.
func firstAt(ctx context.Context, source Source, size int64, at time.Time) (int64, error) {
	low, high := int64(0), size
	for low < high {
		middle := low + (high-low)/2
		when, err := timeOf(ctx, source, middle, high)
		if err != nil {
			return 0, err
		}
		if when.Before(at) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, nil
}

// timeOf returns the time of an entry, or of the next one that was not pruned;
// zero: all up to end were, and so they are old.
func timeOf(ctx context.Context, source Source, seq, end int64) (time.Time, error) {
	e, err := source.Entry(ctx, seq)
	if err != nil {
		return time.Time{}, err
	}
	for some := []*logcopy.Entry{e}; ; {
		for _, e := range some {
			if _, err := e.LeafOf(seq); err != nil {
				return time.Time{}, fault("%w", err)
			}
			if !e.Pruned() {
				event, err := parseEvent(e)
				if err != nil {
					return time.Time{}, err
				}
				return event.Time, nil
			}
			seq++
		}
		if seq >= end {
			return time.Time{}, nil
		}
		if some, err = source.Entries(ctx, seq); err != nil {
			return time.Time{}, err
		}
		if len(some) == 0 {
			return time.Time{}, fault("the log's events from %d on are missing", seq)
		}
	}
}
