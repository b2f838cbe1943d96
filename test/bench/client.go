// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// clientTimeout is for one step of a client.
const clientTimeout = 30 * time.Second

// mailClient is one connection of a mail client. It does as little as it can,
// since it shares the machine with what is measured.
type mailClient struct {
	raw net.Conn // below TLS
	tls *tls.Conn
	in  *bufio.Reader
	out []byte
}

// dialer opens connections to one port of a proxy.
type dialer struct {
	proxy *proxy
	port  uint16
	// buffer is the size of the reading buffer; 0: 4 KiB.
	buffer int
}

func (p *proxy) imap() dialer       { return dialer{proxy: p, port: p.imaps} }
func (p *proxy) submission() dialer { return dialer{proxy: p, port: p.submissions} }

// dial connects as an account, TLS handshake included. No session is ever
// resumed.
func (d dialer) dial(a account) (*mailClient, error) {
	var from net.Addr
	if a.from != "" {
		from = &net.TCPAddr{IP: net.ParseIP(a.from)}
	}
	raw, err := (&net.Dialer{Timeout: clientTimeout, LocalAddr: from}).Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.port))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: d.proxy.roots, ServerName: "localhost", CurvePreferences: []tls.CurveID{tls.X25519}}
	if a.postQuantum {
		config.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768, tls.X25519}
	}
	if a.certificate != nil {
		config.Certificates = []tls.Certificate{*a.certificate}
	}
	c := &mailClient{raw: raw, tls: tls.Client(raw, config)}
	c.in = bufio.NewReaderSize(c.tls, max(d.buffer, 4096))
	if err := c.patience(); err != nil {
		return nil, err
	}
	if err := c.tls.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// patience gives what follows its time.
func (c *mailClient) patience() error { return c.raw.SetDeadline(time.Now().Add(clientTimeout)) }

// negotiated says what the proxies must have in common to be compared.
func (c *mailClient) negotiated() string {
	s := c.tls.ConnectionState()
	return fmt.Sprintf("%s, %s, %s", tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), s.CurveID)
}

func (c *mailClient) close() { c.raw.Close() }

// ask sends a line.
func (c *mailClient) ask(line string) error {
	c.out = append(append(c.out[:0], line...), "\r\n"...)
	_, err := c.tls.Write(c.out)
	return err
}

// line reads a line without its end. It is valid until the next read.
func (c *mailClient) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	return bytes.TrimRight(line, "\r\n"), err
}

// loginIMAP connects and logs in.
func (d dialer) loginIMAP(a account) (*mailClient, error) {
	c, err := d.dial(a)
	if err != nil {
		return nil, err
	}
	greeting, err := c.line()
	if err == nil && !bytes.HasPrefix(greeting, []byte("* OK ")) {
		err = fmt.Errorf("the greeting is %q", greeting)
	}
	if err == nil {
		_, err = c.command(fmt.Sprintf("LOGIN %q %q", a.mailbox, a.password))
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// command runs an IMAP command that must succeed, and returns how many octets
// of literals its answer held.
func (c *mailClient) command(command string) (literals int64, err error) {
	if err := c.ask("t " + command); err != nil {
		return 0, err
	}
	return c.answer(command)
}

// answer reads until the tagged answer.
func (c *mailClient) answer(command string) (literals int64, err error) {
	for {
		line, err := c.line()
		if err != nil {
			return 0, fmt.Errorf("%.10s: %w", command, err)
		}
		if bytes.HasPrefix(line, []byte("t ")) {
			if !bytes.HasPrefix(line, []byte("t OK")) {
				return 0, fmt.Errorf("%.10s: %s", command, line)
			}
			return literals, nil
		}
		if n := literal(line); n > 0 {
			if _, err := c.in.Discard(n); err != nil {
				return 0, err
			}
			literals += int64(n)
		}
	}
}

// literal is the size of the literal that a line ends with, 0 without one.
func literal(line []byte) int {
	if !bytes.HasSuffix(line, []byte("}")) {
		return 0
	}
	n, err := strconv.Atoi(string(line[bytes.LastIndexByte(line, '{')+1 : len(line)-1]))
	if err != nil {
		return 0
	}
	return n
}

// idle begins to wait for news.
func (c *mailClient) idle() error {
	if err := c.patience(); err != nil { // others were opened meanwhile
		return err
	}
	if err := c.ask("t IDLE"); err != nil {
		return err
	}
	line, err := c.line()
	if err == nil && !bytes.HasPrefix(line, []byte("+")) {
		err = fmt.Errorf("IDLE: %q", line)
	}
	if err != nil {
		return err
	}
	return c.raw.SetDeadline(time.Time{})
}

// logout ends the session and waits for the server to close.
func (c *mailClient) logout() error {
	defer c.close()
	if err := c.patience(); err != nil {
		return err
	}
	if _, err := c.command("LOGOUT"); err != nil {
		return err
	}
	return c.awaitClose()
}

// awaitClose waits until the server closes, whether or not it says so in TLS.
func (c *mailClient) awaitClose() error {
	_, err := io.Copy(io.Discard, c.in)
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("the server did not close: %w", err)
	}
	return nil
}

// loginSMTP connects, says EHLO and logs in.
func (d dialer) loginSMTP(a account) (*mailClient, error) {
	c, err := d.dial(a)
	if err != nil {
		return nil, err
	}
	sasl := base64.StdEncoding.EncodeToString([]byte("\x00" + a.mailbox + "\x00" + a.password))
	if err = c.reply("220"); err == nil {
		err = errors.Join(c.smtp("EHLO client.example", "250"), c.smtp("AUTH PLAIN "+sasl, "235"))
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// smtp sends a command and reads its reply, which must have this code.
func (c *mailClient) smtp(line, code string) error {
	if err := c.ask(line); err != nil {
		return err
	}
	if err := c.reply(code); err != nil {
		return fmt.Errorf("%.10s: %w", line, err)
	}
	return nil
}

func (c *mailClient) reply(code string) error {
	for {
		line, err := c.line()
		switch {
		case err != nil:
			return err
		case !bytes.HasPrefix(line, []byte(code)):
			return fmt.Errorf("the reply is %q", line)
		case len(line) == 3 || line[3] == ' ':
			return nil
		}
	}
}

// submit sends a message, one command after the other as most clients do.
func (c *mailClient) submit(from, to string, text []byte) error {
	for _, step := range []struct{ line, code string }{
		{"MAIL FROM:<" + from + ">", "250"},
		{"RCPT TO:<" + to + ">", "250"},
		{"DATA", "354"},
	} {
		if err := c.smtp(step.line, step.code); err != nil {
			return err
		}
	}
	c.out = append(append(c.out[:0], text...), ".\r\n"...)
	if _, err := c.tls.Write(c.out); err != nil {
		return err
	}
	return c.reply("250")
}
