// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newFirmCommand(a *app) *cobra.Command {
	return newGroup("firm", "Client firms, which own mailboxes", newFirmCreateCommand(a), newFirmListCommand(a), newFirmClaimCommand(a))
}

func newFirmCreateCommand(a *app) *cobra.Command {
	var in httpapi.FirmInput
	var save string
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create a firm, and print the claim that its first admin redeems",
		Example: `  postern firm create "Acme Pumps" --contact it@acme.example`,
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
			if err := file.write(f.Claim.Claim); err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writeFields(out, "Firm", f.Name, "Contact", f.Contact, "Id", string(f.ID))
				writeClaim(out, &f.Claim, save)
			})
		},
	}
	cmd.Flags().StringVar(&save, "save", "", "write the claim into this `file`, of mode 0600, and do not show it")
	cmd.Flags().StringVar(&in.Contact, "contact", "", "whom a refused agent is told to ask")
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
			if err := file.write(c.Claim); err != nil {
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
