// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
)

func newSessionCommand(a *app) *cobra.Command {
	return newGroup("session", "Live sessions and the record of ended ones", newSessionListCommand(a), newSessionEndCommand(a))
}

func newSessionListCommand(a *app) *cobra.Command {
	var all bool
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List live sessions, newest first",
		Example: "  postern session list\n  postern session list --all --limit 20",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			where := path("sessions")
			if all {
				where = withQuery(where, "all", "true", "limit", strconv.Itoa(limit))
			} else if cmd.Flags().Changed("limit") {
				where = withQuery(where, "limit", strconv.Itoa(limit))
			}
			raw, sessions, err := call[httpapi.List[*httpapi.Session]](cmd, a, http.MethodGet, where, nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writeSessions(out, sessions.Items)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "ended ones too")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many (without it: 100 with --all, else every live one)")
	return cmd
}

func writeSessions(out io.Writer, all []*httpapi.Session) {
	var rows [][]string
	for _, s := range all {
		state := "live"
		if !s.EndedAt.IsZero() {
			state = s.EndReason
		}
		rows = append(rows, []string{
			string(s.ID), string(s.Protocol), nameOr(s.Agent, s.AgentID), nameOr(s.Mailbox, s.MailboxID),
			nameOr(s.Workstation, s.WorkstationID), string(s.Authentication), s.RemoteAddr, stamp(s.OpenedAt), state,
		})
	}
	writeTable(out, []string{"ID", "PROTOCOL", "AGENT", "MAILBOX", "WORKSTATION", "SIGN-IN", "ADDRESS", "OPENED", "STATE"}, rows, "There are no sessions.")
}

func newSessionEndCommand(a *app) *cobra.Command {
	return newEndingCommand(a, endingCommand{
		use: "end SESSION", short: "End a live session",
		long: `End a live session. Its client may come back at once: to keep an agent out, use
'postern lock add', or revoke his assignment or app password.`,
		example: "  postern session end 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d",
		method:  http.MethodPost, path: func(arg string) string { return path("sessions", arg, "end") },
		done: "session %s told to end",
	})
}
