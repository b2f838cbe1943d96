// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy"
)

// sinkConn takes everything and gives nothing.
type sinkConn struct{ net.Conn }

func (sinkConn) Write(b []byte) (int, error)      { return len(b), nil }
func (sinkConn) SetDeadline(time.Time) error      { return nil }
func (sinkConn) SetReadDeadline(time.Time) error  { return nil }
func (sinkConn) SetWriteDeadline(time.Time) error { return nil }
func (sinkConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// sinkRelay returns a relay whose two sides are driven by hand.
func sinkRelay(t testing.TB, actions policy.Actions) *relay {
	t.Helper()
	gate := &fakeGate{decision: policy.Decision{Actions: actions}}
	f, err := New(Config{Gate: gate, Logger: zap.NewNop(), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	session, err := gate.Open(context.Background(), broker.Login{Token: broker.NewSecret([]byte("secret"))})
	if err != nil {
		t.Fatal(err)
	}
	down := proxy.NewConn(sinkConn{}, proxy.ConnConfig{})
	up := &broker.IMAPConn{Conn: sinkConn{}, Capabilities: []string{"IMAP4rev1", "UIDPLUS"}}
	return f.newRelay(session, down, up, newLineReader(sinkConn{}), newPrefix(), specialFolders{}, nil)
}

// turn passes one command line up and its answer down, as the two goroutines
// do.
func (r *relay) turn(t testing.TB, line, answer []byte) {
	s, u := &r.client, &r.upstream
	if err := s.command(line); err != nil {
		t.Fatal(err)
	}
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	for len(answer) > 0 {
		u.makeRoom()
		n := copy(u.buf[u.end:], answer)
		u.end, u.lastRead, answer = u.end+n, n, answer[n:]
		if err := u.frame(); err != nil {
			t.Fatal(err)
		}
		if err := u.flush(); err != nil {
			t.Fatal(err)
		}
		if err := u.ownWords(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRelayDoesNotAllocate: a command and its answer cost no allocation on
// either side of the relay, whether it is rewritten or not. What is recorded
// does: of bodies one Message-ID each.
func TestRelayDoesNotAllocate(t *testing.T) {
	const reader = policy.List | policy.Headers | policy.Read
	for _, tc := range []struct {
		actions      policy.Actions
		line, answer string
		most         float64
	}{
		{policy.All, "a1 NOOP\r\n", "* 5 EXISTS\r\na1 OK NOOP completed.\r\n", 0},
		{policy.All, "a1 UID FETCH 1:* (FLAGS UID RFC822.SIZE)\r\n", strings.Repeat("* 1 FETCH (UID 7 FLAGS (\\Seen $Label) RFC822.SIZE 4711)\r\n", 100) + "a1 OK [HIGHESTMODSEQ 5] done\r\n", 0},
		{policy.All, "a1 FETCH 1 (ENVELOPE BODY.PEEK[HEADER.FIELDS (FROM \"TO\")])\r\n", "* 1 FETCH (ENVELOPE (\"date\" {3}\r\na\"b NIL) BODY[HEADER.FIELDS (FROM \"TO\")] {11}\r\nFrom: x\r\n\r\n)\r\na1 OK done\r\n", 0},
		{reader, "a1 FETCH 1:100 (FLAGS BODY[HEADER])\r\n", "* 1 FETCH (UID 7 BODY[HEADER] {11}\r\nFrom: x\r\n\r\n)\r\na1 OK done\r\n", 0},
		{policy.All, "a1 SEARCH CHARSET UTF-8 OR SUBJECT \"x\" NOT (SEEN FROM y)\r\n", "* SEARCH" + strings.Repeat(" 12345", 2000) + "\r\na1 OK done\r\n", 0},
		{policy.All, "a1 LIST \"\" \"*\" RETURN (STATUS (MESSAGES))\r\n", strings.Repeat("* LIST (\\HasNoChildren) \"/\" Work\r\n* STATUS Work (MESSAGES 5)\r\n", 20) + "a1 OK [CAPABILITY IMAP4rev1 IDLE AUTH=PLAIN] done\r\n", 0},
		{policy.All, "a1 FETCH 1 (UID BODY.PEEK[TEXT])\r\n", "* 1 FETCH (UID 7 BODY[TEXT] {3000}\r\n" + strings.Repeat("x", 3000) + ")\r\na1 OK done\r\n", 0},
		{policy.All, "a1 UID FETCH 1 BODY.PEEK[]\r\n", "* 1 FETCH (UID 7 BODY[] {23}\r\nMessage-ID: <1@x.y>\r\n\r\n)\r\na1 OK done\r\n", 1},
	} {
		r := sinkRelay(t, tc.actions)
		line, answer := []byte(tc.line), []byte(tc.answer)
		one := func() {
			r.turn(t, line, answer)
			// The batch is handed over for many messages at once.
			r.upstream.record.batch.Messages = r.upstream.record.batch.Messages[:0]
		}
		for range 10 {
			one()
		}
		if n := testing.AllocsPerRun(200, one); n > tc.most {
			t.Errorf("%.40q: %v allocations, want at most %v", tc.line, n, tc.most)
		}
	}
}

// BenchmarkTurn is what the relay itself costs, without a system call.
func BenchmarkTurn(b *testing.B) {
	r := sinkRelay(b, policy.All)
	line, answer := []byte("a1 NOOP\r\n"), []byte("a1 OK NOOP completed.\r\n")
	b.ReportAllocs()
	for b.Loop() {
		r.turn(b, line, answer)
	}
}

// BenchmarkJudge is the check of one command, from its tokens to the verdict.
func BenchmarkJudge(b *testing.B) {
	r := sinkRelay(b, policy.All)
	s := &r.client
	if _, err := s.lexer.Line([]byte("a1 UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT)])\r\n")); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		entry, skip := s.lookUp()
		if j := s.judge(entry, skip); j.err != nil || !j.allowed(r.decision) {
			b.Fatal(j.err)
		}
	}
}
