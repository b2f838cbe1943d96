// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newWhoamiCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Say who you are to the server",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, self, err := call[httpapi.Self](cmd, a, http.MethodGet, path("whoami"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writeFields(out, "Name", self.Name, "Role", string(self.Role), "Firm", self.Firm, "Scopes", list(self.Scopes))
			})
		},
	}
}

func newPersonCommand(a *app) *cobra.Command {
	return newGroup("person", "People who manage Postern, on your own side: the BPO's, or your firm's",
		newPersonAddCommand(a), newPersonListCommand(a), newPersonRemoveCommand(a))
}

func newPersonAddCommand(a *app) *cobra.Command {
	var in httpapi.PersonInput
	var role, save, issuer, subject string
	var f tokenFlags
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a person, and make the first token",
		Long: `Add a person to your own side: the BPO's admins add admins and auditors, a
firm's admins add firm-admins and firm-auditors. The first token goes into the
file that --save names, of mode 0600; without --save none is made, which is for
people of an identity provider.`,
		Example: `  postern person add priya --role firm-admin --save ./priya.token
  postern person add ravi --role auditor --issuer https://id.bpo.example --subject 00u1x9`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Name, in.Role = args[0], broker.Role(role)
			if (issuer == "") != (subject == "") {
				return usagef("--issuer and --subject go together")
			}
			if issuer != "" {
				in.Identity = &broker.Identity{Issuer: issuer, Subject: subject}
			}
			if save == "" {
				if in.Identity == nil {
					return usagef("--save is missing: the file for the person's first token")
				}
				raw, made, err := call[httpapi.PersonCreated](cmd, a, http.MethodPost, path("people"), in)
				if err != nil {
					return err
				}
				return a.show(cmd, raw, func(out io.Writer) { writePerson(out, &made.Person) })
			}
			if in.Token, err = f.terms(); err != nil {
				return err
			}
			file, err := newTokenFile(save)
			if err != nil {
				return err
			}
			raw, made, err := call[httpapi.PersonCreated](cmd, a, http.MethodPost, path("people"), in)
			if err != nil {
				return file.discard(err)
			}
			if raw, err = file.save(raw, made, &made.Token.Token); err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writePerson(out, &made.Person)
				writeFields(out, "Token in", save, "Until", stamp(made.Token.APIToken.ExpiresAt))
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "admin or auditor, firm-admin or firm-auditor")
	cmd.Flags().StringVar(&save, "save", "", "the `file` for the person's first token")
	cmd.Flags().StringVar(&issuer, "issuer", "", "the `URL` of the person's OpenID Connect issuer")
	cmd.Flags().StringVar(&subject, "subject", "", "the person's `subject` there")
	f.register(cmd)
	_ = cmd.MarkFlagRequired("role")
	return cmd
}

func writePerson(out io.Writer, p *broker.Person) {
	fields := []string{"Person", p.Name, "Role", string(p.Role), "Id", string(p.ID)}
	if p.Identity != nil {
		fields = append(fields, "Issuer", p.Identity.Issuer, "Subject", p.Identity.Subject)
	}
	writeFields(out, fields...)
}

func newPersonListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the people of your own side",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, people, err := call[httpapi.List[*broker.Person]](cmd, a, http.MethodGet, path("people"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, p := range people.Items {
					subject := ""
					if p.Identity != nil {
						subject = p.Identity.Subject
					}
					rows = append(rows, []string{p.Name, string(p.Role), subject, stamp(p.CreatedAt), string(p.ID)})
				}
				writeTable(out, []string{"NAME", "ROLE", "SUBJECT", "CREATED", "ID"}, rows,
					"There is nobody yet. Add somebody with 'postern person add NAME'.")
			})
		},
	}
}

func newPersonRemoveCommand(a *app) *cobra.Command {
	return newRemovalCommand(a, removalCommand[broker.Person]{
		use: "remove PERSON", short: "Remove a person, revoking his tokens",
		example: "  postern person remove ravi", question: "Remove %s for good, and revoke all his tokens?",
		path: func(arg string) string { return path("people", arg) },
		done: func(p *broker.Person) string { return p.Name + " removed, and all tokens revoked" },
	})
}
