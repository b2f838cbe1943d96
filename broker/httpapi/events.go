// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"

	"github.com/postern-mail/postern/broker"
)

// LogEvent is one event of a log, with what its leaf hash is made from.
type LogEvent struct {
	Seq    int64           `json:"seq"`
	Record json.RawMessage `json:"record" doc:"The event. These exact octets, after the salt, are what the leaf hash covers. Null for an entry that was pruned, which has no salt either."`
	Salt   string          `json:"salt" doc:"16 random octets in hex."`
	Leaf   string          `json:"leaf_hash" doc:"RFC 6962 §2.1 leaf hash in hex."`
}

// LogPage is a part of one log.
type LogPage struct {
	Items []LogEvent `json:"items" nullable:"false"`
	// Next is what to ask with as after, for the part that follows.
	Next int64 `json:"next" doc:"What to give as after, for the page that follows."`
}

type eventsQuery struct {
	Firm    string `query:"firm" doc:"The firm whose log it is, by id or name; without it, the BPO's own or, for a firm's people, their firm's."`
	After   int64  `query:"after" default:"-1" minimum:"-1" doc:"The last seq already seen; -1: from the start."`
	Type    string `query:"type" doc:"Only events of this type, such as message.open."`
	Session string `query:"session" doc:"Only events of this session."`
	Limit   int    `query:"limit" minimum:"1" maximum:"10000" doc:"How many; 1000 unless given."`
}

func (a *api) registerEvents() {
	route(a, http.MethodGet, "/v1/events", "list-events", "Read one log, by seq upwards", a.listEvents)
}

// flushLog waits until what this node has submitted can be read: who has seen a
// message opened and asks then who opened it is to be told.
func (a *api) flushLog(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	a.Flusher.Flush(ctx)
}

func (a *api) listEvents(ctx context.Context, in *eventsQuery) (*answer[LogPage], error) {
	q := broker.EventQuery{After: in.After, Type: broker.EventType(in.Type), Limit: in.Limit}
	if q.Limit == 0 {
		q.Limit = defaultEvents
	}
	q.FirmID = principal(ctx).FirmID
	if in.Firm != "" {
		f, err := a.findFirm(ctx, "firm", in.Firm)
		if err != nil {
			return nil, err
		}
		q.FirmID = f.ID
	}
	if in.Type != "" && !knownType(q.Type) {
		return nil, broker.InvalidField("type", "there are no events of type %q", in.Type)
	}
	if in.Session != "" {
		id, err := broker.ParseID(in.Session)
		if err != nil {
			return nil, broker.InvalidField("session", "not a session's id")
		}
		q.SessionID = id
	}
	events, err := a.Events.Events(ctx, q)
	if err != nil {
		return nil, err
	}
	page := LogPage{Items: make([]LogEvent, len(events)), Next: in.After}
	for i, e := range events {
		page.Items[i] = LogEvent{
			Seq: e.Seq, Record: e.Record,
			Salt: hex.EncodeToString(e.Salt), Leaf: hex.EncodeToString(e.LeafHash[:]),
		}
		page.Next = e.Seq
	}
	return &answer[LogPage]{page}, nil
}

func knownType(t broker.EventType) bool {
	for _, spec := range broker.Catalogue() {
		if spec.Type == t {
			return true
		}
	}
	return false
}
