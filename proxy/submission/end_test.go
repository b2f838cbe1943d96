// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy"
)

// TestNever4's part: a session that must end is over within the second, and
// both sockets with it.

func TestNever4RevokeWhileIdle(t *testing.T) {
	gate := newGate()
	ups := scriptedUpstream(t, gate)
	s := newSetup(t, gate, nil)
	c := s.login(t)
	u := <-ups
	at := time.Now()
	gate.revoke()
	c.expect("421 4.7.0 the delegation was revoked")
	c.expectEOF()
	if rest, _ := io.ReadAll(u.r); len(rest) != 0 {
		t.Errorf("upstream got %q", rest)
	}
	s.within(t, time.Second, at)
	if e := gate.waitEnd(t); e.Reason != broker.EndRevoked {
		t.Errorf("ended by %q", e.Reason)
	}
}

func TestNever4RevokeInMidDataSendsNothing(t *testing.T) {
	gate := newGate()
	ups := scriptedUpstream(t, gate)
	s := newSetup(t, gate, nil)
	c := s.login(t)
	u := <-ups
	type got struct {
		octets []byte
		whole  bool
	}
	upstreamGot := make(chan got, 1)
	begun := make(chan struct{})
	go func() {
		u.envelope()
		close(begun)
		b, whole := u.message()
		upstreamGot <- got{b, whole}
	}()
	c.data()
	c.raw(message1("half\r\n"))
	<-begun
	at := time.Now()
	gate.revoke()
	c.expect("421 4.7.0")
	c.expectEOF()
	if g := <-upstreamGot; g.whole {
		t.Error("the message got its final dot")
	}
	s.within(t, time.Second, at)
}

func TestNever4RevokeWhileTheClientDoesNotRead(t *testing.T) {
	// The client fills its answers' way, so that a write to it blocks, and
	// neither reads nor stops sending. TLS is on: its locks must not matter.
	s, roots := startTLS(t)
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.(*net.TCPConn).SetReadBuffer(4 << 10)
	c := secure(t, s, raw, roots)
	c.talk("C: AUTH PLAIN " + plain("", ownAddress, token) + "\nS: 235")
	stuck := make(chan struct{})
	go func() {
		defer close(stuck)
		line := strings.Repeat("VRFY x\r\n", 1000)
		for {
			if _, err := io.WriteString(c.Conn, line); err != nil {
				return
			}
		}
	}()
	// Wait until nothing moves any more.
	for before := int64(-1); ; time.Sleep(100 * time.Millisecond) {
		now := s.sent()
		if now == before && now > 64<<10 {
			break
		}
		before = now
	}
	at := time.Now()
	s.gate.revoke()
	s.gate.waitEnd(t)
	s.within(t, time.Second, at)
	<-stuck // the socket is closed: the client's writes fail
	s.within(t, 2*time.Second, at)
}

func TestNever4RevokeWhileTheUpstreamDoesNotRead(t *testing.T) {
	gate := newGate()
	ups := scriptedUpstream(t, gate)
	s := newSetup(t, gate, nil)
	c := s.login(t)
	u := <-ups
	go u.envelope()
	c.data()
	c.raw(message1(""))
	stuck := make(chan struct{})
	go func() {
		defer close(stuck)
		line := strings.Repeat("x", 64<<10) + "\r\n"
		for {
			if _, err := io.WriteString(c.Conn, line); err != nil {
				return
			}
		}
	}()
	time.Sleep(300 * time.Millisecond) // loopback buffers are full by then
	at := time.Now()
	gate.revoke()
	gate.waitEnd(t)
	s.within(t, time.Second, at)
	<-stuck
}

func TestNever4RevokeAfterTheFinalDotGivesTheUpstreamAMoment(t *testing.T) {
	gate := newGate()
	ups := scriptedUpstream(t, gate)
	s := newSetup(t, gate, nil)
	c := s.login(t)
	u := <-ups
	at := make(chan time.Time, 1)
	go func() {
		u.envelope()
		u.message()
		at <- time.Now()
		gate.revoke()
		time.Sleep(100 * time.Millisecond) // an answer that was under way
		u.write("250 2.0.0 sent\r\n")
	}()
	c.data()
	c.raw(stuffed(message1("x\r\n")))
	c.expect("250 2.0.0 sent")
	c.expect("421 4.7.0")
	c.expectEOF()
	s.within(t, time.Second, <-at)
	wantList(t, "outcomes", gate.outcomes(), []string{"accepted"})
}

func TestNever4RevokeAfterTheFinalDotOfASilentUpstream(t *testing.T) {
	gate := newGate()
	ups := scriptedUpstream(t, gate)
	s := newSetup(t, gate, func(c *Config) { c.Sent = &fakeSent{} })
	c := s.login(t)
	u := <-ups
	at := make(chan time.Time, 1)
	go func() {
		u.envelope()
		u.message()
		at <- time.Now()
		gate.revoke()
	}()
	c.data()
	c.raw(stuffed(message1("x\r\n")))
	begun := <-at
	gate.waitEnd(t)
	s.within(t, time.Second, begun)
	wantList(t, "outcomes", gate.outcomes(), []string{"unknown"})
}

func TestDrainEndsConnectionsThatAreNotAuthenticated(t *testing.T) {
	s, _ := start(t)
	g := s.gateway
	near, far := net.Pipe()
	defer near.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); g.ServeConn(ctx, newPlainConn(far)) }()
	r := bufio.NewReader(near)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "220") {
		t.Fatal(line, err)
	}
	cancel()
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "421 4.3.0 the server is stopping") && !strings.HasPrefix(line, "421 4.3.2 the server is stopping") {
		t.Fatal(line, err)
	}
	_ = near.Close()
	<-done
}

func TestIdleTimeout(t *testing.T) {
	gate, k := newGate(), newSink(t, nil)
	gate.dial = dialTo(k.addr)
	s := newSetup(t, gate, func(c *Config) { c.Limits.CommandTimeout = 100 * time.Millisecond })
	c := s.login(t)
	c.expect("421 4.4.2")
	c.expectEOF()
}

func TestLogin(t *testing.T) {
	b64 := func(s string) string { return strings.TrimSpace(encode(s)) }
	bearer := "n,a=" + ownAddress + ",\x01host=x\x01port=587\x01auth=Bearer " + token + "\x01\x01"
	for name, tt := range map[string]struct {
		script         string
		user, identity string
	}{
		"PLAIN":             {"C: AUTH PLAIN " + plain("", ownAddress, token) + "\nS: 235 ", ownAddress, ""},
		"PLAIN authzid":     {"C: AUTH PLAIN " + plain(ownAddress, "ann", token) + "\nS: 235 ", "ann", ownAddress},
		"PLAIN two steps":   {"C: AUTH PLAIN\nS: 334 \nC: " + plain("", "ann/"+ownAddress, token) + "\nS: 235 ", "ann/" + ownAddress, ""},
		"plain lower case":  {"C: auth plain " + plain("", ownAddress, token) + "\nS: 235 ", ownAddress, ""},
		"LOGIN":             {"C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: " + b64(ownAddress) + "\nS: 334 UGFzc3dvcmQ6\nC: " + b64(token) + "\nS: 235 ", ownAddress, ""},
		"LOGIN with a name": {"C: AUTH LOGIN " + b64(ownAddress) + "\nS: 334 UGFzc3dvcmQ6\nC: " + b64(token) + "\nS: 235 ", ownAddress, ""},
		"OAUTHBEARER":       {"C: AUTH OAUTHBEARER " + b64(bearer) + "\nS: 235 ", ownAddress, ""},
		"OAUTHBEARER names": {"C: AUTH OAUTHBEARER " + b64("n,a=a=2Cb=3Dc@own.example,\x01auth=bearer "+token+"\x01\x01") + "\nS: 235 ", "a,b=c@own.example", ""},
	} {
		s, _ := start(t)
		c := s.connect(t)
		c.talk("C: EHLO x.example\nS*250\n" + tt.script)
		c.talk("C: AUTH PLAIN " + plain("", ownAddress, token) + "\nS: 503 5.5.1")
		l := s.gate.logins[0]
		if l.Username != tt.user || l.AuthorizationID != tt.identity || l.Protocol != broker.ProtocolSubmission || l.RemoteAddr != s.conn.Remote {
			t.Errorf("%s: %+v", name, l)
		}
		if strings.Trim(string(l.Token.Reveal()), "\x00") != "" {
			t.Errorf("%s: the token was not wiped", name)
		}
		c.quit()
	}
}

func TestLoginIsRefused(t *testing.T) {
	for name, tt := range map[string]struct{ line, want string }{
		"wrong token":         {"AUTH PLAIN " + plain("", ownAddress, "wrong"), "535 5.7.8"},
		"not base64":          {"AUTH PLAIN =AAA", "500 5.5.2"},
		"two fields":          {"AUTH PLAIN " + encode("a\x00b"), "501 5.5.2"},
		"four fields":         {"AUTH PLAIN " + encode("a\x00b\x00c\x00d"), "501 5.5.2"},
		"empty token":         {"AUTH PLAIN " + plain("", ownAddress, ""), "501 5.5.2"},
		"empty response":      {"AUTH PLAIN =", "501 5.5.2"},
		"line feed in a name": {"AUTH PLAIN " + plain("", "a\nb", token), "501 5.5.2"},
		"CRAM-MD5":            {"AUTH CRAM-MD5", "504"},
		"EXTERNAL":            {"AUTH EXTERNAL =", "504"},
		"no mechanism":        {"AUTH", "500"},
		"bearer without name": {"AUTH OAUTHBEARER " + encode("n,,\x01auth=Bearer "+token+"\x01\x01"), "501"},
		"channel binding":     {"AUTH OAUTHBEARER " + encode("p=tls-unique,a=x,\x01auth=Bearer "+token+"\x01\x01"), "501"},
		"bearer twice":        {"AUTH OAUTHBEARER " + encode("n,a=x,\x01auth=Bearer a\x01auth=Bearer b\x01\x01"), "501"},
		"bearer cut off":      {"AUTH OAUTHBEARER " + encode("n,a=x,\x01auth=Bearer a"), "501"},
	} {
		s, _ := start(t)
		c := s.connect(t)
		c.talk("C: EHLO x.example\nS*250")
		c.raw(tt.line + "\r\n")
		if got := c.expect(""); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
		c.talk("C: MAIL FROM:<alice@own.example>\nS: 530")
	}
}

func TestOAuthBearerEmptyResponseAfterFailureMustNotPanic(t *testing.T) {
	s, _ := start(t)
	c := s.connect(t)
	c.talk("C: EHLO x.example\nS*250\nC: AUTH OAUTHBEARER " + encode("n,a="+ownAddress+",\x01auth=Bearer wrong\x01\x01") + "\nS: 334")
	c.talk("C: =\nS: 535 5.7.8\nC: AUTH PLAIN\nS: 334\nC: *\nS: 501\nC: AUTH PLAIN\nS: 334\nC: !!\nS: 501\nC: NOOP\nS: 250")
}

func TestLoginFailuresAreCounted(t *testing.T) {
	s, _ := start(t)
	c := s.connect(t)
	c.talk("C: EHLO x.example\nS*250")
	for range maxAuthFailures {
		c.talk("C: AUTH PLAIN " + plain("", ownAddress, "wrong") + "\nS: 535")
	}
	c.talk("C: AUTH PLAIN " + plain("", ownAddress, token) + "\nS: 421")
	c.expectEOF()
}

func TestErrorsOfTheGate(t *testing.T) {
	for code, want := range map[broker.Code]string{
		broker.Denied: "535 5.7.8 authentication failed\r\n", broker.Refused: "535 5.7.1 the text\r\n", broker.Limit: "454 4.7.0 the text\r\n",
		broker.Unavailable: "454 4.7.0 the text\r\n", broker.CredentialRefused: "454 4.7.0 ", broker.Internal: "454 4.7.0 internal error",
	} {
		for _, dial := range []bool{false, true} {
			s, _ := start(t)
			err := broker.Errorf(code, "the text").WithCause(errors.New("a cause"))
			if dial {
				s.gate.dialErr = err
			} else {
				s.gate.err = err
			}
			c := s.connect(t)
			c.talk("C: EHLO x.example\nS*250")
			c.raw("AUTH PLAIN " + plain("", ownAddress, token) + "\r\n")
			if got := c.expect(""); !strings.HasPrefix(got, want) {
				t.Errorf("%s: got %q, want %q", code, got, want)
			}
			if dial {
				if e := s.gate.waitEnd(t); e.Reason != broker.EndUpstreamFailed {
					t.Errorf("%s: ended by %q", code, e.Reason)
				}
				// The outage is over: the client tries again on the same connection.
				s.gate.set(func() { s.gate.dialErr = nil })
				c.talk("C: AUTH PLAIN " + plain("", ownAddress, token) + "\nS: 235")
			}
		}
	}
}

func TestStartTLS(t *testing.T) {
	s, roots := startTLS(t)
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := secure(t, s, raw, roots)
	c.talk("C: STARTTLS\nS: 503\nC: AUTH PLAIN " + plain("", ownAddress, token) + "\nS: 235")
	c.data()
	c.raw(stuffed(message1("x\r\n")))
	c.expect("250 ")
	c.quit()
}

func TestStartTLSForgetsWhatWasSaidBefore(t *testing.T) {
	s, roots := startTLS(t)
	raw, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := upgrade(t, s, raw, roots)
	c.talk("C: AUTH PLAIN " + plain("", ownAddress, token) + "\nS: 503 5.5.1 say EHLO")
}

func TestTrapAuthIsOfferedAndTakenUnderTLSOnly(t *testing.T) {
	s, _ := startTLS(t)
	c := s.connect(t)
	c.raw("EHLO x.example\r\n")
	if hello := c.expect("250"); strings.Contains(hello, "AUTH") || !strings.Contains(hello, "250-STARTTLS\r\n") {
		t.Errorf("offered: %s", hello)
	}
	c.talk("C: AUTH PLAIN " + plain("", ownAddress, token) + "\nS: 538 5.7.11\nC: MAIL FROM:<alice@own.example>\nS: 530")
	if len(s.gate.logins) != 0 {
		t.Error("a token was taken in the clear")
	}
	if _, err := (&session{wire: &wire{conn: newPlainConn(c.Conn)}}).Auth("PLAIN"); err == nil {
		t.Error("Auth without TLS succeeded")
	}
}

func TestTrapPipelinedAfterStartTLSIsRefused(t *testing.T) {
	s, _ := startTLS(t)
	c := s.connect(t)
	c.raw("EHLO x.example\r\nSTARTTLS\r\nEHLO injected.example\r\n")
	c.expect("250")
	c.expect("501 5.5.0")
	c.expectEOF()
}

// startTLS is start with STARTTLS in place of the pretence of TLS.
func startTLS(t *testing.T) (*setup, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"postern.example"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	gate, k := newGate(), newSink(t, nil)
	gate.dial = dialTo(k.addr)
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return newSetupOn(t, gate, proxy.ConnConfig{TLS: config}, nil), roots
}

// upgrade connects over raw and says STARTTLS.
func upgrade(t *testing.T, _ *setup, raw net.Conn, roots *x509.CertPool) *client {
	t.Helper()
	_ = raw.SetDeadline(time.Now().Add(patience))
	c := &client{t: t, Conn: raw, r: bufio.NewReader(raw)}
	c.expect("220 ")
	c.talk("C: EHLO client.example\nS*250\nC: STARTTLS\nS: 220 ")
	tc := tls.Client(raw, &tls.Config{ServerName: "postern.example", RootCAs: roots})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	return &client{t: t, Conn: tc, r: bufio.NewReader(tc)}
}

// secure is upgrade and EHLO.
func secure(t *testing.T, s *setup, raw net.Conn, roots *x509.CertPool) *client {
	t.Helper()
	c := upgrade(t, s, raw, roots)
	c.talk("C: EHLO client.example\nS*250")
	return c
}
