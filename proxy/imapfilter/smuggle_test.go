// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"

	"github.com/postern-mail/postern/broker"
)

// TestNever2NoLiteralGoesUpstreamBeforeItsLeave: a server that refuses a
// command for what stands before a literal may take the octets behind for its
// next command. However a client announces a literal, it goes upstream only
// once the upstream has asked for it.
func TestNever2NoLiteralGoesUpstreamBeforeItsLeave(t *testing.T) {
	const smuggled = "x DELETE INBOX\r\n"
	for _, command := range []string{
		"SEARCH SUBJECT", "UID SEARCH TEXT", "SELECT", "STATUS", "CREATE", "COPY 1", "LSUB \"\"", "APPEND Work",
		"APPEND Work (\\Seen) ~", "APPEND Work UTF8 (~", "UID REPLACE 1 Work", "APPEND Work CATENATE (TEXT", "ID (\"a\"",
	} {
		t.Run(command, func(t *testing.T) {
			gate, upstreams := scripted(t)
			c := newRig(t, gate).login()
			u := <-upstreams
			octets := smuggled
			announced := strings.HasPrefix(command, "APPEND") || strings.Contains(command, "REPLACE")
			if !announced {
				octets = "x CREATE Entw\xfcrfe" // a folder's name holds no CRLF
			}
			space := " "
			if strings.HasSuffix(command, "~") {
				space = ""
			}
			end := ""
			if strings.Contains(command, "(") && !strings.Contains(command, ")") {
				end = ")"
			}
			if strings.HasPrefix(command, "STATUS") {
				end = " (MESSAGES)"
			}
			c.raw(fmt.Sprintf("a %s%s{%d+}\r\n%s%s\r\n", command, space, len(octets), octets, end))
			u.expect(fmt.Sprintf("a %s%s{%d}", command, space, len(octets)))
			u.raw("a BAD what is this\r\n")
			c.expect("a BAD what is this")
			nothingBut(t, c, u)
		})
	}
}

// TestNever2Literal8StandsInAppendAlone: servers read "~{20+}" in other places
// as an atom that is broken, and its octets as a command.
func TestNever2Literal8StandsInAppendAlone(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	for _, command := range []string{
		"SEARCH SUBJECT ~{%d+}", "SEARCH CHARSET ~{%d+}", "UID SORT (SUBJECT) ~{%d+}", "SELECT ~{%d+}", "LIST \"\" ~{%d+}", "LIST ~{%d+}",
		"FETCH 1 BODY[HEADER.FIELDS (~{%d+}", "STORE 1 X-GM-LABELS ~{%d+}", "ID (~{%d+}", "GETQUOTA ~{%d+}",
	} {
		octets := "x DELETE INBOX\r\n"
		c.raw(fmt.Sprintf("a "+command+"\r\n%s", len(octets), octets))
		switch {
		case strings.Contains(command, "HEADER.FIELDS"):
			c.raw(")]\r\n")
		case strings.HasPrefix(command, "ID"):
			c.raw(" NIL)\r\n")
		case strings.Contains(command, "CHARSET"), strings.Contains(command, "SORT"):
			c.raw(" ALL\r\n")
		case strings.HasPrefix(command, "LIST ~"):
			c.raw(" *\r\n")
		default:
			c.raw("\r\n")
		}
		if got := c.line(); !strings.HasPrefix(got, "a BAD ") {
			t.Fatalf("%s: %q", command, got)
		}
		nothingBut(t, c, u)
	}
}

// TestNever2ExtensionsOfAppendGoWhereTheyAreOffered: what a server does about
// the literal of a command that it does not understand is not relied upon.
func TestNever2ExtensionsOfAppendGoWhereTheyAreOffered(t *testing.T) {
	gate, upstreams := scripted(t, "IMAP4rev1", "LITERAL+")
	c := newRig(t, gate).login()
	u := <-upstreams
	for command, needs := range map[string]string{
		"APPEND Work ~{3+}\r\nabc":                              "BINARY",
		"APPEND Work UTF8 (~{3+}\r\nabc)":                       "UTF8=ACCEPT",
		"APPEND Work CATENATE (TEXT {3+}\r\nabc)":               "CATENATE",
		"APPEND Work CATENATE (URL \"/Work/;UID=1\")":           "CATENATE",
		"APPEND Work CATENATE (TEXT ~{3+}\r\nabc)":              "",
		"APPEND Work UTF8 ({3+}\r\nabc)":                        "",
		"APPEND Work CATENATE (TEXT {3+}\r\nabc URL {1+}\r\nx)": "CATENATE",
	} {
		c.raw("a " + command + "\r\n")
		if got := c.expect("a BAD "); needs != "" && !strings.Contains(got, needs) {
			t.Errorf("%s: %s", command, got)
		}
		nothingBut(t, c, u)
	}
	// The second message comes to light when the first is upstream.
	c.raw("a APPEND Work {3+}\r\nabc {3+}\r\nabc\r\n")
	u.expect("a APPEND Work {3}")
	u.raw("+ go\r\n")
	if got := c.expect("a BAD "); !strings.Contains(got, "MULTIAPPEND") {
		t.Error(got)
	}
	c.expect("* BYE")
	rest, _ := io.ReadAll(u.r)
	if string(rest) != "abc" {
		t.Errorf("the upstream got %q", rest)
	}
}

// smuggling are commands that a server refuses before it has read the literal,
// or so it may be. %d is the literal's size, %s its octets.
var smuggling = []string{
	"APPEND Nowhere {%d+}\r\n%s",
	"APPEND INBOX (\\Nonsense) {%d+}\r\n%s",
	"APPEND INBOX \"99-Jan-2026 00:00:00 +0000\" {%d+}\r\n%s",
	"APPEND INBOX ~{%d+}\r\n%s",
	"APPEND INBOX UTF8 (~{%d+}\r\n%s)",
	"APPEND INBOX {3+}\r\nabc (\\Nonsense) {%d+}\r\n%s",
	"APPEND INBOX CATENATE (URL \"/nonsense\" TEXT {%d+}\r\n%s)",
	"REPLACE 1 INBOX {%d+}\r\n%s",
	"SEARCH SUBJECT {%d+}\r\n%s",
	"SEARCH CHARSET NONSENSE SUBJECT {%d+}\r\n%s",
	"UID SEARCH X-GM-RAW {%d+}\r\n%s",
	"SEARCH FUZZY SUBJECT {%d+}\r\n%s",
	"SORT (DISPLAYFROM) UTF-8 SUBJECT {%d+}\r\n%s",
	"SEARCH RETURN (UPDATE) SUBJECT {%d+}\r\n%s",
	"SEARCH SUBJECT ~{%d+}\r\n%s",
}

// smuggle tries each of smuggling and fails when the server has carried out
// what stood in a literal.
func smuggle(t *testing.T, gate *fakeGate, pads ...int) {
	t.Helper()
	for i, command := range smuggling {
		for _, pad := range pads {
			c := newRig(t, gate).login()
			c.send("s SELECT INBOX")
			c.until("s ")
			octets := fmt.Sprintf("x CREATE smuggled-%d-%d\r\n", i, pad) + strings.Repeat("y NOOP\r\n", pad/8)
			c.raw(fmt.Sprintf("a "+command+"\r\nz NOOP\r\n", len(octets), octets))
			// Some are answered, some end the session, and go-imap's server
			// leaves one without an answer.
			_ = c.conn.SetReadDeadline(time.Now().Add(time.Second))
			for line := ""; !strings.HasPrefix(line, "z "); {
				var err error
				if line, err = c.r.ReadString('\n'); err != nil {
					break
				}
			}
			c.conn.Close()
		}
	}
	c := newRig(t, gate).login()
	c.send("l LIST \"\" *")
	for _, line := range c.until("l ") {
		if strings.Contains(line, "smuggled") {
			t.Errorf("a literal made a folder: %s", line)
		}
	}
}

func TestNever2NothingIsSmuggledIntoDovecot(t *testing.T) {
	gate, _ := dovecot().start(t)
	smuggle(t, gate, 0, 5000)
}

func TestNever2NothingIsSmuggledIntoGoIMAP(t *testing.T) {
	smuggle(t, memoryGate(t), 0, 5000)
}

// memoryGate returns a gate to a mailbox in go-imap's memory server, which is
// the demo's upstream.
func memoryGate(t testing.TB) *fakeGate {
	t.Helper()
	store := imapmemserver.New()
	user := imapmemserver.NewUser("box", "upstream-password")
	for _, folder := range []string{"INBOX", "Work"} {
		if err := user.Create(folder, nil); err != nil {
			t.Fatal(err)
		}
	}
	store.AddUser(user)
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return store.NewSession(), nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapLiteralPlus: {}, imap.CapUIDPlus: {}, imap.CapMove: {}},
		InsecureAuth: true,
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { _, _ = server.Close(), listener.Close(); <-done })
	return &fakeGate{dial: func(context.Context) (*broker.IMAPConn, error) {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			return nil, err
		}
		p := newPeer(t, conn)
		p.expect("* OK")
		p.send("l LOGIN box upstream-password")
		p.until("l OK")
		return &broker.IMAPConn{Conn: conn, Capabilities: []string{"IMAP4rev1", "LITERAL+", "UIDPLUS", "MOVE"}}, nil
	}}
}
