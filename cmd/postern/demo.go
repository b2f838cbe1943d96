// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
)

// What the demo makes.
const (
	demoFirm        = "Acme Pumps"
	demoContact     = "it@acme.example"
	demoMailbox     = "sales@acme.example"
	demoAgent       = "asha"
	demoWorkstation = "pune-07"
	demoActions     = "list,headers,read,flag,file,send"
)

// demoFaults break one of the demo's claims, to show that it would notice.
type demoFaults struct {
	leak        bool // the password stands in a message
	grantDelete bool // what should be refused is granted
	keepSession bool // the revoke does not happen
}

// demo is a whole Postern in one process, with a mail provider of its own.
type demo struct {
	out      io.Writer
	dir      string
	imaps    string
	smtps    string
	faults   demoFaults
	password string // the mailbox's, upstream

	provider *demoProvider
	server   *server
	token    string // the agent's app password
}

func newDemoCommand() *cobra.Command {
	var once bool
	d := &demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Try Postern on this machine, with everything embedded",
		Long: `Start everything embedded: a mail provider (an IMAP server in memory and an SMTP
sink) with sample mail, Postern itself with credentials in an encrypted file,
a workstation CA, one firm, one mailbox and one agent. Print what to put into a
mail client and commands to try, and stay up until interrupted. Everything is
in a temporary folder, which is removed in the end.

With --once the demo is its own mail client: it logs in, lists, reads, flags,
appends, sends, is refused what the firm did not grant, is cut off in IDLE by a
revoke, and checks that no octet it received holds the mailbox's password. It
exits with 0, or with 1 and the step that failed.`,
		Example: `  postern demo
  postern demo --once`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.out = cmd.OutOrStdout()
			if once && !cmd.Flags().Changed("imaps") && !cmd.Flags().Changed("submissions") {
				d.imaps, d.smtps = "127.0.0.1:0", "127.0.0.1:0"
			}
			return d.run(cmd.Context(), once)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "drive it as a mail client, print each step, and exit")
	cmd.Flags().StringVar(&d.imaps, "imaps", "127.0.0.1:1993", "the `address` for IMAP over TLS")
	cmd.Flags().StringVar(&d.smtps, "submissions", "127.0.0.1:1465", "the `address` for submission over TLS")
	return cmd
}

// run starts everything, and ends everything.
func (d *demo) run(ctx context.Context, once bool) (err error) {
	if d.dir, err = os.MkdirTemp("", "postern-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	d.password = "upstream-" + rand.Text()
	if d.provider, err = startDemoProvider(filepath.Join(d.dir, "provider"), d.password, d.faults.leak); err != nil {
		return err
	}
	defer d.provider.close()
	stop, err := d.serve(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := d.furnish(ctx); err != nil {
		return err
	}
	if once {
		return d.drive(ctx)
	}
	d.explain()
	<-ctx.Done()
	fmt.Fprintln(d.out, "\nEnding the demo; nothing is left behind.")
	return nil
}

func (d *demo) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir, "postern"}, parts...)...)
}

// serve runs `postern init` and `postern serve`, in this process.
func (d *demo) serve(ctx context.Context) (stop func() error, err error) {
	o := initOptions{dir: d.path(), hostnames: []string{"localhost", "127.0.0.1"}, imaps: d.imaps, submissions: d.smtps}
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := o.make(); err != nil {
		return nil, err
	}
	config, err := loadConfig(d.path(configFile))
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(d.path("postern.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	logger, err := newLogger(config.Log, file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if d.server, err = newServer(ctx, config, logger); err != nil {
		return nil, errors.Join(fmt.Errorf("%w (other addresses: --imaps and --submissions)", err), file.Close())
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- d.server.Run(ctx) }()
	return func() error {
		cancel()
		err := <-done
		d.server.Close()
		return errors.Join(err, file.Close())
	}, nil
}

// cli runs one management command, as an administrator types it, and decodes
// its JSON into out.
func (d *demo) cli(ctx context.Context, out any, stdin string, args ...string) error {
	var stdout, stderr bytes.Buffer
	args = append([]string{"--socket", d.server.Socket(), "--json"}, args...)
	if code := run(ctx, args, strings.NewReader(stdin), &stdout, &stderr); code != exitOK {
		return fmt.Errorf("postern %s: %s", strings.Join(args[3:], " "), strings.TrimSpace(stderr.String()))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(stdout.Bytes(), out)
}

// furnish makes the firm, its mailbox, the agent and his workstation.
func (d *demo) furnish(ctx context.Context) error {
	actions := demoActions
	if d.faults.grantDelete {
		actions = "all"
	}
	var password httpapi.AppPasswordCreated
	for _, step := range []struct {
		out   any
		stdin string
		args  []string
	}{
		{args: []string{"firm", "create", demoFirm, "--contact", demoContact}},
		{args: []string{
			"mailbox", "add", demoMailbox, "--firm", demoFirm, "--imap", d.provider.imap, "--submission", d.provider.submission,
			"--ca-file", d.provider.caFile,
		}},
		{stdin: d.password + "\n", args: []string{"mailbox", "set-credential", demoMailbox}},
		{args: []string{"agent", "add", demoAgent}},
		{args: []string{"workstation", "add", demoWorkstation, "--generate-key", d.path("workstation")}},
		{args: []string{"delegation", "create", demoMailbox, "--actions", actions}},
		{args: []string{"assignment", "create", demoAgent, "--mailbox", demoMailbox}},
		{out: &password, args: []string{"app-password", "create", demoAgent, "--label", "the demo"}},
	} {
		if err := d.cli(ctx, step.out, step.stdin, step.args...); err != nil {
			return err
		}
	}
	d.token = password.Token
	return nil
}

// explain prints what a person needs to try it.
func (d *demo) explain() {
	ca := d.path(workstationCADir, "workstation-ca.pem")
	certificate, key := d.path("workstation", demoWorkstation+".crt"), d.path("workstation", demoWorkstation+".key")
	imaps, smtps := d.server.IMAPSAddr(), d.server.SubmissionsAddr()
	fmt.Fprintf(d.out, `Postern is up. %[1]s of %[2]s is shared with the agent %[3]s: he may
%[4]s, but not delete or change folders.

Put this into a mail client:

  incoming (IMAP, TLS)   %[5]s
  outgoing (SMTP, TLS)   %[6]s
  user name              %[1]s
  password               %[7]s
  trust the CA           %[8]s
  client certificate     %[9]s
  its key                %[10]s

The mailbox's own password is in an encrypted file, and the agent never sees
it. Or try these in another terminal, the second of which is refused:

  pki="--cacert %[8]s --cert %[9]s --key %[10]s -u %[1]s:%[7]s"
  curl $pki imaps://%[5]s/
  curl $pki imaps://%[5]s/INBOX -X 'STORE 1 +FLAGS (\Deleted)'
  curl $pki 'imaps://%[5]s/INBOX;MAILINDEX=1'
  printf 'From: %[1]s\r\nTo: you@customer.example\r\nSubject: hello\r\n\r\nhello\r\n' |
    curl $pki smtps://%[6]s --mail-from %[1]s --mail-rcpt you@customer.example -T -

And as the administrator:

  export POSTERN_SOCKET=%[11]s
  postern session list
  postern log events --firm "%[2]s"
  postern lock add agent %[3]s --message "call your team leader"

Interrupt (Ctrl-C) to end it.
`, demoMailbox, demoFirm, demoAgent, strings.ReplaceAll(demoActions, ",", ", "), imaps, smtps, d.token, ca, certificate, key, d.server.Socket())
}
