// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy"
	"github.com/postern-mail/postern/proxy/imapwire"
	"github.com/postern-mail/postern/proxy/imapwire/wiretest"
)

// checkedUpstream answers OK to everything, and complains of whatever should
// not have reached it. It reads by imapwire, as strictly as Postern does.
type checkedUpstream struct {
	conn    net.Conn
	table   map[string]*command
	actions policy.Actions
	caps    []string
	prefix  string

	lines *lineReader
	lexer imapwire.Lexer
	got   bytes.Buffer // all that came
	idle  string
	fault string
}

func (u *checkedUpstream) serve() {
	u.lines = newLineReader(io.TeeReader(u.conn, &u.got))
	for u.fault == "" {
		line, err := u.lines.read(2 * imapwire.MaxLine)
		if err != nil {
			return
		}
		if u.idle != "" {
			if string(line) != "DONE\r\n" {
				u.fault = fmt.Sprintf("in IDLE: %q", line)
			}
			fmt.Fprintf(u.conn, "%s OK done\r\n", u.idle)
			u.idle = ""
			continue
		}
		u.lexer.Reset()
		first := string(line)
		done, err := u.lexer.Line(line)
		for err == nil && !done {
			if u.lexer.Pending().NonSync {
				u.fault = fmt.Sprintf("a literal that does not wait: %q", first)
				return
			}
			var b []byte
			if b, err = u.lexer.BufferLiteral(); err != nil {
				break
			}
			if _, err := io.WriteString(u.conn, "+ go\r\n"); err != nil {
				return
			}
			if u.lines.readFull(b) != nil {
				return // the client went
			}
			if line, err = u.lines.read(2 * imapwire.MaxLine); err != nil {
				return
			}
			done, err = u.lexer.Line(line)
		}
		if err != nil {
			u.fault = fmt.Sprintf("%q does not lex: %v", first, err)
			return
		}
		u.judge(first)
		u.answer()
	}
}

// judge looks the command up and judges it, as if the client had sent it so.
func (u *checkedUpstream) judge(first string) {
	cmd := u.lexer.Command()
	s := clientSide{r: &relay{f: &Filter{table: u.table}, decision: &policy.Decision{Actions: u.actions}, prefix: u.prefix}}
	s.r.upstream.offers = offersOf(u.caps)
	s.lexer = u.lexer
	entry, skip := s.lookUp()
	if entry == nil || entry.judge == nil {
		u.fault = fmt.Sprintf("%q is not in the table", first)
		return
	}
	if strings.HasPrefix(string(cmd.Tag()), "pn") && len(cmd.Tag()) > 12 && cmd.Tag()[12] == '-' {
		if name := entry.name; name != "UID FETCH" && name != "IDLE" && name != "LIST" {
			u.fault = fmt.Sprintf("Postern's own %q", first)
		}
		return
	}
	if entry.streams {
		return // its literals are no Streams here
	}
	if j := s.judge(entry, skip); j.err != nil {
		u.fault = fmt.Sprintf("%q is not in the grammar", first)
	} else if !j.allowed(s.r.decision) {
		u.fault = fmt.Sprintf("%q needs %s, granted is %s", first, j.needs, u.actions)
	}
}

func (u *checkedUpstream) answer() {
	cmd := u.lexer.Command()
	switch string(cmd.Name()) {
	case "IDLE":
		u.idle = string(cmd.Tag())
		_, _ = io.WriteString(u.conn, "+ idling\r\n")
		return
	case "SELECT":
		_, _ = io.WriteString(u.conn, "* OK [UIDVALIDITY 7] ok\r\n")
	case "FETCH":
		_, _ = io.WriteString(u.conn, "* 1 FETCH (BODY[TEXT] {3}\r\nabc UID 9)\r\n")
	case "LOGOUT":
		_, _ = io.WriteString(u.conn, "* BYE\r\n")
	}
	fmt.Fprintf(u.conn, "%s OK done\r\n", cmd.Tag())
}

// FuzzFilter: whatever octets a client sends, what reaches the upstream is
// commands of the table, in their grammar, that the decision allows; and each
// is one that the client gave, in its order, at most once, and with its own
// arguments, as a reader finds them that shares nothing with Postern's.
func FuzzFilter(f *testing.F) {
	for _, entry := range newTable() {
		f.Add([]byte("a "+entry.name+entry.example+"\r\nb NOOP\r\n"), uint16(policy.All))
		f.Add([]byte("a "+entry.name+entry.example+"\r\nb NOOP\r\n"), uint16(entry.needs))
	}
	for _, command := range smuggling {
		f.Add([]byte("a "+fmt.Sprintf(command, 16, "x CREATE INBOX\r\n")+"\r\nb NOOP\r\n"), uint16(policy.All))
	}
	for _, s := range []string{
		"a IDLE\r\nDONE\r\nb NOOP\r\n", "a SELECT x\r\nb UID FETCH 1 BODY[TEXT]\r\nc STORE 1 FLAGS (\\Seen)\r\nd NOOP\r\n",
		"a SEARCH SUBJECT {3}\r\n\xffab BODY {1+}\r\nx\r\n", "a STORE 1 FLAGS (\\Deleted)\r\nb UID MOVE 1 Trash\r\n",
		"a APPEND x {3}\r\nabc {2+}\r\nde CATENATE (TEXT {1}\r\nx URL \"/x\")\r\n", "a CLOSE\r\nb LOGOUT\r\n",
		"a FETCH 1 (BODY[HEADER.FIELDS ({1+}\r\nx \"y\")]<0.5> BODY[])\r\n", "a ENABLE X CONDSTORE\r\n",
	} {
		f.Add([]byte(s), uint16(policy.All))
		f.Add([]byte(s), uint16(policy.List|policy.Read))
	}
	for _, session := range wiretest.Sessions() {
		f.Add(session, uint16(policy.All))
		f.Add(session, uint16(policy.List|policy.Headers|policy.Send))
	}
	for _, e := range wiretest.Clients() {
		f.Add(e.Octets, uint16(policy.All))
	}
	f.Fuzz(func(t *testing.T, in []byte, bits uint16) {
		actions := policy.Actions(bits) & policy.All
		if len(in) > 8<<10 || actions == 0 {
			return
		}
		caps := []string{"IMAP4rev1", "LITERAL+", "UNSELECT", "MULTIAPPEND", "CATENATE", "BINARY", "UTF8=ACCEPT"}
		near, far := net.Pipe()
		u := &checkedUpstream{conn: far, table: newTable(), actions: actions, caps: caps}
		var all sync.WaitGroup
		all.Go(func() { defer far.Close(); u.serve() })
		gate := &fakeGate{decision: policy.Decision{Actions: actions}, dial: func(context.Context) (*broker.IMAPConn, error) {
			return &broker.IMAPConn{Conn: near, Capabilities: caps}, nil
		}}
		filter, err := New(Config{Gate: gate, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		client, server := net.Pipe()
		all.Go(func() {
			filter.ServeConn(context.Background(), proxy.NewConn(server, proxy.ConnConfig{IsTLS: true}))
			server.Close()
			near.Close()
		})
		answered := make(chan struct{})
		all.Go(func() {
			defer close(answered)
			for r := bufio.NewReader(client); ; {
				line, err := r.ReadString('\n')
				if err != nil || strings.HasPrefix(line, "zz ") {
					go func() { _, _ = io.Copy(io.Discard, r) }()
					return
				}
			}
		})
		_ = client.SetWriteDeadline(time.Now().Add(20 * time.Second))
		given := []byte(string(in) + "\r\nDONE\r\nzz NOOP\r\n")
		_, err = client.Write(append([]byte("l LOGIN box secret\r\n"), given...))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%q: stuck", in)
		}
		// When the input ends within a literal, nothing more will come.
		select {
		case <-answered:
		case <-time.After(50 * time.Millisecond):
		}
		client.Close()
		all.Wait()
		if u.fault != "" {
			t.Fatalf("%q with %s: %s", in, actions, u.fault)
		}
		commands, _ := wiretest.Lines(u.got.Bytes(), false) // each literal was granted
		if fault := wiretest.Unexplained(given, commands); fault != "" {
			t.Fatalf("%q with %s: %s, in %q", in, actions, fault, u.got.Bytes())
		}
	})
}
