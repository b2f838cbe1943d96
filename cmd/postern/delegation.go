// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/policy"
)

func newDelegationCommand(a *app) *cobra.Command {
	return newGroup("delegation", "Delegations: a firm's grant on a mailbox",
		newDelegationCreateCommand(a), newDelegationListCommand(a),
		newEndingCommand(a, endingCommand{
			use: "revoke DELEGATION", short: "Revoke a delegation and its assignments, for good",
			long:    "Revoke a delegation and its assignments, for good. Their sessions end within a second.",
			example: "  postern delegation revoke 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d",
			method:  http.MethodPost, path: func(arg string) string { return path("delegations", arg, "revoke") },
			done: "delegation %s revoked",
		}))
}

// termsFlags say what may be done.
type termsFlags struct {
	actions, sites      []string
	notBefore, notAfter string
	hardwareKey         bool
}

func (f *termsFlags) register(cmd *cobra.Command, actionsDefault string) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.actions, "actions", nil, "what may be done, separated by commas: "+policy.All.String()+" ("+actionsDefault+")")
	flags.StringVar(&f.notBefore, "not-before", "", "when it begins to hold: a `date`, or a time in RFC 3339")
	flags.StringVar(&f.notAfter, "not-after", "", "when it ends: a `date`, whose whole day it holds, or a time in RFC 3339")
	flags.StringSliceVar(&f.sites, "site", nil, "a `site` that it may be used from; may be repeated (without it: any)")
	flags.BoolVar(&f.hardwareKey, "hardware-key", false, "demand a workstation of class hardware")
}

func (f *termsFlags) terms() (in httpapi.TermsInput, err error) {
	in = httpapi.TermsInput{Sites: f.sites, HardwareKey: f.hardwareKey}
	if _, err := policy.ParseActions(f.actions); err != nil {
		return in, usagef("--actions: %v", err)
	}
	for _, name := range f.actions {
		in.Actions = append(in.Actions, httpapi.Action(name))
	}
	if in.NotBefore, err = parseTime("not-before", f.notBefore, false); err != nil {
		return in, err
	}
	in.NotAfter, err = parseTime("not-after", f.notAfter, true)
	return in, err
}

// writeTerms prints terms under what was made.
func writeTerms(out io.Writer, t policy.Terms) {
	writeFields(out, "Actions", list(t.Actions.Names()), "Not before", stamp(t.NotBefore), "Not after", stamp(t.NotAfter),
		"Sites", list(t.Sites), "Hardware key", yes(t.HardwareKey))
}

func newDelegationCreateCommand(a *app) *cobra.Command {
	var f termsFlags
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
			raw, d, err := call[httpapi.Delegation](cmd, a, http.MethodPost, path("delegations"), httpapi.DelegationInput{Mailbox: args[0], Terms: terms})
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writeFields(out, "Delegation", string(d.ID), "Mailbox", nameOr(d.Mailbox, d.MailboxID), "Firm", nameOr(d.Firm, d.FirmID))
				writeTerms(out, d.Terms)
			})
		},
	}
	f.register(cmd, "without it: all")
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
