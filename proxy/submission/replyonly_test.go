// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy"
	"github.com/postern-mail/postern/proxy/imapfilter"
)

// gateEvents reads what a gate's sessions recorded, as the store does.
type gateEvents struct{ gate *fakeGate }

func (r gateEvents) Events(_ context.Context, q broker.EventQuery) (all []*broker.StoredEvent, err error) {
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	for i, e := range r.gate.events {
		data := e.data
		if intent, ok := data.(*broker.SendIntent); ok {
			data = *intent
		}
		if e.kind == q.Type && int64(i) > q.After && len(all) < q.Limit {
			all = append(all, &broker.StoredEvent{Event: broker.Event{Type: e.kind, Seq: int64(i), MailboxID: "m1", Data: data}})
		}
	}
	return all, nil
}

// imapSide is an agent's IMAP session through the filter.
type imapSide struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
	n int
}

// openIMAP logs in through an IMAP filter on the same gate.
func openIMAP(t *testing.T, gate *fakeGate) *imapSide {
	t.Helper()
	filter, err := imapfilter.New(imapfilter.Config{Gate: gate, Hostname: "postern.example", Logger: zapNop})
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		raw, err := l.Accept()
		if err != nil {
			return
		}
		c := proxy.NewConn(raw, proxy.ConnConfig{IsTLS: true})
		filter.ServeConn(ctx, c)
		_ = c.Close()
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		cancel()
		serving.Wait()
	})
	_ = c.SetDeadline(time.Now().Add(3 * patience))
	s := &imapSide{t: t, Conn: c, r: bufio.NewReader(c)}
	s.until("* OK")
	s.do("OK", "LOGIN %s %s", ownAddress, token)
	return s
}

// until reads up to the line with the prefix, and returns that; "": the end.
func (s *imapSide) until(prefix string) string {
	s.t.Helper()
	for {
		line, err := s.r.ReadString('\n')
		if strings.HasPrefix(line, prefix) || err != nil && prefix == "" {
			return line
		}
		if err != nil {
			s.t.Fatalf("waiting for %q: %v", prefix, err)
		}
	}
}

// do sends a command and wants a status.
func (s *imapSide) do(status, format string, args ...any) {
	s.t.Helper()
	s.n++
	fmt.Fprintf(s, "t%d %s\r\n", s.n, fmt.Sprintf(format, args...))
	if got := s.until(fmt.Sprintf("t%d ", s.n)); !strings.HasPrefix(got, fmt.Sprintf("t%d %s", s.n, status)) {
		s.t.Errorf("%s: %q", fmt.Sprintf(format, args...), got)
	}
}

// file appends a message and wants a status.
func (s *imapSide) file(status, folder, message string) {
	s.t.Helper()
	s.n++
	fmt.Fprintf(s, "t%d APPEND %s {%d}\r\n", s.n, folder, len(message))
	s.until("+ ")
	fmt.Fprintf(s, "%s\r\n", message)
	if got := s.until(fmt.Sprintf("t%d ", s.n)); !strings.HasPrefix(got, fmt.Sprintf("t%d %s", s.n, status)) {
		s.t.Errorf("APPEND to %s: %q, want %s", folder, got, status)
	}
}

func letter(id, fields string) string {
	return lines("Message-ID: <" + id + "@x.example>\n" + fields + "\n\nwrite to body@evil.example\n")
}

// replyOnly is a gateway with the rule, in front of a mail server.
func replyOnly(t *testing.T, m *mailServer) (*setup, *sink) {
	t.Helper()
	gate, k := newGate(), newSink(t, nil)
	gate.dial, gate.dialIMAP = dialTo(k.addr), m.dial
	gate.terms.Sending.ReplyOnly = true
	return newSetup(t, gate, func(c *Config) { c.Correspondents = NewIMAPCorrespondents(gateEvents{gate}) }), k
}

// mayWrite asks for each address whether the gateway takes it.
func (s *setup) mayWrite(t *testing.T, want bool, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		c := s.login(t)
		c.talk("C: MAIL FROM:<alice@own.example>\nS*250")
		c.raw("RCPT TO:<" + a + ">\r\n")
		answer := c.expect("")
		switch {
		case want && !strings.HasPrefix(answer, "250 "):
			t.Errorf("%s: %q", a, answer)
		case !want && (!strings.HasPrefix(answer, "550 5.7.1 ") || !strings.Contains(answer, "rule terms-reply-only")):
			t.Errorf("%s: %q, it must be refused", a, answer)
		}
		c.quit()
	}
}

// TestReplyOnlyKnowsCorrespondents by the exact address, wherever in the
// mailbox it stands and in whichever of the four fields.
func TestReplyOnlyKnowsCorrespondents(t *testing.T) { onEachServer(t, replyOnlyKnowsCorrespondents) }

func replyOnlyKnowsCorrespondents(t *testing.T, m *mailServer) {
	s, k := replyOnly(t, m)
	m.deliver("INBOX", letter("1", "From: \"rival@evil.example\" <Friend@x.example>\nReply-To: answers@x.example\nTo: alice@own.example, (rival2@evil.example) second@x.example\n"+
		"Cc: friends: third@x.example, fourth@x.example;, =?utf-8?q?rival3=40evil.example?= <fifth@x.example>\nSubject: rival4@evil.example\nBcc: hidden@evil.example\nSender: sender@evil.example"))
	m.create("Old mail")
	m.deliver("Old mail", letter("2", "From: old@x.example\nTo: alice@own.example"))
	m.deliver("INBOX", lines("From: nameless@evil.example\nTo: alice@own.example\n\nx\n"))
	m.deliver("INBOX", letter("3", "From: first@evil.example, twice@evil.example\nMessage-ID: <other@x.example>"))
	s.mayWrite(t, true, "friend@x.example", "FRIEND@X.EXAMPLE", `"friend"@x.example`, "answers@x.example", "second@x.example", "third@x.example",
		"fourth@x.example", "fifth@x.example", "old@x.example", ownAddress)
	s.mayWrite(t, false, "rival@evil.example", "rival2@evil.example", "rival3@evil.example", "rival4@evil.example", "hidden@evil.example", "sender@evil.example",
		"body@evil.example", "riend@x.example", "friend@x.exampl", "friend@x.example.evil.example", "friend+tag@x.example", `"fri end"@x.example`,
		"friend@[192.0.2.1]", "friends@x.example", "nameless@evil.example", "twice@evil.example", "nobody@evil.example")
	c := s.login(t)
	c.talk("C: MAIL FROM:<alice@own.example> SMTPUTF8\nS*555")
	if k.count() != 0 {
		t.Error("something was sent")
	}
	for _, rule := range s.gate.rules() {
		if rule != ruleTermsReplyOnly && rule != ruleCapability {
			t.Errorf("rule %s", rule)
		}
	}
}

// TestReplyOnlyIsNotForged by what an agent does with IMAP: what he files is no
// evidence, wherever he copies or moves it, and what could not be known again
// is not filed.
func TestReplyOnlyIsNotForged(t *testing.T) { onEachServer(t, replyOnlyIsNotForged) }

func replyOnlyIsNotForged(t *testing.T, m *mailServer) {
	s, _ := replyOnly(t, m)
	m.create("Drafts", "Sent", "Archive")
	m.deliver("INBOX", letter("1", "From: friend@x.example\nTo: alice@own.example"))
	agent := openIMAP(t, s.gate)
	forged := func(n int) string {
		return letter(fmt.Sprintf("forged%d", n), fmt.Sprintf("From: rival%d@evil.example", n))
	}
	agent.file("OK", "INBOX", forged(1))
	agent.file("OK", "Drafts", forged(2))
	agent.file("OK", "Sent", letter("forged3", "From: alice@own.example\nTo: rival3@evil.example"))
	agent.do("OK", "SELECT Drafts")
	agent.do("OK", "COPY 1 INBOX")
	agent.do("OK", "MOVE 1 Archive")
	agent.do("OK", "SELECT INBOX")
	agent.do("OK", "COPY 1:* Archive")
	agent.do("OK", "RENAME Archive Kept")
	fmt.Fprint(agent, "c CAPABILITY\r\n")
	if offered := agent.until("* CAPABILITY"); strings.Contains(offered, "CATENATE") || strings.Contains(offered, "URL-PARTIAL") {
		t.Errorf("offered: %q", offered)
	}
	agent.do("BAD", `APPEND INBOX CATENATE (URL "/INBOX/;UID=1/;SECTION=HEADER" URL "/INBOX/;UID=1/;SECTION=TEXT")`)
	s.mayWrite(t, true, "friend@x.example")
	s.mayWrite(t, false, "rival1@evil.example", "rival2@evil.example", "rival3@evil.example")

	for name, message := range map[string]string{
		"no Message-ID":      lines("From: rival@evil.example\n\nx\n"),
		"two":                letter("a", "Message-ID: <b@x.example>\nFrom: rival@evil.example"),
		"malformed":          lines("Message-ID: rival\nFrom: rival@evil.example\n\nx\n"),
		"bare LF":            "X: y\nMessage-ID: <c@x.example>\r\nFrom: rival@evil.example\r\n\r\nx\r\n",
		"no end":             "From: rival@evil.example\r\nMessage-ID: <d@x.example>\r\n",
		"far down":           lines("From: rival@evil.example\n" + strings.Repeat("X: "+strings.Repeat("y", 900)+"\n", 80) + "Message-ID: <e@x.example>\n\nx\n"),
		"blank before colon": lines("From: rival@evil.example\nMessage-ID : <f@x.example>\n\nx\n"),
	} {
		t.Run(name, func(t *testing.T) {
			before := m.count("INBOX")
			again := openIMAP(t, s.gate)
			again.file("NO", "INBOX", message)
			again.until("") // half a command is cut off
			if n := m.count("INBOX"); n != before {
				t.Errorf("INBOX has %d messages, had %d", n, before)
			}
		})
	}
	s.mayWrite(t, false, "rival@evil.example")
}

// TestReplyOnlyKnowsWhatNobodySawFiled: the record of a filing is durable
// before the upstream has the message as a whole, and without it there is none.
func TestReplyOnlyKnowsWhatNobodySawFiled(t *testing.T) {
	onEachServer(t, replyOnlyKnowsWhatNobodySawFiled)
}

func replyOnlyKnowsWhatNobodySawFiled(t *testing.T, m *mailServer) {
	s, _ := replyOnly(t, m)
	recorded := make(chan struct{}, 8)
	s.gate.onAppend = func(e event) {
		if e.kind == broker.EventMessageFiling {
			if n := m.count("INBOX"); n != 0 {
				t.Errorf("%d messages are there before the record", n)
			}
			recorded <- struct{}{}
		}
	}
	agent, message := openIMAP(t, s.gate), letter("forged", "From: rival@evil.example")
	fmt.Fprintf(agent, "a APPEND INBOX {%d+}\r\n%s\r\n", len(message), message)
	<-recorded
	_ = agent.Close() // the answer is never read
	s.gate.waitEnd(t)
	s.gate.set(func() { s.gate.onAppend = nil })
	s.mayWrite(t, false, "rival@evil.example")

	before := m.count("INBOX")
	s.gate.set(func() {
		s.gate.appendErr = map[broker.EventType]error{broker.EventMessageFiling: broker.Errorf(broker.Unavailable, "full")}
	})
	openIMAP(t, s.gate).file("NO [UNAVAILABLE]", "INBOX", letter("unrecorded", "From: rival2@evil.example"))
	if n := m.count("INBOX"); n != before {
		t.Errorf("INBOX has %d messages, had %d", n, before)
	}
}

// TestReplyOnlyIsNotForgedByMail that an agent sends to the mailbox itself, or
// that its server files in Sent.
func TestReplyOnlyIsNotForgedByMail(t *testing.T) { onEachServer(t, replyOnlyIsNotForgedByMail) }

func replyOnlyIsNotForgedByMail(t *testing.T, m *mailServer) {
	s, k := replyOnly(t, m)
	m.deliver("INBOX", letter("1", "From: friend@x.example\nTo: alice@own.example"))
	c := s.login(t)
	send := func(message, want string) {
		t.Helper()
		c.talk("C: MAIL FROM:<alice@own.example>\nS*250\nC: RCPT TO:<alice@own.example>\nS*250\nC: DATA\nS*354")
		c.raw(stuffed(message))
		c.expect(want)
	}
	send(letter("mine", "From: alice@own.example\nTo: alice@own.example\nCc: rival@evil.example\nReply-To: rival2@evil.example"), "250 ")
	m.deliver("INBOX", string(k.only(t).body))
	s.mayWrite(t, false, "rival@evil.example", "rival2@evil.example")
	send(lines("From: alice@own.example\nCc: rival@evil.example\n\nx\n"), "554 5.6.0 ")
	send(letter("a", "From: alice@own.example\nCc: rival@evil.example\nX : y"), "554 ")
	if k.count() != 1 {
		t.Errorf("%d were sent", k.count())
	}
}

// TestReplyOnlyWhenItCannotBeAsked nobody is written to, and it is no refusal.
func TestReplyOnlyWhenItCannotBeAsked(t *testing.T) {
	s, _ := start(t)
	s.gate.terms.Sending.ReplyOnly = true
	ask := func() {
		t.Helper()
		c := s.login(t)
		c.talk("C: MAIL FROM:<alice@own.example>\nS*250\nC: RCPT TO:<friend@x.example>\nS: 451 4.4.3\nC: DATA\nS*503")
		c.quit()
	}
	ask() // nothing to ask with
	s.gateway.correspondents = NewIMAPCorrespondents(gateEvents{s.gate})
	s.gate.dialIMAP = func(context.Context) (*broker.IMAPConn, error) { return nil, broker.Errorf(broker.Unavailable, "down") }
	ask()
	s.gateway.correspondents = NewIMAPCorrespondents(brokenEvents{})
	s.gate.dialIMAP = imapUpstream(t, map[string][]imap.MailboxAttr{"INBOX": nil}, map[string][]string{"INBOX": {letter("1", "From: friend@x.example")}})
	ask()
	wantList(t, "rules", s.gate.rules(), nil)
}

type brokenEvents struct{}

func (brokenEvents) Events(context.Context, broker.EventQuery) ([]*broker.StoredEvent, error) {
	return nil, broker.Errorf(broker.Unavailable, "the disk is broken")
}

// TestReplyOnlySearchThatLies: what SEARCH says is held against the messages,
// and ranges without an end are not written out.
func TestReplyOnlySearchThatLies(t *testing.T) {
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		r := bufio.NewReader(far)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			tag, command, _ := strings.Cut(line, " ")
			switch {
			case strings.HasPrefix(command, "LIST"):
				fmt.Fprint(far, "* LIST () \"/\" INBOX\r\n")
			case strings.HasPrefix(command, "UID SEARCH"):
				fmt.Fprintf(far, "* ESEARCH (TAG \"%s\") UID ALL 1:4294967295\r\n", tag)
			case strings.HasPrefix(command, "UID FETCH"):
				fmt.Fprint(far, "* 1 FETCH (UID 4294967295 ENVELOPE (NIL \"rival@evil.example\" ((\"rival@evil.example\" NIL \"friend\" \"x.example\")) NIL NIL NIL NIL NIL NIL \"<1@x>\"))\r\n")
			}
			fmt.Fprintf(far, "%s OK done\r\n", tag)
		}
	}()
	gate := newGate()
	gate.dialIMAP = func(context.Context) (*broker.IMAPConn, error) {
		return &broker.IMAPConn{Conn: near, Capabilities: []string{"IMAP4rev1", "ESEARCH"}}, nil
	}
	rival, err := ParseAddress("rival@evil.example", false)
	if err != nil {
		t.Fatal(err)
	}
	known, err := NewIMAPCorrespondents(gateEvents{gate}).Known(t.Context(), &fakeSession{gate: gate}, rival)
	if known || err != nil {
		t.Errorf("known %v, %v", known, err)
	}
	_ = far.Close()
	<-served
}

func TestNewestOfASet(t *testing.T) {
	set := imap.UIDSet{{Start: 1, Stop: 3}, {Start: 7, Stop: 7}, {Start: 9, Stop: 0}}
	if got := newest(set, 3); !slices.Equal(got, []imap.UID{7, 3, 2}) {
		t.Errorf("%v", got)
	}
	if got := newest(nil, 3); got != nil {
		t.Errorf("%v", got)
	}
}

// TestReplyOnlyTellsNothingOfHiddenFolders.
func TestReplyOnlyTellsNothingOfHiddenFolders(t *testing.T) {
	onEachServer(t, replyOnlyTellsNothingOfHiddenFolders)
}

func replyOnlyTellsNothingOfHiddenFolders(t *testing.T, m *mailServer) {
	s, _ := replyOnly(t, m)
	s.gate.terms.Folders = []policy.FolderPatterns{{Allow: []string{"INBOX"}}}
	m.create("Board")
	m.deliver("Board", letter("1", "From: friend@x.example"))
	s.mayWrite(t, false, "friend@x.example")
	s.gate.set(func() { s.gate.terms.Folders = nil })
	s.mayWrite(t, true, "friend@x.example")
}
