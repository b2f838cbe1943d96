// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// TestNever8: a message truncated, altered, sent to a recipient that the rules
// refuse, or doubled or lost without a word.
func TestNever8(t *testing.T) {
	t.Parallel()
	w := newRig(t, e2e.WorldOptions{Sealed: true, Postfix: []servers.PostfixOption{
		// Postfix itself must not fold the long lines on their way to Dovecot.
		servers.WithPostfixConfig("smtp_line_length_limit = 0\nlmtp_line_length_limit = 0"),
	}})
	s := w.Seat(sales)
	t.Run("unaltered", func(t *testing.T) { passesUnaltered(w.For(t), s) })
	t.Run("recipients", func(t *testing.T) { keepsToRecipients(w.For(t), s) })
	t.Run("provider lost", func(t *testing.T) {
		for _, c := range losses() {
			t.Run(c.name, func(t *testing.T) { losesProvider(w.For(t), s, c) })
		}
	})
	t.Run("found in Sent", func(t *testing.T) { findsInSent(w.For(t), s) })
	t.Run("client lost", func(t *testing.T) { losesClient(w.For(t), s) })
}

// signer signs as the sender's own system does, before Postern sees the mail.
type signer struct {
	key    ed25519.PrivateKey
	record string
}

func newSigner(t testing.TB) *signer {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{private, "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)}
}

func (k *signer) sign(t testing.TB, m string) string {
	t.Helper()
	var b bytes.Buffer
	if err := dkim.Sign(&b, strings.NewReader(m), &dkim.SignOptions{
		Domain: "client.example", Selector: "test", Signer: k.key,
		HeaderCanonicalization: dkim.CanonicalizationSimple, BodyCanonicalization: dkim.CanonicalizationSimple,
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (k *signer) verify(t testing.TB, m []byte) {
	t.Helper()
	found, err := dkim.VerifyWithOptions(bytes.NewReader(m), &dkim.VerifyOptions{
		LookupTXT: func(string) ([]string, error) { return []string{k.record}, nil },
	})
	if err != nil || len(found) != 1 || found[0].Err != nil {
		t.Errorf("the signature does not hold: %v, %+v", err, found)
	}
}

func passesUnaltered(r *rig, s *e2e.Seat) {
	t := r.t
	k := newSigner(t)
	long := strings.Repeat("y", 70<<10)
	for name, body := range map[string]string{
		"one line":            "hello\r\n",
		"dots":                ".\r\n..\r\n...\r\n.x\r\n. \r\n",
		"a dot at the end":    "x\r\n.\r\n",
		"8 bit":               "caf\xc3\xa9 \xff\xfe\x80\r\n",
		"998 octets a line":   strings.Repeat("z", 998) + "\r\n",
		"longer than buffers": long + "\r\n." + long + "\r\n",
		"a million octets":    strings.Repeat(".line of it\r\n", 80000),
		"looks like commands": "QUIT\r\nRSET\r\nMAIL FROM:<x@y.example>\r\n",
		"trailing spaces":     "a \t \r\n \r\n",
		"controls":            "\x01\x7f\x1b[0m\r\n",
	} {
		id := "unaltered-" + mark(t)
		m := k.sign(t, message(sales, support, id, body))
		from := len(r.smtp.Seen(servers.ToServer))
		c := s.Submission(t)
		c.Ask(250, "MAIL FROM:<%s> BODY=8BITMIME", sales)
		c.Ask(250, "RCPT TO:<%s>", support)
		c.Ask(354, "DATA")
		c.Send("%s", stuffed(m)+".\r\n")
		c.Want(250)
		c.Ask(221, "QUIT")
		servers.WaitFor(t, patience, func() bool { return r.smtp.Connections() == 0 }, "the provider's connection to close")
		got, err := parseSMTP(said(r.smtp, from))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if n := len(got.commands); n == 0 || got.commands[n-1] != "QUIT" {
			t.Errorf("%s: no goodbye upstream: %q", name, got.commands)
		}
		if len(got.messages) != 1 || got.messages[0] != m {
			t.Errorf("%s: %d octets became %d messages %.300q", name, len(m), len(got.messages), got.messages)
		}
		if n := r.settled(support, id); n != 1 {
			t.Errorf("%s: delivered %d times", name, n)
			continue
		}
		uid := r.Dovecot.Messages(support, "INBOX", "HEADER Message-ID "+id)[0]
		k.verify(t, r.Dovecot.Message(support, "INBOX", uid))
	}
}

// keepsToRecipients: what was refused does not get the message.
func keepsToRecipients(r *rig, s *e2e.Seat) {
	t := r.t
	id := "recipients-" + mark(t)
	from := len(r.smtp.Seen(servers.ToServer))
	c := s.Submission(t)
	c.Ask(550, "MAIL FROM:<%s>", support)
	c.Ask(550, "MAIL FROM:<>")
	c.Ask(250, "MAIL FROM:<%s>", sales)
	c.Ask(550, "RCPT TO:<nobody@client.example>")
	for _, malformed := range []string{
		`<"x@evil.example> NOTIFY=NEVER ORCPT=rfc822;y"@client.example`, "<@relay.example:victim@evil.example>", "<victim@evil.example", "victim@evil.example",
		"<victim@evil.example> ORCPT=rfc822;a\tb", "<victim@evil.example> XFOO=1", "<a@b@evil.example>", "<victim@evil..example>", "<%s> <victim@evil.example>",
	} {
		c.Send("RCPT TO:%s\r\n", malformed)
		if reply := c.Reply(); !strings.HasPrefix(reply, "5") {
			t.Errorf("RCPT TO:%s: %s", malformed, reply)
		}
		if count(r.smtp, servers.ToServer, from, "victim@evil.example") > 0 {
			t.Fatalf("RCPT TO:%s reached the provider", malformed)
		}
	}
	c.Ask(221, "QUIT")

	c = s.Submission(t)
	c.Ask(250, "MAIL FROM:<%s>", sales)
	c.Ask(550, "RCPT TO:<nobody@client.example>")
	c.Ask(250, "RCPT TO:<%s>", support)
	c.Ask(354, "DATA")
	c.Send("%s.\r\n", message(sales, support, id, "to one of two\r\n"))
	c.Want(250)
	// A header that names another sender than the mailbox's is refused with
	// the whole message, whatever the envelope says.
	for _, forged := range []string{
		message(support, support, id+"-forged", "x\r\n"),
		"From: " + sales + "\r\n" + message(support, support, id+"-forged", "x\r\n"),
		strings.Replace(message(sales, support, id+"-forged", "x\r\n"), "From: ", "Sender: "+support+"\r\nFrom: ", 1),
	} {
		c.Ask(250, "MAIL FROM:<%s>", sales)
		c.Ask(250, "RCPT TO:<%s>", support)
		c.Ask(354, "DATA")
		c.Send("%s.\r\n", forged)
		if reply := c.Reply(); !strings.HasPrefix(reply, "55") {
			t.Errorf("a forged header: %s", reply)
		}
	}
	c.Ask(221, "QUIT")
	if n := r.settled(support, id); n != 1 {
		t.Errorf("the accepted recipient got it %d times", n)
	}
	if n := r.delivered(support, id+"-forged"); n != 0 {
		t.Errorf("the forged message was delivered %d times", n)
	}
	intents := intentsOf(t, s, id)
	if len(intents) != 1 || !slices.Equal(intents[0].Recipients, []string{support}) {
		t.Errorf("intents: %+v", intents)
	}
	if n := len(intentsOf(t, s, id+"-forged")); n != 0 {
		t.Errorf("%d intents for the forged message", n)
	}
}

// intentsOf are the send.intent events of one Message-ID.
func intentsOf(t testing.TB, s *e2e.Seat, id string) []broker.SendIntent {
	t.Helper()
	var all []broker.SendIntent
	for _, e := range s.Events(broker.EventSendIntent) {
		if intent := e2e.Decode[broker.SendIntent](t, e); intent.MessageID == "<"+id+"@client.example>" {
			all = append(all, intent)
		}
	}
	return all
}

// outcomesOf are the outcomes of the send.result events of one Message-ID.
func outcomesOf(t testing.TB, s *e2e.Seat, id string) []string {
	t.Helper()
	var all []string
	for _, e := range s.Events(broker.EventSendResult) {
		if result := e2e.Decode[broker.SendResult](t, e); result.MessageID == "<"+id+"@client.example>" {
			all = append(all, result.Outcome)
		}
	}
	return all
}

// loss is a provider's connection that is cut at one step.
type loss struct {
	name  string
	fault servers.Fault
	// told begins the answer; delivered is how often the provider delivered
	// it; outcomes are what the record says. The same message once more is
	// told 250, and then it was delivered in all again times.
	told      string
	delivered int
	outcomes  []string
	again     int
	// behind is how many lines follow the half of the way; 0: few.
	behind int
}

const halfWay = "this is half of the way"

func losses() []loss {
	cut := func(d servers.Direction, pattern string, before bool) servers.Fault {
		return servers.Fault{Direction: d, Pattern: []byte(pattern), Before: before, Action: servers.Cut}
	}
	const maybe = "451 4.4.2 the mail server broke off while it had the whole message, and it is not in Sent; it may have been sent all the same"
	const nothing = "451 4.4.2 the mail server behind cannot be reached or broke off; nothing was sent"
	return []loss{
		{name: "at MAIL, which is said again", fault: cut(servers.ToServer, "MAIL FROM", true), told: "250", delivered: 1, outcomes: []string{"accepted"}, again: 2},
		// MAIL and the first RCPT go together, and change nothing: both are said again.
		{name: "at RCPT, which is said again", fault: cut(servers.ToServer, "RCPT TO", true), told: "250", delivered: 1, outcomes: []string{"accepted"}, again: 2},
		{name: "at the answer to RCPT, which is said again", fault: cut(servers.ToClient, "250 2.1.5", true), told: "250", delivered: 1, outcomes: []string{"accepted"}, again: 2},
		{name: "at DATA", fault: cut(servers.ToServer, "DATA\r\n", true), told: nothing, again: 1},
		{name: "at the answer to DATA", fault: cut(servers.ToClient, "354 ", true), told: nothing, again: 1},
		// So much follows that it cannot all be in buffers when the loss is noticed.
		{name: "half way", fault: cut(servers.ToServer, halfWay, true), told: nothing, again: 1, behind: 2 << 20},
		{name: "before the final dot", fault: cut(servers.ToServer, "\r\n.\r\n", true), told: maybe, outcomes: []string{"unknown"}, again: 1},
		{name: "after the final dot", fault: cut(servers.ToServer, "\r\n.\r\n", false), told: maybe, delivered: 1, outcomes: []string{"unknown"}, again: 2},
		{name: "at the answer to the final dot", fault: cut(servers.ToClient, "250 2.0.0 Ok: queued", true), told: maybe, delivered: 1, outcomes: []string{"unknown"}, again: 2},
	}
}

// submit sends a message on a session of its own and returns what the client
// was told in the end: the first refusal, or the answer to the final dot.
func submit(t testing.TB, s *e2e.Seat, m string) string {
	t.Helper()
	c := s.Submission(t)
	for _, command := range []string{"MAIL FROM:<" + sales + ">", "RCPT TO:<" + support + ">", "DATA"} {
		c.Send("%s\r\n", command)
		if reply := c.Reply(); reply[0] != '2' && reply[0] != '3' {
			c.Ask(221, "QUIT")
			return reply
		}
	}
	c.Send("%s.\r\n", stuffed(m))
	reply := c.Reply()
	c.Ask(221, "QUIT")
	return reply
}

func losesProvider(r *rig, s *e2e.Seat, l loss) {
	t := r.t
	id := "loss-" + mark(t)
	m := message(sales, support, id, strings.Repeat("before\r\n", 20000)+halfWay+"\r\n"+strings.Repeat("behind\r\n", max(l.behind, 20000)))
	struck := r.smtp.Arm(l.fault)
	told := submit(t, s, m)
	await(t, struck, "the fault to strike")
	wantPrefix(t, "told", told, l.told)
	delivered := r.settled(support, id)
	if delivered != l.delivered {
		t.Errorf("delivered %d times, want %d", delivered, l.delivered)
	}
	intents, outcomes := len(intentsOf(t, s, id)), outcomesOf(t, s, id)
	if !slices.Equal(outcomes, l.outcomes) {
		t.Errorf("recorded as %q, want %q", outcomes, l.outcomes)
	}
	if intents != len(outcomes) {
		t.Errorf("%d intents for %d results", intents, len(outcomes))
	}
	again := submit(t, s, m)
	wantPrefix(t, "the same message again", again, "250")
	total := r.settled(support, id)
	if total != l.again {
		t.Errorf("delivered %d times in all, want %d", total, l.again)
	}
	if got := len(intentsOf(t, s, id)); got < total {
		t.Errorf("%d intents for %d deliveries", got, total)
	}
	t.Logf("told %.60q, delivered %d, recorded %q; again: delivered %d in all", told, delivered, outcomes, total)
}

// findsInSent: an unknown outcome is settled where the provider files what it
// sent, at once or when the client comes again.
func findsInSent(r *rig, s *e2e.Seat) {
	t := r.t
	lost := servers.Fault{Direction: servers.ToServer, Pattern: []byte("\r\n.\r\n"), Action: servers.Cut}
	for _, late := range []bool{false, true} {
		id := "sent-" + mark(t)
		m := message(sales, support, id, "once\r\n")
		if !late {
			r.Dovecot.Deliver(sales, "Sent", []byte(m))
		}
		struck := r.smtp.Arm(lost)
		told := submit(t, s, m)
		await(t, struck, "the fault to strike")
		want := []string{"unknown", "accepted"}
		if late {
			wantPrefix(t, "told", told, "451")
			r.Dovecot.Deliver(sales, "Sent", []byte(m))
			from := len(r.smtp.Seen(servers.ToServer))
			told = submit(t, s, m)
			if n := count(r.smtp, servers.ToServer, from, "\r\n.\r\n"); n != 0 {
				t.Errorf("it was sent again")
			}
		}
		wantPrefix(t, "told", told, "250")
		if n := r.settled(support, id); n != 1 {
			t.Errorf("filed late %t: delivered %d times", late, n)
		}
		if got := outcomesOf(t, s, id); !slices.Equal(got, want) {
			t.Errorf("filed late %t: recorded as %q, want %q", late, got, want)
		}
	}
}

// losesClient: the client vanishes at each step. Nothing half received is ever
// submitted; what was whole is submitted once, however often it is repeated.
func losesClient(r *rig, s *e2e.Seat) {
	t := r.t
	for _, step := range []string{"MAIL", "RCPT", "DATA", "in the header", "behind the header", "in the body", "before the dot", "at the dot", "at the dot's CR", "whole"} {
		id := "client-" + mark(t)
		m := message(sales, support, id, strings.Repeat("line\r\n", 10000))
		part := map[string]string{
			"in the header": m[:60], "behind the header": m[:strings.Index(m, "\r\n\r\n")+4], "in the body": m[:len(m)/2], "before the dot": m,
			"at the dot": m + ".", "at the dot's CR": m + ".\r", "whole": m + ".\r\n",
		}[step]
		from := len(r.smtp.Seen(servers.ToServer))
		c := s.Submission(t)
		c.Ask(250, "MAIL FROM:<%s>", sales)
		if step != "MAIL" {
			c.Ask(250, "RCPT TO:<%s>", support)
		}
		if part != "" || step == "DATA" {
			c.Ask(354, "DATA")
		}
		c.Send("%s", part)
		c.Close()
		r.noSessions()
		want := 0
		if step == "whole" {
			want = 1
		}
		if n := r.settled(support, id); n != want {
			t.Errorf("vanished %s: delivered %d times, want %d", step, n, want)
		}
		if n := count(r.smtp, servers.ToServer, from, "\r\n.\r\n"); n != want {
			t.Errorf("vanished %s: %d final dots went upstream, want %d", step, n, want)
		}
		if n := len(intentsOf(t, s, id)); n != want {
			t.Errorf("vanished %s: %d intents, want %d", step, n, want)
		}
		wantPrefix(t, fmt.Sprintf("vanished %s: again", step), submit(t, s, m), "250")
		if n := r.settled(support, id); n != 1 {
			t.Errorf("vanished %s: delivered %d times in all", step, n)
		}
	}
}
