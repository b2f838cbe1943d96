// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newAskAgentCommand(a *app) *cobra.Command {
	var f askFlags
	var mailbox string
	cmd := &cobra.Command{
		Use: "agent AGENT", Short: "Tell what an agent opened, exported and sent",
		Long: `Tell what an agent opened, exported and sent, between two instants. "read" are
messages that were opened one by one, "sync" those that were opened faster than
anybody reads: a mail client filling its cache looks so, and an export does. The
first nineteen of a download that asks for one message at a time count as read.`,
		Example: `  postern ask agent asha --since 2026-11-01 --until 2026-11-07
  postern ask agent asha --mailbox sales@acme.example --activity sent,unsent`,
		Args: exactly("AGENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			where, err := f.path([]string{"agents", args[0]}, "mailbox", mailbox)
			if err != nil {
				return err
			}
			raw, answer, err := ask[httpapi.AgentAnswer](cmd, a, where, f.limit)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writeGone(out, answer.Gone)
				writeTold(out, answer.Items, "The record has nothing of the kind.")
				writeUses(out, answer.Mailboxes)
				writeDays(out, answer.Days)
			})
		},
	}
	cmd.Flags().StringVar(&mailbox, "mailbox", "", "only what was done in this `mailbox`")
	f.register(cmd, broker.Activities()...)
	return cmd
}

func newAskWorkstationCommand(a *app) *cobra.Command {
	var f askFlags
	var mailbox string
	cmd := &cobra.Command{
		Use: "workstation WORKSTATION", Short: "Tell which mailboxes a workstation was in",
		Long: `Tell which mailboxes a workstation was in, and in which sessions, at any time
between two instants.`,
		Example: "  postern ask workstation pune-07 --since 2026-11-04T18:00:00+05:30 --until 2026-11-05",
		Args:    exactly("WORKSTATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			where, err := f.path([]string{"workstations", args[0]}, "mailbox", mailbox)
			if err != nil {
				return err
			}
			raw, answer, err := ask[httpapi.WorkstationAnswer](cmd, a, where, f.limit)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writeGone(out, answer.Gone)
				writeSessions(out, answer.Items)
				writeUses(out, answer.Mailboxes)
				writeDays(out, answer.Days)
			})
		},
	}
	cmd.Flags().StringVar(&mailbox, "mailbox", "", "only its sessions in this `mailbox`")
	f.register(cmd)
	return cmd
}

func newAskAlertCommand(a *app) *cobra.Command {
	var minutes, limit int
	cmd := &cobra.Command{
		Use: "alert ALERT", Short: "Tell what happened before an alert, around what it is about",
		Long: `Tell what happened in the hour before an alert was raised, or last opened again, in
its mailbox, by its agent and at its workstation. The events themselves that raised
it are named by 'postern alert show'.`,
		Example: "  postern ask alert 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d --minutes 240",
		Args:    exactly("ALERT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			where := withQuery(path("questions", "alerts", args[0]), "minutes", strconv.Itoa(minutes))
			raw, answer, err := ask[httpapi.BeforeAlert](cmd, a, where, limit)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				x := answer.Alert
				writeFields(out, "Alert", string(x.Kind)+" "+about(x), "Since", stamp(answer.Since), "Until", stamp(answer.Until))
				fmt.Fprintln(out)
				writeGone(out, answer.Gone)
				if len(answer.Subjects) == 0 {
					fmt.Fprintln(out, "It is about no mailbox, agent or workstation: see 'postern alert show'.")
					return
				}
				writeTold(out, answer.Items, "Nothing happened around it.")
				for _, s := range answer.Subjects {
					if len(s.Days) > 0 {
						fmt.Fprintf(out, "\n%s", printable("The "+s.Kind+" "+nameOr(s.Name, s.ID)+":", false))
						writeDays(out, s.Days)
					}
				}
			})
		},
	}
	cmd.Flags().IntVar(&minutes, "minutes", 60, "how long before it")
	cmd.Flags().IntVar(&limit, "limit", 1000, "how many events at most; 0: all")
	return cmd
}

func newAskMailboxCommand(a *app) *cobra.Command {
	var day string
	var f askFlags
	cmd := &cobra.Command{
		Use: "mailbox MAILBOX", Short: "Tell who could have read a mailbox on a day",
		Long: `Tell who could have read a mailbox, when, and who stored its credential, by the
delegations, assignments, hours and locks that stood then: from the record of their
changes, and not from what stands today. A site, a workstation's class or a password
that the terms ask for is taken to have been there. Guardrails stand in the server's
configuration, and not in the record. Locks of agents, workstations and sites are the
BPO's affair: a firm's people are not told of them.`,
		Example: `  postern ask mailbox sales@acme.example --day 2026-11-04
  postern ask mailbox sales@acme.example --since 2026-11-01 --until 2026-11-07`,
		Args: exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if day != "" {
				if f.since != "" || f.until != "" {
					return usagef("--day and --since, --until exclude each other")
				}
				f.since, f.until = day, day
			}
			where, err := f.path([]string{"mailboxes", args[0]})
			if err != nil {
				return err
			}
			raw, answer, err := call[httpapi.MailboxAnswer](cmd, a, http.MethodGet, where, nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeMailboxAnswer(out, answer) })
		},
	}
	cmd.Flags().StringVar(&day, "day", "", "the day, as a `date`")
	cmd.Flags().StringVar(&f.since, "since", "", "from when on: a `date`, or a time in RFC 3339")
	cmd.Flags().StringVar(&f.until, "until", "", "until when: a `date`, which counts, or a time in RFC 3339")
	return cmd
}

func writeMailboxAnswer(out io.Writer, answer *httpapi.MailboxAnswer) {
	writeFields(out, "Mailbox", nameOr(answer.Mailbox, answer.MailboxID), "Since", stamp(answer.Since), "Until", stamp(answer.Until))
	fmt.Fprintln(out)
	writeGone(out, answer.Gone)
	var rows [][]string
	for _, r := range answer.Items {
		for i, s := range r.Stretches {
			agent, read, used := nameOr(r.Agent, r.AgentID), yes(r.CouldRead), yes(r.Used)
			if i > 0 {
				agent, read, used = `"`, "", ""
			}
			what := "nothing: " + s.Refused
			if s.Decision != nil {
				what = s.Decision.Actions.String()
				if s.Decision.Restricted() {
					what += " (restricted)"
				}
			}
			rows = append(rows, []string{agent, read, used, stamp(s.Since), stamp(s.Until), what})
		}
	}
	writeTable(out, []string{"AGENT", "COULD READ", "OPENED", "FROM", "UNTIL", "MIGHT DO"}, rows, "Nobody was assigned to it.")
	rows = nil
	for _, w := range answer.Writers {
		rows = append(rows, []string{stamp(w.Time), string(w.Type), strings.TrimSpace(w.Actor.Kind + " " + w.Actor.Name), strconv.FormatInt(w.Seq, 10)})
	}
	if len(rows) > 0 {
		fmt.Fprintln(out)
		writeTable(out, []string{"CREDENTIAL STORED", "EVENT", "BY", "SEQ"}, rows, "")
	}
	writeDays(out, answer.Days)
}

// writeTold prints events that answer a question.
func writeTold(out io.Writer, all []httpapi.Told, empty string) {
	rows := make([][]string, len(all))
	for i := range all {
		t := &all[i]
		rows[i] = []string{
			stamp(t.Time), string(t.Activity), nameOr(t.Agent, t.AgentID), nameOr(t.Workstation, t.WorkstationID), nameOr(t.Mailbox, t.MailboxID), inWords(t),
		}
	}
	writeTable(out, []string{"TIME", "WHAT", "AGENT", "WORKSTATION", "MAILBOX", "DETAIL"}, rows, empty)
}

// inWords is an event's data in a line: of messages how many they are, and the
// first.
func inWords(t *httpapi.Told) string {
	var e struct {
		Type broker.EventType `json:"type"`
		Data json.RawMessage  `json:"data"`
	}
	if err := json.Unmarshal(t.Record, &e); err != nil {
		return ""
	}
	if e.Type != broker.EventMessageOpen {
		return strings.TrimSpace(string(e.Type) + " " + string(e.Data))
	}
	var m broker.MessageOpen
	if err := json.Unmarshal(e.Data, &m); err != nil || len(m.Messages) == 0 {
		return ""
	}
	var octets int64
	for _, x := range m.Messages {
		octets += x.Octets
	}
	first := m.Messages[0]
	text := fmt.Sprintf("%s UID %d %s, %d octets", m.Folder, first.UID, first.MessageID, octets)
	if n := len(m.Messages); n > 1 {
		text = fmt.Sprintf("%s UID %d and %d more, %d octets", m.Folder, first.UID, n-1, octets)
	}
	return text
}

func writeUses(out io.Writer, all []httpapi.MailboxUse) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(out)
	rows := make([][]string, len(all))
	for i, u := range all {
		rows[i] = []string{nameOr(u.Mailbox, u.MailboxID), u.Firm}
		for _, n := range []int64{u.Sessions, u.Read, u.Downloaded, u.Octets, u.Sent} {
			rows[i] = append(rows[i], strconv.FormatInt(n, 10))
		}
		rows[i] = append(rows[i], stamp(u.First), stamp(u.Last))
	}
	writeTable(out, []string{"MAILBOX", "FIRM", "SESSIONS", "READ", "DOWNLOADED", "OCTETS", "SENT", "FIRST", "LAST"}, rows, "")
}
