// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newMailboxCommand(a *app) *cobra.Command {
	return newGroup("mailbox", "Mailboxes, and the credentials that open them",
		newMailboxAddCommand(a), newMailboxListCommand(a), newMailboxShowCommand(a),
		newMailboxUpdateCommand(a), newMailboxRemoveCommand(a), newMailboxSetCredentialCommand(a), newMailboxConsentCommand(a))
}

// mailboxFlags are those that add and update share.
type mailboxFlags struct {
	imap, imapTLS, submission, submissionTLS string
	caFile, username                         string
	aliases, recoverySenders                 []string
	maxConnections                           int
}

func (f *mailboxFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.imap, "imap", "", "the IMAP server, as `host[:port]` (993 with implicit TLS, else 143)")
	flags.StringVar(&f.imapTLS, "imap-tls", "", "implicit (the default), starttls, or none on loopback")
	flags.StringVar(&f.submission, "submission", "", "the submission server, as `host[:port]` (465 with implicit TLS, else 587)")
	flags.StringVar(&f.submissionTLS, "submission-tls", "", "implicit (the default), starttls, or none on loopback")
	flags.StringVar(&f.caFile, "ca-file", "", "certificates in PEM that both servers are verified against, in place of the system's; empty: those again")
	flags.StringVar(&f.username, "username", "", "the login name upstream, where it is not the address")
	flags.StringSliceVar(&f.aliases, "alias", nil, "a further `address` that it may send from; may be repeated")
	flags.StringSliceVar(&f.recoverySenders, "recovery-sender", nil,
		"an `address or domain` that mail for the recovery of this account comes from, which is hidden from agents; may be repeated (what is known of the provider is hidden without it)")
	flags.IntVar(&f.maxConnections, "max-connections", 0, "the budget of upstream IMAP connections (0: the server's default)")
}

// endpoint is what the flags say of one service; nil: nothing.
func (f *mailboxFlags) endpoint(cmd *cobra.Command, flag, where, tls string) (*httpapi.EndpointInput, error) {
	var in httpapi.EndpointInput
	if cmd.Flags().Changed(flag) {
		host, port, err := splitEndpoint(flag, where)
		if err != nil {
			return nil, err
		}
		in.Host = &host
		if port != 0 {
			in.Port = &port
		}
	}
	if cmd.Flags().Changed(flag + "-tls") {
		mode := broker.TLSMode(tls)
		in.TLS = &mode
	}
	if cmd.Flags().Changed("ca-file") {
		ca := []byte{}
		if f.caFile != "" {
			var err error
			if ca, err = os.ReadFile(f.caFile); err != nil {
				return nil, usagef("--ca-file: %v", err)
			}
		}
		text := string(ca)
		in.CA = &text
	}
	if in == (httpapi.EndpointInput{}) {
		return nil, nil
	}
	return &in, nil
}

// splitEndpoint reads host, host:port, [v6]:port or a bare v6 address.
func splitEndpoint(flag, text string) (host string, port uint16, err error) {
	if text == "" {
		return "", 0, usagef("--%s needs a host, such as imap.provider.example:993", flag)
	}
	if strings.Count(text, ":") != 1 && !strings.HasPrefix(text, "[") {
		return text, 0, nil
	}
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		return text[1 : len(text)-1], 0, nil
	}
	host, digits, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return "", 0, usagef("--%s %q is not host:port", flag, text)
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 {
		return "", 0, usagef("--%s %q: the port must be 1 to 65535", flag, text)
	}
	return host, uint16(n), nil
}

func newMailboxAddCommand(a *app) *cobra.Command {
	var f mailboxFlags
	var firm string
	cmd := &cobra.Command{
		Use:   "add ADDRESS [--firm FIRM] --imap HOST --submission HOST",
		Short: "Add a mailbox",
		Example: `  postern mailbox add sales@acme.example --firm "Acme Pumps" \
      --imap imap.provider.example --submission smtp.provider.example:587 --submission-tls starttls`,
		Args: exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := httpapi.MailboxInput{
				Firm: firm, Address: args[0], Aliases: f.aliases,
				Username: f.username, MaxConnections: f.maxConnections, RecoverySenders: f.recoverySenders,
			}
			imap, err := f.endpoint(cmd, "imap", f.imap, f.imapTLS)
			if err != nil {
				return err
			}
			submission, err := f.endpoint(cmd, "submission", f.submission, f.submissionTLS)
			if err != nil {
				return err
			}
			in.IMAP, in.Submission = *imap, *submission
			raw, m, err := call[httpapi.Mailbox](cmd, a, http.MethodPost, path("mailboxes"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writeMailbox(out, m)
				fmt.Fprintf(out, "Next: postern mailbox set-credential %s\n", printable(m.Address, false))
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&firm, "firm", "", "the `firm` that owns it (your own, if you are a firm's)")
	for _, flag := range []string{"imap", "submission"} {
		_ = cmd.MarkFlagRequired(flag)
	}
	return cmd
}

func writeMailbox(out io.Writer, m *httpapi.Mailbox) {
	credential := ""
	if m.Credential != nil {
		credential = m.Credential.State
		if m.Credential.Version > 0 {
			credential += fmt.Sprintf(" (version %d)", m.Credential.Version)
		}
	}
	connections := ""
	if m.MaxConnections > 0 {
		connections = strconv.Itoa(m.MaxConnections)
	}
	writeFields(out, "Mailbox", m.Address, "Firm", nameOr(m.Firm, m.FirmID), "Aliases", list(m.Aliases),
		"IMAP", endpoint(m.IMAP), "Submission", endpoint(m.Submission), "Username", m.Username,
		"Recovery mail from", list(m.AllRecoverySenders()), "Connections", connections, "Credential", credential, "Created", stamp(m.CreatedAt), "Id", string(m.ID))
}

func endpoint(e broker.Endpoint) string {
	text := net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) + " (" + string(e.TLS) + ")"
	if e.CA != "" {
		text += " with its own CA"
	}
	return text
}

func newMailboxListCommand(a *app) *cobra.Command {
	var firm string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List mailboxes",
		Example: `  postern mailbox list --firm "Acme Pumps"`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, mailboxes, err := call[httpapi.List[*httpapi.Mailbox]](cmd, a, http.MethodGet, withQuery(path("mailboxes"), "firm", firm), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, m := range mailboxes.Items {
					rows = append(rows, []string{m.Address, nameOr(m.Firm, m.FirmID), endpoint(m.IMAP), endpoint(m.Submission), string(m.ID)})
				}
				writeTable(out, []string{"ADDRESS", "FIRM", "IMAP", "SUBMISSION", "ID"}, rows,
					"There are no mailboxes. Add one with 'postern mailbox add ADDRESS'.")
			})
		},
	}
	cmd.Flags().StringVar(&firm, "firm", "", "only this `firm`'s")
	return cmd
}

func newMailboxShowCommand(a *app) *cobra.Command {
	return newShowCommand(a, showCommand[httpapi.Mailbox]{
		use: "show MAILBOX", short: "Show a mailbox, and whether its credential is stored",
		example: "  postern mailbox show sales@acme.example",
		path:    func(arg string) string { return path("mailboxes", arg) },
		write:   writeMailbox,
	})
}

func newMailboxUpdateCommand(a *app) *cobra.Command {
	var f mailboxFlags
	var removeCredential bool
	cmd := &cobra.Command{
		Use:   "update MAILBOX",
		Short: "Change a mailbox",
		Long: `Change a mailbox; what no flag names stays as it is.

While a credential is stored or rotated, its endpoints change only with
--remove-credential: the credential and the way of rotating it were entrusted to the
old ones, and must be set again for the new.`,
		Example: `  postern mailbox update sales@acme.example --alias info@acme.example --max-connections 20
  postern mailbox update sales@acme.example --imap imap2.provider.example --remove-credential`,
		Args: exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			patch, err := f.patch(cmd)
			if err != nil {
				return err
			}
			if patch == (httpapi.MailboxPatch{}) {
				return usagef("nothing to change")
			}
			patch.RemoveCredential = removeCredential
			raw, m, err := call[httpapi.Mailbox](cmd, a, http.MethodPatch, path("mailboxes", args[0]), patch)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeMailbox(out, m) })
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&removeCredential, "remove-credential", false, "agree that the stored credential and its rotation are removed when an endpoint changes")
	return cmd
}

func (f *mailboxFlags) patch(cmd *cobra.Command) (patch httpapi.MailboxPatch, err error) {
	if patch.IMAP, err = f.endpoint(cmd, "imap", f.imap, f.imapTLS); err != nil {
		return patch, err
	}
	if patch.Submission, err = f.endpoint(cmd, "submission", f.submission, f.submissionTLS); err != nil {
		return patch, err
	}
	if cmd.Flags().Changed("alias") {
		patch.Aliases = &f.aliases
	}
	if cmd.Flags().Changed("username") {
		patch.Username = &f.username
	}
	if cmd.Flags().Changed("max-connections") {
		patch.MaxConnections = &f.maxConnections
	}
	if cmd.Flags().Changed("recovery-sender") {
		patch.RecoverySenders = &f.recoverySenders
	}
	return patch, nil
}

func newMailboxRemoveCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "remove MAILBOX",
		Short:   "Remove a mailbox that is not delegated, and its credential",
		Example: "  postern mailbox remove sales@acme.example",
		Args:    exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm(cmd, "Remove the mailbox "+args[0]+" and its credential for good?"); err != nil {
				return err
			}
			raw, removed, err := call[httpapi.MailboxRemoved](cmd, a, http.MethodDelete, path("mailboxes", args[0]), nil)
			if err != nil {
				return err
			}
			if err := a.show(cmd, raw, func(out io.Writer) {
				fmt.Fprintf(out, "mailbox %s removed\n", printable(removed.Mailbox.Address, false))
			}); err != nil {
				return err
			}
			if removed.Credential.State != "none" {
				return broker.Errorf(broker.Unavailable, "the credential of mailbox %s of firm %s could not be removed from its storage: remove it there",
					removed.Mailbox.ID, removed.Mailbox.FirmID)
			}
			return nil
		},
	}
}
