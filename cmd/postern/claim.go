// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
)

func newClaimCommand(a *app) *cobra.Command {
	var in httpapi.ClaimRedemption
	var save string
	cmd := &cobra.Command{
		Use:   "claim",
		Short: "Redeem a firm's claim: become its first admin",
		Long: `Redeem the claim that the BPO made for a firm. Whoever redeems it is the firm's
first admin. From then on only the firm's own admins delegate its mailboxes,
write their credentials and add its people: the BPO can do neither, nor make
another claim. Add a second admin soon ('postern person add'): if all tokens of
the firm's admins are lost, nobody can make another.

The claim is read from the terminal or from standard input. The token goes into
the file that --save names, of mode 0600, which must not exist yet.`,
		Example: `  postern claim --server mail.bpo.example:8443 --name priya --save ~/.postern-token
  export POSTERN_SERVER=mail.bpo.example:8443 POSTERN_TOKEN_FILE=~/.postern-token`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			claim, err := readSecret(cmd, "the firm", "claim", false)
			if err != nil {
				return err
			}
			defer clear(claim)
			in.Claim = strings.TrimSpace(string(claim))
			file, err := newTokenFile(save)
			if err != nil {
				return err
			}
			// Whatever token is at hand has nothing to do with it.
			nobody := *a
			nobody.tokenFile, nobody.anonymous = "", true
			raw, r, err := call[httpapi.ClaimRedeemed](cmd, &nobody, http.MethodPost, path("claims", "redeem"), in)
			if err != nil {
				return file.discard(err)
			}
			if raw, err = file.save(raw, r, &r.Token.Token); err != nil {
				// It is the only one: better seen than lost.
				fmt.Fprintf(cmd.ErrOrStderr(), "the token, which is not in the file: %s\n", r.Token.Token)
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writeFields(out, "Firm", r.Firm.Name, "You", r.Person.Name+" ("+string(r.Person.Role)+")",
					"Token in", save, "Until", stamp(r.Token.APIToken.ExpiresAt))
				if len(r.Mailboxes)+len(r.Delegations) == 0 {
					return
				}
				fmt.Fprintf(out, "\nMade in the firm's name before, by the BPO: %s and %s.\n"+
					"They stand until you change them: see 'postern mailbox list' and 'postern delegation list'.\n",
					count(len(r.Mailboxes), "mailbox"), count(len(r.Delegations), "delegation"))
			})
		},
	}
	cmd.Flags().StringVar(&in.Name, "name", "", "your `name`, as records will have it")
	cmd.Flags().StringVar(&save, "save", "", "the `file` for your token")
	_ = cmd.MarkFlagRequired("name")
	_ = cmd.MarkFlagRequired("save")
	return cmd
}
