// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// needNothing are the commands that take no action: each is here on purpose.
var needNothing = []string{
	"CAPABILITY", "NOOP", "LOGOUT", "ID", "ENABLE", "IDLE", "CHECK", "UNSELECT",
}

// neverForwarded is the never list of the design.
var neverForwarded = []string{
	"STARTTLS", "AUTHENTICATE", "LOGIN", "COMPRESS", "UNAUTHENTICATE", "PROXYAUTH", "GENURLAUTH",
	"RESETKEY", "URLFETCH", "SETACL", "DELETEACL", "GETACL", "LISTRIGHTS", "MYRIGHTS", "SETQUOTA",
	"SETMETADATA", "GETMETADATA",
}

func tableNames() []string { return slices.Sorted(maps.Keys(newTable())) }

// TestNever2EachCommandOfTheTableIsRefused: for every command and every action
// it takes, a session without that action is refused, and the upstream sees
// nothing of it. A command that is added without an action, an example or a
// place on one of the two lists above fails here.
func TestNever2EachCommandOfTheTableIsRefused(t *testing.T) {
	table := newTable()
	for _, name := range tableNames() {
		entry := table[name]
		switch {
		case entry.judge == nil:
			if !slices.Contains(neverForwarded, name) {
				t.Errorf("%s is never forwarded, but is not on the never list", name)
			}
			continue
		case slices.Contains(needNothing, name):
			if entry.needs != 0 {
				t.Errorf("%s takes %s, but is on the list of those that take nothing", name, entry.needs)
			}
			continue
		case entry.needs == 0:
			t.Errorf("%s takes no action, and is not on the list of those that may", name)
			continue
		}
		for bit := policy.Actions(1); bit <= policy.All; bit <<= 1 {
			if entry.needs&bit != 0 {
				t.Run(name+" without "+bit.String(), func(t *testing.T) { refusedWithout(t, entry, bit) })
			}
		}
	}
}

func refusedWithout(t *testing.T, entry *command, missing policy.Actions) {
	gate, upstreams := scripted(t)
	gate.decision = policy.Decision{Actions: policy.All &^ missing}
	c := newRig(t, gate).connect()
	c.send("l LOGIN box@firm.example secret")
	u := <-upstreams
	tag, _, _ := strings.Cut(u.line(), " ")
	u.raw(tag + " OK\r\n")
	c.expect("l OK")
	c.send("%s", "a "+entry.name+entry.example)
	if entry.name == "CLOSE" {
		u.expect("a UNSELECT")
		return
	}
	if got := c.expect("a NO [NOPERM] "); !strings.Contains(got, missing.String()) {
		t.Errorf("the refusal does not name the action: %s", got)
	}
	// The next command is the next that the upstream sees.
	c.send("b NOOP")
	u.expect("b NOOP")
	u.raw("b OK\r\n")
	c.expect("b OK")
	if got := gate.last().recorded(broker.EventCommandRefused); len(got) != 1 {
		t.Errorf("recorded %+v", got)
	}
}

// TestEachCommandOfTheTableIsForwarded: with every action the command reaches
// the upstream as it was written.
func TestEachCommandOfTheTableIsForwarded(t *testing.T) {
	table := newTable()
	for _, name := range tableNames() {
		entry := table[name]
		if entry.judge == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			gate, upstreams := scripted(t)
			c := newRig(t, gate).login()
			u := <-upstreams
			c.send("%s", "a "+name+entry.example)
			u.expect(strings.SplitAfter("a "+name+entry.example, "\r\n")[0][:len("a "+name)])
		})
	}
}

func TestNever2NeverForwarded(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	bad := 0
	for _, name := range append(slices.Clone(neverForwarded), "XSECRET", "X-GM-RAW", "UID LOGIN", "UID", "UID UID FETCH", "GETANNOTATION", "ESEARCH") {
		c.send("a %s x y", name)
		c.expect("a BAD ")
		if bad++; bad%5 == 0 {
			c.send("b NOOP")
			u.expect("b NOOP")
			u.raw("b OK\r\n")
			c.expect("b OK")
		}
	}
	c.send("b NOOP")
	u.expect("b NOOP")
}

// TestGrammar: what each grammar takes and what it does not, and the actions.
func TestGrammar(t *testing.T) {
	for _, tc := range []struct{ line, needs string }{
		{"FETCH 1 FLAGS", "list"},
		{"FETCH 1:5,7:*,$ FLAGS", ""},
		{"FETCH $ (UID FLAGS)", "list"},
		{"FETCH 0 FLAGS", ""},
		{"FETCH 01 FLAGS", ""},
		{"FETCH 4294967296 FLAGS", ""},
		{"FETCH 1 ALL", "list,headers"},
		{"FETCH 1 FAST", "list"},
		{"FETCH 1 (ALL)", ""},
		{"FETCH 1 ()", ""},
		{"FETCH 1 (ENVELOPE BODYSTRUCTURE)", "list,headers"},
		{"FETCH 1 BODY", "list,headers"},
		{"FETCH 1 BODY[]", "list,headers,read"},
		{"FETCH 1 BODY[HEADER]", "list,headers"},
		{"FETCH 1 BODY.PEEK[HEADER.FIELDS (FROM TO)]<0.100>", "list,headers"},
		{"FETCH 1 BODY[HEADER.FIELDS ()]", ""},
		{"FETCH 1 BODY[HEADER.FIELDS (FROM)", ""},
		{"FETCH 1 BODY[HEADER.FIELDS (FROM) ]", ""},
		{"FETCH 1 BODY[MIME]", ""},
		{"FETCH 1 BODY[1.MIME]", "list,headers"},
		{"FETCH 1 BODY[1.2.HEADER]", "list,read"},
		{"FETCH 1 BODY[1.2.TEXT]<5.10>", "list,read"},
		{"FETCH 1 BODY[1.]", ""},
		{"FETCH 1 BODY[0]", ""},
		{"FETCH 1 BODY[1]<5>", ""},
		{"FETCH 1 BODY[1]<5.0>", ""},
		{"FETCH 1 BODY[1]x", ""},
		{"FETCH 1 BINARY[1]", "list,read"},
		{"FETCH 1 BINARY.PEEK[]<0.1>", "list,headers,read"},
		{"FETCH 1 BINARY.SIZE[1]", "list,headers"},
		{"FETCH 1 BINARY.SIZE[1]<0.1>", ""},
		{"FETCH 1 BINARY[HEADER]", ""},
		{"FETCH 1 RFC822", "list,headers,read"},
		{"FETCH 1 RFC822.HEADER", "list,headers"},
		{"FETCH 1 (PREVIEW (LAZY) EMAILID)", "list,headers"},
		{"FETCH 1 (FLAGS) (CHANGEDSINCE 5 VANISHED)", "list"},
		{"FETCH 1 SECRET", ""},
		{"FETCH 1 FLAGS UID", ""},
		{"SEARCH ALL", "list"},
		{"SEARCH", ""},
		{"SEARCH RETURN (MIN COUNT SAVE PARTIAL 1:10) UNSEEN", "list"},
		{"SEARCH CHARSET UTF-8 SUBJECT x", "list,headers"},
		{"SEARCH OR (NOT BODY a) (SINCE 1-Feb-2026 UID 1:*)", "list,read"},
		{"SEARCH OR ALL", ""},
		{"SEARCH NOT", ""},
		{"SEARCH SINCE 1-Foo-2026", ""},
		{"SEARCH KEYWORD $Important", "list"},
		{"SEARCH HEADER X-Y \"\"", "list,headers"},
		{"SEARCH MODSEQ \"/flags/\\\\draft\" all 620162338", "list"},
		{"SEARCH X-GM-RAW \"in:anywhere\"", "list,headers,read"},
		{"SEARCH FUZZY BODY x", "list,read"},
		{"SEARCH INTHREAD x", ""},
		{"SORT (REVERSE ARRIVAL) US-ASCII ALL", "list"},
		{"SORT (FROM) UTF-8 TEXT x", "list,headers,read"},
		{"SEARCH TEXT x", "list,headers,read"},
		{"SEARCH BODY x", "list,read"},
		{"SEARCH " + strings.Repeat("OR FROM a ", 200) + "TO b", "list,headers"},
		{"SEARCH " + strings.Repeat("NOT ", 200) + "SEEN", "list"},
		{"SEARCH OR NOT OR SEEN DELETED (NOT SEEN OR TO a TO b) ALL", "list,headers"},
		{"SEARCH OR OR SEEN DELETED", ""},
		{"SEARCH (SEEN", ""},
		{"SEARCH NOT ()", ""},
		{"SORT ARRIVAL UTF-8 ALL", ""},
		{"THREAD REFERENCES UTF-8 ALL", "list,headers"},
		{"THREAD OTHER UTF-8 ALL", ""},
		{`STORE 1 FLAGS \Seen`, "flag"},
		{`STORE 1 +FLAGS.SILENT (\Deleted)`, "delete"},
		{`STORE 1 (UNCHANGEDSINCE 5) -FLAGS (\deleted \Seen)`, "flag,delete"},
		{`STORE 1 FLAGS ()`, "flag"},
		{`STORE 1 FLAGS (\Deleted)`, "flag,delete"},
		{`STORE 1 FLAGS.SILENT \Deleted`, "flag,delete"},
		{`STORE 1 -FLAGS (\Deleted)`, "delete"},
		{`STORE 1 X-GM-LABELS ()`, "file"},
		{`STORE 1 -X-GM-LABELS (\Inbox)`, "file"},
		{`STORE 1 +X-GM-LABELS ("[Gmail]/Trash")`, "file,delete"},
		{`STORE 1 +X-GM-LABELS Trash`, "file,delete"},
		{`STORE 1 ++FLAGS ()`, ""},
		{`STORE 1 +X-GM-LABELS (work)`, "file"},
		{`STORE 1 +X-GM-LABELS (\Trash)`, "file,delete"},
		{`STORE 1 ANNOTATION (x)`, ""},
		{"COPY 1:* Archive", "file"},
		{"COPY 1:* Trash", "delete"},
		{"MOVE 1 Trash/Sub", "file,delete"},
		{"MOVE 1 mail.Trash", "file,delete"},
		{"MOVE 1 Papierkorb", "delete"},
		{"MOVE 1 Gel&APY-schte.Elemente", "file"},
		{"MOVE 1 \"Gel&APY-schte Elemente\"", "delete"},
		{"MOVE 1 &AFQ-rash", "file,delete"},
		{"MOVE 1 Work&", "file,delete"},
		{"APPEND Work (\\Seen) {1}", "file"},
		{"APPEND Work (\\deleted) {1}", "file,delete"},
		{"APPEND Work CATENATE (URL \"/x;UID=1\")", "headers,read,file"},
		{"APPEND Work CATENATE (URL \"imap://a@b/x;UID=1\")", ""},
		{"APPEND Work CATENATE (URL \"//b/x;UID=1\")", ""},
		{"APPEND Work CATENATE (URL \"/x;UID=1;URLAUTH=anonymous\")", ""},
		{"REPLACE 1:2 Work {1}", ""},
		{"REPLACE $ Work {1}", ""},
		{"REPLACE * Work {1}", "file,delete"},
		{"MOVE 1 Archive", "file"},
		{"MOVE 1 trash", "delete"},
		{"UID MOVE 1 INBOX.Trash", "delete"},
		{"EXPUNGE", "delete"},
		{"EXPUNGE 1", ""},
		{"UID EXPUNGE 1:5", "delete"},
		{"SELECT INBOX (QRESYNC (67890007 20050715194045000 41,43:211,214:541))", "list"},
		{"SELECT INBOX (QRESYNC (1 2 3 (4 5)))", "list"},
		{"SELECT INBOX (ANNOTATE)", ""},
		{"SELECT {5}\r\na\r\nbc", ""},
		{`LIST "" "*" RETURN (SUBSCRIBED CHILDREN SPECIAL-USE STATUS (MESSAGES))`, "list"},
		{`LIST (SUBSCRIBED RECURSIVEMATCH) "" (a% b*)`, "list"},
		{`LIST "" * RETURN (MYRIGHTS)`, ""},
		{`LSUB "" %`, "list"},
		{"STATUS INBOX (MESSAGES UNSEEN HIGHESTMODSEQ)", "list"},
		{"STATUS INBOX MESSAGES", ""},
		{`CREATE x (USE (\Archive \Sent))`, "folders"},
		{`CREATE x (USE (\trash))`, "delete,folders"},
		{"NAMESPACE", "list"},
		{"RENAME a b", "folders"},
		{"NOTIFY NONE", "list"},
		{"NOTIFY SET STATUS (selected MessageNew (uid) MessageExpunge)", ""},
		{"NOTIFY SET (selected (MessageNew (UID BODY.PEEK[]) MessageExpunge)) (subtree (a b) (MessageNew))", "list,headers,read"},
		{"NOTIFY SET (personal NONE)", "list"},
		{"ID NIL", ""},
	} {
		name, got := judgeLine(t, tc.line)
		if tc.line == "ID NIL" {
			continue
		}
		if got != tc.needs {
			t.Errorf("%s (%s): takes %q, want %q", tc.line, name, got, tc.needs)
		}
	}
}

// judgeLine returns the actions that a command takes, or "" when its grammar
// does not.
func judgeLine(t *testing.T, line string) (name, needs string) {
	t.Helper()
	gate, _ := scripted(t)
	r := newRig(t, gate)
	s := clientSide{r: &relay{f: r.filter, decision: &gate.decision}}
	s.r.upstream.offers = offersOf([]string{"CATENATE", "MULTIAPPEND", "BINARY", "UTF8=ACCEPT"})
	first, rest, _ := strings.Cut("a "+line+"\r\n", "\r\n")
	done, err := s.lexer.Line([]byte(first + "\r\n"))
	for err == nil && !done {
		if entry, skip := s.lookUp(); entry != nil && entry.streams && s.streamsHere(skip) {
			break
		}
		var b []byte
		if b, err = s.lexer.BufferLiteral(); err == nil {
			copy(b, rest)
			rest = rest[len(b):]
			done, err = s.lexer.Line([]byte(rest))
		}
	}
	if err != nil {
		return "", ""
	}
	entry, skip := s.lookUp()
	if entry == nil {
		return "unknown", ""
	}
	j := s.judge(entry, skip)
	if j.err != nil {
		return entry.name, ""
	}
	return entry.name, j.needs.String()
}
