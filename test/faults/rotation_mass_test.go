// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/rotation"
	"github.com/postern-mail/postern/broker/upstream"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

const (
	// massVariable is how many mailboxes TestRotationOfMany rotates;
	// massMailboxes when it is not set.
	massVariable  = "POSTERN_ROTATION_MAILBOXES"
	massMailboxes = 12
	// massTime bounds the rotation of all of them.
	massTime = 15 * time.Minute
	// deadMailboxes have a provider that does not answer: as many of each kind as
	// may be worked on at once.
	deadMailboxes = rotation.DefaultPerProvider
	deadFirm      = "Dead Letters"
)

// mass is a server that rotates, with mailboxes in a provider's database.
type mass struct {
	*e2e.World
	t         *testing.T
	postgres  *servers.PostgreSQL
	accounts  *servers.Database
	panel     *servers.Gate
	mailboxes []string
}

// TestRotationOfMany: many mailboxes rotate, so many at once, while other
// providers are dead and an agent works. Then Vault is sealed amid a rotation.
func TestRotationOfMany(t *testing.T) {
	t.Parallel()
	n := massMailboxes
	if text := os.Getenv(massVariable); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 2 {
			t.Fatalf("%s: %q is no number of mailboxes", massVariable, text)
		}
	}
	m := newMass(t, n)
	m.addDead()
	t.Logf("%d mailboxes are there", n+2*deadMailboxes)
	seat := m.Seat(m.mailboxes[0])
	m.Postern.CLI("rotate", "--firm", deadFirm, "--detach")
	m.whileAnAgentWorks(seat)
	m.othersAreDead()
	began := time.Now()
	m.vaultSealed(seat)
	t.Logf("Vault was sealed and unsealed, and the rotation done, in %v", time.Since(began).Round(time.Second))
}

func newMass(t *testing.T, n int) *mass {
	t.Helper()
	m := &mass{t: t, postgres: servers.StartPostgreSQL(t, "fsync = off")}
	m.accounts = m.postgres.NewDatabase()
	m.World = e2e.NewWorld(t, e2e.WorldOptions{
		Dovecot: []servers.DovecotOption{servers.WithPostgreSQL(m.accounts)},
		Postern: e2e.Options{Rotates: true},
	})
	m.postgres.Exec(m.accounts.Name, "CREATE ROLE rotator LOGIN PASSWORD '"+accountSecret+"'",
		"GRANT SELECT (username), UPDATE (password) ON mailboxes TO rotator")
	m.panel = servers.NewGate(t, m.postgres.Port)
	m.provider(e2e.FirmName, "panel", m.panel.Port)
	for i := range n {
		address := fmt.Sprintf("desk%03d@client.example", i)
		m.account(address)
		m.AddMailboxOf(address, initialPassword)
		m.Postern.CLI("rotation", "set", address, "--provider", "panel")
		m.mailboxes = append(m.mailboxes, address)
	}
	return m
}

func (m *mass) provider(firm, name string, port uint16) {
	m.t.Helper()
	settings, err := json.Marshal(map[string]any{
		"host": "localhost", "port": port, "database": m.accounts.Name, "ca": string(m.postgres.CA.PEM),
		"statement": "UPDATE mailboxes SET password = :hash WHERE username = :username", "scheme": "SHA512-CRYPT",
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.Postern.CLIInput(string(settings), "provider", "add", name, "--firm", firm, "--driver", "sql", "--settings", "-")
	m.Postern.CLIInput(accountSecret+"\n", "provider", "set-account", name, "--username", "rotator")
}

func (m *mass) account(address string) {
	m.t.Helper()
	m.postgres.Exec(m.accounts.Name, "INSERT INTO mailboxes VALUES ('"+address+"', '{PLAIN}"+initialPassword+"')")
}

// addDead adds a firm with mailboxes of a provider that takes connections and
// never answers, and of one that takes none.
func (m *mass) addDead() {
	m.t.Helper()
	m.Postern.CLI("firm", "create", deadFirm, "--contact", "it@dead.example")
	silent := servers.NewGate(m.t, m.postgres.Port)
	silent.Hold(nil)
	m.provider(deadFirm, "silent", silent.Port)
	m.provider(deadFirm, "closed", servers.FreePort(m.t))
	for i := range 2 * deadMailboxes {
		address, provider := fmt.Sprintf("desk%d@dead.example", i), "silent"
		if i%2 == 1 {
			provider = "closed"
		}
		m.account(address)
		imap, submission := m.Dovecot.IMAP(broker.TLSImplicit), m.Postfix.Submission(broker.TLSImplicit)
		m.Postern.CLI("mailbox", "add", address, "--firm", deadFirm, "--ca-file", m.CA.File,
			"--imap", fmt.Sprintf("%s:%d", imap.Host, imap.Port), "--submission", fmt.Sprintf("%s:%d", submission.Host, submission.Port))
		m.Postern.CLIInput(initialPassword+"\n", "mailbox", "set-credential", address)
		m.Postern.CLI("rotation", "set", address, "--provider", provider)
	}
}

// whileAnAgentWorks rotates the firm's mailboxes as an admin does. One of the
// agent's sessions lasts, until it is ended; he opens others all the time.
func (m *mass) whileAnAgentWorks(seat *e2e.Seat) {
	t := m.t
	t.Helper()
	var out, told bytes.Buffer
	cmd := exec.Command(m.Postern.Bin, "--socket", m.Postern.Socket, "--json", "rotate", "--firm", e2e.FirmName)
	cmd.Stdout, cmd.Stderr = &out, &told
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	standing, reconnects, logins, repeated := m.workingSession(seat), 0, 0, 0
	var err error
	for over := false; !over; {
		select {
		case err = <-done:
			over = true
		default:
			if time.Since(began) > massTime {
				_ = cmd.Process.Kill()
			}
		}
		if !obeys(standing, "NOOP") {
			reconnects++
			standing = m.workingSession(seat)
		}
		c, answer := tryLogin(t, seat)
		if strings.Contains(answer, "NO [UNAVAILABLE] The mailbox's password was changed.") {
			// It was logging in with the old password when the new one came.
			c.Close()
			repeated++
			c, answer = tryLogin(t, seat)
		}
		if logins++; !strings.HasPrefix(answer, "OK ") {
			t.Errorf("a session that was opened amid the rotation: %s", answer)
		}
		c.Close()
	}
	if err != nil {
		t.Fatalf("postern rotate: %v\n%s%s", err, out.Bytes(), told.Bytes())
	}
	t.Logf("%d mailboxes in %v; the agent's session was lost %d times; of %d that he opened meanwhile, %d at the second try",
		len(m.mailboxes), time.Since(began).Round(time.Second), reconnects, logins, repeated)
	if reconnects > 1 || repeated > 1 {
		t.Errorf("the agent had to connect anew %d times, and %d times at once", reconnects, repeated)
	}
	var ended httpapi.List[*httpapi.Rotation]
	if err := json.Unmarshal(out.Bytes(), &ended); err != nil {
		t.Fatalf("%v: %s", err, out.Bytes())
	}
	if len(ended.Items) != len(m.mailboxes) {
		t.Errorf("%d rotations ended, of %d", len(ended.Items), len(m.mailboxes))
	}
	for _, r := range ended.Items {
		if r.Outcome != broker.RotationDone || rotation.Alarming(&r.Rotation) {
			t.Errorf("%s: %s, unproved %v (%s)", r.Mailbox, r.Outcome, r.Unproved, r.Words)
		}
		if !strings.Contains(told.String(), r.Mailbox+": done") {
			t.Errorf("the progress does not tell the end of %s", r.Mailbox)
		}
	}
	if most := m.panel.Most(); most > rotation.DefaultPerProvider {
		t.Errorf("the provider was asked by %d at once", most)
	}
	u, err := upstream.New(upstream.Config{RootCAs: m.CA.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range m.mailboxes {
		box := &broker.Mailbox{Address: address, IMAP: m.Dovecot.IMAP(broker.TLSImplicit), Submission: m.Postfix.Submission(broker.TLSImplicit)}
		if err := u.Probe(t.Context(), box, password(initialPassword)); broker.CodeOf(err) != broker.CredentialRefused {
			t.Errorf("%s: the old password: %v", address, err)
		}
	}
}

func (m *mass) workingSession(seat *e2e.Seat) *e2e.Conn {
	m.t.Helper()
	c := seat.IMAP(m.t)
	c.OK("SELECT INBOX")
	return c
}

// obeys reports whether a session still does what it is told.
func obeys(c *e2e.Conn, command string) bool {
	if err := c.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return false
	}
	if _, err := io.WriteString(c.Conn, "x "+command+"\r\n"); err != nil {
		return false
	}
	for {
		line, err := c.TryLine(patience)
		if err != nil || strings.HasPrefix(line, "* BYE") {
			return false
		}
		if strings.HasPrefix(line, "x ") {
			return strings.HasPrefix(line, "x OK")
		}
	}
}

// rotations are a firm's.
func (m *mass) rotations(firm string) []*httpapi.Rotation {
	m.t.Helper()
	var all httpapi.List[*httpapi.Rotation]
	if err := json.Unmarshal([]byte(m.Postern.CLI("--json", "rotation", "list", "--firm", firm)), &all); err != nil {
		m.t.Fatal(err)
	}
	return all.Items
}

// othersAreDead: the rotations at dead providers wait, and keep what they have.
func (m *mass) othersAreDead() {
	t := m.t
	t.Helper()
	all := m.rotations(deadFirm)
	if len(all) != 2*deadMailboxes {
		t.Errorf("%d rotations at dead providers", len(all))
	}
	for _, r := range all {
		if r.State == broker.RotationEnded || len(r.Pending) != 1 {
			t.Errorf("%s: %s, %s after %d passwords", r.Mailbox, r.State, r.Outcome, len(r.Pending))
		}
	}
}

// vaultSealed seals Vault while a provider sets a password: the rotation waits
// and goes on, and so do sessions.
func (m *mass) vaultSealed(seat *e2e.Seat) {
	t := m.t
	t.Helper()
	standing := m.workingSession(seat)
	hold := m.panel.Hold(nil)
	m.Postern.CLI("rotate", seat.Mailbox, "--detach")
	servers.WaitFor(t, roundTime, func() bool { return hold.Waiting() > 0 }, "the provider to be asked")
	m.Vault.Seal()
	hold.Release()
	latest := func() *httpapi.Rotation {
		for _, r := range m.rotations(e2e.FirmName) {
			if r.Mailbox == seat.Mailbox {
				return r
			}
		}
		return nil
	}
	servers.WaitFor(t, roundTime, func() bool { r := latest(); return r.State == broker.RotationAsked && r.Waiting != "" }, "the rotation to wait")
	if !obeys(standing, "UID FETCH 1:* (FLAGS)") {
		t.Error("a session ended because Vault was sealed")
	}
	_, answer := tryLogin(t, seat)
	wantPrefix(t, "without Vault", answer, "NO [UNAVAILABLE] ")
	if r := latest(); r.State != broker.RotationAsked {
		t.Errorf("the rotation went on to %s without Vault", r.State)
	}
	m.Vault.Unseal()
	servers.WaitFor(t, roundTime, func() bool { return latest().State == broker.RotationEnded }, "the rotation to go on")
	if r := latest(); r.Outcome != broker.RotationDone || rotation.Alarming(&r.Rotation) {
		t.Errorf("it ended as %s, unproved %v", r.Outcome, r.Unproved)
	}
	m.workingSession(seat).OK("LOGOUT")
}
