// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newAlertCommand(a *app) *cobra.Command {
	return newGroup("alert", "What a person must see", newAlertListCommand(a), newAlertShowCommand(a),
		newAlertAnswerCommand(a, alertAnswer{
			use: "ack ALERT...", short: "Say that you see to alerts", step: "acknowledge", done: "acknowledged",
			long: `Say that you see to alerts. One that was acknowledged is quiet while it repeats;
it is open again when it becomes graver, or repeats after a day without.`,
			example: `  postern alert ack 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d --note "the provider's reset; new password set"`,
		}),
		newAlertAnswerCommand(a, alertAnswer{
			use: "resolve ALERT...", short: "Say that alerts are over", step: "resolve", done: "resolved",
			long: `Say that alerts are over. Those whose cause can be seen to be gone are resolved
by themselves ('postern alert kinds'). What repeats is raised again.`,
			example: "  postern alert resolve 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d",
		}),
		newAlertWatchCommand(a), newAlertKindsCommand(a))
}

// alertFilter is which alerts are wanted.
type alertFilter struct {
	severity, kind, firm, mailbox, agent string
	own                                  bool
}

func (f *alertFilter) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.severity, "severity", "", "only those as `severe` (info, warning, critical), or more")
	flags.StringVar(&f.kind, "kind", "", "only those of this `kind`: see 'postern alert kinds'")
	var kinds []string
	for _, spec := range broker.AlertKinds() {
		kinds = append(kinds, string(spec.Kind))
	}
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(kinds, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	flags.StringVar(&f.firm, "firm", "", "only this `firm`'s")
	flags.BoolVar(&f.own, "own", false, "only the BPO's own")
	flags.StringVar(&f.mailbox, "mailbox", "", "only those about this `mailbox`")
	flags.StringVar(&f.agent, "agent", "", "only those about this `agent`")
}

func (f *alertFilter) path(pairs ...string) string {
	own := ""
	if f.own {
		own = "true"
	}
	return withQuery(path("alerts"), append(pairs,
		"severity", f.severity, "kind", f.kind, "firm", f.firm, "own", own, "mailbox", f.mailbox, "agent", f.agent)...)
}

func newAlertListCommand(a *app) *cobra.Command {
	var filter alertFilter
	var all bool
	var state, since string
	cmd := &cobra.Command{
		Use: "list", Short: "List alerts that are not resolved, newest first",
		Example: `  postern alert list --severity critical
  postern alert list --all --mailbox sales@acme.example --since 2026-11-01`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case all && state != "":
				return usagef("--all and --state exclude each other")
			case state == "" && !all:
				state = string(broker.AlertOpen) + "," + string(broker.AlertAcknowledged)
			}
			from, err := parseTime("since", since, false)
			if err != nil {
				return err
			}
			seen := ""
			if from != nil {
				seen = from.UTC().Format(time.RFC3339Nano)
			}
			raw, alerts, err := call[httpapi.List[*httpapi.Alert]](cmd, a, http.MethodGet, filter.path("state", state, "since", seen), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				rows := make([][]string, len(alerts.Items))
				for i, x := range alerts.Items {
					rows[i] = []string{
						string(x.Severity), string(x.State), string(x.Kind), about(x), strconv.FormatInt(x.Count, 10), stamp(x.LastSeen), string(x.ID),
					}
				}
				writeTable(out, []string{"SEVERITY", "STATE", "KIND", "ABOUT", "COUNT", "LAST SEEN", "ID"}, rows, "There are no such alerts.")
			})
		},
	}
	filter.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "resolved ones too")
	cmd.Flags().StringVar(&state, "state", "", "only those in one of these `states`: open, acknowledged, resolved")
	cmd.Flags().StringVar(&since, "since", "", "only those seen since then: a `date`, or a time in RFC 3339")
	return cmd
}

// about is what an alert is about, in a line.
func about(x *httpapi.Alert) string {
	var parts []string
	for _, part := range []string{
		nameOr(x.Mailbox, x.MailboxID), nameOr(x.Agent, x.AgentID), nameOr(x.Workstation, x.WorkstationID),
	} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 && x.Firm != "" {
		return x.Firm
	}
	return strings.Join(parts, " ")
}

func newAlertShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show ALERT", Short: "Show an alert, what to do about it, and its evidence",
		Example: "  postern alert show 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d", Args: exactly("ALERT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, x, err := call[httpapi.Alert](cmd, a, http.MethodGet, path("alerts", args[0]), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeAlert(out, x) })
		},
	}
}

func writeAlert(out io.Writer, x *httpapi.Alert) {
	ends := x.Ends
	if ends == "" {
		ends = "'postern alert resolve'"
	}
	message := ""
	if c := x.Canary; c != nil {
		message = strings.TrimSpace(canaryPlace(c) + " " + c.MessageID)
	}
	writeFields(out, "Alert", string(x.Kind), "Severity", string(x.Severity), "State", string(x.State),
		"What", x.Meaning, "Do", x.Action, "Ends by", ends, "Detail", x.Detail,
		"Firm", nameOr(x.Firm, x.FirmID), "Mailbox", nameOr(x.Mailbox, x.MailboxID), "Agent", nameOr(x.Agent, x.AgentID),
		"Workstation", nameOr(x.Workstation, x.WorkstationID), "Session", string(x.SessionID), "Message", message,
		"First seen", stamp(x.FirstSeen), "Last seen", stamp(x.LastSeen), "Events", strconv.FormatInt(x.Count, 10),
		"Acknowledged", answered(x.Acknowledged), "Resolved", answered(x.Resolved), "Id", string(x.ID))
	fmt.Fprintln(out)
	rows := make([][]string, len(x.Evidence))
	for i, e := range x.Evidence {
		rows[i] = []string{strconv.FormatInt(e.Seq, 10), stamp(e.Time), string(e.Type), string(e.EventID)}
	}
	writeTable(out, []string{"SEQ", "TIME", "EVENT", "ID"}, rows, "")
	if int64(len(rows)) < x.Count {
		fmt.Fprintln(out, "The first and the last of its events; the log has all ('postern log events').")
	}
}

// answered is who answered an alert, in a line.
func answered(x *broker.AlertAnswer) string {
	if x == nil {
		return ""
	}
	s := stamp(x.At) + ", by " + strings.TrimSpace(x.By.Kind+" "+x.By.Name)
	if x.Note != "" {
		s += ": " + x.Note
	}
	return s
}

// alertAnswer is a command that answers alerts.
type alertAnswer struct{ use, short, long, example, step, done string }

func newAlertAnswerCommand(a *app, c alertAnswer) *cobra.Command {
	var in httpapi.AlertNote
	cmd := &cobra.Command{
		Use: c.use, Short: c.short, Long: c.long, Example: c.example, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, id := range args {
				raw, x, err := call[httpapi.Alert](cmd, a, http.MethodPost, path("alerts", id, c.step), in)
				if err != nil {
					return err
				}
				if err := a.show(cmd, raw, func(out io.Writer) {
					fmt.Fprintf(out, "%s\n", printable(fmt.Sprintf("alert %s %s: %s %s", x.ID, c.done, x.Kind, about(x)), false))
				}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&in.Note, "note", "", "what was found, or is being done; it stands in the record")
	return cmd
}

// watchInterval is how often 'alert watch' asks.
const watchInterval = 5 * time.Second

func newAlertWatchCommand(a *app) *cobra.Command {
	var filter alertFilter
	cmd := &cobra.Command{
		Use: "watch", Short: "Print open alerts, and each that is raised from now on",
		Long: `Print the alerts that are open, and from then on each that is raised, opened again
or becomes graver, until it is interrupted. With --json, one alert a line. While
the server cannot be reached it goes on trying.`,
		Example: "  postern alert watch --severity warning",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			told := map[broker.ID]time.Time{}
			tick := time.NewTicker(watchInterval)
			defer tick.Stop()
			silent := false
			for {
				_, alerts, err := call[httpapi.List[*httpapi.Alert]](cmd, a, http.MethodGet, filter.path("state", string(broker.AlertOpen)), nil)
				switch {
				case cmd.Context().Err() != nil:
					return nil
				case codeOf(err) == broker.Unavailable:
					if !silent {
						fmt.Fprintf(cmd.ErrOrStderr(), "postern: %s\n", printable(words(err), true))
					}
				case err != nil:
					return err
				default:
					if err := a.tellAlerts(cmd.OutOrStdout(), alerts.Items, told); err != nil {
						return err
					}
				}
				silent = err != nil
				select {
				case <-tick.C:
				case <-cmd.Context().Done():
					return nil
				}
			}
		},
	}
	filter.flags(cmd)
	return cmd
}

// tellAlerts prints the open alerts that were not told as they stand, oldest
// first, and forgets those that are open no more.
func (a *app) tellAlerts(out io.Writer, open []*httpapi.Alert, told map[broker.ID]time.Time) error {
	stands := map[broker.ID]bool{}
	for i := len(open) - 1; i >= 0; i-- {
		x := open[i]
		stands[x.ID] = true
		if at, ok := told[x.ID]; ok && at.Equal(x.OpenedAt) {
			continue
		}
		told[x.ID] = x.OpenedAt
		line := []byte(printable(fmt.Sprintf("%s %s %s %s: %s (%s)", stamp(x.OpenedAt), x.Severity, x.Kind, about(x), x.Meaning, x.ID), false))
		if a.json {
			var err error
			if line, err = json.Marshal(x); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(out, "%s\n", line); err != nil {
			return err
		}
	}
	for id := range told {
		if !stands[id] {
			delete(told, id)
		}
	}
	return nil
}

func newAlertKindsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "kinds", Short: "Print what alerts there are, and what to do about them",
		Long: "Print the kinds of alerts. No server is needed.", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			kinds := broker.AlertKinds()
			raw, err := json.Marshal(kinds)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				for i, k := range kinds {
					if i > 0 {
						fmt.Fprintln(out)
					}
					ends := k.Ends
					if ends == "" {
						ends = "a person says so"
					}
					writeFields(out, "Kind", string(k.Kind), "Severity", string(k.Severity), "What", k.Meaning, "Do", k.Action, "Ends when", ends)
				}
			})
		},
	}
}
