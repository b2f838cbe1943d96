// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"bytes"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-smtp"

	"github.com/postern-mail/postern/broker"
)

// Where Cyrus' programs are: what Debian's package cyrus-common installs, and
// the IMAP daemon, which test/install.sh unpacks beside it, since its package
// cannot be installed where Dovecot's is.
const (
	cyrusMaster = "/usr/lib/cyrus/bin/master"
	cyrusDaemon = "/usr/local/lib/postern-test/cyrus/imapd"
	cyrusIdled  = "/usr/local/lib/postern-test/cyrus/idled"
	// cyrusUser owns the mail when the test runs as root; cyrus-common makes it.
	cyrusUser = "cyrus"
)

// Cyrus is a running Cyrus with IMAP (implicit TLS, and plain with STARTTLS)
// and LMTP. Folders Sent, Drafts, Trash, Junk and Archive exist, with their
// special uses, beside INBOX, not below it, and "/" separates names.
//
// It logs to syslog alone, so there is no log to print.
type Cyrus struct {
	// CA issued its certificate.
	CA *CA
	// IMAPSPort is implicit TLS, IMAPPort plain with STARTTLS, LMTPPort for
	// local delivery.
	IMAPSPort uint16
	IMAPPort  uint16
	LMTPPort  uint16

	t         testing.TB
	dir       string
	settings  cyrusSettings
	passwords *passwordCheck
	process   *process
}

type cyrusSettings struct {
	ca    *CA
	users map[string]string
	extra string
}

// CyrusOption changes how Cyrus is set up.
type CyrusOption func(*cyrusSettings)

// WithCyrusCA sets the authority that issues the server's certificate; without
// it a new one is made.
func WithCyrusCA(ca *CA) CyrusOption { return func(s *cyrusSettings) { s.ca = ca } }

// WithCyrusUser adds a user, whose name is a mail address.
func WithCyrusUser(user, password string) CyrusOption {
	return func(s *cyrusSettings) { s.users[user] = password }
}

// WithCyrusConfig adds lines to the end of imapd.conf.
func WithCyrusConfig(lines string) CyrusOption {
	return func(s *cyrusSettings) { s.extra += lines + "\n" }
}

// StartCyrus starts Cyrus 3.6 and returns when it answers and every user's
// folders are there. Without WithCyrusUser there is one user,
// "sales@client.example" with password "secret".
func StartCyrus(t testing.TB, options ...CyrusOption) *Cyrus {
	t.Helper()
	for program, how := range map[string]string{
		cyrusMaster: "install [cyrus-common]", cyrusDaemon: "run test/install.sh, which unpacks [cyrus-imapd]",
	} {
		if _, err := os.Stat(program); err != nil {
			t.Fatalf("programs are missing: %s", how)
		}
	}
	c := &Cyrus{t: t, settings: cyrusSettings{users: make(map[string]string)}}
	for _, option := range options {
		option(&c.settings)
	}
	if len(c.settings.users) == 0 {
		c.settings.users["sales@client.example"] = "secret"
	}
	if c.CA = c.settings.ca; c.CA == nil {
		c.CA = NewCA(t)
	}
	c.dir = tempDir(t)
	c.prepareFolders()
	c.passwords = startPasswordCheck(t, filepath.Join(c.dir, "passwords"), c.settings.users)
	t.Cleanup(c.Stop)
	// Another program may have taken a port between the choice and the start.
	const attempts = 3
	for attempt := 1; ; attempt++ {
		c.IMAPSPort, c.IMAPPort, c.LMTPPort = FreePort(t), FreePort(t), FreePort(t)
		c.writeConfig()
		if c.start() {
			break
		}
		if attempt == attempts {
			t.Fatalf("cyrus does not start; what it says goes to syslog, but for:\n%s", logTail(c.logFile()))
		}
	}
	// The first login makes a user's folders.
	for user := range c.settings.users {
		fill(t, c.dial(user), "", 0, nil)
	}
	return c
}

func (c *Cyrus) logFile() string { return filepath.Join(c.dir, "cyrus.log") }

// owner returns who owns the mail: cyrusUser for root, who Cyrus does not
// serve mail as, else whoever runs the test.
func (c *Cyrus) owner() (name string, uid, gid int) {
	c.t.Helper()
	u, err := user.Current()
	if os.Getuid() == 0 {
		u, err = user.Lookup(cyrusUser)
	}
	if err != nil {
		c.t.Fatalf("no user to own the mail: %v", err)
	}
	return u.Username, number(c.t, u.Uid), number(c.t, u.Gid)
}

// prepareFolders makes what Cyrus writes to, and gives it its certificate.
func (c *Cyrus) prepareFolders() {
	c.t.Helper()
	_, uid, gid := c.owner()
	own := func(path string, err error) {
		if err == nil {
			err = os.Chown(path, uid, gid)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	for _, name := range []string{"run", "mail", "state", "state/db"} {
		path := filepath.Join(c.dir, name)
		own(path, os.Mkdir(path, 0o700))
	}
	certificate := c.CA.Issue()
	for name, from := range map[string]string{"cert.pem": certificate.CertFile, "key.pem": certificate.KeyFile} {
		b, err := os.ReadFile(from)
		if err != nil {
			c.t.Fatal(err)
		}
		path := filepath.Join(c.dir, name)
		own(path, os.WriteFile(path, b, 0o600))
	}
}

func (c *Cyrus) start() bool {
	c.t.Helper()
	var in surroundings
	if os.Getuid() == 0 {
		_, uid, gid := c.owner()
		in.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	p, err := startProcessIn(c.logFile(), in, cyrusMaster, "-D", "-C", filepath.Join(c.dir, "imapd.conf"),
		"-M", filepath.Join(c.dir, "cyrus.conf"), "-p", filepath.Join(c.dir, "run", "pid"))
	if err != nil {
		c.t.Fatalf("start cyrus: %v", err)
	}
	c.process = p
	up := waitFor(startTimeout, func() bool {
		return p.ended() || answers(c.IMAPSPort) && answers(c.IMAPPort) && answers(c.LMTPPort)
	})
	if up && !p.ended() {
		return true
	}
	if err := p.kill(); err != nil {
		c.t.Errorf("cyrus: %v", err)
	}
	c.process = nil
	return false
}

// Stop ends Cyrus in an orderly way; stopping twice does nothing.
func (c *Cyrus) Stop() { c.end((*process).stop) }

// Kill ends Cyrus and every process of its at once, without a word to clients.
func (c *Cyrus) Kill() { c.end((*process).kill) }

func (c *Cyrus) end(how func(*process) error) {
	c.t.Helper()
	if c.process == nil {
		return
	}
	if err := how(c.process); err != nil {
		c.t.Errorf("end cyrus: %v", err)
	}
	c.process = nil
	WaitFor(c.t, killTimeout, func() bool { return !answers(c.IMAPSPort) && !answers(c.IMAPPort) }, "cyrus' ports to close")
}

// Restart starts Cyrus again on the same ports and the same mail, after Stop
// or Kill, or stops it first.
func (c *Cyrus) Restart() {
	c.t.Helper()
	c.Stop()
	if !c.start() {
		c.t.Fatal("cyrus does not start again")
	}
}

// IMAP returns the endpoint for a mailbox: with TLSImplicit, TLSStartTLS or
// TLSNone, and the CA.
func (c *Cyrus) IMAP(mode broker.TLSMode) broker.Endpoint {
	e := broker.Endpoint{Host: "127.0.0.1", Port: c.IMAPPort, TLS: mode}
	if mode == broker.TLSImplicit {
		e.Port = c.IMAPSPort
	}
	if mode != broker.TLSNone {
		e.CA = string(c.CA.PEM)
	}
	return e
}

// SetPassword changes a user's password at once.
func (c *Cyrus) SetPassword(user, password string) { c.passwords.set(user, password) }

// Fill saves n messages in a user's folder, INBOX if empty, over one
// connection: message returns the i-th, counted from 0.
func (c *Cyrus) Fill(user, folder string, n int, message func(i int) []byte) {
	c.t.Helper()
	fill(c.t, c.dial(user), folder, n, message)
}

// Deliver delivers a message to a user's INBOX by LMTP, as a mail server does.
func (c *Cyrus) Deliver(user string, message []byte) {
	c.t.Helper()
	conn, err := net.Dial("tcp", address(c.LMTPPort))
	if err != nil {
		c.t.Fatal(err)
	}
	client := smtp.NewClientLMTP(conn)
	defer client.Close()
	if err := client.SendMail("postmaster@client.example", []string{user}, bytes.NewReader(message)); err != nil {
		c.t.Fatalf("deliver to %s: %v", user, err)
	}
	if err := client.Quit(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *Cyrus) dial(user string) *imapclient.Client {
	c.t.Helper()
	password, _ := c.passwords.password(user)
	client, err := dialIMAP(c.IMAPPort, user, password)
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}
