// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
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
	var client clientFlags
	cmd := &cobra.Command{
		Use:   "set-credential MAILBOX",
		Short: "Check a mailbox's credential by logging in with it, then store it",
		Long: `Store what opens a mailbox upstream. The secret is read from the terminal without
echo, or from standard input when that is no terminal: one line, whose end is cut
off. It is never an argument, where other users of the machine could see it.

For the kinds that mint access tokens the flags say whom to ask for them, and the
secret is what proves the application: its client secret (oauth2-client), unless
--client-secret-file, or --certificate and --private-key, name files that do; the refresh token
(oauth2-refresh; 'postern mailbox consent' gets one); the account's key file as
Google gave it, whole (google-service-account).

The server logs in to IMAP and to submission with it, and stores it only when
both succeed. Nothing reads it back.`,
		Example: `  postern mailbox set-credential sales@acme.example
  pass show acme/sales | postern mailbox set-credential sales@acme.example --username acme-sales
  postern mailbox set-credential sales@acme.example --kind oauth2-client --tenant acme.example --client-id 5d0f2f3e-… \
      --certificate app.pem --private-key app.key
  postern mailbox set-credential sales@acme.example --kind google-service-account <key.json`,
		Args: exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := httpapi.CredentialInput{Kind: broker.CredentialKind(kind), Username: username}
			if err := client.unused(cmd, in.Kind); err != nil {
				return err
			}
			if !client.complete(in.Kind) {
				secret, err := readSecret(cmd, args[0], secretName(in.Kind), whole || in.Kind == broker.KindGoogleServiceAccount)
				if err != nil {
					return err
				}
				defer clear(secret)
				// JSON cannot carry other octets, and no mail protocol defines them.
				if !utf8.Valid(secret) {
					return usagef("the secret is not UTF-8")
				}
				in.Secret = string(secret)
			}
			if in.Kind.MintsTokens() {
				var err error
				if in.Document, err = client.document(in.Kind, in.Secret); err != nil {
					return err
				}
				in.Secret = ""
			}
			return a.setCredential(cmd, args[0], in)
		},
	}
	client.register(cmd)
	cmd.Flags().StringVar(&kind, "kind", string(broker.KindPassword), "password, access-token, oauth2-client, oauth2-refresh, or google-service-account")
	cmd.Flags().StringVar(&username, "username", "", "the login name that goes with it, where it is not the mailbox's")
	cmd.Flags().BoolVar(&whole, "stdin-raw", false, "take all of standard input as it is, line ends among it")
	return cmd
}

// setCredential sends a credential to be checked and stored.
func (a *app) setCredential(cmd *cobra.Command, mailbox string, in httpapi.CredentialInput) error {
	raw, set, err := call[httpapi.CredentialSet](cmd, a, http.MethodPut, path("mailboxes", mailbox, "credential"), in)
	if err != nil {
		return err
	}
	return a.show(cmd, raw, func(out io.Writer) {
		fmt.Fprintf(out, "credential of %s checked and stored (version %d)\n", printable(set.Mailbox, false), set.Version)
	})
}

// readSecret reads the secret from the terminal or from standard input, until
// the command is told to stop.
func readSecret(cmd *cobra.Command, mailbox, name string, whole bool) ([]byte, error) {
	read := func() ([]byte, error) { return readInput(cmd.InOrStdin(), whole) }
	if f, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) && !whole {
		before, err := term.GetState(int(f.Fd()))
		if err != nil {
			return nil, fmt.Errorf("the terminal: %w", err)
		}
		// When an interrupt comes while the echo is off.
		defer func() { _ = term.Restore(int(f.Fd()), before) }()
		defer fmt.Fprintln(cmd.ErrOrStderr())
		fmt.Fprintf(cmd.ErrOrStderr(), "%s of %s: ", name, printable(mailbox, false))
		read = func() ([]byte, error) { return term.ReadPassword(int(f.Fd())) }
	}
	type result struct {
		secret []byte
		err    error
	}
	done := make(chan result, 1)
	// Nothing interrupts a read of a terminal: when the command gives up, the
	// process ends, and with it this goroutine.
	go func() {
		secret, err := read()
		done <- result{secret, err}
	}()
	select {
	case r := <-done:
		if r.err == nil && len(r.secret) == 0 {
			r.err = usagef("the secret is empty")
		}
		return r.secret, r.err
	case <-cmd.Context().Done():
		return nil, errors.New("interrupted; nothing was changed")
	}
}

// readInput reads one line, without its end, or (whole) everything.
func readInput(in io.Reader, whole bool) ([]byte, error) {
	const limit = broker.MaxSecret + len("\r\n")
	text, err := io.ReadAll(io.LimitReader(in, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	if len(text) > limit {
		clear(text)
		return nil, usagef("the secret is longer than %d octets", broker.MaxSecret)
	}
	if whole {
		return text, nil
	}
	line := bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	if bytes.ContainsAny(line, "\r\n") {
		clear(text)
		return nil, usagef("standard input holds more than one line; if the secret does, use --stdin-raw")
	}
	return line, nil
}
