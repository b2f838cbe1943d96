// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/hex"
	"net/http"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// LogKeyring tells the keys of the transparency logs: broker/audit/checkpoint.
type LogKeyring interface {
	// Keys returns the keys that verify a log's checkpoints (C2SP signed-note).
	Keys(ctx context.Context, o translog.Origin) ([]string, error)
}

// LogKeys are the keys of a log. Whoever checks the log must not believe this
// answer alone: the keys come to him by another way, or are compared by one.
type LogKeys struct {
	Origin string   `json:"origin" doc:"The log's name: postern/FIRM/EPOCH."`
	Keys   []string `json:"keys" nullable:"false" doc:"Verifier keys (C2SP signed-note)."`
}

// LogEntries are entries of one log, by seq upwards.
type LogEntries struct {
	Items []LogEvent `json:"items" nullable:"false"`
}

// plain is an answer that is not JSON.
type plain struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

type logQuery struct {
	Firm string `query:"firm" doc:"The firm whose log it is, by id or name; without it, the BPO's own or, for a firm's people, their firm's."`
}

type checkpointQuery struct {
	Firm      string `query:"firm" doc:"The firm whose log it is, by id or name; without it, the BPO's own or, for a firm's people, their firm's."`
	Witnessed bool   `query:"witnessed" doc:"The newest that a witness has cosigned, instead of the newest."`
	Witness   string `query:"witness" doc:"The newest that the witness of this name has cosigned, instead of the newest."`
}

type tileQuery struct {
	Firm   string `query:"firm" doc:"The firm whose log it is, by id or name; without it, the BPO's own or, for a firm's people, their firm's."`
	Level  int    `query:"level" minimum:"0" maximum:"7" doc:"0: leaves; each next one: full tiles of the one below."`
	Number int64  `query:"number" minimum:"0" doc:"Which of the tiles of its level, from 0."`
	Width  int    `query:"width" minimum:"1" maximum:"256" default:"1" doc:"How many of its hashes, from the first on."`
}

type entriesQuery struct {
	Firm  string `query:"firm" doc:"The firm whose log it is, by id or name; without it, the BPO's own or, for a firm's people, their firm's."`
	First int64  `query:"first" minimum:"0" doc:"The first seq."`
	Limit int    `query:"limit" minimum:"1" maximum:"4096" default:"4096" doc:"How many at most. There may be more, though fewer came: an answer has some megabytes."`
}

func (a *api) registerLog() {
	route(a, http.MethodGet, "/v1/log/checkpoint", "get-log-checkpoint", "The newest signed checkpoint of a log (C2SP tlog-checkpoint), with what witnesses have cosigned of it", a.logCheckpoint)
	route(a, http.MethodGet, "/v1/log/tile", "get-log-tile", "Hashes of a log's tree, 32 octets each (C2SP tlog-tiles)", a.logTile)
	route(a, http.MethodGet, "/v1/log/entries", "list-log-entries", "Entries of a log as they are proved", a.logEntries)
	route(a, http.MethodGet, "/v1/log/keys", "get-log-keys", "The keys that verify a log's checkpoints", a.logKeys)
}

// logOf returns whose log is meant, among those that the caller may read.
func (a *api) logOf(ctx context.Context, firm string) (broker.ID, error) {
	if firm == "" {
		return principal(ctx).FirmID, nil
	}
	f, err := a.findFirm(ctx, "firm", firm)
	if err != nil {
		return "", err
	}
	return f.ID, nil
}

func (a *api) logHead(ctx context.Context, firm string) (*broker.LogHead, error) {
	id, err := a.logOf(ctx, firm)
	if err != nil {
		return nil, err
	}
	return a.Logs.LogHead(ctx, id)
}

func (a *api) logCheckpoint(ctx context.Context, in *checkpointQuery) (*plain, error) {
	h, err := a.logHead(ctx, in.Firm)
	if err != nil {
		return nil, err
	}
	note, err := a.cosigned(ctx, h, in)
	if err != nil {
		return nil, err
	}
	return &plain{"text/plain; charset=utf-8", note}, nil
}

func (a *api) logTile(ctx context.Context, in *tileQuery) (*plain, error) {
	id, err := a.logOf(ctx, in.Firm)
	if err != nil {
		return nil, err
	}
	hashes, err := a.Logs.LogTile(ctx, id, in.Level, in.Number, in.Width)
	if err != nil {
		return nil, err
	}
	return &plain{"application/octet-stream", hashes}, nil
}

func (a *api) logEntries(ctx context.Context, in *entriesQuery) (*answer[LogEntries], error) {
	id, err := a.logOf(ctx, in.Firm)
	if err != nil {
		return nil, err
	}
	entries, err := a.Logs.LogEntries(ctx, id, in.First, in.Limit)
	if err != nil {
		return nil, err
	}
	page := LogEntries{Items: make([]LogEvent, len(entries))}
	for i, e := range entries {
		page.Items[i] = LogEvent{Seq: e.Seq, Record: e.Record, Salt: hex.EncodeToString(e.Salt), Leaf: hex.EncodeToString(e.LeafHash[:])}
	}
	return &answer[LogEntries]{page}, nil
}

func (a *api) logKeys(ctx context.Context, in *logQuery) (*answer[LogKeys], error) {
	h, err := a.logHead(ctx, in.Firm)
	if err != nil {
		return nil, err
	}
	o := translog.Origin{FirmID: h.FirmID, Epoch: h.Epoch}
	keys, err := a.LogKeyring.Keys(ctx, o)
	if err != nil {
		return nil, err
	}
	return &answer[LogKeys]{LogKeys{o.String(), keys}}, nil
}
