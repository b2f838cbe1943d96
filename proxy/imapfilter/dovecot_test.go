// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/upstream"
	"github.com/postern-mail/postern/test/servers"
)

// dovecotGate returns a gate to a mailbox in a real Dovecot, and one to another
// mailbox that is as empty.
func dovecotGate(t *testing.T) (gate, other *fakeGate) {
	const password = "upstream-password"
	d := servers.StartDovecot(t, servers.WithUser("one@firm.example", password), servers.WithUser("two@firm.example", password))
	dialer, err := upstream.New(upstream.Config{RootCAs: d.CA.Pool(), Logger: zaptest.NewLogger(t), Hostname: "postern.test"})
	if err != nil {
		t.Fatal(err)
	}
	to := func(address string) *fakeGate {
		m := &broker.Mailbox{Address: address, IMAP: d.IMAP(broker.TLSImplicit)}
		return &fakeGate{dial: func(ctx context.Context) (*broker.IMAPConn, error) {
			return dialer.OpenIMAP(ctx, m, &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte(password))})
		}}
	}
	return to("one@firm.example"), to("two@firm.example")
}

// TestSameAsDovecot runs one script directly and through Postern: the answers
// are the same but for what must differ, which is named here.
func TestSameAsDovecot(t *testing.T) {
	gate, other := dovecotGate(t)
	message := "From: a@firm.example\r\nTo: box@firm.example\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <%d@firm.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello %d\r\n--b\r\nContent-Type: text/plain; name=\"x.txt\"\r\n\r\nattached\r\n--b--\r\n"
	script := []string{
		"CAPABILITY", "NOOP", `ID ("name" "test")`, "NAMESPACE", `LIST "" "*"`, `LIST "" "%" RETURN (SUBSCRIBED CHILDREN SPECIAL-USE STATUS (MESSAGES UIDNEXT))`,
		`LSUB "" "*"`, "CREATE {6}\r\n", "STATUS INBOX (MESSAGES UNSEEN)", "GETQUOTAROOT INBOX", "ENABLE CONDSTORE", "ENABLE QRESYNC FOO",
		"SELECT INBOX", "APPEND", "APPEND", "APPEND+", "NOOP",
		"FETCH 1:* (FLAGS UID INTERNALDATE RFC822.SIZE)", "FETCH 1 (ENVELOPE BODYSTRUCTURE)", "FETCH 1 BODY[]", "UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT FROM)])",
		"FETCH 1 BODY[1.MIME]", "FETCH 2 (BODY.PEEK[1]<0.5> BINARY.PEEK[2] BINARY.SIZE[2])", "FETCH 2 (UID PREVIEW SAVEDATE)", "FETCH 3 RFC822.HEADER", "FETCH 3 ALL",
		`STORE 1 +FLAGS (\Flagged $Label)`, `UID STORE 2 FLAGS.SILENT (\Seen)`, "SEARCH UNSEEN", "SEARCH RETURN (COUNT MIN MAX ALL) ALL", "UID SEARCH RETURN (SAVE) FLAGGED", "FETCH $ FLAGS",
		"SEARCH CHARSET UTF-8 SUBJECT {5+}\r\n\xc3\xbc\xc3\x9fe", "UID SORT (REVERSE DATE) UTF-8 ALL", "THREAD REFERENCES UTF-8 ALL", "SEARCH BODY \"hello 2\"",
		"COPY 1 Archive", "UID COPY 1:2 Nowhere", "UID MOVE 2 Archive", "STORE 1 +FLAGS (\\Deleted)", "UID EXPUNGE 1", "EXPUNGE",
		"SELECT Archive (CONDSTORE)", "FETCH 1:* (FLAGS MODSEQ) (CHANGEDSINCE 1)", "CREATE \"With space\"", "RENAME \"With space\" Other", "SUBSCRIBE Other", "DELETE Other",
		"CREATE Entw&APw-rfe", "LIST \"\" \"Entw*\"", "UNSELECT", "EXAMINE INBOX", "CLOSE", "FETCH 1 FLAGS", "STATUS Nowhere (MESSAGES)", "LOGOUT",
	}
	run := func(c *peer) []string {
		var all []string
		n := 0
		for i, line := range script {
			tag := fmt.Sprintf("t%d", i)
			switch line {
			case "APPEND", "APPEND+":
				n++
				m := fmt.Sprintf(message, n, n)
				if line == "APPEND" {
					c.send(`%s APPEND INBOX (\Seen) "01-Jan-2026 10:00:00 +0000" {%d}`, tag, len(m))
					all = append(all, c.expect("+ "))
				} else {
					c.send(`%s APPEND INBOX "01-Jan-2026 10:00:00 +0000" {%d+}`, tag, len(m))
				}
				c.raw(m + "\r\n")
			case "CREATE {6}\r\n":
				c.send("%s CREATE {6+}", tag)
				c.send("Dr&-ft")
			default:
				c.send("%s %s", tag, line)
			}
			all = append(all, "C: "+line)
			all = append(all, c.until(tag+" ")...)
		}
		return all
	}
	direct := func() []string {
		conn, err := other.dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return run(newPeer(t, conn))
	}
	want := direct()
	got := run(newRig(t, gate).login())
	if len(got) < 2*len(script) {
		t.Fatalf("only %d lines of answers", len(got))
	}
	compare(t, normalise(want), normalise(got))
}

var (
	sessionNoise = regexp.MustCompile(` \(\d+\.\d+ \+ \d+\.\d+( \+ \d+\.\d+)? secs\)`)
	uidValidity  = regexp.MustCompile(`(UIDVALIDITY|COPYUID|APPENDUID) \d+`)
	saveDate     = regexp.MustCompile(`SAVEDATE "[^"]*"`)
	bodyItem     = regexp.MustCompile(`FETCH \(.*(BODY\[|BINARY\[|RFC822 |RFC822\.TEXT)`)
	fetchUID     = regexp.MustCompile(`FETCH \(UID \d+ `)
	modSeq       = regexp.MustCompile(`(?i)(MODSEQ \(|HIGHESTMODSEQ )\d+`)
)

// normalise takes out what differs between two runs, and what must differ
// through Postern.
func normalise(lines []string) []string {
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		l = sessionNoise.ReplaceAllString(l, "")
		l = uidValidity.ReplaceAllString(l, "$1 N")
		l = saveDate.ReplaceAllString(l, "SAVEDATE X")
		l = modSeq.ReplaceAllString(l, "${1}N")
		if strings.HasPrefix(l, "* CAPABILITY ") {
			l = "* CAPABILITY" + string(appendOffered(nil, []byte(strings.TrimPrefix(l, "* CAPABILITY "))))
		}
		// A FETCH of a body bears the UID, which the record needs.
		if bodyItem.MatchString(l) {
			l = fetchUID.ReplaceAllString(l, "FETCH (")
		}
		out = append(out, l)
	}
	return out
}

func compare(t *testing.T, want, got []string) {
	t.Helper()
	for i := range max(len(want), len(got)) {
		w, g := "", ""
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			t.Errorf("line %d\ndirect:  %q\npostern: %q", i, w, g)
			if t.Failed() && i > 0 {
				t.Logf("after %q", want[i-1])
			}
			return
		}
	}
}
