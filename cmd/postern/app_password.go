// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
)

func newAppPasswordCommand(a *app) *cobra.Command {
	return newGroup("app-password", "App passwords, which agents type into their mail clients",
		newAppPasswordCreateCommand(a), newAppPasswordListCommand(a),
		newEndingCommand(a, endingCommand{
			use: "revoke APP-PASSWORD", short: "Revoke an app password, for good",
			long:    "Revoke an app password, for good. Sessions that were opened with it end within a second.",
			example: "  postern app-password revoke 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d",
			method:  http.MethodPost, path: func(arg string) string { return path("app-passwords", arg, "revoke") },
			done: "app password %s revoked", question: "Revoke the app password %s for good?",
		}))
}

func newAppPasswordCreateCommand(a *app) *cobra.Command {
	var in httpapi.AppPasswordInput
	var notAfter, save string
	cmd := &cobra.Command{
		Use:   "create AGENT",
		Short: "Make an app password; it is shown once",
		Long: `Make an app password: a random token that names the agent and opens nothing but
Postern, from sanctioned workstations. It is shown once and cannot be read again.`,
		Example: `  postern app-password create asha --label "Thunderbird at Pune" --group night-shift`,
		Args:    exactly("AGENT"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Agent = args[0]
			if in.ExpiresAt, err = parseTime("not-after", notAfter, true); err != nil {
				return err
			}
			file, err := newTokenFile(save)
			if err != nil {
				return err
			}
			raw, created, err := call[httpapi.AppPasswordCreated](cmd, a, http.MethodPost, path("app-passwords"), in)
			if err != nil {
				return file.discard(err)
			}
			if raw, err = file.save(raw, created, &created.Token); err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				p, shown := created.AppPassword, created.Token
				if save != "" {
					shown = "in " + save
				}
				writeFields(out, "App password", shown, "Agent", p.Agent, "Label", p.Label,
					"Groups", list(p.Groups), "Not after", stamp(p.ExpiresAt), "Id", string(p.ID))
				if save != "" {
					return
				}
				fmt.Fprintln(out, "It is shown this once: enter it in the agent's mail client now. The user name there is the mailbox's address.")
			})
		},
	}
	cmd.Flags().StringVar(&save, "save", "", "write it into this `file`, of mode 0600, and do not show it")
	cmd.Flags().StringVar(&in.Label, "label", "", "what it is for")
	cmd.Flags().StringSliceVar(&in.Groups, "group", nil, "a workstation `group` that it is good on; may be repeated (without it: every sanctioned workstation)")
	cmd.Flags().StringVar(&notAfter, "not-after", "", "when it ends: a `date`, whose whole day it holds, or a time in RFC 3339")
	return cmd
}

func newAppPasswordListCommand(a *app) *cobra.Command {
	var all bool
	var agent string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List app passwords, without their tokens",
		Example: "  postern app-password list --agent asha",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			where := withQuery(path("app-passwords"), "agent", agent)
			if all {
				where = withQuery(path("app-passwords"), "agent", agent, "all", "true")
			}
			raw, passwords, err := call[httpapi.List[*httpapi.AppPassword]](cmd, a, http.MethodGet, where, nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, p := range passwords.Items {
					rows = append(rows, []string{
						string(p.ID), nameOr(p.Agent, p.AgentID), p.Label, list(p.Groups),
						stamp(p.CreatedAt), stamp(p.ExpiresAt), string(p.State),
					})
				}
				writeTable(out, []string{"ID", "AGENT", "LABEL", "GROUPS", "CREATED", "NOT AFTER", "STATE"}, rows,
					"There are no app passwords. Make one with 'postern app-password create AGENT'.")
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "revoked and expired ones too")
	cmd.Flags().StringVar(&agent, "agent", "", "only this `agent`'s")
	return cmd
}
