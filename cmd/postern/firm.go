// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newFirmCommand(a *app) *cobra.Command {
	return newGroup("firm", "Client firms, which own mailboxes", newFirmCreateCommand(a), newFirmListCommand(a))
}

func newFirmCreateCommand(a *app) *cobra.Command {
	var in httpapi.FirmInput
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create a firm",
		Example: `  postern firm create "Acme Pumps" --contact it@acme.example`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Name = args[0]
			raw, f, err := call[broker.Firm](cmd, a, http.MethodPost, path("firms"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writeFields(out, "Firm", f.Name, "Contact", f.Contact, "Id", string(f.ID))
			})
		},
	}
	cmd.Flags().StringVar(&in.Contact, "contact", "", "whom a refused agent is told to ask")
	return cmd
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
					rows = append(rows, []string{f.Name, f.Contact, stamp(f.CreatedAt), string(f.ID)})
				}
				writeTable(out, []string{"NAME", "CONTACT", "CREATED", "ID"}, rows,
					"There are no firms yet. Create one with 'postern firm create NAME'.")
			})
		},
	}
}
