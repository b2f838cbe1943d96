// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newSiteCommand(a *app) *cobra.Command {
	return newGroup("site", "Sites, which are named sets of networks",
		newSiteAddCommand(a), newSiteListCommand(a), newSiteShowCommand(a), newSiteUpdateCommand(a), newSiteRemoveCommand(a))
}

func writeSite(out io.Writer, s *broker.Site) {
	writeFields(out, "Site", s.Name, "Networks", networks(s), "Network only", yes(s.NetworkOnly), "Id", string(s.ID))
}

func networks(s *broker.Site) string {
	texts := make([]string, len(s.Networks))
	for i, n := range s.Networks {
		texts[i] = n.String()
	}
	return list(texts)
}

func newSiteAddCommand(a *app) *cobra.Command {
	var in httpapi.SiteInput
	cmd := &cobra.Command{
		Use:     "add NAME --network CIDR...",
		Short:   "Add a site",
		Example: "  postern site add Pune --network 192.0.2.0/24 --network 2001:db8:7::/48",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Name = args[0]
			raw, s, err := call[broker.Site](cmd, a, http.MethodPost, path("sites"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeSite(out, s) })
		},
	}
	cmd.Flags().StringSliceVar(&in.Networks, "network", nil, "a `network` such as 192.0.2.0/24, or an address; may be repeated")
	cmd.Flags().BoolVar(&in.NetworkOnly, "network-only", false, "let machines without a certificate in from these networks")
	_ = cmd.MarkFlagRequired("network")
	return cmd
}

func newSiteListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List sites",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, sites, err := call[httpapi.List[*broker.Site]](cmd, a, http.MethodGet, path("sites"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, s := range sites.Items {
					rows = append(rows, []string{s.Name, networks(s), yes(s.NetworkOnly), string(s.ID)})
				}
				writeTable(out, []string{"NAME", "NETWORKS", "NETWORK ONLY", "ID"}, rows,
					"There are no sites. Add one with 'postern site add NAME --network CIDR'.")
			})
		},
	}
}

func newSiteUpdateCommand(a *app) *cobra.Command {
	var name string
	var nets []string
	var networkOnly bool
	cmd := &cobra.Command{
		Use:     "update SITE",
		Short:   "Change a site; sessions that it no longer admits end",
		Example: "  postern site update Pune --network 192.0.2.0/25",
		Args:    exactly("SITE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var patch httpapi.SitePatch
			if cmd.Flags().Changed("name") {
				patch.Name = &name
			}
			if cmd.Flags().Changed("network") {
				patch.Networks = &nets
			}
			if cmd.Flags().Changed("network-only") {
				patch.NetworkOnly = &networkOnly
			}
			if patch == (httpapi.SitePatch{}) {
				return usagef("nothing to change: give --name, --network or --network-only")
			}
			raw, s, err := call[broker.Site](cmd, a, http.MethodPatch, path("sites", args[0]), patch)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeSite(out, s) })
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "a new name")
	cmd.Flags().StringSliceVar(&nets, "network", nil, "a `network`, in place of all there were; may be repeated")
	cmd.Flags().BoolVar(&networkOnly, "network-only", false, "let machines without a certificate in from these networks (=false: no more)")
	return cmd
}

func newSiteRemoveCommand(a *app) *cobra.Command {
	return newRemovalCommand(a, removalCommand[broker.Site]{
		use: "remove SITE", short: "Remove a site that nothing is bound to",
		example: "  postern site remove Pune",
		path:    func(arg string) string { return path("sites", arg) },
		done:    func(s *broker.Site) string { return "site " + s.Name + " removed" },
	})
}

func newSiteShowCommand(a *app) *cobra.Command {
	return newShowCommand(a, showCommand[broker.Site]{
		use: "show SITE", short: "Show a site",
		example: "  postern site show Pune",
		path:    func(arg string) string { return path("sites", arg) },
		write:   writeSite,
	})
}
