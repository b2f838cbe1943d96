// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
)

func newAgentOffBoardCommand(a *app) *cobra.Command {
	var in httpapi.AgentOffBoarding
	cmd := &cobra.Command{
		Use:   "off-board AGENT",
		Short: "End all that an agent has, and report what he reached and downloaded",
		Long: `End an agent's sessions, app passwords and assignments, and remove him; with
--workstation also the certificates of machines that leave with him. Then report
which mailboxes were within his reach, and what went to which workstation: a
revoke ends access, not copies. All of it is for good.`,
		Example: "  postern agent off-board asha --workstation pune-07",
		Args:    exactly("AGENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm(cmd, "Off-board the agent "+args[0]+" for good?"); err != nil {
				return err
			}
			return a.offBoard(cmd, "agent "+args[0], path("agents", args[0], "off-board"), in)
		},
	}
	cmd.Flags().StringSliceVar(&in.Workstations, "workstation", nil, "a `workstation` that leaves with the agent; may be repeated")
	registerDays(cmd, &in.Days)
	return cmd
}

func newWorkstationOffBoardCommand(a *app) *cobra.Command {
	var in httpapi.WorkstationOffBoarding
	cmd := &cobra.Command{
		Use:   "off-board WORKSTATION",
		Short: "End all that a workstation can do, and report what was downloaded to it",
		Long: `End a workstation's sessions and certificates, and the app passwords that were
used on it, since its mail client may hold them; and remove it. The agents stay,
and need new app passwords. Then report what was downloaded to it: a revoke ends
access, not copies. All of it is for good.`,
		Example: "  postern workstation off-board pune-07 --days 90",
		Args:    exactly("WORKSTATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm(cmd, "Off-board the workstation "+args[0]+" for good?"); err != nil {
				return err
			}
			return a.offBoard(cmd, "workstation "+args[0], path("workstations", args[0], "off-board"), in)
		},
	}
	registerDays(cmd, &in.Days)
	return cmd
}

func registerDays(cmd *cobra.Command, days *int) {
	cmd.Flags().IntVar(days, "days", 0, "how far back the report looks, 1 to 366 (0: 30)")
}

func (a *app) offBoard(cmd *cobra.Command, what, where string, in any) error {
	raw, out, err := call[httpapi.OffBoarded](cmd, a, http.MethodPost, where, in)
	if err != nil {
		return err
	}
	if err := a.show(cmd, raw, func(w io.Writer) {
		showEnded(w, printable(what, false)+" off-boarded", out.Ended)
		fmt.Fprintf(w, "%s, %s and %s ended\n", count(len(out.AppPasswords), "app password"),
			count(len(out.Assignments), "assignment"), count(len(out.Workstations), "workstation's certificate"))
		if len(out.DirectoryAccounts) > 0 {
			fmt.Fprintf(w, "\nPostern cannot end passwords of the directory: disable these accounts there, or have\ntheir passwords changed: %s\n", printable(list(out.DirectoryAccounts), false))
		}
		var reach [][]string
		for _, r := range out.Reach {
			reach = append(reach, []string{nameOr(r.Mailbox, r.MailboxID), r.Firm, r.Agent, r.Actions.String()})
		}
		fmt.Fprintln(w, "\nWithin reach until now:")
		writeTable(w, []string{"MAILBOX", "FIRM", "AGENT", "ACTIONS"}, reach, "No mailbox.")
		fmt.Fprintln(w)
		writeDownloads(w, &out.Downloads)
	}); err != nil {
		return err
	}
	return stillOpen(out.Ended)
}

// writeDownloads prints a report of downloads.
func writeDownloads(w io.Writer, d *httpapi.Downloads) {
	fmt.Fprintf(w, "Downloaded since %s:\n", stamp(d.Since))
	var rows [][]string
	whole, parts := 0, 0
	for _, x := range d.Downloads {
		whole, parts = whole+x.Whole, parts+x.Parts
		rows = append(rows, []string{
			nameOr(x.Workstation, x.WorkstationID), nameOr(x.Agent, x.AgentID), nameOr(x.Mailbox, x.MailboxID), strconv.Itoa(x.Messages),
			strconv.Itoa(x.Whole), strconv.Itoa(x.Parts), strconv.FormatInt(x.Octets, 10), stamp(x.First), stamp(x.Last),
		})
	}
	writeTable(w, []string{"WORKSTATION", "AGENT", "MAILBOX", "MESSAGES", "WHOLE", "IN PARTS", "OCTETS", "FIRST", "LAST"}, rows, "Nothing.")
	if whole+parts > 0 {
		fmt.Fprintf(w, "\n%s downloaded whole and %d in parts lie in mail clients' caches there, as a\nrule, and cannot be recalled: have those machines wiped. What was downloaded earlier\nlies there as well: --days looks further back.\n", count(whole, "message"), parts)
	}
	if !d.Complete {
		fmt.Fprintln(w, "\nThe report is NOT COMPLETE: the logs could not all be read ('postern log\ndownloads' asks again), or records of that time were pruned ('postern retention show').")
	}
}

func newLogDownloadsCommand(a *app) *cobra.Command {
	var agent, workstation string
	var days int
	cmd := &cobra.Command{
		Use:   "downloads (--agent AGENT | --workstation WORKSTATION)",
		Short: "Report what an agent downloaded, or what was downloaded to a workstation",
		Example: `  postern log downloads --agent asha --days 90
  postern log downloads --workstation 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			text := ""
			if days > 0 {
				text = strconv.Itoa(days)
			}
			where := withQuery(path("downloads"), "agent", agent, "workstation", workstation, "days", text)
			raw, d, err := call[httpapi.Downloads](cmd, a, http.MethodGet, where, nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(w io.Writer) { writeDownloads(w, d) })
		},
	}
	cmd.Flags().StringVar(&agent, "agent", "", "the `agent`, by name, or by id when he was removed")
	cmd.Flags().StringVar(&workstation, "workstation", "", "the `workstation`, by name, or by id when it was removed")
	registerDays(cmd, &days)
	cmd.MarkFlagsOneRequired("agent", "workstation")
	cmd.MarkFlagsMutuallyExclusive("agent", "workstation")
	return cmd
}
