// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newSentinelCommand(a *app) *cobra.Command {
	return newGroup("sentinel", "What happens in mailboxes without Postern",
		newSentinelListCommand(a), newSentinelStatusCommand(a), newSentinelSetCommand(a), newSentinelProbeCommand(a))
}

func newSentinelListCommand(a *app) *cobra.Command {
	var firm string
	cmd := &cobra.Command{
		Use: "list", Short: "List mailboxes as they were found last",
		Example: "  postern sentinel list", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, all, err := call[httpapi.List[*httpapi.Watch]](cmd, a, http.MethodGet, withQuery(path("watches"), "firm", firm), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, w := range all.Items {
					rows = append(rows, []string{nameOr(w.Mailbox, w.MailboxID), outcome(w), stamp(w.ProbedAt), stamp(w.NextAt)})
				}
				writeTable(out, []string{"MAILBOX", "FOUND", "LOOKED AT", "NEXT"}, rows, "No mailbox is watched yet.")
			})
		},
	}
	cmd.Flags().StringVar(&firm, "firm", "", "only this `firm`'s")
	return cmd
}

// outcome is how a mailbox was found, in a line.
func outcome(w *httpapi.Watch) string {
	switch {
	case w.Outcome == "":
		return "not looked at yet"
	case w.Detail != "":
		return string(w.Outcome) + ": " + w.Detail
	}
	return string(w.Outcome)
}

func newSentinelStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status MAILBOX", Short: "Show a mailbox as it was found last, and how it is watched",
		Example: "  postern sentinel status sales@acme.example", Args: exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, w, err := call[httpapi.Watch](cmd, a, http.MethodGet, path("mailboxes", args[0], "watch"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeWatch(out, w) })
		},
	}
}

func writeWatch(out io.Writer, w *httpapi.Watch) {
	terms := ""
	if w.Terms != nil {
		b, _ := json.Marshal(w.Terms) // texts alone
		terms = string(b)
	}
	writeFields(out, "Mailbox", nameOr(w.Mailbox, w.MailboxID), "Found", outcome(w), "Looked at", stamp(w.ProbedAt),
		"Opened last", stamp(w.GoodAt), "Next look", stamp(w.NextAt), "Terms", terms)
}

func newSentinelSetCommand(a *app) *cobra.Command {
	var in broker.WatchTerms
	var file string
	cmd := &cobra.Command{
		Use:   "set MAILBOX",
		Short: "Say how a mailbox is watched",
		Long: `Say how a mailbox is watched. What is not given is as for all mailboxes.

--exceptions names a file with what happens without Postern and is no bypass: a
JSON array of objects with any of folders (patterns), changes (seen, flags,
removed, added, folder), hours (zone and shifts, as in terms) and note. A change
must be described by all members of one of them.`,
		Example: `  postern sentinel set sales@acme.example --lock-on-drift
  postern sentinel set sales@acme.example --exceptions own-staff.json`,
		Args: exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				b, err := os.ReadFile(file)
				if err == nil {
					err = json.Unmarshal(b, &in.Exceptions)
				}
				if err != nil {
					return usagef("--exceptions: %v", err)
				}
			}
			raw, w, err := call[httpapi.Watch](cmd, a, http.MethodPut, path("mailboxes", args[0], "watch"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeWatch(out, w) })
		},
	}
	cmd.Flags().BoolVar(&in.Off, "off", false, "do not look at it")
	cmd.Flags().BoolVar(&in.LockOnDrift, "lock-on-drift", false, "lock the mailbox when its credential is refused")
	cmd.Flags().StringVar(&file, "exceptions", "", "the `file` with what is no bypass")
	return cmd
}

func newSentinelProbeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "probe MAILBOX...", Short: "Have mailboxes looked at now",
		Example: "  postern sentinel probe sales@acme.example", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, mailbox := range args {
				raw, w, err := call[httpapi.Watch](cmd, a, http.MethodPost, path("mailboxes", mailbox, "watch", "probe"), nil)
				if err != nil {
					return err
				}
				if err := a.show(cmd, raw, func(out io.Writer) {
					fmt.Fprintf(out, "%s is looked at within seconds: see 'postern sentinel status %s'\n", printable(w.Mailbox, false), strings.TrimSpace(mailbox))
				}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
