// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
)

func newAssignmentCommand(a *app) *cobra.Command {
	return newGroup("assignment", "Assignments: an agent on a delegation",
		newAssignmentCreateCommand(a), newAssignmentListCommand(a), newAssignmentShowCommand(a), newAssignmentUpdateCommand(a), newAssignmentApproveCommand(a),
		newEndingCommand(a, endingCommand{
			use: "revoke ASSIGNMENT", short: "Revoke an assignment, for good",
			long:    "Revoke an assignment, for good. Its sessions end within a second.",
			example: "  postern assignment revoke 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d",
			method:  http.MethodPost, path: func(arg string) string { return path("assignments", arg, "revoke") },
			done: "assignment %s revoked", question: "Revoke the assignment %s for good?",
		}))
}

func newAssignmentCreateCommand(a *app) *cobra.Command {
	var f termsFlags
	var in httpapi.AssignmentInput
	cmd := &cobra.Command{
		Use:   "create AGENT (--mailbox MAILBOX | --delegation ID)",
		Short: "Put an agent on a delegation, with equal or narrower terms",
		Long: `Put an agent on a delegation. Terms that no flag names are as the delegation has
them now; none can be wider.`,
		Example: `  postern assignment create asha --mailbox sales@acme.example
  postern assignment create asha --mailbox sales@acme.example --actions list,headers,read --site Pune`,
		Args: exactly("AGENT"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Agent = args[0]
			if in.Terms, err = f.terms(); err != nil {
				return err
			}
			raw, s, err := call[httpapi.Assignment](cmd, a, http.MethodPost, path("assignments"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeAssignment(out, s) })
		},
	}
	f.register(cmd, "without it: the delegation's")
	cmd.Flags().StringVar(&in.Mailbox, "mailbox", "", "the `mailbox`, when it has one delegation")
	cmd.Flags().StringVar(&in.Delegation, "delegation", "", "the delegation's `id`")
	cmd.MarkFlagsOneRequired("mailbox", "delegation")
	cmd.MarkFlagsMutuallyExclusive("mailbox", "delegation")
	return cmd
}

func writeAssignment(out io.Writer, s *httpapi.Assignment) {
	fields := []string{
		"Assignment", string(s.ID), "Agent", nameOr(s.Agent, s.AgentID), "Mailbox", nameOr(s.Mailbox, s.MailboxID),
		"Delegation", string(s.DelegationID), "State", string(s.State),
	}
	writeFields(out, append(fields, termsFields(&s.Terms, s.Sites)...)...)
}

func newAssignmentShowCommand(a *app) *cobra.Command {
	return newShowCommand(a, showCommand[httpapi.Assignment]{
		use: "show ASSIGNMENT", short: "Show an assignment",
		example: "  postern assignment show 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d",
		path:    func(arg string) string { return path("assignments", arg) },
		write:   writeAssignment,
	})
}

func newAssignmentApproveCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "approve ASSIGNMENT",
		Short: "Let an agent whom the BPO assigned into your firm's mailbox",
		Long: `Approve a pending assignment. Until then it opens nothing. To turn an agent
away, use 'postern assignment revoke'.`,
		Example: "  postern assignment approve 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d",
		Args:    exactly("ASSIGNMENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, s, err := call[httpapi.Assignment](cmd, a, http.MethodPost, path("assignments", args[0], "approve"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeAssignment(out, s) })
		},
	}
}

func newAssignmentUpdateCommand(a *app) *cobra.Command {
	var f termsFlags
	cmd := &cobra.Command{
		Use:   "update ASSIGNMENT",
		Short: "Change an assignment's terms within the delegation's; sessions that they make narrower end",
		Long: `Change an assignment's terms; what no flag names stays as it is, cut to what the
delegation allows now. None can be wider than the delegation's.

Sessions that the new terms make narrower end within a second; the others go on.`,
		Example: `  postern assignment update 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d --actions list,headers,read
  postern assignment update 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d --not-after ""`,
		Args: exactly("ASSIGNMENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			patch, err := f.patch(cmd)
			if err != nil {
				return err
			}
			raw, updated, err := call[httpapi.AssignmentUpdated](cmd, a, http.MethodPatch, path("assignments", args[0]), patch)
			if err != nil {
				return err
			}
			return a.showUpdated(cmd, raw, "assignment changed", updated.Ended, func(out io.Writer) { writeAssignment(out, &updated.Assignment) })
		},
	}
	f.registerPatch(cmd, "the delegation's")
	return cmd
}

func newAssignmentListCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List assignments",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, assignments, err := call[httpapi.List[*httpapi.Assignment]](cmd, a, http.MethodGet, withAll(path("assignments"), all), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, s := range assignments.Items {
					rows = append(rows, []string{
						string(s.ID), nameOr(s.Agent, s.AgentID), nameOr(s.Mailbox, s.MailboxID),
						s.Terms.Actions.String(), stamp(s.Terms.NotAfter), string(s.State),
					})
				}
				writeTable(out, []string{"ID", "AGENT", "MAILBOX", "ACTIONS", "NOT AFTER", "STATE"}, rows,
					"There are no assignments. Create one with 'postern assignment create AGENT --mailbox MAILBOX'.")
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "revoked and expired ones too")
	return cmd
}
