// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/policy"
)

func newImportAgentsCommand(a *app) *cobra.Command {
	passwords := &onceFile{columns: []string{"agent", "app_password"}, again: "revoke those that it lacks ('postern app-password list'), and import again"}
	var notAfter string
	var expires *time.Time
	cmd, _ := newImportKindCommand(a, &importKind[httpapi.AgentRow]{
		plural: "agents", short: "Add agents from a file, and make their app passwords",
		long: `Add agents from a file. Where the column app_password says yes, an agent who has
no good app password gets one: into the file that --save names, of mode 0600, and
shown nowhere else.`,
		example: `  postern import agents agents.csv --dry-run
  postern import agents agents.csv --save ./app-passwords.csv
  printf 'name,full_name\nasha,Asha Rao\n' | postern import agents -`,
		columns: []importColumn{
			{name: "name", doc: "short, unique and stable: what agent/mailbox logs in with", required: true},
			{name: "full_name", doc: "the agent's full name"},
			{name: "authentication", doc: "app-password (without it), or ldap: the password of the company's directory"},
			{name: "directory_account", doc: "with ldap: what the directory calls the agent (without: the name)"},
			{name: "app_password", doc: "yes: makes one"},
			{name: "groups", doc: "a list of workstation groups that it is good on (without: all workstations)"},
		},
		row: func(c *cells) httpapi.AgentRow {
			row := httpapi.AgentRow{AgentInput: httpapi.AgentInput{
				Name: c.values["name"], FullName: c.values["full_name"],
				Authentication:   broker.Authentication(c.oneOf("authentication", string(broker.AuthAppPassword), string(broker.AuthLDAP))),
				DirectoryAccount: c.values["directory_account"],
			}}
			if c.oneOf("app_password", "yes", "no") == "yes" {
				row.AppPassword = &httpapi.AppPasswordRow{Groups: c.list("groups"), ExpiresAt: expires}
			} else if c.values["groups"] != "" {
				c.wrong("groups", "they are an app password's, and the row asks for none")
			}
			return row
		},
		body: func(dryRun bool, rows []httpapi.AgentRow) any {
			return httpapi.AgentsImport{DryRun: dryRun, Rows: rows}
		},
		prepare: func(rows []httpapi.AgentRow) error {
			return passwords.open(slices.ContainsFunc(rows, func(r httpapi.AgentRow) bool { return r.AppPassword != nil }))
		},
		save: passwords.keep,
		next: "Next: 'postern import assignments'",
	})
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if expires, err = parseTime("not-after", notAfter, true); err != nil {
			return err
		}
		return passwords.close(run(cmd, args))
	}
	cmd.Flags().StringVar(&passwords.path, "save", "", "write the app passwords into this `file`, of mode 0600, which must not be there")
	cmd.Flags().StringVar(&notAfter, "not-after", "", "when the app passwords end: a `date`, whose whole day it holds, or a time in RFC 3339")
	return cmd
}

func newImportWorkstationsCommand(a *app) *cobra.Command {
	codes := &onceFile{columns: []string{"workstation", "code", "until"}, again: "make those that it lacks anew with --new-codes"}
	var notAfter string
	in := httpapi.WorkstationsImport{}
	cmd, _ := newImportKindCommand(a, &importKind[httpapi.WorkstationRow]{
		plural: "workstations", short: "Add workstations from a file",
		long: `Add workstations from a file: those with key pins, or a name in certificates of a
company's own CA, at once; for the others one-time codes are made, with which somebody runs 'postern workstation enrol' on the machine.
The codes go into the file that --save names, of mode 0600, and are shown nowhere
else. A workstation that has a good code already keeps it, and gets no other unless
--new-codes says so.`,
		example: `  postern import workstations pune.csv --save ./pune-codes.csv
  postern import workstations pune.csv --save ./pune-codes-2.csv --new-codes`,
		columns: []importColumn{
			{name: "name", doc: "unique", required: true},
			{name: "class", doc: "hardware (its key is in a TPM) or software (in a file)", required: true},
			{name: "tpm", doc: "with class hardware: its TPM's fingerprint ('postern workstation tpm' prints it)"},
			{name: "site", doc: "binds it to a site's networks"},
			{name: "groups", doc: "a list of what app passwords can be limited to"},
			{name: "agent", doc: "whose machine it is: he may sign in by its certificate alone"},
			{name: "key_pins", doc: "a list of its keys' SHA-256 hashes, in hex"},
			{name: "certificate_name", doc: "its name in certificates of a company's own CA"},
			{name: "authority", doc: "which CA that is (without: the only one)"},
		},
		row: func(c *cells) httpapi.WorkstationRow {
			row := httpapi.WorkstationRow{
				Name: c.values["name"], TPM: c.values["tpm"], Site: c.values["site"], Groups: c.list("groups"), KeyPins: c.list("key_pins"), Agent: c.values["agent"],
				Class: broker.WorkstationClass(c.oneOf("class", string(broker.ClassHardware), string(broker.ClassSoftware))),
			}
			if name := c.values["certificate_name"]; name != "" {
				row.CertificateName = &httpapi.CertificateNameInput{Authority: c.values["authority"], Name: name}
			} else if c.values["authority"] != "" {
				c.wrong("authority", "the row has no certificate_name")
			}
			return row
		},
		body: func(dryRun bool, rows []httpapi.WorkstationRow) any {
			in.DryRun, in.Rows = dryRun, rows
			return in
		},
		prepare: func(rows []httpapi.WorkstationRow) error {
			return codes.open(slices.ContainsFunc(rows, func(r httpapi.WorkstationRow) bool { return len(r.KeyPins) == 0 && r.CertificateName == nil }))
		},
		save: codes.keep,
		next: "Next, on each machine that has a code: postern workstation enrol --server HOST:PORT",
	})
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if in.ExpiresAt, err = parseTime("not-after", notAfter, true); err != nil {
			return err
		}
		return codes.close(run(cmd, args))
	}
	cmd.Flags().StringVar(&codes.path, "save", "", "write the codes into this `file`, of mode 0600, which must not be there")
	cmd.Flags().StringVar(&notAfter, "not-after", "", "until when the codes are good: a `time`, at most thirty days from now (without it, a day)")
	cmd.Flags().BoolVar(&in.ReplaceCodes, "new-codes", false, "make new codes in place of those that nobody has redeemed")
	return cmd
}

func newImportMailboxesCommand(a *app) *cobra.Command {
	const mode = "implicit (without it), starttls, or none on loopback"
	cmd, _ := newImportKindCommand(a, &importKind[httpapi.MailboxInput]{
		plural: "mailboxes", short: "Add a firm's mailboxes from a file",
		long: `Add mailboxes from a file. A firm that was claimed imports its own. The file holds
no passwords: 'postern mailbox set-credential' checks and stores each.`,
		example: `  postern import mailboxes acme.csv --dry-run`,
		columns: []importColumn{
			{name: "firm", doc: "the firm that owns it (your own, if you are a firm's)"},
			{name: "address", doc: "the main address", required: true},
			{name: "aliases", doc: "a list of further addresses that it may send from"},
			{name: "imap", doc: "the IMAP server, as host or host:port", required: true},
			{name: "imap_tls", doc: mode},
			{name: "submission", doc: "the submission server, as host or host:port", required: true},
			{name: "submission_tls", doc: mode},
			{name: "username", doc: "the login name upstream, where it is not the address"},
			{name: "recovery_senders", doc: "a list of whom mail for the account's recovery comes from: it is hidden from agents"},
			{name: "max_connections", doc: "the budget of upstream IMAP connections"},
		},
		row: func(c *cells) httpapi.MailboxInput {
			return httpapi.MailboxInput{
				Firm: c.values["firm"], Address: c.values["address"], Aliases: c.list("aliases"), RecoverySenders: c.list("recovery_senders"),
				IMAP: c.endpoint("imap"), Submission: c.endpoint("submission"),
				Username: c.values["username"], MaxConnections: c.number("max_connections", 1000),
			}
		},
		body: func(dryRun bool, rows []httpapi.MailboxInput) any {
			return httpapi.MailboxesImport{DryRun: dryRun, Rows: rows}
		},
		next: "Next: 'postern mailbox set-credential' for each",
	})
	return cmd
}

func newImportAssignmentsCommand(a *app) *cobra.Command {
	cmd, _ := newImportKindCommand(a, &importKind[httpapi.AssignmentInput]{
		plural: "assignments", short: "Put agents on delegations from a file",
		long: `Put agents on delegations from a file. Terms that no cell names are as the
delegation has them now; none can be wider. Further terms can be narrowed with
'postern assignment update'.`,
		example: `  postern import assignments night-shift.csv`,
		columns: []importColumn{
			{name: "agent", doc: "by name", required: true},
			{name: "mailbox", doc: "the mailbox, when it has one delegation"},
			{name: "delegation", doc: "in its place: the delegation's id"},
			{name: "actions", doc: "a list of " + list(policy.All.Names())},
			{name: "folders", doc: "a list of patterns of folders that are visible"},
			{name: "hide_folders", doc: "a list of patterns of folders that are not"},
			{name: "slice", doc: "which messages are visible: an IMAP search program"},
			{name: "recovery_mail", doc: "mail for account recovery: hidden, shown or default"},
			{name: "sites", doc: "a list of sites that may be used"},
			{name: "hardware_key", doc: "yes: demands a workstation of class hardware"},
			{name: "needs_password", doc: "yes: a certificate alone does not do"},
			{name: "not_before", doc: "when it begins: a date, or a time in RFC 3339"},
			{name: "not_after", doc: "when it ends: a date, whose whole day it holds, or a time in RFC 3339"},
		},
		row: func(c *cells) httpapi.AssignmentInput {
			if (c.values["mailbox"] == "") == (c.values["delegation"] == "") {
				c.wrong("mailbox", "give one of mailbox and delegation")
			}
			return httpapi.AssignmentInput{
				Agent: c.values["agent"], Mailbox: c.values["mailbox"], Delegation: c.values["delegation"], Terms: c.terms(),
			}
		},
		body: func(dryRun bool, rows []httpapi.AssignmentInput) any {
			return httpapi.AssignmentsImport{DryRun: dryRun, Rows: rows}
		},
	})
	return cmd
}

func (c *cells) terms() (t httpapi.TermsInput) {
	if names := c.list("actions"); len(names) > 0 {
		if _, err := policy.ParseActions(names); err != nil {
			c.wrong("actions", "%v", err)
		}
		for _, name := range names {
			t.Actions = append(t.Actions, httpapi.Action(name))
		}
	}
	if visible, hidden := c.list("folders"), c.list("hide_folders"); len(visible)+len(hidden) > 0 {
		t.Folders = &httpapi.PatternsInput{Allow: visible, Deny: hidden}
	}
	t.Slice, t.Sites = c.values["slice"], c.list("sites")
	t.Recovery = httpapi.RecoveryMail(c.oneOf("recovery_mail", "hidden", "shown", "default"))
	t.HardwareKey = c.oneOf("hardware_key", "yes", "no") == "yes"
	t.NeedsPassword = c.oneOf("needs_password", "yes", "no") == "yes"
	var err error
	if t.NotBefore, err = parseTime("not_before", c.values["not_before"], false); err != nil {
		c.wrong("not_before", "%s", strings.TrimPrefix(err.Error(), "--not_before "))
	}
	if t.NotAfter, err = parseTime("not_after", c.values["not_after"], true); err != nil {
		c.wrong("not_after", "%s", strings.TrimPrefix(err.Error(), "--not_after "))
	}
	return t
}

// endpoint reads a service from two cells.
func (c *cells) endpoint(column string) (in httpapi.EndpointInput) {
	if text := c.values[column]; text != "" {
		host, port, err := splitEndpoint(column, text)
		if err != nil {
			c.wrong(column, "%s", strings.TrimPrefix(err.Error(), "--"+column+" "))
		}
		in.Host = &host
		if port != 0 {
			in.Port = &port
		}
	}
	if mode := broker.TLSMode(c.oneOf(column+"_tls", string(broker.TLSImplicit), string(broker.TLSStartTLS), string(broker.TLSNone))); mode != "" {
		in.TLS = &mode
	}
	return in
}

// number reads a cell from 0 to most; an empty one is 0.
func (c *cells) number(column string, most int) int {
	if c.values[column] == "" {
		return 0
	}
	n, err := strconv.Atoi(c.values[column])
	if err == nil && (n < 0 || n > most) {
		err = errors.New("out of range")
	}
	if err != nil {
		c.wrong(column, "%q: use 0 to %d", c.values[column], most)
	}
	return n
}
