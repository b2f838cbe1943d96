// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	address = "sales@client.example"
	// marked is a password that no server's own words hold.
	marked = `mArKeD-p4ss "w\qd`
)

func password(s string) *broker.Credential {
	return &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte(s))}
}

func accessToken(s string) *broker.Credential {
	return &broker.Credential{Kind: broker.KindAccessToken, Secret: broker.NewSecret([]byte(s))}
}

func newDialer(t *testing.T, c Config) *Dialer {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// wantError checks code and reason, and that no form of the secrets is in the
// error.
func wantError(t *testing.T, err error, code broker.Code, reason string, secrets ...string) {
	t.Helper()
	var e *broker.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is no *broker.Error", err)
	}
	if e.Code != code || e.Reason != reason {
		t.Errorf("error is %s/%s (%v), want %s/%s", e.Code, e.Reason, err, code, reason)
	}
	for _, secret := range secrets {
		mustNotHold(t, err.Error(), secret)
	}
}

// mustNotHold looks for a secret raw, in base64 at each alignment, and within
// SASL PLAIN; a part of either counts.
func mustNotHold(t *testing.T, text, secret string) {
	t.Helper()
	forms := []string{secret, encoded("\x00" + address + "\x00" + secret)[32:]}
	for shift := range 3 {
		e := encoded(strings.Repeat("x", shift) + secret)
		forms = append(forms, e[4:len(e)-4])
	}
	for _, form := range forms {
		for i := 0; i+8 <= len(form); i++ {
			if strings.Contains(text, form[i:i+8]) {
				t.Errorf("%q holds %q of the secret", text, form[i:i+8])
				return
			}
		}
	}
}

// scripted is a server that follows a script:
//
//	S: line       the server sends it with CRLF; TAG stands for the last tag
//	S> text       the server sends it without CRLF
//	C: line       the client must send this; a leading TAG takes its tag
//	C: BASE64 x   the same, x being sent in base64; \1 is ^A, PORT the port
//	TLS           the server does a TLS handshake
//	CLOSE         the server closes
//
// Behind its last line the server reads until the client closes, and the
// client must have sent nothing more.
type scripted struct {
	t      *testing.T
	script []string
	tls    *tls.Config
	conn   net.Conn
	r      *bufio.Reader
	tag    string
	port   string
}

// serve runs the script on one connection and returns the endpoint. When the
// test is over the script must have come to its end.
func serve(t *testing.T, mode broker.TLSMode, script string) broker.Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := broker.Endpoint{Host: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port), TLS: mode}
	s := &scripted{t: t, port: strconv.Itoa(int(e.Port))}
	for line := range strings.Lines(script) {
		if line = strings.Trim(line, "\t\n"); line != "" {
			s.script = append(s.script, line)
		}
	}
	if mode != broker.TLSNone {
		ca := servers.NewCA(t)
		e.CA = string(ca.PEM)
		s.tls = &tls.Config{Certificates: []tls.Certificate{ca.Issue().TLS}}
	}
	var work sync.WaitGroup
	work.Go(func() {
		c, err := l.Accept()
		if err != nil {
			t.Errorf("nobody connected: %v", err)
			return
		}
		s.conn, s.r = c, bufio.NewReader(c)
		defer func() { s.conn.Close() }()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		s.run()
	})
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	return e
}

func (s *scripted) run() {
	for _, step := range s.script {
		switch {
		case step == "CLOSE":
			return
		case step == "TLS":
			secured := tls.Server(s.conn, s.tls)
			if err := secured.Handshake(); err != nil {
				s.t.Errorf("TLS: %v", err)
				return
			}
			s.conn, s.r = secured, bufio.NewReader(secured)
		case strings.HasPrefix(step, "S: "), strings.HasPrefix(step, "S> "):
			text := strings.NewReplacer("TAG ", s.tag+" ", `\r`, "\r", `\n`, "\n", `\0`, "\x00").Replace(step[3:])
			if step[1] == ':' {
				text += "\r\n"
			}
			if _, err := io.WriteString(s.conn, text); err != nil {
				s.t.Errorf("%s: %v", step, err)
				return
			}
		case strings.HasPrefix(step, "C: "):
			if !s.expect(step[3:]) {
				return
			}
		default:
			s.t.Errorf("bad step %q", step)
		}
	}
	if rest, _ := io.ReadAll(s.r); len(rest) > 0 {
		s.t.Errorf("behind the script the client sent %q", rest)
	}
}

func (s *scripted) expect(want string) bool {
	line, err := s.r.ReadString('\n')
	if err != nil {
		s.t.Errorf("want %q, got %q, %v", want, line, err)
		return false
	}
	got := strings.TrimSuffix(line, "\r\n")
	if rest, ok := strings.CutPrefix(want, "TAG "); ok {
		s.tag, got, _ = strings.Cut(got, " ")
		want = rest
	}
	if head, plain, ok := strings.Cut(want, "BASE64 "); ok {
		want = head + encoded(strings.NewReplacer(`\1`, "\x01", "PORT", s.port).Replace(plain))
	}
	if got != want {
		s.t.Errorf("client sent %q, want %q", got, want)
		return false
	}
	return true
}

// flood sends greeting once and chunk without end, until the client closes.
func flood(t *testing.T, greeting, chunk string) broker.Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		c, err := l.Accept()
		if err != nil {
			t.Errorf("nobody connected: %v", err)
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		for text := greeting; ; text = chunk {
			if _, err := io.WriteString(c, text); err != nil {
				if isTimeout(err) {
					t.Error("the client listened on")
				}
				return
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	return broker.Endpoint{Host: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port), TLS: broker.TLSNone}
}
