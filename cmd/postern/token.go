// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
)

// tokenFlags say what a new API token is good for.
type tokenFlags struct {
	label, expires string
	scopes         []string
}

func (f *tokenFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.label, "label", "", "what the token is for")
	cmd.Flags().StringVar(&f.expires, "expires", "", "when the token ends, a `date` or a time (without it: in 90 days)")
	cmd.Flags().StringSliceVar(&f.scopes, "scope", nil, "narrow the token: read, or a `group` of operations such as sessions; may be repeated")
}

func (f *tokenFlags) terms() (*httpapi.TokenTerms, error) {
	expires, err := parseTime("expires", f.expires, true)
	return &httpapi.TokenTerms{Label: f.label, Scopes: f.scopes, ExpiresAt: expires}, err
}

func newTokenCommand(a *app) *cobra.Command {
	return newGroup("token", "API tokens, which speak for people",
		newTokenCreateCommand(a), newTokenListCommand(a), newTokenRevokeCommand(a))
}

func newTokenCreateCommand(a *app) *cobra.Command {
	var in httpapi.TokenInput
	var save string
	var f tokenFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make an API token, for yourself or somebody of your side",
		Long: `Make an API token. It goes into the file that --save names, of mode 0600, and is
kept nowhere else. Without --person it is yours; admins make tokens for others of
their side, which is how somebody who lost his gets another.`,
		Example: `  postern token create --save ~/.postern-token
  postern token create --save ./report.token --scope read --label "nightly report"
  postern token create --person ravi --save ./ravi.token`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			terms, err := f.terms()
			if err != nil {
				return err
			}
			in.TokenTerms = *terms
			file, err := newTokenFile(save)
			if err != nil {
				return err
			}
			raw, made, err := call[httpapi.APITokenCreated](cmd, a, http.MethodPost, path("tokens"), in)
			if err != nil {
				return file.discard(err)
			}
			if raw, err = file.save(raw, made, &made.Token); err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				t := &made.APIToken
				writeFields(out, "Token in", save, "Person", t.Person, "Scopes", list(t.Scopes), "Until", stamp(t.ExpiresAt), "Id", string(t.ID))
			})
		},
	}
	cmd.Flags().StringVar(&in.Person, "person", "", "whom it speaks for, by name or `id` (without it: you)")
	cmd.Flags().StringVar(&save, "save", "", "the `file` for the token")
	f.register(cmd)
	_ = cmd.MarkFlagRequired("save")
	return cmd
}

func newTokenListCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List API tokens: an admin those of his side, others their own",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, tokens, err := call[httpapi.List[*httpapi.APIToken]](cmd, a, http.MethodGet, withAll(path("tokens"), all), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, t := range tokens.Items {
					rows = append(rows, []string{
						string(t.ID), nameOr(t.Person, t.PersonID), t.Label, list(t.Scopes), stamp(t.ExpiresAt), string(t.State),
					})
				}
				writeTable(out, []string{"ID", "PERSON", "LABEL", "SCOPES", "UNTIL", "STATE"}, rows, "There are no tokens.")
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "revoked and expired ones too")
	return cmd
}

func newTokenRevokeCommand(a *app) *cobra.Command {
	return newRemovalCommand(a, removalCommand[httpapi.APIToken]{
		use: "revoke TOKEN", short: "Revoke an API token, by its id, for good",
		example: "  postern token revoke 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d", question: "Revoke the token %s for good?",
		method: http.MethodPost, path: func(arg string) string { return path("tokens", arg, "revoke") },
		done: func(t *httpapi.APIToken) string { return "token " + string(t.ID) + " revoked" },
	})
}
