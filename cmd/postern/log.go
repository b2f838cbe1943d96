// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newLogCommand(a *app) *cobra.Command {
	return newGroup(
		"log", "The audit logs", newLogEventsCommand(a), newLogDownloadsCommand(a), newLogCatalogueCommand(),
		newLogKeyCommand(a), newLogCheckpointCommand(a), newLogPullCommand(a), newLogVerifyCommand(a),
		newLogWitnessCommand(a), newLogWitnessKeyCommand(a), newLogConfirmRestoreCommand(a),
	)
}

func newLogEventsCommand(a *app) *cobra.Command {
	var firm, eventType, session string
	var after int64
	var limit int
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print events of a firm's log, or of the BPO's own, oldest first",
		Example: `  postern log events --firm "Acme Pumps" --type message.open
  postern log events --firm "Acme Pumps" --after 1999 --json`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			where := withQuery(path("events"), "firm", firm, "type", eventType, "session", session,
				"after", strconv.FormatInt(after, 10), "limit", strconv.Itoa(limit))
			raw, page, err := call[httpapi.LogPage](cmd, a, http.MethodGet, where, nil)
			if err != nil {
				return err
			}
			rows, err := eventRows(page.Items)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writeTable(out, []string{"SEQ", "TIME", "TYPE", "ACTOR", "DATA"}, rows, "There are no such events.")
				if len(rows) == limit {
					fmt.Fprintf(cmd.ErrOrStderr(), "There may be more: --after %d\n", page.Next)
				}
			})
		},
	}
	cmd.Flags().StringVar(&firm, "firm", "", "the `firm` whose log it is (without it: the BPO's own)")
	cmd.Flags().StringVar(&eventType, "type", "", "only events of this `type`")
	cmd.Flags().StringVar(&session, "session", "", "only events of the session with this `id`")
	cmd.Flags().Int64Var(&after, "after", -1, "only events with a higher `seq`")
	cmd.Flags().IntVar(&limit, "limit", 1000, "how many, up to 10000")
	return cmd
}

func newLogCatalogueCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "catalogue",
		Short: "Print what events there are, what is in them, and which fields are personal data",
		Long:  "Print the catalogue of events as a Markdown document. No server is needed.",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return audit.WriteCatalogue(cmd.OutOrStdout())
		},
	}
}

// eventRows makes a line of each event.
func eventRows(events []httpapi.LogEvent) ([][]string, error) {
	rows := make([][]string, len(events))
	for i, e := range events {
		var event struct {
			broker.Event
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(e.Record, &event); err != nil {
			return nil, fmt.Errorf("event %d is not understood: %w", e.Seq, err)
		}
		rows[i] = []string{
			strconv.FormatInt(e.Seq, 10), stamp(event.Time), string(event.Type),
			event.Actor.Kind + " " + event.Actor.Name, string(event.Data),
		}
	}
	return rows, nil
}
