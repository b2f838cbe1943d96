// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// demoPatience is how long the demo waits for any answer; cutOff is how soon a
// revoke must have ended a session.
const (
	demoPatience = 30 * time.Second
	cutOff       = time.Second
)

// agentConn is a mail client's connection; it remembers every octet that it
// received.
type agentConn struct {
	d        *demo
	conn     net.Conn
	lines    *bufio.Reader
	received *bytes.Buffer
	tag      int
}

// connect opens a connection with the workstation's certificate.
func (d *demo) connect(addr net.Addr, received *bytes.Buffer) (*agentConn, error) {
	certificate, err := tls.LoadX509KeyPair(d.path("workstation", demoWorkstation+".crt"), d.path("workstation", demoWorkstation+".key"))
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(d.path(workstationCADir, "workstation-ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: demoPatience}, "tcp", addr.String(), &tls.Config{
		RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		return nil, err
	}
	return &agentConn{d: d, conn: conn, lines: bufio.NewReader(conn), received: received}, nil
}

// line reads one line and remembers it.
func (c *agentConn) line() (string, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(demoPatience)); err != nil {
		return "", err
	}
	line, err := c.lines.ReadString('\n')
	c.received.WriteString(line)
	return strings.TrimRight(line, "\r\n"), err
}

func (c *agentConn) send(format string, args ...any) error {
	_, err := fmt.Fprintf(c.conn, format+"\r\n", args...)
	return err
}

// until reads lines up to one that begins so, and prints what came.
func (c *agentConn) until(prefixes ...string) (string, error) {
	for {
		line, err := c.line()
		if err != nil {
			return "", fmt.Errorf("the connection broke: %w", err)
		}
		fmt.Fprintf(c.d.out, "    S: %s\n", firstWords([]byte(line)))
		for _, p := range prefixes {
			if strings.HasPrefix(line, p) {
				return line, nil
			}
		}
	}
}

// imap sends a command, prints it as shown, and wants its answer to begin so.
func (c *agentConn) imap(want, shown, format string, args ...any) error {
	c.tag++
	command := fmt.Sprintf(format, args...)
	if shown == "" {
		shown = command
	}
	fmt.Fprintf(c.d.out, "    C: a%d %s\n", c.tag, firstWords([]byte(shown)))
	if err := c.send("a%d %s", c.tag, command); err != nil {
		return err
	}
	tag := fmt.Sprintf("a%d ", c.tag)
	answer, err := c.until(tag)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(answer, tag+want) {
		return fmt.Errorf("the answer is %q, and should be %s", answer, want)
	}
	return nil
}

// smtp sends a command, unless it is empty, and wants a reply with this code.
func (c *agentConn) smtp(code, shown, command string) error {
	if command != "" {
		if shown == "" {
			shown = command
		}
		fmt.Fprintf(c.d.out, "    C: %s\n", firstWords([]byte(shown)))
		if err := c.send("%s", command); err != nil {
			return err
		}
	}
	for {
		line, err := c.line()
		if err != nil {
			return fmt.Errorf("the connection broke: %w", err)
		}
		fmt.Fprintf(c.d.out, "    S: %s\n", firstWords([]byte(line)))
		if len(line) < 4 || line[3] != '-' {
			if !strings.HasPrefix(line, code) {
				return fmt.Errorf("the reply is %q, and should be %s", line, code)
			}
			return nil
		}
	}
}

// drive is the demo as its own mail client.
func (d *demo) drive(ctx context.Context) error {
	var received bytes.Buffer
	imap, err := d.connect(d.server.IMAPSAddr(), &received)
	if err != nil {
		return err
	}
	defer imap.conn.Close()
	const draft = "From: sales@acme.example\r\nTo: ravi@customer.example\r\nSubject: Re: Two pumps for Kochi\r\nMessage-ID: <reply-1@acme.example>\r\n\r\nTwo P-40 cost 480 each.\r\n"
	steps := []struct {
		name string
		do   func() error
	}{
		{"log in with an app password, on a workstation with a certificate", func() error {
			if _, err := imap.until("* OK"); err != nil {
				return err
			}
			return imap.imap("OK", "LOGIN "+demoMailbox+" (the app password)", "LOGIN %s %s", demoMailbox, d.token)
		}},
		{"list folders", func() error { return imap.imap("OK", "", `LIST "" "*"`) }},
		{"read a message", func() error {
			if err := imap.imap("OK", "", "SELECT INBOX"); err != nil {
				return err
			}
			return imap.imap("OK", "", "FETCH 1 (FLAGS BODY[])")
		}},
		{"flag it", func() error { return imap.imap("OK", "", `STORE 1 +FLAGS (\Flagged)`) }},
		{"append a copy to Sent", func() error {
			return imap.imap("OK", "APPEND Sent (a message)", "APPEND Sent (\\Seen) {%d+}\r\n%s", len(draft), draft)
		}},
		{"send a message", func() error { return d.sendMessage(&received, draft) }},
		{"be refused what the firm did not grant", func() error {
			if err := imap.imap("NO [NOPERM]", "", `STORE 1 +FLAGS (\Deleted)`); err != nil {
				return err
			}
			return imap.imap("NO [NOPERM]", "", "DELETE Trash")
		}},
		{"be refused what is in no table", func() error { return imap.imap("BAD", "", "GETACL INBOX") }},
		{"be cut off in IDLE by a revoke", func() error { return d.revokeInIdle(ctx, imap) }},
		{"be refused after the revoke", func() error { return d.loginRefused(&received) }},
		{"find all of it in the firm's log", func() error { return d.checkLog(ctx) }},
		{"have received no octet of the mailbox's password", func() error { return d.checkSecrecy(received.Bytes()) }},
	}
	for i, step := range steps {
		fmt.Fprintf(d.out, "%2d. %s\n", i+1, step.name)
		if err := step.do(); err != nil {
			fmt.Fprintf(d.out, "    FAILED: %v\n", err)
			return fmt.Errorf("step %d, %s: %w", i+1, step.name, err)
		}
	}
	fmt.Fprintf(d.out, "\nAll %d steps went as they should. The agent's client received %d octets.\n", len(steps), received.Len())
	return nil
}

// sendMessage submits a message, and tries to send as somebody else.
func (d *demo) sendMessage(received *bytes.Buffer, message string) error {
	smtp, err := d.connect(d.server.SubmissionsAddr(), received)
	if err != nil {
		return err
	}
	defer smtp.conn.Close()
	response := base64.StdEncoding.EncodeToString([]byte("\x00" + demoMailbox + "\x00" + d.token))
	for _, s := range []struct{ code, shown, command string }{
		{"220", "", ""},
		{"250", "", "EHLO client.acme.example"},
		{"235", "AUTH PLAIN (the app password)", "AUTH PLAIN " + response},
		{"55", "", "MAIL FROM:<director@acme.example>"},
		{"250", "", "MAIL FROM:<" + demoMailbox + ">"},
		{"250", "", "RCPT TO:<ravi@customer.example>"},
		{"354", "", "DATA"},
		{"250", "(the message)", strings.TrimSuffix(message, "\r\n") + "\r\n."},
		{"221", "", "QUIT"},
	} {
		if err := smtp.smtp(s.code, s.shown, s.command); err != nil {
			return err
		}
	}
	sent := d.provider.received()
	if len(sent) != 1 || string(sent[0].body) != message {
		return errors.New("the provider did not get the message as it was sent")
	}
	fmt.Fprintf(d.out, "    the provider has it, unaltered, for %s\n", strings.Join(sent[0].to, ", "))
	return nil
}

// revokeInIdle revokes the assignment while the client waits in IDLE.
func (d *demo) revokeInIdle(ctx context.Context, imap *agentConn) error {
	fmt.Fprintln(d.out, "    C: b1 IDLE")
	if err := imap.send("b1 IDLE"); err != nil {
		return err
	}
	if _, err := imap.until("+ "); err != nil {
		return err
	}
	if !d.faults.keepSession {
		var all httpapi.List[*httpapi.Assignment]
		if err := d.cli(ctx, &all, "", "assignment", "list"); err != nil {
			return err
		}
		if len(all.Items) != 1 {
			return fmt.Errorf("there are %d assignments", len(all.Items))
		}
		fmt.Fprintf(d.out, "    the administrator: postern assignment revoke %s\n", all.Items[0].ID)
		if err := d.cli(ctx, nil, "", "assignment", "revoke", string(all.Items[0].ID)); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := imap.conn.SetReadDeadline(began.Add(cutOff)); err != nil {
		return err
	}
	for {
		line, err := imap.lines.ReadString('\n')
		imap.received.WriteString(line)
		if line != "" {
			fmt.Fprintf(d.out, "    S: %s\n", firstWords([]byte(line)))
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return fmt.Errorf("the session is still open %v after the revoke", cutOff)
		}
		if err != nil {
			fmt.Fprintf(d.out, "    the connection was closed %v after the revoke\n", time.Since(began).Round(time.Millisecond))
			return nil
		}
	}
}

// loginRefused logs in once more.
func (d *demo) loginRefused(received *bytes.Buffer) error {
	imap, err := d.connect(d.server.IMAPSAddr(), received)
	if err != nil {
		return err
	}
	defer imap.conn.Close()
	if _, err := imap.until("* OK"); err != nil {
		return err
	}
	return imap.imap("NO ", "LOGIN "+demoMailbox+" (the app password)", "LOGIN %s %s", demoMailbox, d.token)
}

// checkLog looks for an event of each thing that the demo did. A session's end
// is recorded after its connections are closed, so it is waited for.
func (d *demo) checkLog(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	types := []broker.EventType{
		broker.EventSessionOpen, broker.EventMessageOpen, broker.EventMessageFlag, broker.EventMessageAppend,
		broker.EventSendIntent, broker.EventSendResult, broker.EventSendRefused, broker.EventCommandRefused,
		"assignment.revoked", broker.EventSessionEnd,
	}
	look := time.NewTicker(demoPatience / 300)
	defer look.Stop()
	for {
		counts, err := d.countEvents(ctx)
		if err != nil {
			return err
		}
		missing := slices.IndexFunc(types, func(t broker.EventType) bool { return counts[t] == 0 })
		if missing < 0 {
			for _, t := range types {
				fmt.Fprintf(d.out, "    %-18s %d\n", t, counts[t])
			}
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("there is no %s event", types[missing])
		}
	}
}

func (d *demo) countEvents(ctx context.Context) (map[broker.EventType]int, error) {
	var all httpapi.LogPage
	if err := d.cli(ctx, &all, "", "log", "events", "--firm", demoFirm); err != nil {
		return nil, err
	}
	counts := make(map[broker.EventType]int)
	for _, item := range all.Items {
		var e broker.Event
		if err := json.Unmarshal(item.Record, &e); err != nil {
			return nil, err
		}
		counts[e.Type]++
	}
	return counts, nil
}

// checkSecrecy looks for the password in all that the agent received.
func (d *demo) checkSecrecy(received []byte) error {
	for _, form := range secretForms(d.password) {
		if bytes.Contains(received, form) {
			return errors.New("the mailbox's password was among the octets that the agent received")
		}
	}
	return nil
}

// secretForms are the forms in which a password could stand in octets: as it
// is, and in base64, where what stands before it (in SASL PLAIN, a user name)
// shifts it by one of three places.
func secretForms(password string) [][]byte {
	forms := [][]byte{[]byte(password)}
	for shift := range 3 {
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, shift), password...))
		// The first group mixes with what is before, the last with what is after.
		forms = append(forms, []byte(encoded[4*((shift+2)/3):len(encoded)-4]))
	}
	return forms
}
