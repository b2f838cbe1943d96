// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/postern-mail/postern/broker"
)

// Dovecot is a running Dovecot with IMAP (implicit TLS, and plain with
// STARTTLS) and LMTP. Folders Sent, Drafts, Trash, Junk and Archive exist,
// with their special uses.
type Dovecot struct {
	// CA issued its certificate.
	CA *CA
	// IMAPSPort is implicit TLS, IMAPPort plain with STARTTLS, LMTPPort for
	// local delivery.
	IMAPSPort uint16
	IMAPPort  uint16
	LMTPPort  uint16
	// AuthSocket is the Unix socket where Postfix authenticates users.
	AuthSocket string
	// LogFile is Dovecot's log.
	LogFile string

	t        testing.TB
	dir      string
	settings dovecotSettings
	process  *process
	// changes counts rewrites of the password file: Dovecot tells versions
	// apart by whole seconds of the file's time.
	changes int
}

type dovecotSettings struct {
	ca            *CA
	certificate   *Certificate
	users         map[string]string
	mechanisms    string
	introspection string
	connections   int
	mailFormat    string
	quota         string
	postgresql    *Database
	slapd         *Slapd
	extra         string
}

// DovecotOption changes how Dovecot is set up.
type DovecotOption func(*dovecotSettings)

// WithCA sets the authority that issues the server's certificate; without it
// a new one is made.
func WithCA(ca *CA) DovecotOption { return func(s *dovecotSettings) { s.ca = ca } }

// WithCertificate sets the server's certificate: an expired one, or one with
// a wrong name.
func WithCertificate(c *Certificate) DovecotOption {
	return func(s *dovecotSettings) { s.certificate = c }
}

// WithUser adds a user, whose name is a mail address.
func WithUser(user, password string) DovecotOption {
	return func(s *dovecotSettings) { s.users[user] = password }
}

// WithMechanisms sets the SASL mechanisms offered; "plain login" if not given.
func WithMechanisms(names ...string) DovecotOption {
	return func(s *dovecotSettings) { s.mechanisms = strings.Join(names, " ") }
}

// WithOAuth2 accepts access tokens by XOAUTH2 and OAUTHBEARER. Dovecot asks
// introspectionURL, with the token appended, which answers as
// Introspection does.
func WithOAuth2(introspectionURL string) DovecotOption {
	return func(s *dovecotSettings) { s.introspection = introspectionURL }
}

// WithConnections sets how many connections a user may have from one address;
// 1000 if not given.
func WithConnections(n int) DovecotOption { return func(s *dovecotSettings) { s.connections = n } }

// WithMailFormat sets the storage format: "maildir" (if not given) or "mdbox".
func WithMailFormat(format string) DovecotOption {
	return func(s *dovecotSettings) { s.mailFormat = format }
}

// WithQuota sets every user's storage quota, such as "10M"; "1G" if not given.
func WithQuota(storage string) DovecotOption { return func(s *dovecotSettings) { s.quota = storage } }

// WithDovecotConfig adds lines to the end of the configuration.
func WithDovecotConfig(lines string) DovecotOption {
	return func(s *dovecotSettings) { s.extra += lines + "\n" }
}

// StartDovecot starts Dovecot 2.3 and returns when it answers. Without
// WithUser there is one user, "sales@client.example" with password "secret".
func StartDovecot(t testing.TB, options ...DovecotOption) *Dovecot {
	t.Helper()
	NeedPrograms(t, map[string]string{"dovecot": "dovecot-imapd", "doveadm": "dovecot-imapd"})
	if _, err := os.Stat("/usr/lib/dovecot/imap"); err != nil {
		t.Fatal("programs are missing: install [dovecot-imapd]")
	}
	if _, err := os.Stat("/usr/lib/dovecot/lmtp"); err != nil {
		t.Fatal("programs are missing: install [dovecot-lmtpd]")
	}
	d := &Dovecot{t: t, settings: dovecotSettings{
		users: make(map[string]string), mechanisms: "plain login", connections: 1000,
		mailFormat: "maildir", quota: "1G",
	}}
	for _, option := range options {
		option(&d.settings)
	}
	if len(d.settings.users) == 0 {
		d.settings.users["sales@client.example"] = "secret"
	}
	if d.CA = d.settings.ca; d.CA == nil {
		d.CA = NewCA(t)
	}
	if d.settings.certificate == nil {
		d.settings.certificate = d.CA.Issue()
	}
	d.dir = tempDir(t)
	d.AuthSocket = filepath.Join(d.dir, "auth-client")
	d.LogFile = filepath.Join(d.dir, "dovecot.log")
	d.prepareFolders()
	d.writeUsers()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("dovecot's log:\n%s", logTail(d.LogFile))
		}
	})
	t.Cleanup(d.Stop)
	// Another program may have taken a port between the choice and the start.
	const attempts = 3
	for attempt := 1; ; attempt++ {
		d.IMAPSPort, d.IMAPPort, d.LMTPPort = FreePort(t), FreePort(t), FreePort(t)
		writeFile(t, d.configFile(), d.config(), 0o644)
		if d.start() {
			return d
		}
		if attempt == attempts || !strings.Contains(logTail(d.LogFile), "Address already in use") {
			t.Fatalf("dovecot does not start:\n%s", logTail(d.LogFile))
		}
	}
}

func (d *Dovecot) configFile() string { return filepath.Join(d.dir, "dovecot.conf") }

func (d *Dovecot) start() bool {
	d.t.Helper()
	program, err := findProgram("dovecot")
	if err != nil {
		d.t.Fatal(err)
	}
	p, err := startProcess(d.LogFile, program, "-F", "-c", d.configFile())
	if err != nil {
		d.t.Fatalf("start dovecot: %v", err)
	}
	d.process = p
	up := waitFor(startTimeout, func() bool {
		return p.ended() || answers(d.IMAPSPort) && answers(d.IMAPPort) && answers(d.LMTPPort)
	})
	if up && !p.ended() {
		return true
	}
	if err := p.kill(); err != nil {
		d.t.Errorf("dovecot: %v", err)
	}
	return false
}

// Stop ends Dovecot in an orderly way; stopping twice does nothing.
func (d *Dovecot) Stop() { d.end((*process).stop) }

// Kill ends Dovecot and every process of its at once, without a word to
// clients.
func (d *Dovecot) Kill() { d.end((*process).kill) }

func (d *Dovecot) end(how func(*process) error) {
	d.t.Helper()
	if d.process == nil {
		return
	}
	if err := how(d.process); err != nil {
		d.t.Errorf("end dovecot: %v", err)
	}
	d.process = nil
	WaitFor(d.t, killTimeout, func() bool { return !answers(d.IMAPSPort) && !answers(d.IMAPPort) }, "dovecot's ports to close")
}

// Restart starts Dovecot again on the same ports and the same mail, after
// Stop or Kill, or stops it first.
func (d *Dovecot) Restart() {
	d.t.Helper()
	d.Stop()
	if !d.start() {
		d.t.Fatalf("dovecot does not start again:\n%s", logTail(d.LogFile))
	}
}

// IMAP returns the endpoint for a mailbox: with TLSImplicit, TLSStartTLS or
// TLSNone, and the CA.
func (d *Dovecot) IMAP(mode broker.TLSMode) broker.Endpoint {
	e := broker.Endpoint{Host: "127.0.0.1", Port: d.IMAPPort, TLS: mode}
	if mode == broker.TLSImplicit {
		e.Port = d.IMAPSPort
	}
	if mode != broker.TLSNone {
		e.CA = string(d.CA.PEM)
	}
	return e
}

// Users returns the users' names, sorted.
func (d *Dovecot) Users() []string { return slices.Sorted(maps.Keys(d.settings.users)) }

// Password returns a user's password.
func (d *Dovecot) Password(user string) string { return d.settings.users[user] }

// SetPassword changes a user's password, or adds a user. While Dovecot runs
// it returns once Dovecot knows, which it finds out by a login: that takes the
// mechanism PLAIN.
func (d *Dovecot) SetPassword(user, password string) {
	d.t.Helper()
	d.settings.users[user] = password
	d.writeUsers()
	if d.process == nil {
		return
	}
	// It looks at the file once a second at most.
	WaitFor(d.t, 10*time.Second, func() bool {
		client, err := d.dial(user)
		if err != nil {
			return false
		}
		client.Close()
		return true
	}, "dovecot to notice the new password of "+user)
}

// dial logs in with the LOGIN command.
func (d *Dovecot) dial(user string) (*imapclient.Client, error) {
	return dialIMAP(d.IMAPPort, user, d.settings.users[user])
}

func (d *Dovecot) writeUsers() {
	d.t.Helper()
	var b strings.Builder
	for _, user := range d.Users() {
		password := base64.StdEncoding.EncodeToString([]byte(d.settings.users[user]))
		fmt.Fprintf(&b, "%s:{PLAIN.b64}%s::::::\n", user, password)
	}
	path := filepath.Join(d.dir, "users")
	writeFile(d.t, path+".new", b.String(), 0o644)
	d.changes++
	stamp := time.Now().Add(time.Duration(d.changes) * time.Second)
	if err := os.Chtimes(path+".new", stamp, stamp); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		d.t.Fatal(err)
	}
}

func (d *Dovecot) command(args ...string) *exec.Cmd {
	program, err := findProgram("doveadm")
	if err != nil {
		d.t.Fatal(err)
	}
	return exec.Command(program, append([]string{"-c", d.configFile()}, args...)...)
}

// Doveadm runs doveadm and returns its standard output.
func (d *Dovecot) Doveadm(args ...string) string {
	d.t.Helper()
	return d.doveadm(nil, args...)
}

func (d *Dovecot) doveadm(stdin []byte, args ...string) string {
	d.t.Helper()
	var out, problems bytes.Buffer
	cmd := d.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &problems
	if err := cmd.Run(); err != nil {
		d.t.Fatalf("doveadm %s: %v\n%s", strings.Join(args, " "), err, problems.String())
	}
	return out.String()
}

// Deliver saves a message in a user's folder, INBOX if empty.
func (d *Dovecot) Deliver(user, folder string, message []byte) {
	d.t.Helper()
	if folder == "" {
		folder = "INBOX"
	}
	d.doveadm(message, "save", "-u", user, "-m", folder)
}

// Fill saves n messages in a user's folder over one connection, much faster
// than Deliver: message returns the i-th, counted from 0.
func (d *Dovecot) Fill(user, folder string, n int, message func(i int) []byte) {
	d.t.Helper()
	client, err := d.dial(user)
	if err != nil {
		d.t.Fatal(err)
	}
	fill(d.t, client, folder, n, message)
}

// Messages returns the UIDs of a user's messages in a folder that match a
// doveadm search query, such as "ALL" or "HEADER Message-ID <x@y>".
func (d *Dovecot) Messages(user, folder, query string) []string {
	d.t.Helper()
	args := append([]string{"search", "-u", user, "mailbox", folder}, strings.Fields(query)...)
	var uids []string
	for line := range strings.Lines(d.Doveadm(args...)) {
		if fields := strings.Fields(line); len(fields) == 2 {
			uids = append(uids, fields[1])
		}
	}
	return uids
}

// Message returns the octets of one message, with CRLF line ends.
func (d *Dovecot) Message(user, folder, uid string) []byte {
	d.t.Helper()
	text := d.Doveadm("-f", "flow", "fetch", "-u", user, "text", "mailbox", folder, "uid", uid)
	text = strings.TrimSuffix(strings.TrimPrefix(text, "text="), "\n")
	return []byte(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n"))
}
