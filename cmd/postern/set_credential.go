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

// readSecret reads the secret from the terminal or from standard input, until
// the command is told to stop.
func readSecret(cmd *cobra.Command, mailbox, kind string, whole bool) ([]byte, error) {
	read := func() ([]byte, error) { return readInput(cmd.InOrStdin(), whole) }
	if f, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) && !whole {
		before, err := term.GetState(int(f.Fd()))
		if err != nil {
			return nil, fmt.Errorf("the terminal: %w", err)
		}
		// When an interrupt comes while the echo is off.
		defer func() { _ = term.Restore(int(f.Fd()), before) }()
		defer fmt.Fprintln(cmd.ErrOrStderr())
		fmt.Fprintf(cmd.ErrOrStderr(), "%s of %s: ", kind, printable(mailbox, false))
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
