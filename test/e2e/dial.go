// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// answerTimeout is how long a conversation waits for what must come.
const answerTimeout = 20 * time.Second

// Conn is one connection of a mail client, spoken by hand.
type Conn struct {
	net.Conn

	t    testing.TB
	in   *bufio.Reader
	mu   sync.Mutex
	seen bytes.Buffer // all that the server sent, in the clear
	tags int
}

// DialTLS connects to a port of Postern's with TLS, with these client
// certificates.
func (p *Postern) DialTLS(t testing.TB, port uint16, certificates ...tls.Certificate) *Conn {
	t.Helper()
	c, err := p.TryDialTLS(t, port, certificates...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TryDialTLS is DialTLS where the handshake may fail. With TLS 1.3 a refused
// certificate shows at the first read.
func (p *Postern) TryDialTLS(t testing.TB, port uint16, certificates ...tls.Certificate) (*Conn, error) {
	t.Helper()
	raw, err := tls.DialWithDialer(&net.Dialer{Timeout: answerTimeout}, "tcp",
		net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))), p.tlsConfig(certificates))
	if err != nil {
		return nil, err
	}
	return newConn(t, raw), nil
}

// DialPlain connects without TLS; StartTLS follows.
func (p *Postern) DialPlain(t testing.TB, port uint16) *Conn {
	t.Helper()
	raw, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))), answerTimeout)
	if err != nil {
		t.Fatal(err)
	}
	return newConn(t, raw)
}

func (p *Postern) tlsConfig(certificates []tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: p.Roots(), ServerName: "localhost", Certificates: certificates}
}

func newConn(t testing.TB, raw net.Conn) *Conn {
	c := &Conn{Conn: raw, t: t}
	c.in = bufio.NewReader(c)
	t.Cleanup(func() { raw.Close() })
	return c
}

// StartTLS begins TLS on a plain connection whose server just agreed to it.
func (c *Conn) StartTLS(p *Postern, certificates ...tls.Certificate) {
	c.t.Helper()
	secured := tls.Client(c.Conn, p.tlsConfig(certificates))
	if err := secured.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.Conn = secured
}

// Read keeps what the server sent for Seen.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.Write(b[:n])
	return n, err
}

// Seen returns every octet that the server sent, in the clear.
func (c *Conn) Seen() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.seen.Bytes())
}

// Send writes octets as they are.
func (c *Conn) Send(format string, args ...any) {
	c.t.Helper()
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	if err := c.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.WriteString(c.Conn, format); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
}

// TryLine returns the next line without its end, within a time; io.EOF when
// the server closed.
func (c *Conn) TryLine(within time.Duration) (string, error) {
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	line, err := c.in.ReadString('\n')
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), err
}

// Line returns the next line, without its end.
func (c *Conn) Line() string {
	c.t.Helper()
	line, err := c.TryLine(answerTimeout)
	if err != nil {
		c.t.Fatalf("waiting for a line: %v (so far %q)", err, line)
	}
	return line
}

// Expect reads a line that must match the whole pattern, and returns its
// groups.
func (c *Conn) Expect(pattern string) []string {
	c.t.Helper()
	line := c.Line()
	groups := regexp.MustCompile("^(?:" + pattern + ")$").FindStringSubmatch(line)
	if groups == nil {
		c.t.Fatalf("server said %q, want %s", line, pattern)
	}
	return groups
}

// ExpectClosed reads until the server closes, which it must do within a time,
// and returns what it still said.
func (c *Conn) ExpectClosed(within time.Duration) string {
	c.t.Helper()
	end := <-c.UntilClosed(within)
	if end.Err != nil {
		c.t.Fatalf("the server did not close within %v: %v; it said %q", within, end.Err, end.Said)
	}
	return end.Said
}

// Closed is how a connection ended.
type Closed struct {
	// Said is what the server still said.
	Said string
	// At is when it had closed.
	At time.Time
	// Err is nil, unless it did not close in time.
	Err error
}

// UntilClosed reads, on a goroutine of its own, until the server closes. The
// connection is not to be read otherwise from then on.
func (c *Conn) UntilClosed(within time.Duration) <-chan Closed {
	ended := make(chan Closed, 1)
	go func() {
		if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
			ended <- Closed{Err: err}
			return
		}
		rest, err := io.ReadAll(c.in)
		end := Closed{Said: string(rest), At: time.Now()}
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			end.Err = err
		}
		ended <- end
	}()
	return ended
}

// Cmd sends one IMAP command under a tag of its own and returns the untagged
// lines and the tagged answer without its tag. Literals in the lines are
// written out behind them, as the octets they are.
func (c *Conn) Cmd(format string, args ...any) (untagged []string, answer string) {
	c.t.Helper()
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	c.tags++
	tag := "t" + strconv.Itoa(c.tags)
	c.Send("%s %s\r\n", tag, format)
	return c.Answer(tag)
}

// Answer reads until the tagged answer of an IMAP command.
func (c *Conn) Answer(tag string) (untagged []string, answer string) {
	c.t.Helper()
	for {
		line := c.Response()
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			return untagged, rest
		}
		untagged = append(untagged, line)
	}
}

var literalEnd = regexp.MustCompile(`\{(\d+)\}$`)

// Response reads one IMAP response, its literals included.
func (c *Conn) Response() string {
	c.t.Helper()
	line := c.Line()
	for {
		size := literalEnd.FindStringSubmatch(line[strings.LastIndexByte(line, '\n')+1:])
		if size == nil || isText(line) {
			return line
		}
		n, err := strconv.Atoi(size[1])
		if err != nil {
			c.t.Fatal(err)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(c.in, b); err != nil {
			c.t.Fatalf("waiting for a literal of %d octets: %v", n, err)
		}
		line += "\r\n" + string(b) + c.Line()
	}
}

// isText reports whether a response is one whose text holds no literal.
func isText(line string) bool {
	_, rest, _ := strings.Cut(line, " ")
	word, _, _ := strings.Cut(rest, " ")
	return word == "OK" || word == "NO" || word == "BAD" || word == "BYE" || word == "PREAUTH"
}

// OK is Cmd for a command that must succeed; it returns the untagged lines.
func (c *Conn) OK(format string, args ...any) []string {
	c.t.Helper()
	untagged, answer := c.Cmd(format, args...)
	if !strings.HasPrefix(answer, "OK ") {
		c.t.Fatalf("%s: %s", format, answer)
	}
	return untagged
}

// Reply reads one SMTP reply, all its lines joined by "\n".
func (c *Conn) Reply() string {
	c.t.Helper()
	var lines []string
	for {
		line := c.Line()
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n")
		}
	}
}

// Ask sends one SMTP command line and returns its reply, whose code must be
// this one.
func (c *Conn) Ask(code int, format string, args ...any) string {
	c.t.Helper()
	c.Send(format+"\r\n", args...)
	return c.Want(code)
}

// Want reads an SMTP reply that must have this code.
func (c *Conn) Want(code int) string {
	c.t.Helper()
	reply := c.Reply()
	if !strings.HasPrefix(reply, strconv.Itoa(code)) {
		c.t.Fatalf("server replied %q, want %d", reply, code)
	}
	return reply
}

// DialIMAP connects to the IMAP port from the seat's workstation and reads
// the greeting.
func (s *Seat) DialIMAP(t testing.TB) *Conn {
	t.Helper()
	c := s.world.Postern.DialTLS(t, s.world.Postern.IMAPSPort, s.Certificate)
	c.Expect(`\* OK .*`)
	return c
}

// IMAP is DialIMAP, logged in.
func (s *Seat) IMAP(t testing.TB) *Conn {
	t.Helper()
	c := s.DialIMAP(t)
	c.OK("LOGIN %s %s", s.Mailbox, s.Token)
	return c
}

// DialSubmission connects to the submission port from the seat's workstation,
// and says EHLO.
func (s *Seat) DialSubmission(t testing.TB) *Conn {
	t.Helper()
	c := s.world.Postern.DialTLS(t, s.world.Postern.SubmissionsPort, s.Certificate)
	c.Want(220)
	c.Ask(250, "EHLO client.example")
	return c
}

// Submission is DialSubmission, logged in.
func (s *Seat) Submission(t testing.TB) *Conn {
	t.Helper()
	c := s.DialSubmission(t)
	c.Ask(235, "AUTH PLAIN %s", s.SASLPlain())
	return c
}

// SASLPlain is the seat's SASL PLAIN response (RFC 4616) in base64.
func (s *Seat) SASLPlain() string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + s.Mailbox + "\x00" + s.Token))
}
