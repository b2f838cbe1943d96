// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// TestNever3TheBoundHoldsForEveryKindOfBody: with a log that does not answer,
// at most 1 MiB of body octets reaches the client, however they come. 'b' and
// 'B' stand for body octets alone.
func TestNever3TheBoundHoldsForEveryKindOfBody(t *testing.T) {
	body := func(n int) string { return strings.Repeat("b", n) }
	for name, response := range map[string]func(n int) string{
		"one after another": func(n int) string {
			return fmt.Sprintf("* %d FETCH (UID %d BODY[] {1000}\r\n%s)\r\n", n, n, body(1000))
		},
		"without a UID": func(n int) string { return fmt.Sprintf("* %d FETCH (BODY[TEXT] {1000}\r\n%s)\r\n", n, body(1000)) },
		"UID behind": func(n int) string {
			return fmt.Sprintf("* %d FETCH (RFC822 {300000}\r\n%s UID %d)\r\n", n, body(300000), n)
		},
		"quoted": func(n int) string {
			return fmt.Sprintf("* %d FETCH (UID %d BODY[1] \"%s\" BODY[2] \"%s\")\r\n", n, n, body(60000), body(60000))
		},
		"many sections": func(n int) string {
			return fmt.Sprintf("* %d FETCH (UID %d%s)\r\n", n, n, strings.Repeat(" BODY[1] {50}\r\n"+body(50)+" BINARY[2] ~{50}\r\n"+body(50), 500))
		},
		"unknown items": func(n int) string {
			return fmt.Sprintf("* %d FETCH (X-NEW {1000}\r\n%s X-OTHER \"%s\")\r\n", n, body(1000), body(1000))
		},
		"beside headers": func(n int) string {
			return fmt.Sprintf("* %d FETCH (UID %d BODY[HEADER] {100}\r\n%s BODY[TEXT]<0> {1000}\r\n%s)\r\n", n, n, strings.Repeat("h", 100), body(1000))
		},
		"among changes": func(n int) string {
			return fmt.Sprintf("* %d FETCH (UID %d BODY[] {1000}\r\n%s)\r\n* OK [UIDVALIDITY %d] new\r\n", n, n, body(1000), n)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate, upstreams := scripted(t)
			c := newRig(t, gate).login()
			u := <-upstreams
			gate.last().mu.Lock()
			gate.stall = make(chan struct{})
			gate.last().mu.Unlock()
			defer close(gate.stall)
			go func() {
				for n := 1; ; n++ {
					if _, err := io.WriteString(u.conn, response(n)); err != nil {
						return
					}
				}
			}()
			// Where each message is an event, 64 of them may be on their way.
			got, least := 0, 60_000
			buf := make([]byte, 1<<16)
			for {
				quiet := 500 * time.Millisecond
				if got < least {
					quiet = 10 * time.Second
				}
				_ = c.conn.SetReadDeadline(time.Now().Add(quiet))
				n, err := c.r.Read(buf)
				got += strings.Count(string(buf[:n]), "b")
				if err != nil {
					break
				}
			}
			if got > 1<<20 || got < least {
				t.Errorf("%d body octets passed", got)
			}
		})
	}
}

// A folder's name in UTF-8 and a message in UTF-8 pass as they are (RFC 6855).
func TestUTF8(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a ENABLE UTF8=ACCEPT IMAP4rev2")
	u.expect("a ENABLE UTF8=ACCEPT IMAP4rev2")
	u.raw("* ENABLED UTF8=ACCEPT IMAP4rev2\r\na OK\r\n")
	c.expect("* ENABLED UTF8=ACCEPT IMAP4rev2")
	c.expect("a OK")
	c.send("b SELECT \"Entwürfe\"")
	u.expect("b SELECT \"Entwürfe\"")
	u.raw("* OK [UIDVALIDITY 3]\r\n* LIST () \"/\" \"Entwürfe\"\r\nb OK\r\n")
	c.until("b OK")
	c.raw("c APPEND \"Entwürfe\" UTF8 (~{13+}\r\nSubject: ü\r\n)\r\n")
	u.expect("c APPEND \"Entwürfe\" UTF8 (~{13}")
	u.raw("+ go\r\n")
	u.expect("Subject: ü")
	u.expect(")")
	u.raw("c OK [APPENDUID 3 1] done\r\n")
	c.expect("c OK [APPENDUID 3 1]")
	c.send("d SEARCH SUBJECT \"grüße\"")
	u.expect("d SEARCH SUBJECT \"grüße\"")
	u.raw("* ESEARCH (TAG \"d\") ALL 1\r\nd OK\r\n")
	c.expect("* ESEARCH (TAG \"d\") ALL 1")
	if got := gate.last().recorded(broker.EventMessageAppend); len(got) != 1 || got[0].(broker.MessageAppend).Folder != "Entwürfe" {
		t.Errorf("recorded %+v", got)
	}
}

// TestStress runs sessions that do everything at once, and are killed, left or
// logged out of at any moment: under the race detector, against an upstream
// that complains of what should not have reached it.
func TestStress(t *testing.T) {
	caps := []string{"IMAP4rev1", "LITERAL+", "UNSELECT", "MULTIAPPEND", "CATENATE", "BINARY", "UTF8=ACCEPT", "IDLE"}
	gate := &fakeGate{decision: policy.Decision{Actions: policy.All}}
	var mu sync.Mutex
	var upstreams []*checkedUpstream
	var served sync.WaitGroup
	rig := newRig(t, gate)
	rig.filter.listenAfter, rig.filter.reIdle, rig.filter.reIdleJitter, rig.filter.stillHere = time.Millisecond, 3*time.Millisecond, 1, time.Millisecond
	commands := []string{
		"NOOP", "SELECT INBOX", "UID FETCH 1:* (FLAGS BODY.PEEK[TEXT])", "FETCH 1 BODY[]", "STORE 1 +FLAGS (\\Seen)", "SEARCH SUBJECT {3+}\r\n\xffab",
		"APPEND x {3+}\r\nabc {2+}\r\nde", "APPEND x {0+}\r\n", "FROBNICATE", "CLOSE", "UID COPY 1 x", "ENABLE CONDSTORE X", "RENAME INBOX y", "IDLE\r\nDONE", "LIST \"\" *", "COMPRESS DEFLATE",
	}
	var clients sync.WaitGroup
	for i := range 40 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(i)))
			near, far := tcpPair(t)
			u := &checkedUpstream{conn: far, table: newTable(), actions: policy.All, caps: caps}
			mu.Lock()
			upstreams = append(upstreams, u)
			mu.Unlock()
			served.Go(func() { defer far.Close(); u.serve() })
			client, session := stressSession(t, rig, &broker.IMAPConn{Conn: near, Capabilities: caps}, &served)
			defer client.Close()
			go func() { _, _ = io.Copy(io.Discard, client) }()
			_ = client.SetWriteDeadline(time.Now().Add(20 * time.Second))
			for n := range 60 {
				if _, err := fmt.Fprintf(client, "t%d %s\r\n", n, commands[random.IntN(len(commands))]); err != nil {
					break
				}
				if random.IntN(5) == 0 {
					<-time.After(time.Duration(random.IntN(5)) * time.Millisecond)
				}
			}
			switch i % 4 {
			case 0:
				session.cancel(&broker.End{Reason: broker.EndRevoked, Text: "over"})
			case 1:
				_, _ = io.WriteString(client, "zz LOGOUT\r\n")
			case 2:
				far.Close()
			}
		})
	}
	clients.Wait()
	done := make(chan struct{})
	go func() { defer close(done); served.Wait() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a session or an upstream is still served")
	}
	for _, u := range upstreams {
		if u.fault != "" {
			t.Error(u.fault)
		}
	}
}

// stressSession begins a session without the login, and returns its client.
func stressSession(t *testing.T, rig *rig, up *broker.IMAPConn, served *sync.WaitGroup) (net.Conn, *fakeSession) {
	opened, err := rig.gate.Open(t.Context(), broker.Login{Token: broker.NewSecret([]byte("secret"))})
	if err != nil {
		t.Error(err)
	}
	session := opened.(*fakeSession)
	client, server := tcpPair(t)
	conn := newServerConn(server)
	r := rig.filter.newRelay(session, conn, up, newLineReader(conn), newPrefix(), specialFolders{}, nil)
	served.Go(func() {
		r.run()
		linger(server)
	})
	return client, session
}
