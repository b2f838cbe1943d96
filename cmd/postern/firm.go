// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newFirmCommand(a *app) *cobra.Command {
	return newGroup("firm", "Client firms, which own mailboxes", newFirmCreateCommand(a), newFirmListCommand(a), newFirmShowCommand(a), newFirmUpdateCommand(a), newFirmClaimCommand(a),
		newEndingCommand(a, endingCommand{
			use: "revoke FIRM", short: "Revoke all that a firm gave, for good",
			long: `Revoke all delegations of a firm and their assignments, for good. Their sessions
end within a second. Once the firm was claimed, only its own admins can.`,
			example: `  postern firm revoke "Acme Pumps"`,
			method:  http.MethodPost, path: func(arg string) string { return path("firms", arg, "revoke-delegations") },
			done: "all delegations of %s revoked", question: "Revoke all delegations of %s for good?",
		}))
}

func newFirmCreateCommand(a *app) *cobra.Command {
	var in httpapi.FirmInput
	var save string
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create a firm, and print the claim that its first admin redeems",
		Example: `  postern firm create "Acme Pumps" --contact it@acme.example --domain acme.example`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Name = args[0]
			file, err := newTokenFile(save)
			if err != nil {
				return err
			}
			raw, f, err := call[httpapi.FirmCreated](cmd, a, http.MethodPost, path("firms"), in)
			if err != nil {
				return file.discard(err)
			}
			if raw, err = file.save(raw, f, &f.Claim.Claim); err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writeFields(out, "Firm", f.Name, "Contact", f.Contact, "Domains", list(f.Domains), "Id", string(f.ID))
				writeClaim(out, &f.Claim, save)
			})
		},
	}
	cmd.Flags().StringSliceVar(&in.Domains, "domain", nil, "a `domain` (or one whole address) that the firm's people may give its mailboxes addresses in; may be repeated")
	cmd.Flags().StringVar(&save, "save", "", "write the claim into this `file`, of mode 0600, and do not show it")
	cmd.Flags().StringVar(&in.Contact, "contact", "", "whom a refused agent is told to ask")
	return cmd
}

func newFirmUpdateCommand(a *app) *cobra.Command {
	var contact string
	var domains []string
	cmd := &cobra.Command{
		Use:     "update FIRM",
		Short:   "Change a firm's contact (its own people's, once it was claimed) or domains (the BPO's)",
		Example: `  postern firm update "Acme Pumps" --domain acme.example --domain sales@provider.example`,
		Args:    exactly("FIRM"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var patch httpapi.FirmPatch
			if cmd.Flags().Changed("contact") {
				patch.Contact = &contact
			}
			if cmd.Flags().Changed("domain") {
				domains = slices.DeleteFunc(domains, func(d string) bool { return d == "" })
				patch.Domains = &domains
			}
			if patch == (httpapi.FirmPatch{}) {
				return usagef("nothing to change: give --contact or --domain")
			}
			raw, f, err := call[broker.Firm](cmd, a, http.MethodPatch, path("firms", args[0]), patch)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeFirm(out, f) })
		},
	}
	cmd.Flags().StringVar(&contact, "contact", "", "whom a refused agent is told to ask")
	cmd.Flags().StringSliceVar(&domains, "domain", nil, "a `domain` or whole address, in place of all before; may be repeated; empty: none")
	return cmd
}

func newFirmClaimCommand(a *app) *cobra.Command {
	var save string
	cmd := &cobra.Command{
		Use:   "claim FIRM",
		Short: "Make a firm's claim anew, when it was lost or has expired",
		Long: `Make a firm's claim anew: the one before is void. Once a claim was redeemed there
is no other: the firm's own admins add its people.`,
		Example: `  postern firm claim "Acme Pumps"`,
		Args:    exactly("FIRM"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := newTokenFile(save)
			if err != nil {
				return err
			}
			raw, c, err := call[httpapi.ClaimCreated](cmd, a, http.MethodPost, path("firms", args[0], "claim"), nil)
			if err != nil {
				return file.discard(err)
			}
			if raw, err = file.save(raw, c, &c.Claim); err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeClaim(out, c, save) })
		},
	}
	cmd.Flags().StringVar(&save, "save", "", "write the claim into this `file`, of mode 0600, and do not show it")
	return cmd
}

// writeClaim shows a claim, or in which file it is.
func writeClaim(out io.Writer, c *httpapi.ClaimCreated, saved string) {
	if saved != "" {
		writeFields(out, "Claim in", saved, "Until", stamp(c.ExpiresAt))
	} else {
		writeFields(out, "Claim", c.Claim, "Until", stamp(c.ExpiresAt))
	}
	fmt.Fprint(out, "\nGive the claim to the firm, where somebody redeems it with 'postern claim'. It is\n"+
		"shown this once, and good once. Until then you act for the firm; never after.\n")
}

func newFirmListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List firms",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, firms, err := call[httpapi.List[*broker.Firm]](cmd, a, http.MethodGet, path("firms"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, f := range firms.Items {
					rows = append(rows, []string{f.Name, f.Contact, stamp(f.CreatedAt), stamp(f.ClaimedAt), string(f.ID)})
				}
				writeTable(out, []string{"NAME", "CONTACT", "CREATED", "CLAIMED", "ID"}, rows,
					"There are no firms yet. Create one with 'postern firm create NAME'.")
			})
		},
	}
}

func newFirmShowCommand(a *app) *cobra.Command {
	return newShowCommand(a, showCommand[broker.Firm]{
		use: "show FIRM", short: "Show a firm",
		example: `  postern firm show "Acme Pumps"`,
		path:    func(arg string) string { return path("firms", arg) },
		write:   writeFirm,
	})
}

func writeFirm(out io.Writer, f *broker.Firm) {
	writeFields(out, "Firm", f.Name, "Contact", f.Contact, "Domains", list(f.Domains), "Claimed", stamp(f.ClaimedAt), "Id", string(f.ID))
}
