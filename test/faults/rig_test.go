// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

const (
	sales   = "sales@client.example"
	support = "support@client.example"

	// second is how long anything may outlive its end.
	second = time.Second
	// patience is for what must come, and takes its time on a busy machine.
	patience = 30 * time.Second
)

// roomy lets one mailbox have more sessions than a test will open.
const roomy = `limits:
  mailbox_connections: 400
  mailbox_submissions: 400
  pending_per_certificate: 256
`

// rig is a world whose provider is reached in the clear through Taps, so that
// all that Postern says to it is on record.
type rig struct {
	*e2e.World
	t          testing.TB
	imap, smtp *servers.Tap
}

func (r *rig) For(t testing.TB) *rig { return &rig{r.World.For(t), t, r.imap, r.smtp} }

// newRig starts one; without options.Vault the credentials are sealed.
func newRig(t testing.TB, options e2e.WorldOptions) *rig {
	t.Helper()
	r := &rig{t: t}
	var once sync.Once
	taps := func(w *e2e.World) {
		once.Do(func() {
			r.imap = servers.NewTap(t, fmt.Sprintf("127.0.0.1:%d", w.Dovecot.IMAPPort))
			r.smtp = servers.NewTap(t, fmt.Sprintf("127.0.0.1:%d", w.Postfix.PlainPort))
		})
	}
	if options.Mailboxes == nil {
		options.Mailboxes = []string{sales, support}
	}
	options.IMAP = func(w *e2e.World) broker.Endpoint {
		taps(w)
		return broker.Endpoint{Host: "127.0.0.1", Port: r.imap.Port, TLS: broker.TLSNone}
	}
	options.Submission = func(w *e2e.World) broker.Endpoint {
		taps(w)
		return broker.Endpoint{Host: "127.0.0.1", Port: r.smtp.Port, TLS: broker.TLSNone}
	}
	if options.Postern.Config == "" {
		options.Postern.Config = roomy
	}
	r.World = e2e.NewWorld(t, options)
	for _, address := range options.Mailboxes {
		r.AddMailbox(address)
	}
	return r
}

// mark is a text that nothing else holds.
func mark(t testing.TB) string {
	t.Helper()
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

// message is a message with a Message-ID of its own: id@client.example.
func message(from, to, id, body string) string {
	return fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: %s\r\nMessage-ID: <%s@client.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\n%s",
		from, to, id, id, body)
}

// bulk is a message of about n octets, all its lines short.
func bulk(id string, n int) []byte {
	line := strings.Repeat("x", 74) + "\r\n"
	return []byte(message("buyer@market.example", sales, id, strings.Repeat(line, n/len(line))))
}

// stuffed is a message as DATA carries it, without the final dot's line.
func stuffed(m string) string {
	if strings.HasPrefix(m, ".") {
		m = "." + m
	}
	return strings.ReplaceAll(m, "\r\n.", "\r\n..")
}

// delivered counts the messages with an id in a mailbox's INBOX at the
// provider, on which nothing that Postern says has any influence.
func (r *rig) delivered(mailbox, id string) int {
	r.t.Helper()
	return len(r.Dovecot.Messages(mailbox, "INBOX", "HEADER Message-ID "+id+"@client.example"))
}

// settled waits until Postfix has nothing under way, and returns delivered.
func (r *rig) settled(mailbox, id string) int {
	r.t.Helper()
	servers.WaitFor(r.t, patience, func() bool { return r.queued() == 0 }, "Postfix to deliver what it has")
	return r.delivered(mailbox, id)
}

// sessions are the live ones as `postern session list` tells.
func (r *rig) sessions() []*httpapi.Session {
	r.t.Helper()
	return cli[httpapi.List[*httpapi.Session]](r.t, r.Postern, "session", "list").Items
}

// cli runs a command with --json and decodes what it prints.
func cli[T any](t testing.TB, p *e2e.Postern, args ...string) T {
	t.Helper()
	var out T
	if text := p.CLI(append([]string{"--json"}, args...)...); json.Unmarshal([]byte(text), &out) != nil {
		t.Fatalf("postern %s: %s", strings.Join(args, " "), text)
	}
	return out
}

// queued counts what Postfix has under way.
func (r *rig) queued() int {
	r.t.Helper()
	n := 0
	for _, queue := range []string{"maildrop", "incoming", "active", "deferred"} {
		err := filepath.WalkDir(filepath.Join(filepath.Dir(r.Postfix.LogFile), "queue", queue), func(_ string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				n++
			}
			if os.IsNotExist(err) { // it was delivered while this looked
				return nil
			}
			return err
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return n
}

// noSessions waits until none is live.
func (r *rig) noSessions() {
	r.t.Helper()
	servers.WaitFor(r.t, patience, func() bool { return len(r.sessions()) == 0 }, "all sessions to end")
}

// tryLogin is a login on a connection of its own; it returns the tagged answer.
func tryLogin(t testing.TB, s *e2e.Seat) (*e2e.Conn, string) {
	t.Helper()
	c := s.DialIMAP(t)
	_, answer := c.Cmd("LOGIN %s %s", s.Mailbox, s.Token)
	return c, answer
}

// tryAuth is the same for submission; it returns the reply.
func tryAuth(t testing.TB, s *e2e.Seat) (*e2e.Conn, string) {
	t.Helper()
	c := s.DialSubmission(t)
	c.Send("AUTH PLAIN %s\r\n", s.SASLPlain())
	return c, c.Reply()
}

func wantPrefix(t testing.TB, what, got, want string) {
	t.Helper()
	if !strings.HasPrefix(got, want) {
		t.Errorf("%s: got %q, want %q…", what, got, want)
	}
}

// count is how often a text stands in what passed a Tap from an offset on.
func count(tap *servers.Tap, d servers.Direction, from int, text string) int {
	return bytes.Count(tap.Seen(d)[from:], []byte(text))
}
