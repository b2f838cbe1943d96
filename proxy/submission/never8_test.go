// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/postern-mail/postern/broker"
)

// A message is never truncated, altered, doubled, or lost without a word; and
// TestNever3's part: none without its intent.

func TestNever8ClientVanishesInMidData(t *testing.T) {
	for name, part := range map[string]string{
		"in the header": "From: alice@own.example\r\nSub", "after the header": message1(""), "in the body": message1("half a li"),
		"before the dot": message1("all of it\r\n"), "at the dot": message1("all of it\r\n."), "at the dot's CR": message1("all of it\r\n.\r"),
	} {
		s, k := start(t)
		c := s.login(t)
		c.data()
		c.raw(part)
		_ = c.Close()
		if e := s.gate.waitEnd(t); e.Reason != broker.EndClientClosed {
			t.Errorf("%s: ended by %q", name, e.Reason)
		}
		if k.count() != 0 || s.gate.intents() != 0 {
			t.Errorf("%s: a message half received was submitted", name)
		}
	}
}

func TestNever8MessageReachesUpstreamUnaltered(t *testing.T) {
	long := strings.Repeat("x", 70<<10) // longer than every buffer
	for name, body := range map[string]string{
		"empty": "", "one line": "x\r\n", "dots": ".\r\n..\r\n...\r\n.x\r\n", "empty lines": "\r\n\r\n\r\n", "long line": long + "\r\n." + long + "\r\n",
		"8 bit": "\xff\xfe\x80 caf\xc3\xa9\r\n", "tabs and controls": "\t\x01\x7f\x1b\r\n", "many lines": strings.Repeat(".line\r\n", 20000),
	} {
		s, k := start(t)
		c := s.login(t)
		c.data()
		m := message1(body)
		c.raw(stuffed(m))
		c.expect("250 ")
		if got := k.only(t); !bytes.Equal(got.body, []byte(m)) {
			t.Errorf("%s: %d octets became %d", name, len(m), len(got.body))
		}
		c.quit()
	}
}

func TestNever8OctetByOctet(t *testing.T) {
	// Wherever the network cuts it, it is the same message.
	gate := newGate()
	k := newSink(t, nil)
	gate.dial = dialTo(k.addr)
	s := newSetup(t, gate, nil)
	c := s.login(t)
	c.data()
	m := message1("a\r\n.b\r\n.\r\n\r\n..\r\n")
	for _, b := range []byte(stuffed(m)) {
		c.raw(string(b))
	}
	c.expect("250 ")
	if got := k.only(t); string(got.body) != m {
		t.Errorf("got %q", got.body)
	}
}

func TestNever8UpstreamClosesBeforeTheFinalDot(t *testing.T) {
	gate := newGate()
	ups := scriptedUpstream(t, gate)
	s := newSetup(t, gate, nil)
	c := s.login(t)
	u := <-ups
	closed := make(chan struct{})
	gate.onAppend = func(e event) {
		// The upstream goes while the intent is on its way to the disk.
		if e.kind == broker.EventSendIntent {
			_ = u.conn.Close()
			close(closed)
			time.Sleep(100 * time.Millisecond) // its end is seen by a goroutine that shows nothing
		}
	}
	go u.envelope()
	c.data()
	c.raw(stuffed(message1("x\r\n")))
	c.expect("451 4.4.2")
	<-closed
	c.talk("C: NOOP\nS: 250")
	wantList(t, "outcomes", gate.outcomes(), []string{"not-sent"})
}

// failingConn fails the write that holds the end of a message, without so many
// of its last octets.
type failingConn struct {
	net.Conn
	without int
}

func (c failingConn) Write(b []byte) (int, error) {
	if !bytes.HasSuffix(b, []byte("\r\n"+finalDot)) {
		return c.Conn.Write(b)
	}
	n, _ := c.Conn.Write(b[:len(b)-c.without])
	_ = c.Conn.Close()
	return n, syscall.ECONNRESET
}

func TestNever8LastWriteFails(t *testing.T) {
	for _, tt := range []struct {
		without int
		outcome string
	}{
		{20, "not-sent"},
		{3, "not-sent"}, // the dot did not go
		{2, "unknown"},
		{1, "unknown"},
	} {
		gate := newGate()
		ups := scriptedUpstream(t, gate)
		dial := gate.dial
		gate.dial = func(ctx context.Context) (*broker.SubmissionConn, error) {
			c, err := dial(ctx)
			if err == nil {
				c.Conn = failingConn{c.Conn, tt.without}
			}
			return c, err
		}
		s := newSetup(t, gate, nil)
		c := s.login(t)
		u := <-ups
		go u.envelope()
		c.data()
		c.raw(stuffed(message1("x\r\n")))
		c.expect("451 4.4.2")
		c.talk("C: NOOP\nS: 250")
		wantList(t, fmt.Sprintf("outcomes without %d octets", tt.without), gate.outcomes(), []string{tt.outcome})
		if _, whole := u.message(); whole {
			t.Errorf("without %d octets, the message was whole", tt.without)
		}
		c.quit()
	}
}

func TestNever8UpstreamRefusesInMidData(t *testing.T) {
	gate := newGate()
	ups := scriptedUpstream(t, gate)
	s := newSetup(t, gate, nil)
	c := s.login(t)
	u := <-ups
	go func() {
		u.envelope()
		u.write("552 5.3.4 too big for me\r\n")
		_ = u.conn.Close()
	}()
	c.data()
	c.raw(message1("first\r\n"))
	line := strings.Repeat("y", 1000) + "\r\n"
	for range 200 {
		c.raw(line)
	}
	time.Sleep(50 * time.Millisecond) // let the refusal overtake
	for range 200 {
		c.raw(line)
	}
	c.raw(".\r\n")
	if got := c.expect(""); !strings.HasPrefix(got, "552 5.3.4 too big for me") && !strings.HasPrefix(got, "451 4.4.2") {
		t.Errorf("got %q", got)
	}
	if gate.intents() != 0 {
		t.Error("an intent was recorded")
	}
}

func TestNever8UpstreamClosesAfterTheFinalDot(t *testing.T) {
	for _, inSent := range []bool{false, true} {
		gate := newGate()
		ups := scriptedUpstream(t, gate)
		look := &fakeSent{found: inSent}
		s := newSetup(t, gate, func(c *Config) { c.Sent, c.Limits.SentTimeout = look, 100*time.Millisecond })
		c := s.login(t)
		go func() {
			u := <-ups
			u.envelope()
			if _, whole := u.message(); !whole {
				t.Error("the message did not arrive whole")
			}
			_ = u.conn.Close()
		}()
		c.data()
		c.raw(stuffed(message1("x\r\n")))
		if inSent {
			c.expect("250 2.0.0")
			c.talk("C: NOOP\nS: 250")
			wantList(t, "outcomes", gate.outcomes(), []string{"unknown", "accepted"})
		} else {
			c.expect("451 4.4.2")
			c.talk("C: NOOP\nS: 250")
			wantList(t, "outcomes", gate.outcomes(), []string{"unknown"})
			if look.count() != 3 {
				t.Errorf("%d looks into Sent, want 3", look.count())
			}
		}
		c.quit()
	}
}

// unknown leaves one submission with an unknown outcome behind.
func unknown(t *testing.T, s *setup, ups <-chan *scripted) {
	t.Helper()
	c := s.login(t)
	go func() {
		u := <-ups
		u.envelope()
		u.message()
		_ = u.conn.Close()
	}()
	c.data()
	c.raw(stuffed(message1("x\r\n")))
	c.expect("451 4.4.2")
	c.quit()
}

func TestNever8RepeatedMessageIsLookedUpFirst(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		found  bool
		err    error
		later  time.Duration
		body   string
		answer string
		sent   bool
		looks  int
	}{
		"in Sent":           {found: true, answer: "250 2.0.0 the mail server broke off", looks: 1},
		"not in Sent":       {answer: "250 2.0.0 sent", sent: true, looks: 1},
		"cannot be looked":  {err: errors.New("IMAP is down"), answer: "451 4.4.2", looks: 1},
		"after an hour":     {found: true, later: 61 * time.Minute, answer: "250 2.0.0 sent", sent: true},
		"another message":   {found: true, body: "other\r\n", answer: "250 2.0.0 sent", sent: true},
		"the very last min": {found: true, later: 59 * time.Minute, answer: "250 2.0.0 the mail", looks: 1},
	} {
		t.Run(name, func(t *testing.T) {
			gate, look, clock := newGate(), &fakeSent{}, now
			ups := scriptedUpstream(t, gate)
			s := newSetup(t, gate, func(c *Config) {
				c.Sent, c.Limits.SentTimeout, c.Now = look, 50*time.Millisecond, func() time.Time { return clock }
			})
			unknown(t, s, ups)
			look.reset(tt.found, tt.err)
			clock = clock.Add(tt.later)
			c := s.login(t)
			sent := make(chan bool, 1)
			go func() {
				u := <-ups
				u.envelope()
				_, whole := u.message()
				if whole {
					u.write("250 2.0.0 sent\r\n")
				}
				sent <- whole
			}()
			c.data()
			body := "x\r\n"
			if tt.body != "" {
				body = tt.body
			}
			c.raw(stuffed(message1(body)))
			c.expect(tt.answer)
			if got := <-sent; got != tt.sent {
				t.Errorf("sent again: %v, want %v", got, tt.sent)
			}
			if look.count() != tt.looks {
				t.Errorf("%d looks, want %d", look.count(), tt.looks)
			}
		})
	}
}

func TestNever8AnswerThatTheClientNeverGotIsGivenAgain(t *testing.T) {
	s, k := start(t)
	gone := make(chan struct{})
	c := s.login(t)
	// The client is gone when the answer comes.
	s.gate.onAppend = func(e event) {
		if e.kind == broker.EventSendIntent {
			s.gate.set(func() { s.gate.onAppend = nil })
			_ = c.Close()
			close(gone)
		}
	}
	c.data()
	c.raw(stuffed(message1("x\r\n")))
	<-gone
	s.gate.waitEnd(t)
	k.only(t)

	c = s.login(t)
	c.data()
	c.raw(stuffed(message1("x\r\n")))
	c.expect("250 2.0.0 sent before")
	k.only(t)

	// It has the answer now: the same once more is meant.
	c.data()
	c.raw(stuffed(message1("x\r\n")))
	c.expect("250 2.0.0 OK")
	c.quit()
	if k.count() != 2 {
		t.Errorf("%d messages, want 2", k.count())
	}
}

func TestNever8SameMessageOnTwoConnections(t *testing.T) {
	gate := newGate()
	ups := scriptedUpstream(t, gate)
	s := newSetup(t, gate, nil)
	first := s.login(t)
	u := <-ups
	arrived, answer := make(chan struct{}), make(chan struct{})
	go func() {
		u.envelope()
		u.message()
		close(arrived)
		<-answer
		u.write("250 done\r\n")
	}()
	first.data()
	first.raw(stuffed(message1("x\r\n")))
	<-arrived

	second := s.login(t)
	go func() { v := <-ups; v.envelope(); v.message() }()
	second.data()
	second.raw(stuffed(message1("x\r\n")))
	second.expect("451 4.5.0")
	close(answer)
	first.expect("250 2.0.0 done")
	if gate.intents() != 1 {
		t.Errorf("%d intents, want 1", gate.intents())
	}
}

func TestNever8UpstreamsVerdictIsTheClients(t *testing.T) {
	for _, tt := range []struct{ answer, want string }{
		{"250 2.0.0 queued as ABC\r\n", "250 2.0.0 queued as ABC\r\n"},
		{"250 queued\r\n", "250 2.0.0 queued\r\n"},
		{"554 5.7.1 spam\r\n", "554 5.7.1 spam\r\n"},
		{"452 4.2.2 mailbox full\r\n", "452 4.2.2 mailbox full\r\n"},
		{"451-4.7.1 wait\r\n451 4.7.1 a bit\r\n", "451-wait\r\n451 4.7.1 a bit\r\n"},
		{"421 4.3.2 going down\r\n", "451 4.3.2 going down\r\n"},
		{"530 5.7.0 authenticate\r\n", "554 5.7.0 authenticate\r\n"},
		{"250 \x1b[2J\x00\xff evil\r\n", "250 2.0.0 ?[2J?? evil\r\n"},
		{"554 5.7.1 " + strings.Repeat("x", 1500) + "\r\n", "554 5.7.1 " + strings.Repeat("x", maxRelayedText) + "\r\n"},
		// What is no reply is an unknown outcome.
		{"250 bare line feed\n", "451 4.4.2"},
		{"999 what\r\n", "451 4.4.2"},
		{"250-a\r\n550 b\r\n", "451 4.4.2"},
		{"354 go\r\n", "451 4.4.2"},
		{strings.Repeat("x", 5000) + "\r\n", "451 4.4.2"},
		{strings.Repeat("250-x\r\n", 500), "451 4.4.2"},
		{"25\r\n", "451 4.4.2"},
	} {
		gate := newGate()
		ups := scriptedUpstream(t, gate)
		s := newSetup(t, gate, nil)
		c := s.login(t)
		go func() {
			u := <-ups
			u.envelope()
			u.message()
			u.write(tt.answer)
		}()
		c.data()
		c.raw(stuffed(message1("x\r\n")))
		if got := c.expect(""); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%.60q: the client got %q, want %q", tt.answer, got, tt.want)
		}
		c.quit()
	}
}

func TestNever8UpstreamSpeaksUnasked(t *testing.T) {
	// Replies must not slip: a second 250 to RCPT is not DATA's.
	gate := newGate()
	ups := scriptedUpstream(t, gate)
	s := newSetup(t, gate, nil)
	c := s.login(t)
	go func() {
		u := <-ups
		u.read("MAIL FROM:<alice@own.example>")
		u.write("250 ok\r\n250 and again\r\n")
	}()
	c.talk("C: MAIL FROM:<alice@own.example>\nS: 250\nC: RCPT TO:<bob@client.example>\nS: 451 4.4.2")
}

func TestNever3NoMessageWithoutItsIntent(t *testing.T) {
	s, k := start(t)
	s.gate.appendErr = map[broker.EventType]error{broker.EventSendIntent: broker.Errorf(broker.Unavailable, "disk full")}
	c := s.login(t)
	c.data()
	c.raw(stuffed(message1("x\r\n")))
	c.expect("451 4.3.0")
	c.quit()
	if k.count() != 0 {
		t.Error("a message was sent without its intent")
	}
}

func TestNever3IntentIsDurableBeforeTheDot(t *testing.T) {
	long := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 2*bufferInData/72)
	for name, tt := range map[string]struct {
		body  string
		early bool // octets of it may go before the intent
	}{
		"small": {"x\r\n", false},
		"large": {long, true},
		// The final dot would not fit into the buffer.
		"full": {long[:bufferInData-len(message1(""))-2] + "\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			gate := newGate()
			ups := scriptedUpstream(t, gate)
			s := newSetup(t, gate, nil)
			c := s.login(t)
			u := <-ups
			gate.onAppend = func(e event) {
				if e.kind != broker.EventSendIntent {
					return
				}
				_ = u.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				got, whole := u.message()
				if whole || len(got) > 0 && !tt.early || len(got) >= len(message1(tt.body)) {
					t.Errorf("before the intent was durable, upstream had %d octets, whole: %v", len(got), whole)
				}
				_ = u.conn.SetReadDeadline(time.Now().Add(patience))
				go func() {
					rest, whole := u.message()
					if got = append(got, rest...); !whole || string(got) != message1(tt.body)+".\r\n" {
						t.Errorf("then came %d octets, whole: %v", len(rest), whole)
					}
					u.write("250 ok\r\n")
				}()
			}
			go u.envelope()
			c.data()
			c.raw(stuffed(message1(tt.body)))
			c.expect("250 ")
		})
	}
}

func TestRevokedBeforeTheFinalDot(t *testing.T) {
	s, k := start(t)
	c := s.login(t)
	c.data()
	s.gate.set(func() { s.gate.checkErr = broker.Errorf(broker.Refused, "the delegation was revoked") })
	c.raw(stuffed(message1("x\r\n")))
	if got := c.expect(""); !strings.HasPrefix(got, "550 5.7.1 the delegation was revoked") && !strings.HasPrefix(got, "421 4.7.0 the delegation was revoked") {
		t.Errorf("got %q", got)
	}
	s.gate.waitEnd(t)
	if k.count() != 0 {
		t.Error("it was sent under a decision that had ended")
	}
	wantList(t, "outcomes", s.gate.outcomes(), []string{"not-sent"})
}

func TestSinkRefusesTheMessage(t *testing.T) {
	s, k := start(t)
	k.dataErr = &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "not this one"}
	c := s.login(t)
	c.data()
	c.raw(stuffed(message1("x\r\n")))
	c.expect("554 5.6.0 not this one")
	c.quit()
	s.gate.waitEnd(t)
	wantList(t, "outcomes", s.gate.outcomes(), []string{"refused"})
}

// fakeSent answers look-ups as told.
type fakeSent struct {
	mu    sync.Mutex
	found bool
	err   error
	n     int
}

func (f *fakeSent) lock() func() {
	f.mu.Lock()
	return f.mu.Unlock
}

func (f *fakeSent) FindInSent(_ context.Context, _ broker.LiveSession, id string) (bool, error) {
	defer f.lock()()
	f.n++
	if id != messageID {
		return false, fmt.Errorf("asked for %q", id)
	}
	return f.found, f.err
}

func (f *fakeSent) count() int { defer f.lock()(); return f.n }

func (f *fakeSent) reset(found bool, err error) {
	defer f.lock()()
	f.found, f.err, f.n = found, err, 0
}
