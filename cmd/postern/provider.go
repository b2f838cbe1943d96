// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newProviderCommand(a *app) *cobra.Command {
	return newGroup("provider", "Providers: where the passwords of mailboxes are changed",
		newProviderAddCommand(a), newProviderListCommand(a), newProviderShowCommand(a),
		newProviderUpdateCommand(a), newProviderRemoveCommand(a), newProviderSetAccountCommand(a))
}

// settingsFrom reads a driver's settings: a JSON object in a file, or "-" for
// standard input.
func settingsFrom(cmd *cobra.Command, file string) (settings map[string]any, err error) {
	var b []byte
	if file == "-" {
		b, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), httpapi.MaxBodyBytes))
	} else {
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, usagef("--settings: %v", err)
	}
	if err := json.Unmarshal(b, &settings); err != nil || settings == nil {
		return nil, usagef("--settings: %s holds no JSON object", file)
	}
	return settings, nil
}

func newProviderAddCommand(a *app) *cobra.Command {
	in := httpapi.ProviderInput{}
	var file string
	cmd := &cobra.Command{
		Use:   "add NAME [--firm FIRM] --driver DRIVER",
		Short: "Add a provider",
		Long: `Add a provider: a driver, and how it reaches the place where passwords are
changed. deployments/README.md says what each driver's settings are. They hold no
secret: what the driver logs in with is set by 'postern provider set-account'.`,
		Example: `  postern provider add panel --firm "Acme Pumps" --driver http --settings panel.json
  postern provider add by-hand --driver manual`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Name = args[0]
			if file != "" {
				settings, err := settingsFrom(cmd, file)
				if err != nil {
					return err
				}
				in.Settings = settings
			}
			raw, p, err := call[httpapi.Provider](cmd, a, http.MethodPost, path("providers"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeProvider(out, p) })
		},
	}
	cmd.Flags().StringVar(&in.Firm, "firm", "", "the `firm` whose it is (your own, if you are a firm's)")
	cmd.Flags().StringVar(&in.Driver, "driver", "", "ldap, sql, http, exec or manual")
	cmd.Flags().StringVar(&file, "settings", "", "the `file` with the driver's settings, a JSON object (-: standard input)")
	_ = cmd.MarkFlagRequired("driver")
	return cmd
}

func writeProvider(out io.Writer, p *httpapi.Provider) {
	account := ""
	if p.Account != nil {
		account = p.Account.State
	}
	writeFields(out, "Provider", p.Name, "Firm", nameOr(p.Firm, p.FirmID), "Driver", p.Driver, "Settings", string(p.Settings),
		"Account", account, "Created", stamp(p.CreatedAt), "Id", string(p.ID))
}

func newProviderListCommand(a *app) *cobra.Command {
	var firm string
	cmd := &cobra.Command{
		Use: "list", Short: "List providers", Example: "  postern provider list", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, all, err := call[httpapi.List[*httpapi.Provider]](cmd, a, http.MethodGet, withQuery(path("providers"), "firm", firm), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, p := range all.Items {
					rows = append(rows, []string{p.Name, nameOr(p.Firm, p.FirmID), p.Driver, string(p.ID)})
				}
				writeTable(out, []string{"NAME", "FIRM", "DRIVER", "ID"}, rows, "There are no providers. Add one with 'postern provider add NAME'.")
			})
		},
	}
	cmd.Flags().StringVar(&firm, "firm", "", "only this `firm`'s")
	return cmd
}

func newProviderShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show PROVIDER", Short: "Show a provider, and whether its account is stored",
		Example: "  postern provider show panel", Args: exactly("PROVIDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, p, err := call[httpapi.Provider](cmd, a, http.MethodGet, path("providers", args[0]), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeProvider(out, p) })
		},
	}
}

func newProviderUpdateCommand(a *app) *cobra.Command {
	var patch httpapi.ProviderPatch
	var name, file string
	cmd := &cobra.Command{
		Use:   "update PROVIDER",
		Short: "Change a provider",
		Long: `Change a provider. While its account is stored, its settings change only with
--remove-account: the account was entrusted to the old ones.`,
		Example: "  postern provider update panel --settings panel.json --remove-account",
		Args:    exactly("PROVIDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("name") {
				patch.Name = &name
			}
			if file != "" {
				settings, err := settingsFrom(cmd, file)
				if err != nil {
					return err
				}
				patch.Settings = &settings
			}
			if patch.Name == nil && patch.Settings == nil {
				return usagef("nothing to change")
			}
			raw, p, err := call[httpapi.Provider](cmd, a, http.MethodPatch, path("providers", args[0]), patch)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeProvider(out, p) })
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "another `name`")
	cmd.Flags().StringVar(&file, "settings", "", "the `file` with the driver's settings, a JSON object (-: standard input)")
	cmd.Flags().BoolVar(&patch.RemoveAccount, "remove-account", false, "agree that the stored account is removed when the settings change")
	return cmd
}

func newProviderRemoveCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "remove PROVIDER", Short: "Remove a provider that no mailbox uses, and its account",
		Example: "  postern provider remove panel", Args: exactly("PROVIDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, p, err := call[httpapi.Provider](cmd, a, http.MethodDelete, path("providers", args[0]), nil)
			if err != nil {
				return err
			}
			if err := a.show(cmd, raw, func(out io.Writer) { fmt.Fprintf(out, "provider %s removed\n", printable(p.Name, false)) }); err != nil {
				return err
			}
			if p.Account != nil && p.Account.State != "none" {
				return broker.Errorf(broker.Unavailable, "the account of provider %s of firm %s could not be removed from its storage: remove it there", p.ID, p.FirmID)
			}
			return nil
		},
	}
}

func newProviderSetAccountCommand(a *app) *cobra.Command {
	var username string
	cmd := &cobra.Command{
		Use:   "set-account PROVIDER",
		Short: "Store what the driver logs in to the provider with",
		Long: `Store a provider account. Its secret is read from the terminal without echo, or
one line from standard input. Nothing reads it back; only the rotator's role in
Vault can.`,
		Example: "  pass show acme/panel | postern provider set-account panel --username postern",
		Args:    exactly("PROVIDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			secret, err := readSecret(cmd, args[0], "account", false)
			if err != nil {
				return err
			}
			defer clear(secret)
			if !utf8.Valid(secret) {
				return usagef("the secret is not UTF-8")
			}
			raw, set, err := call[httpapi.ProviderAccountSet](cmd, a, http.MethodPut, path("providers", args[0], "account"),
				httpapi.CredentialInput{Kind: broker.KindPassword, Username: username, Secret: string(secret)})
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				fmt.Fprintf(out, "account of provider %s stored (version %d)\n", printable(set.Provider, false), set.Version)
			})
		},
	}
	cmd.Flags().StringVar(&username, "username", "", "the login name, or DN")
	return cmd
}
