// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/servers"
)

// FirmName is the firm that NewWorld makes; FirmContact whom its refused
// agents are told to ask.
const (
	FirmName    = "Acme Pumps"
	FirmContact = "it@acme.example"
)

// WorldOptions say what is around Postern.
type WorldOptions struct {
	// Mailboxes are the addresses of the mailboxes at the provider.
	Mailboxes []string
	// Aliases are further addresses of a mailbox, by its address.
	Aliases map[string][]string
	// Sealed keeps the credentials in the sealed file, without Vault.
	Sealed bool
	// Postern's own; Vault is filled in.
	Postern Options
	Dovecot []servers.DovecotOption
	Postfix []servers.PostfixOption
	// IMAP and Submission, when set, say where Postern finds the provider, in
	// place of the servers themselves: a servers.Tap before them.
	IMAP, Submission func(*World) broker.Endpoint
}

// World is Postern with a mail provider, a Vault and a firm, as one test sees
// it.
type World struct {
	*surroundings
	Postern *Postern
	Dovecot *servers.Dovecot
	t       testing.TB
}

// For returns the same world for another test, a subtest of the one that made
// it: what fails then fails there.
func (w *World) For(t testing.TB) *World {
	return &World{w.surroundings, w.Postern.For(t), w.Dovecot.For(t), t}
}

// At returns the same world with another node of Postern.
func (w *World) At(p *Postern) *World { return &World{w.surroundings, p, w.Dovecot, w.t} }

// surroundings are what all views of a World share.
type surroundings struct {
	CA      *servers.CA
	Postfix *servers.Postfix
	// Vault is nil with WorldOptions.Sealed.
	Vault *servers.Vault

	options   WorldOptions
	passwords map[string]string

	mu    sync.Mutex
	added map[string]bool
	seats int
}

// NewWorld starts the provider, Vault and Postern, and creates the firm. Each
// mailbox has a random password at the provider; it is added to Postern by
// AddMailbox, or by the first Seat.
func NewWorld(t testing.TB, options WorldOptions) *World {
	t.Helper()
	w := &World{t: t, surroundings: &surroundings{
		options: options, passwords: make(map[string]string), added: make(map[string]bool),
	}}
	servers.BuildPostern(t) // first: nothing else is worth starting without it
	w.CA = servers.NewCA(t)
	dovecot := append([]servers.DovecotOption{servers.WithCA(w.CA)}, options.Dovecot...)
	logins := make(map[string]string)
	for _, address := range options.Mailboxes {
		w.passwords[address] = markedPassword(t)
		dovecot = append(dovecot, servers.WithUser(address, w.passwords[address]))
		for _, own := range append([]string{address}, options.Aliases[address]...) {
			logins[own] = address
		}
	}
	w.Dovecot = servers.StartDovecot(t, dovecot...)
	w.Postfix = servers.StartPostfix(t, w.CA, w.Dovecot,
		append([]servers.PostfixOption{servers.WithSenderLogins(logins)}, options.Postfix...)...)
	if !options.Sealed {
		w.Vault = servers.StartVault(t)
		options.Postern.Vault = w.Vault
	}
	w.Postern = StartPostern(t, options.Postern)
	w.Postern.CLI("firm", "create", FirmName, "--contact", FirmContact)
	return w
}

// markedPassword is found wherever it leaks: no other octets are like it.
func markedPassword(t testing.TB) string {
	t.Helper()
	b := make([]byte, 12)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return "Marked?" + hex.EncodeToString(b)
}

// Password is a mailbox's password at the provider, which only Postern may
// hold.
func (w *World) Password(mailbox string) string { return w.passwords[mailbox] }

// Passwords are all of them.
func (w *World) Passwords() []string {
	var all []string
	for _, p := range w.passwords {
		all = append(all, p)
	}
	return all
}

// AddMailbox adds a mailbox to Postern and sets its credential, as an admin
// does: over the command line, with the password on standard input.
func (w *World) AddMailbox(address string) {
	w.t.Helper()
	w.mu.Lock()
	w.added[address] = true
	w.mu.Unlock()
	imap, submission := w.Dovecot.IMAP(broker.TLSImplicit), w.Postfix.Submission(broker.TLSImplicit)
	if w.options.IMAP != nil {
		imap = w.options.IMAP(w)
	}
	if w.options.Submission != nil {
		submission = w.options.Submission(w)
	}
	args := []string{
		"mailbox", "add", address, "--firm", FirmName, "--ca-file", w.CA.File,
		"--imap", hostPort(imap), "--imap-tls", string(imap.TLS),
		"--submission", hostPort(submission), "--submission-tls", string(submission.TLS),
	}
	for _, alias := range w.options.Aliases[address] {
		args = append(args, "--alias", alias)
	}
	w.Postern.CLI(args...)
	w.Postern.CLIInput(w.passwords[address]+"\n", "mailbox", "set-credential", address)
}

// AddMailboxOf adds one whose password is not in Dovecot's own list, but where
// the provider looks besides.
func (w *World) AddMailboxOf(address, password string) {
	w.t.Helper()
	w.mu.Lock()
	w.passwords[address] = password
	w.mu.Unlock()
	w.AddMailbox(address)
}

func hostPort(e broker.Endpoint) string { return fmt.Sprintf("%s:%d", e.Host, e.Port) }

// deliveryTimeout is for a message to pass Postfix and Dovecot.
const deliveryTimeout = 30 * time.Second

// AwaitMail waits until a message with this subject lies in somebody's folder
// at the provider, and returns its octets.
func (w *World) AwaitMail(user, folder, subject string) []byte {
	w.t.Helper()
	var uids []string
	servers.WaitFor(w.t, deliveryTimeout, func() bool {
		uids = w.Dovecot.Messages(user, folder, "SUBJECT "+subject)
		return len(uids) > 0
	}, subject+" to arrive")
	if len(uids) != 1 {
		w.t.Fatalf("%s arrived %d times", subject, len(uids))
	}
	return w.Dovecot.Message(user, folder, uids[0])
}

// Seat is an agent at a workstation, assigned to a mailbox.
type Seat struct {
	Mailbox, Agent, Workstation string
	// Token is the app password.
	Token string
	// Certificate is the workstation's; CertFile and KeyFile hold it.
	Certificate       tls.Certificate
	CertFile, KeyFile string
	// The ids of what was made for it.
	AgentID, WorkstationID, Delegation, Assignment, AppPassword broker.ID

	world *World
}

// Seat adds an agent and a workstation with a key of its own, delegates the
// mailbox with the actions (all, if none is given), assigns the agent and
// makes him an app password. A mailbox that Postern does not know is added
// first.
func (w *World) Seat(mailbox string, actions ...string) *Seat {
	w.t.Helper()
	w.mu.Lock()
	w.seats++
	number, added := w.seats, w.added[mailbox]
	w.mu.Unlock()
	if !added {
		w.AddMailbox(mailbox)
	}
	s := &Seat{
		world: w, Mailbox: mailbox,
		Agent: fmt.Sprintf("agent-%d", number), Workstation: fmt.Sprintf("workstation-%d", number),
	}
	s.AgentID = decodeCLI[broker.Agent](w.Postern, "agent", "add", s.Agent).ID
	keys := filepath.Join(servers.TempDir(w.t), "keys")
	s.WorkstationID = decodeCLI[httpapi.WorkstationCreated](w.Postern,
		"workstation", "add", s.Workstation, "--generate-key", keys).Workstation.ID
	s.CertFile, s.KeyFile = filepath.Join(keys, s.Workstation+".crt"), filepath.Join(keys, s.Workstation+".key")
	var err error
	if s.Certificate, err = tls.LoadX509KeyPair(s.CertFile, s.KeyFile); err != nil {
		w.t.Fatal(err)
	}
	terms := []string{"delegation", "create", mailbox}
	if len(actions) > 0 {
		terms = append(terms, "--actions", strings.Join(actions, ","))
	}
	s.Delegation = decodeCLI[httpapi.Delegation](w.Postern, terms...).ID
	s.Assignment = decodeCLI[httpapi.Assignment](w.Postern,
		"assignment", "create", s.Agent, "--delegation", string(s.Delegation)).ID
	created := decodeCLI[httpapi.AppPasswordCreated](w.Postern, "app-password", "create", s.Agent)
	s.AppPassword, s.Token = created.AppPassword.ID, created.Token
	return s
}

// At returns the seat as it connects to another node of Postern.
func (s *Seat) At(p *Postern) *Seat {
	other := *s
	other.world = s.world.At(p)
	return &other
}

// with returns the seat with another certificate.
func (s *Seat) with(certificate tls.Certificate) *Seat {
	other := *s
	other.Certificate = certificate
	return &other
}

// decodeCLI runs a command with --json and decodes what it prints.
func decodeCLI[T any](p *Postern, args ...string) *T {
	p.t.Helper()
	out := new(T)
	text := p.CLI(append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(text), out); err != nil {
		p.t.Fatalf("postern %s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return out
}
