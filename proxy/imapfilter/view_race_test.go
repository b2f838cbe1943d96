// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// slicedRelay is the upstream's side of a session that is shown a slice, whose
// other side is the test.
func slicedRelay(t *testing.T) (u *upstreamSide, client *peer) {
	t.Helper()
	c, server := tcpPair(t)
	t.Cleanup(func() { c.Close(); server.Close() })
	r := &relay{
		f: &Filter{silence: time.Minute}, down: newServerConn(server), signal: make(chan struct{}, 1),
		view: &view{programs: []*policy.Program{nil}},
	}
	_, up := tcpPair(t)
	t.Cleanup(func() { up.Close() })
	r.up = &broker.IMAPConn{Conn: up}
	r.upstream.r = r
	return &r.upstream, newPeer(t, c)
}

// hear has the upstream's goroutine read what an upstream says.
func (u *upstreamSide) hear(t *testing.T, says string) {
	t.Helper()
	u.buf = append(u.buf[:u.end], says...)
	u.end = len(u.buf)
	if err := u.frame(); err != nil {
		t.Fatal(err)
	}
	if err := u.flush(); err != nil {
		t.Fatal(err)
	}
}

// TestNever2ViewAnAnswerIsOverWithItsTag: what an upstream says behind the tagged
// answer to an own command is not added to what the client's goroutine reads
// meanwhile.
func TestNever2ViewAnAnswerIsOverWithItsTag(t *testing.T) {
	u, _ := slicedRelay(t)
	a := &ownAnswer{}
	u.r.view.answer.Store(a)
	u.r.push(inFlight{tag: "P1", own: true}, expectNothing)
	u.hear(t, "* SEARCH 1\r\n* LIST () \"/\" a\r\nP1 OK done\r\n* SEARCH 2\r\n* LIST () \"/\" b\r\n")
	if !slices.Equal(a.numbers, []uint32{1}) || len(a.lines) != 1 {
		t.Errorf("the answer is %v, %q", a.numbers, a.lines)
	}
}

// TestViewFlagsBearTheNumbersThatTheClientCounts: flags that an upstream tells when
// the client's numbers have just changed come behind what changed them.
func TestViewFlagsBearTheNumbersThatTheClientCounts(t *testing.T) {
	u, client := slicedRelay(t)
	m := &u.r.view.mail
	u.hear(t, "* 3 EXISTS\r\n")
	if m.learn([]uint32{10, 20, 30}, []uint32{10, 30}) != learnedAll {
		t.Fatal("not learned")
	}
	// Two are visible, of which the client does not know yet.
	u.hear(t, "* 3 FETCH (FLAGS (early))\r\n")
	u.r.sayChanges(false, "")
	u.hear(t, "* 3 FETCH (FLAGS (two))\r\n* 1 EXPUNGE\r\n* 2 FETCH (FLAGS (two))\r\n")
	u.r.sayChanges(true, "a OK done\r\n")
	u.hear(t, "* 2 FETCH (FLAGS (one))\r\n")
	for _, want := range []string{"* 2 EXISTS", "* 2 FETCH (FLAGS (two))", "* 2 FETCH (FLAGS (two))", "* 1 EXPUNGE", "a OK done", "* 1 FETCH (FLAGS (one))"} {
		if got := client.line(); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// TestViewSliceOfAFolderFromWhichMessagesGo: a server may tell behind what a UID
// SEARCH found that one of these is gone. The numbers would then be another's.
func TestViewSliceOfAFolderFromWhichMessagesGo(t *testing.T) {
	c, u := scriptedView(t, slice("UNKEYWORD x"), "IMAP4rev1", "UIDPLUS", "UNSELECT")
	c.send("a SELECT INBOX")
	tells(u, "* LIST () \"/\" INBOX\r\n", "")
	own(u, `SELECT "INBOX"`, "* 4 EXISTS\r\n")
	own(u, "UID SEARCH ALL", "* SEARCH 10 20 30 40\r\n* 2 EXPUNGE\r\n")
	own(u, "UID SEARCH (UNKEYWORD x)", "* SEARCH 10 30\r\n")
	own(u, "UID SEARCH ALL", "* SEARCH 10 30 40\r\n")
	own(u, "UID SEARCH (UNKEYWORD x)", "* SEARCH 10 30\r\n* 1 EXPUNGE\r\n")
	own(u, "UID SEARCH ALL", "* SEARCH 30 40\r\n")
	own(u, "UID SEARCH (UNKEYWORD x)", "* SEARCH 30\r\n")
	c.expect("* 1 EXISTS")
	c.expect("* 0 RECENT")
	c.expect("a OK")
	c.send("b FETCH 1 (FLAGS)")
	own(u, "UID FETCH 30 (FLAGS)", "* 1 FETCH (UID 30 FLAGS (mine))\r\n* 2 FETCH (UID 40 FLAGS (secret))\r\n")
	c.expect("* 1 FETCH (UID 30 FLAGS (mine))")
	c.expect("b OK")

	// One that says so each time gets no session into a folder whose numbers are
	// uncertain.
	c.send("c SELECT INBOX")
	own(u, `SELECT "INBOX"`, "* 100 EXISTS\r\n")
	for range maxAsked {
		own(u, "UID SEARCH ALL", "* SEARCH 10\r\n* 1 EXPUNGE\r\n")
		own(u, "UID SEARCH (UNKEYWORD x)", "* SEARCH 10\r\n")
	}
	own(u, "UNSELECT", "")
	if got := c.expect("c NO [UNAVAILABLE]"); !strings.Contains(got, "messages go") {
		t.Errorf("got %q", got)
	}
}
