// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
)

func newDelegationCommand(a *app) *cobra.Command {
	return newGroup("delegation", "Delegations: a firm's grant on a mailbox",
		newDelegationCreateCommand(a), newDelegationListCommand(a), newDelegationShowCommand(a), newDelegationUpdateCommand(a),
		newEndingCommand(a, endingCommand{
			use: "revoke DELEGATION", short: "Revoke a delegation and its assignments, for good",
			long: `Revoke a delegation and its assignments, for good. Their sessions end within a
second. It is named by its id, or by its mailbox when that has only one.`,
			example: `  postern delegation revoke sales@acme.example
  postern delegation revoke 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d`,
			method: http.MethodPost, path: func(arg string) string { return path("delegations", arg, "revoke") },
			done: "delegation %s revoked", question: "Revoke the delegation %s and its assignments for good?",
		}))
}

func newDelegationCreateCommand(a *app) *cobra.Command {
	var f termsFlags
	var approve bool
	cmd := &cobra.Command{
		Use:   "create MAILBOX",
		Short: "Delegate a mailbox to the BPO",
		Example: `  postern delegation create sales@acme.example
  postern delegation create sales@acme.example --actions list,headers,read,flag --not-after 2026-12-31`,
		Args: exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			terms, err := f.terms()
			if err != nil {
				return err
			}
			raw, d, err := call[httpapi.Delegation](cmd, a, http.MethodPost, path("delegations"), httpapi.DelegationInput{Mailbox: args[0], Terms: terms, ApproveAgents: approve})
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeDelegation(out, d) })
		},
	}
	f.register(cmd, "without it: all")
	registerApprove(cmd, &approve)
	return cmd
}

func registerApprove(cmd *cobra.Command, approve *bool) {
	cmd.Flags().BoolVar(approve, "approve-agents", false, "each agent who is assigned waits for 'postern assignment approve'")
}

func writeDelegation(out io.Writer, d *httpapi.Delegation) {
	fields := []string{
		"Delegation", string(d.ID), "Mailbox", nameOr(d.Mailbox, d.MailboxID), "Firm", nameOr(d.Firm, d.FirmID), "State", string(d.State),
		"Agents need approval", yes(d.ApproveAgents),
	}
	fields = append(fields, termsFields(&d.Terms, d.Sites)...)
	writeFields(out, append(fields, "Agents see", d.Sees)...)
}

func newDelegationShowCommand(a *app) *cobra.Command {
	return newShowCommand(a, showCommand[httpapi.Delegation]{
		use: "show DELEGATION", short: "Show a delegation, by its id or by its mailbox when that has only one",
		example: "  postern delegation show sales@acme.example",
		path:    func(arg string) string { return path("delegations", arg) },
		write:   writeDelegation,
	})
}

func newDelegationUpdateCommand(a *app) *cobra.Command {
	var f termsFlags
	var approve bool
	cmd := &cobra.Command{
		Use:   "update DELEGATION",
		Short: "Change a delegation's terms; sessions that they make narrower end",
		Long: `Change a delegation's terms; what no flag names stays as it is. It is named by
its id, or by its mailbox when that has only one.

Sessions that the new terms make narrower end within a second; the others go on.
Assignments keep terms of their own, and an agent may do what both allow: after
narrower terms here, an assignment may hold more than counts; after wider ones,
agents get no more until 'postern assignment update' gives it to them.`,
		Example: `  postern delegation update sales@acme.example --actions list,headers,read
  postern delegation update sales@acme.example --not-after 2026-12-31 --site Pune --hardware-key
  postern delegation update sales@acme.example --not-after "" --site ""`,
		Args: exactly("DELEGATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			terms, err := f.patch(cmd)
			if err != nil {
				return err
			}
			patch := httpapi.DelegationPatch{Terms: &terms.Terms}
			if cmd.Flags().Changed("approve-agents") {
				patch.ApproveAgents = &approve
			}
			raw, updated, err := call[httpapi.DelegationUpdated](cmd, a, http.MethodPatch, path("delegations", args[0]), patch)
			if err != nil {
				return err
			}
			return a.showUpdated(cmd, raw, "delegation changed", updated.Ended, func(out io.Writer) { writeDelegation(out, &updated.Delegation) })
		},
	}
	f.registerPatch(cmd, "no limit")
	registerApprove(cmd, &approve)
	return cmd
}

func newDelegationListCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List delegations",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, delegations, err := call[httpapi.List[*httpapi.Delegation]](cmd, a, http.MethodGet, withAll(path("delegations"), all), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, d := range delegations.Items {
					rows = append(rows, []string{
						string(d.ID), nameOr(d.Mailbox, d.MailboxID), nameOr(d.Firm, d.FirmID),
						d.Terms.Actions.String(), stamp(d.Terms.NotAfter), string(d.State),
					})
				}
				writeTable(out, []string{"ID", "MAILBOX", "FIRM", "ACTIONS", "NOT AFTER", "STATE"}, rows,
					"There are no delegations. Create one with 'postern delegation create MAILBOX'.")
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "revoked and expired ones too")
	return cmd
}

func withAll(path string, all bool) string {
	if all {
		return withQuery(path, "all", "true")
	}
	return path
}
