// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/evidence"
	"github.com/postern-mail/postern/broker/audit/logcopy"
)

var _ evidence.Source = (*logcopy.Copy)(nil)

// fromCopy has a bundle be made of a copy of the log, without a server: what a server
// would tell of people and alerts, the maker says himself.
func (m *evidenceMaking) fromCopy(cmd *cobra.Command, r *evidence.Request) error {
	switch {
	case m.alert != "":
		return usagef("--alert needs the server: with --copy give --since and --until")
	case m.firm == "" || m.maker == "":
		return usagef("with --copy give --firm, the firm's name, and --maker, who makes the bundle, as the report is to name them")
	case len(m.trust.keys) == 0 && m.trust.keyFile == "":
		return usagef("with --copy give --key or --keys: the copy does not hold the log's keys")
	}
	c, err := logcopy.Open(m.copied, r.Witnesses...)
	if err != nil {
		return err
	}
	r.Source, r.Firm, r.Maker = c, m.firm, m.maker
	m.named, err = copiedNames(cmd.Context(), c)
	return err
}

// copiedNames finds the names that a copy's own events give to agents, mailboxes and
// workstations; the newest one counts.
func copiedNames(ctx context.Context, c *logcopy.Copy) (map[string]map[broker.ID]string, error) {
	named := map[string]map[broker.ID]string{"agents": {}, "mailboxes": {}, "workstations": {}}
	opened, changed := []byte(`"type":"`+string(broker.EventSessionOpen)+`"`), []byte(`"after":{`)
	for seq := int64(0); ; {
		some, err := c.Entries(ctx, seq)
		if err != nil || len(some) == 0 {
			return named, err
		}
		for _, e := range some {
			seq++
			if !bytes.Contains(e.Record, opened) && !bytes.Contains(e.Record, changed) {
				continue
			}
			var event struct {
				Type  string       `json:"type"`
				Actor broker.Actor `json:"actor"`
				Data  struct {
					After nameable `json:"after"`
				} `json:"data"`
			}
			if json.Unmarshal(e.Record, &event) != nil {
				continue // a later version's: it goes without names
			}
			if a := event.Actor; a.Kind == "agent" && a.ID != "" {
				named["agents"][a.ID] = a.Name
			}
			kind, _, _ := strings.Cut(event.Type, ".")
			all := named[map[string]string{"agent": "agents", "mailbox": "mailboxes", "workstation": "workstations"}[kind]]
			if x := event.Data.After; all != nil && x.ID != "" && x.Name+x.Address != "" {
				all[x.ID] = x.Name + x.Address // each has one of them
			}
		}
	}
}
