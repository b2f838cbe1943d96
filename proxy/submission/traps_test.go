// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"encoding/base64"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// The traps of go-smtp, one test each.

func TestTrapQuotedLocalPartMustNotBecomeParameters(t *testing.T) {
	s, k := start(t)
	c := s.login(t)
	c.talk("C: MAIL FROM:<alice@own.example>\nS*250")
	c.raw("RCPT TO:<\"victim@evil.example> NOTIFY=NEVER ORCPT=rfc822;x\"@allowed.example>\r\n")
	c.expect("250 ") // it is a legal address at allowed.example, and is passed on as one
	c.talk("C: DATA\nS*354")
	c.raw(stuffed(message1("x\r\n")))
	c.expect("250 ")
	c.quit()
	got := k.only(t)
	wantList(t, "recipients", got.to, []string{`victim@evil.example> NOTIFY=NEVER ORCPT=rfc822;x@allowed.example`})
	if len(got.rcpt[0].Notify) != 0 {
		t.Error("a parameter was smuggled out of the quotes")
	}
	intent := eventsOf[broker.SendIntent](s.gate, broker.EventSendIntent)[0]
	wantList(t, "recorded", intent.Recipients, []string{`"victim@evil.example> NOTIFY=NEVER ORCPT=rfc822;x"@allowed.example`})
}

func TestTrapParametersByAllowList(t *testing.T) {
	s, _ := start(t)
	c := s.login(t)
	for _, line := range []string{
		"MAIL FROM:<alice@own.example> REQUIRETLS", "MAIL FROM:<alice@own.example> BODY=BINARYMIME",
		"MAIL FROM:<alice@own.example> XOORG=own.example", "MAIL FROM:<alice@own.example> MT-PRIORITY=3",
	} {
		c.talk("C: " + line + "\nS: 555 5.5.4")
	}
	for _, line := range []string{
		"MAIL FROM:<alice@own.example> SIZE=1 SIZE=2", "MAIL FROM:<alice@own.example> SIZE=-1", "MAIL FROM:<alice@own.example> ENVID=a=b",
		"MAIL FROM:<alice@own.example> RET=ALL", "MAIL FROM:<alice@own.example> ENVID=a+0D+0A", "MAIL FROM:<alice@own.example> SMTPUTF8=yes",
	} {
		c.talk("C: " + line + "\nS: 501 5.5.4")
	}
	if got := s.gate.rules(); len(got) != 9 && len(got) != 10 {
		t.Errorf("%d refusals recorded: %q", len(got), got)
	}
}

func TestTrapExtensionsAreWhatBothSidesCanDo(t *testing.T) {
	gate := newGate()
	k := newSink(t, func(s *smtp.Server) { s.EnableDSN = false; s.MaxMessageBytes = 1000 })
	gate.dial = dialTo(k.addr)
	s := newSetup(t, gate, func(c *Config) { c.OfferBeforeLogin = []string{"dsn"} })
	c := s.connect(t)
	c.raw("EHLO client.example\r\n")
	before := c.expect("250 SIZE 52428800")
	for keyword, want := range map[string]bool{"CHUNKING": false, "DSN": true, "SMTPUTF8": false, "STARTTLS": false, "AUTH PLAIN LOGIN OAUTHBEARER": true, "BINARYMIME": false, "8BITMIME": true} {
		if strings.Contains(before, "250-"+keyword+"\r\n") != want {
			t.Errorf("before login, %s offered is not %v:\n%s", keyword, want, before)
		}
	}
	c.talk("C: AUTH PLAIN " + plain("", ownAddress, token) + "\nS: 235")
	c.raw("EHLO client.example\r\n")
	if after := c.expect("250 SIZE 1000"); strings.Contains(after, "DSN") || strings.Contains(after, "AUTH") {
		t.Errorf("after login the upstream's extensions count:\n%s", after)
	}
	c.talk(`C: MAIL FROM:<alice@own.example> RET=FULL
		S: 555 5.5.4
		C: MAIL FROM:<alice@own.example> SMTPUTF8
		S: 555 5.6.7
		C: MAIL FROM:<alice@own.example> SIZE=1001
		S: 552 5.3.4
		C: MAIL FROM:<alice@own.example>
		S: 250
		C: RCPT TO:<bob@client.example> NOTIFY=NEVER
		S: 555 5.5.4`)
	wantList(t, "rules", gate.rules(), []string{ruleCapability, ruleCapability, ruleSize, ruleCapability})
}

func TestTrapBDATIsRefusedAndItsChunkIsNotCommands(t *testing.T) {
	for _, loggedIn := range []bool{false, true} {
		s, k := start(t)
		c := s.connect(t)
		if loggedIn {
			c = s.login(t)
			c.talk("C: MAIL FROM:<alice@own.example>\nS*250\nC: RCPT TO:<bob@client.example>\nS*250")
		}
		c.raw("BDAT 65 LAST\r\nMAIL FROM:<alice@own.example>\r\nRCPT TO:<victim@client.example>\r\n")
		c.expect("502 5.5.1")
		c.expectEOF()
		if k.count() != 0 || s.gate.intents() != 0 {
			t.Error("BDAT submitted something")
		}
	}
}

func TestTrapMailNeedsAuth(t *testing.T) {
	s, _ := start(t)
	c := s.connect(t)
	c.talk(`C: MAIL FROM:<alice@own.example>
		S: 503
		C: EHLO x.example
		S*250
		C: MAIL FROM:<alice@own.example>
		S: 530 5.7.0
		C: RCPT TO:<bob@client.example>
		S: 530 5.7.0
		C: DATA
		S: 530 5.7.0`)
	// And go-smtp itself, were the wire to fail: Mail asks again.
	if err := (&session{}).Mail("x", nil); err == nil {
		t.Error("Mail without AUTH succeeded")
	}
}

func TestTrapErrorsNeverReachTheClientVerbatim(t *testing.T) {
	s, _ := start(t)
	secret := errors.New("dial tcp 10.1.2.3: SECRET CAUSE")
	for _, err := range []error{
		secret, broker.Errorf(broker.Unavailable, "out of reach").WithCause(secret), broker.Errorf(broker.Internal, "x").WithCause(secret),
		broker.Errorf(broker.CredentialRefused, "x").WithCause(secret), broker.Errorf(broker.Refused, "locked\r\n250 ok").WithCause(secret),
	} {
		s.gate.set(func() { s.gate.err = err })
		c := s.connect(t)
		c.talk("C: EHLO x.example\nS*250")
		c.raw("AUTH PLAIN " + plain("", ownAddress, token) + "\r\nNOOP\r\n")
		got := c.expect("") + c.expect("250")
		if strings.Contains(got, "SECRET") || strings.Contains(got, "\r\n250 ok") {
			t.Errorf("%v: the client got %q", err, got)
		}
		s.gate.set(func() { s.gate.err, s.gate.dialErr = nil, err })
		c.raw("AUTH PLAIN " + plain("", ownAddress, token) + "\r\n")
		if got := c.expect(""); strings.Contains(got, "SECRET") {
			t.Errorf("%v: the client got %q", err, got)
		}
		s.gate.set(func() { s.gate.dialErr = nil })
	}
}

func TestTrapBareLineBreaksInCommands(t *testing.T) {
	for name, line := range map[string]string{
		"LF": "NOOP\n", "CR": "NOOP\rNOOP\r\n", "CR CR LF": "NOOP\r\r\n", "NUL": "NOOP\x00\r\n", "lone LF": "\n",
	} {
		s, _ := start(t)
		c := s.connect(t)
		c.raw(line + "QUIT\r\n")
		if got := c.expect("500 5.5.2"); got == "" {
			t.Error(name)
		}
		c.expectEOF()
	}
}

// smuggled are the ends of data that some server or other takes for one.
var smuggled = map[string]string{
	"LF.LF": "\n.\n", "LF.CRLF": "\n.\r\n", "CRLF.LF": "\r\n.\n", "CR.CR": "\r.\r", "CRLF.CR": "\r\n.\r", "CR.CRLF": "\r.\r\n",
	"CRLFCRLF.LF": "\r\n\r\n.\n", "NUL": "\r\n.\x00\r\n", "CRLF.CRCRLF": "\r\n.\r\r\n",
}

func TestTrapSmuggledEndOfDataIsRefusedAndNotParsed(t *testing.T) {
	const attack = "MAIL FROM:<alice@own.example>\r\nRCPT TO:<victim@client.example>\r\nDATA\r\nFrom: boss@own.example\r\n\r\nfraud\r\n.\r\n"
	for name, end := range smuggled {
		for _, inHeader := range []bool{false, true} {
			s, k := start(t)
			c := s.login(t)
			c.data()
			m := message1("first")
			if inHeader {
				m = strings.TrimSuffix(m, "\r\n\r\nfirst")
			}
			c.raw(m + end + attack)
			c.expect("554 5.6.0")
			c.expectEOF()
			s.gate.waitEnd(t)
			if k.count() != 0 || s.gate.intents() != 0 {
				t.Errorf("%s: something was submitted", name)
			}
			wantList(t, name, s.gate.rules(), []string{ruleLineBreak})
		}
	}
}

func TestTrapTimeoutInDataIsNotParsedAsCommands(t *testing.T) {
	gate, k := newGate(), newSink(t, nil)
	gate.dial = dialTo(k.addr)
	s := newSetup(t, gate, func(c *Config) { c.Limits.DataTimeout = 50 * time.Millisecond })
	c := s.login(t)
	c.data()
	c.raw(message1("half a mess"))
	c.expect("421 4.4.2") // and only then:
	_, _ = io.WriteString(c.Conn, "age\r\n.\r\nMAIL FROM:<alice@own.example>\r\n")
	c.expectEOF()
	if e := gate.waitEnd(t); e.Reason != broker.EndIdle {
		t.Errorf("ended by %q", e.Reason)
	}
	if k.count() != 0 || gate.intents() != 0 {
		t.Error("half a message was submitted")
	}
}

func TestTrapSlowMessageIsNotCutOff(t *testing.T) {
	// The deadline is for each read: a message may take longer than it.
	gate, k := newGate(), newSink(t, nil)
	gate.dial = dialTo(k.addr)
	s := newSetup(t, gate, func(c *Config) { c.Limits.DataTimeout = 400 * time.Millisecond })
	c := s.login(t)
	c.data()
	for _, part := range strings.SplitAfter(stuffed(message1("a\r\nb\r\nc\r\n")), "\n") {
		c.raw(part)
		time.Sleep(100 * time.Millisecond) // the passing of time is what is tested
	}
	c.expect("250 ")
	k.only(t)
}

func TestTrapLineLength(t *testing.T) {
	s, _ := start(t)
	c := s.connect(t)
	c.raw("NOOP " + strings.Repeat("x", maxCommandLine) + "\r\n")
	c.expect("500 5.5.2")
	c.expectEOF()

	c = s.connect(t)
	c.talk("C: EHLO x.example\nS*250")
	c.raw("AUTH PLAIN " + strings.Repeat("A", maxAuthLine) + "\r\n")
	c.expect("500 5.5.2")
	c.expectEOF()
}

func TestTrapAuthLinesUpTo16K(t *testing.T) {
	s, _ := start(t)
	long := strings.Repeat("t", 11<<10) // 15 KiB in base64
	response := base64.StdEncoding.EncodeToString([]byte("n,a=" + ownAddress + ",\x01auth=Bearer " + long + "\x01\x01"))
	c := s.connect(t)
	c.talk("C: EHLO x.example\nS*250\nC: AUTH OAUTHBEARER " + response + "\nS: 334 ")
	c.talk("C: AQ==\nS: 535 5.7.8")
	c.talk("C: AUTH OAUTHBEARER\nS: 334 \nC: " + response + "\nS: 334 \nC: AQ==\nS: 535 5.7.8")
	s.gate.set(func() {
		if len(s.gate.tokens) != 2 || s.gate.tokens[0] != long || s.gate.tokens[1] != long {
			t.Error("the token did not arrive whole")
		}
	})
}

func TestTrapTooManyBadCommands(t *testing.T) {
	s, _ := start(t)
	c := s.connect(t)
	for range maxBadCommands {
		c.talk("C: XYZZY\nS: 500")
	}
	c.expect("421 4.7.0")
	c.expectEOF()
}

func TestTrapVRFYEXPNHELP(t *testing.T) {
	s, _ := start(t)
	c := s.connect(t)
	c.talk("C: VRFY alice\nS: 252\nC: EXPN staff\nS: 502\nC: HELP\nS: 502\nC: SEND x\nS: 500\nC: TURN\nS: 500\nC: XCLIENT ADDR=192.0.2.9\nS: 500")
}

func TestTrapSecondMailAndOrder(t *testing.T) {
	s, _ := start(t)
	c := s.login(t)
	c.talk(`C: RCPT TO:<bob@client.example>
		S: 503
		C: DATA
		S: 503
		C: MAIL FROM:<alice@own.example>
		S: 250
		C: MAIL FROM:<sales@own.example>
		S: 503
		C: AUTH PLAIN AAAA
		S: 503
		C: DATA
		S: 503
		C: MAIL FROM: <alice@own.example>
		S: 501
		C: EHLO again.example
		S*250
		C: RCPT TO:<bob@client.example>
		S: 503`)
}

func TestTrapHelloMustNotCrash(t *testing.T) {
	s, _ := start(t)
	c := s.connect(t)
	c.talk("C: EHLO\nS: 501\nC: EHLO a b\nS: 501\nC: HELO x.example\nS: 250\nC: EHLO [192.0.2.1]\nS*250")
}

func TestOwnAddresses(t *testing.T) {
	s, _ := start(t)
	c := s.login(t)
	c.talk(`C: MAIL FROM:<>
		S: 550 5.7.1
		C: MAIL FROM:<boss@own.example>
		S: 550 5.7.1
		C: MAIL FROM:<alice@own.example.evil.example>
		S: 550 5.7.1
		C: MAIL FROM:<"alice@own.example"@evil.example>
		S: 550 5.7.1
		C: MAIL FROM:<@evil.example:alice@own.example>
		S: 501 5.1.7
		C: MAIL FROM:<"al\ice"@own.example>
		S: 250
		C: RSET
		S: 250
		C: MAIL FROM:<SALES@own.example>
		S: 250`)
	wantList(t, "rules", s.gate.rules(), []string{ruleOwnAddress, ruleOwnAddress, ruleOwnAddress, ruleOwnAddress, ruleAddress})
}

func TestSendActionIsNeeded(t *testing.T) {
	s, _ := start(t)
	s.gate.actions = policy.All &^ policy.Send
	s.gate.dialErr = errors.New("the upstream must not be dialled")
	c := s.login(t)
	if got := func() string { c.raw("MAIL FROM:<alice@own.example>\r\n"); return c.expect("550 5.7.1") }(); !strings.Contains(got, "sending") {
		t.Errorf("the agent is told %q", got)
	}
	wantList(t, "rules", s.gate.rules(), []string{ruleSendAction})
}

func TestRefusalsAreBounded(t *testing.T) {
	s, _ := start(t)
	c := s.login(t)
	for range maxRefusals {
		c.talk("C: MAIL FROM:<boss@own.example>\nS: 550")
	}
	c.talk("C: NOOP\nS: 421 4.7.0")
	c.expectEOF()
}

func TestRecipientsLimit(t *testing.T) {
	gate, k := newGate(), newSink(t, nil)
	gate.dial = dialTo(k.addr)
	k.rcptErr["nobody@client.example"] = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	s := newSetup(t, gate, func(c *Config) { c.Limits.Recipients = 2 })
	c := s.login(t)
	c.talk(`C: MAIL FROM:<alice@own.example>
		S: 250
		C: RCPT TO:<nobody@client.example>
		S: 550 5.1.1 no such user
		C: RCPT TO:<a@client.example>
		S: 250
		C: RCPT TO:<b@client.example>
		S: 250
		C: RCPT TO:<c@client.example>
		S: 452 4.5.3`)
	c.talk("C: DATA\nS: 354")
	c.raw(stuffed(message1("x\r\n")))
	c.expect("250")
	wantList(t, "recipients", k.only(t).to, []string{"a@client.example", "b@client.example"})
}

func TestSizeLimit(t *testing.T) {
	gate, k := newGate(), newSink(t, nil)
	gate.dial = dialTo(k.addr)
	s := newSetup(t, gate, func(c *Config) { c.Limits.MessageOctets = 200 << 10 })
	c := s.login(t)
	c.data()
	c.raw(stuffed(message1(strings.Repeat("0123456789abcdef\r\n", 15<<10))))
	c.expect("552 5.3.4")
	c.data() // the connection lives, the upstream's is a new one
	c.raw(stuffed(message1("small\r\n")))
	c.expect("250 ")
	k.only(t)
	wantList(t, "rules", gate.rules(), []string{ruleSize})
}

func TestDialsAgainWhenTheUpstreamWentAway(t *testing.T) {
	gate := newGate()
	ups := scriptedUpstream(t, gate)
	s := newSetup(t, gate, nil)
	c := s.login(t)
	_ = (<-ups).conn.Close()
	c.raw("MAIL FROM:<alice@own.example>\r\n")
	u := <-ups
	u.read("MAIL FROM:<alice@own.example>")
	u.write("250 ok\r\n")
	c.expect("250 ")
}

func TestSenderGoesUpstreamWithTheFirstRecipient(t *testing.T) {
	gate := newGate()
	ups := scriptedUpstream(t, gate, "PIPELINING")
	s := newSetup(t, gate, nil)
	c := s.login(t)
	u := <-ups
	c.talk("C: MAIL FROM:<alice@own.example>\nS: 250\nC: RSET\nS: 250")
	c.talk("C: MAIL FROM:<alice@own.example>\nS: 250")

	// MAIL is refused: so is the recipient, and the next one asks again.
	c.raw("RCPT TO:<bob@client.example>\r\n")
	u.read("MAIL FROM:<alice@own.example>")
	u.read("RCPT TO:<bob@client.example>")
	u.write("452 4.3.1 no room\r\n503 5.5.1 MAIL first\r\n")
	c.expect("452 4.3.1 no room")
	c.talk("C: DATA\nS: 503 5.5.1")

	// A recipient is refused: the transaction is open all the same.
	c.raw("RCPT TO:<bob@client.example>\r\n")
	u.read("RSET")
	u.read("MAIL FROM:<alice@own.example>")
	u.read("RCPT TO:<bob@client.example>")
	u.write("250 ok\r\n250 ok\r\n550 5.1.1 no such user\r\n")
	c.expect("550 5.1.1 no such user")
	c.raw("RCPT TO:<carol@client.example>\r\n")
	u.read("RCPT TO:<carol@client.example>")
	u.write("250 ok\r\n")
	c.expect("250 ")
	go func() {
		u.read("DATA")
		u.write("354 go\r\n")
		u.message()
		u.write("250 ok\r\n")
	}()
	c.talk("C: DATA\nS: 354")
	c.raw(stuffed(message1("x\r\n")))
	c.expect("250 ")
	_ = u.conn.Close()
	c.quit()
	gate.waitEnd(t)
	if got := eventsOf[broker.SendIntent](gate, broker.EventSendIntent); len(got) != 1 || !slices.Equal(got[0].Recipients, []string{"carol@client.example"}) {
		t.Errorf("intents %+v", got)
	}
}

func TestDialsAgainWithTheFirstRecipient(t *testing.T) {
	gate := newGate()
	ups := scriptedUpstream(t, gate, "PIPELINING")
	s := newSetup(t, gate, nil)
	c := s.login(t)
	first := <-ups
	c.talk("C: MAIL FROM:<alice@own.example>\nS: 250")
	_ = first.conn.Close()
	c.raw("RCPT TO:<bob@client.example>\r\n")
	u := <-ups
	u.read("MAIL FROM:<alice@own.example>")
	u.read("RCPT TO:<bob@client.example>")
	u.write("250 ok\r\n250 ok\r\n")
	c.expect("250 ")
	// Now there is a transaction to lose.
	_ = u.conn.Close()
	c.talk("C: RCPT TO:<carol@client.example>\nS: 451 4.4.2")
}

func TestLinesOfAnotherClient(t *testing.T) {
	// A connection that a client just drops is no error and starts nothing.
	s, _ := start(t)
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestPanicInACommandEndsItsConnectionAlone(t *testing.T) {
	w := wireOf(t, []byte("NOOP\r\n"), 10)
	w.session = nil
	if n, err := w.Read(make([]byte, 100)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestTrapMessageAfterARefusedDataIsNotCommands(t *testing.T) {
	s, k := start(t)
	c := s.login(t)
	c.raw("DATA\r\nMAIL FROM:<alice@own.example>\r\nRCPT TO:<victim@client.example>\r\n")
	c.expect("503 5.5.1")
	c.expectEOF()
	if k.count() != 0 {
		t.Error("something was submitted")
	}
}
