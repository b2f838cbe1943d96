// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

// Named returns the ids of the things of a kind, such as mailbox, whose field was a
// name at some time between two instants, as a log tells; an until of zero is never.
// Names are the same whatever their letters' case.
func Named(ctx context.Context, events broker.EventStore, log broker.ID, kind, field, name string, since, until time.Time) ([]broker.ID, error) {
	if until.IsZero() {
		until = time.Unix(1<<40, 0)
	}
	r := &reader{ctx: ctx, events: events, q: Question{Until: until}}
	things := history{}
	if err := r.read(log, "", things, kind, "created updated deleted"); err != nil {
		return nil, err
	}
	var all []broker.ID
	for id, changes := range things {
		for i, c := range changes {
			fields := decode[map[string]json.RawMessage](c.after)
			var has string
			if json.Unmarshal(fields[field], &has) != nil || !strings.EqualFold(has, name) {
				continue
			}
			if i+1 == len(changes) || changes[i+1].at.After(since) {
				all = append(all, id)
				break
			}
		}
	}
	slices.Sort(all)
	return all, nil
}
