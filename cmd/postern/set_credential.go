// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newMailboxSetCredentialCommand(a *app) *cobra.Command {
	var kind, username string
	var whole bool
	cmd := &cobra.Command{
		Use:   "set-credential MAILBOX",
		Short: "Check a mailbox's credential by logging in with it, then store it",
		Long: `Store what opens a mailbox upstream. The secret is read from the terminal without
echo, or from standard input when that is no terminal: one line, whose end is cut
off. It is never an argument, where other users of the machine could see it.

The server logs in to IMAP and to submission with it, and stores it only when
both succeed. Nothing reads it back.`,
		Example: `  postern mailbox set-credential sales@acme.example
  pass show acme/sales | postern mailbox set-credential sales@acme.example --username acme-sales`,
		Args: exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			secret, err := readSecret(cmd, args[0], kind, whole)
			if err != nil {
				return err
			}
			defer clear(secret)
			// JSON cannot carry other octets, and no mail protocol defines them.
			if !utf8.Valid(secret) {
				return usagef("the secret is not UTF-8")
			}
			raw, set, err := call[httpapi.CredentialSet](cmd, a, http.MethodPut, path("mailboxes", args[0], "credential"),
				httpapi.CredentialInput{Kind: broker.CredentialKind(kind), Username: username, Secret: string(secret)})
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				fmt.Fprintf(out, "credential of %s checked and stored (version %d)\n", printable(set.Mailbox, false), set.Version)
			})
		},
	}
	cmd.Flags().StringVar(&kind, "kind", string(broker.KindPassword), "password, or access-token")
	cmd.Flags().StringVar(&username, "username", "", "the login name that goes with it, where it is not the mailbox's")
	cmd.Flags().BoolVar(&whole, "stdin-raw", false, "take all of standard input as it is, line ends among it")
	return cmd
}

// readSecret reads the secret from the terminal or from standard input.
func readSecret(cmd *cobra.Command, mailbox, kind string, whole bool) ([]byte, error) {
	in := cmd.InOrStdin()
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) && !whole {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s of %s: ", kind, printable(mailbox, false))
		secret, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return nil, fmt.Errorf("reading from the terminal: %w", err)
		}
		return notEmpty(secret)
	}
	text, err := io.ReadAll(io.LimitReader(in, broker.MaxSecret+2+1))
	if err != nil {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	if len(text) > broker.MaxSecret+2 {
		clear(text)
		return nil, usagef("the secret is longer than %d octets", broker.MaxSecret)
	}
	if whole {
		return notEmpty(text)
	}
	line := bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	if bytes.ContainsAny(line, "\r\n") {
		clear(text)
		return nil, usagef("standard input holds more than one line; if the secret does, use --stdin-raw")
	}
	return notEmpty(line)
}

func notEmpty(secret []byte) ([]byte, error) {
	if len(secret) == 0 {
		return nil, usagef("the secret is empty")
	}
	return secret, nil
}
