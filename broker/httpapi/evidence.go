// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/hex"
	"net/http"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// Evidence is what is recorded of an evidence bundle, by the word of who made it
// of what he can read of the log.
type Evidence struct {
	Firm string `json:"firm,omitempty" doc:"The firm whose log it is of, by id or name; without it, the BPO's own or, for a firm's people, their firm's."`
	broker.EvidenceMade
}

func (a *api) registerEvidence() {
	route(a, http.MethodPost, "/v1/log/evidence", "record-evidence", "Record in a log that an evidence bundle was made of it", a.recordEvidence)
}

func (a *api) recordEvidence(ctx context.Context, in *struct{ Body Evidence }) (*answer[broker.EvidenceMade], error) {
	head, err := a.logHead(ctx, in.Body.Firm)
	if err != nil {
		return nil, err
	}
	made := in.Body.EvidenceMade
	if err := checkEvidence(&made, head); err != nil {
		return nil, err
	}
	err = a.Events.AppendEvents(ctx, []*broker.Event{{
		Type: broker.EventEvidenceMade, FirmID: head.FirmID, Actor: actor(ctx), Data: made,
	}})
	if err != nil {
		return nil, err
	}
	return &answer[broker.EvidenceMade]{made}, nil
}

// checkEvidence finds that there can be such a bundle of the log.
func checkEvidence(made *broker.EvidenceMade, head *broker.LogHead) error {
	if o := (translog.Origin{FirmID: head.FirmID, Epoch: head.Epoch}); made.Origin != o.String() {
		return broker.InvalidField("origin", "the log is %s", o)
	}
	if made.First < 0 || made.Last < made.First || made.Size <= made.Last || made.Size > head.Size ||
		made.Disclosed < 0 || made.Disclosed > made.Last-made.First+1 {
		return broker.InvalidField("last", "the log has no such events")
	}
	if b, err := hex.DecodeString(made.ManifestSHA256); err != nil || len(b) != 32 {
		return broker.InvalidField("manifest_sha256", "is no SHA-256 in hex")
	}
	for _, id := range []broker.ID{made.AlertID, made.AgentID, made.MailboxID, made.WorkstationID} {
		if id != "" {
			if _, err := broker.ParseID(string(id)); err != nil {
				return broker.InvalidField("id", "%q is no id", id)
			}
		}
	}
	return nil
}
