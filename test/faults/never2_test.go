// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/test/e2e"
)

const victim = "victim@client.example"

// TestNever2: a command that is not allowed reaches the provider, or octets of
// one command act as another. Here all of Postern stands between a client and
// Dovecot, Cyrus or Postfix, and every octet that they get is read as a command
// that Postern means.
func TestNever2(t *testing.T) {
	w := newRig(t, e2e.WorldOptions{Sealed: true, Mailboxes: []string{sales, support, victim, cyrusBox}})
	w.Dovecot.Deliver(sales, "", bulk("one", 1000))
	t.Run("actions", func(t *testing.T) { needActions(w.For(t)) })
	t.Run("never forwarded", func(t *testing.T) { neverForwarded(w.For(t)) })
	for _, up := range []*imapUpstream{dovecotUpstream(w), cyrusUpstream(w)} {
		t.Run("smuggling into "+up.name, func(t *testing.T) { up.smuggle(w.For(t)) })
	}
	t.Run("smuggling into Postfix", func(t *testing.T) { smugglesSMTP(w.For(t)) })
}

// needsAction is a command and the actions without any one of which it is
// refused.
type needsAction struct{ command, actions string }

var needActionCases = []needsAction{
	{`SELECT INBOX`, "list"},
	{`SELECT INBOX (CONDSTORE)`, "list"},
	{"SELECT {5+}\r\nINBOX", "list"},
	{`EXAMINE INBOX`, "list"},
	{`CREATE New`, "folders"},
	{"CREATE {3+}\r\nNew", "folders"},
	{`DELETE Old`, "folders"},
	{`RENAME Old New`, "folders"},
	{`SUBSCRIBE New`, "folders"},
	{`UNSUBSCRIBE New`, "folders"},
	{`LIST "" *`, "list"},
	{`LIST (SUBSCRIBED) "" ("*") RETURN (CHILDREN STATUS (MESSAGES))`, "list"},
	{`LSUB "" *`, "list"},
	{`XLIST "" *`, "list"},
	{`STATUS INBOX (MESSAGES UIDNEXT)`, "list"},
	{"APPEND Archive {5+}\r\nA: b\n", "file"},
	{"APPEND Trash (\\Seen) {5+}\r\nA: b\n", "file"},
	{`GETQUOTA "User quota"`, "list"},
	{`GETQUOTAROOT INBOX`, "list"},
	{`NOTIFY SET (selected (MessageNew (UID BODY.PEEK[]) MessageExpunge))`, "list,headers,read"},
	{`CANCELUPDATE "a1"`, "list"},
	{`CLOSE`, "delete"},
	{`EXPUNGE`, "delete"},
	{`UID EXPUNGE 1:*`, "delete"},
	{`SEARCH ALL`, "list"},
	{`SEARCH CHARSET UTF-8 BODY secret`, "read"},
	{`SEARCH OR TEXT secret ALL`, "read"},
	{`SEARCH SUBJECT secret`, "headers"},
	{`UID SEARCH NOT (BODY secret)`, "read"},
	{`SORT (SUBJECT) UTF-8 ALL`, "headers"},
	{`UID SORT (SUBJECT) UTF-8 BODY x`, "headers,read"},
	{`THREAD REFERENCES UTF-8 ALL`, "headers"},
	{`UID THREAD REFERENCES UTF-8 TEXT x`, "headers,read"},
	{`FETCH 1 FLAGS`, "list"},
	{`FETCH 1 (ENVELOPE)`, "headers"},
	{`FETCH 1 (FLAGS BODY.PEEK[])`, "headers,read"},
	{`FETCH 1 BODY.PEEK[HEADER]`, "headers"},
	{`FETCH 1 BODY.PEEK[TEXT]<0.10>`, "read"},
	{`FETCH 1 RFC822`, "headers,read,flag"},
	{`FETCH 1 RFC822.TEXT`, "read,flag"},
	{`UID FETCH 1:* (FLAGS BODY.PEEK[1])`, "read"},
	{`STORE 1 +FLAGS.SILENT (\Seen)`, "flag"},
	{`STORE 1 +FLAGS (\Deleted)`, "delete"},
	{`STORE 1 FLAGS (\Seen \Deleted)`, "flag,delete"},
	{`UID STORE 1 +FLAGS (\Deleted)`, "delete"},
	{`UID STORE 1 -FLAGS (kept)`, "flag"},
	{`COPY 1 Archive`, "file"},
	{`UID COPY 1 Archive`, "file"},
	{`MOVE 1 Archive`, "file"},
	{`MOVE 1 Trash`, "delete"},
	{`UID MOVE 1 Archive`, "file"},
	{"UID MOVE 1 {5+}\r\nTrash", "delete"},
	{"REPLACE 1 Archive {5+}\r\nA: b\n", "file,delete"},
	{"UID REPLACE 1 Archive {5+}\r\nA: b\n", "file,delete"},
}

// needNoAction may be said by anybody who was let in.
var needNoAction = []string{"CAPABILITY", "NOOP", "LOGOUT", "ID", "ENABLE", "NAMESPACE", "IDLE", "CHECK", "UNSELECT"}

var neverCommands = []string{
	"STARTTLS", "AUTHENTICATE", "LOGIN", "COMPRESS", "UNAUTHENTICATE", "PROXYAUTH", "GENURLAUTH", "RESETKEY", "URLFETCH",
	"SETACL", "DELETEACL", "GETACL", "LISTRIGHTS", "MYRIGHTS", "SETQUOTA", "SETMETADATA", "GETMETADATA",
}

var allActions = []string{"list", "headers", "read", "flag", "file", "delete", "folders", "send"}

// name is the command's, with UID before it.
func (n needsAction) name() string {
	name, rest, _ := strings.Cut(n.command, " ")
	if name == "UID" {
		sub, _, _ := strings.Cut(rest, " ")
		return name + " " + sub
	}
	return name
}

// tableNames reads the command table's source, so that one that is added there
// and not here fails.
func tableNames(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("../../proxy/imapfilter/table.go")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile(`\{name: "([A-Z ]+)"`).FindAllSubmatch(b, -1) {
		all = append(all, string(m[1]))
	}
	if len(all) < 50 {
		t.Fatalf("the command table is written in some other way: %q", all)
	}
	return all
}

func needActions(r *rig) {
	t := r.t
	covered := append(slices.Clone(needNoAction), neverCommands...)
	for _, n := range needActionCases {
		covered = append(covered, n.name())
	}
	for _, name := range tableNames(t) {
		if !slices.Contains(covered, name) {
			t.Errorf("no case for %s", name)
		}
	}
	refused := 0
	for _, missing := range allActions {
		s := r.Seat(sales, slices.DeleteFunc(slices.Clone(allActions), func(a string) bool { return a == missing })...)
		c := s.IMAP(t)
		if missing != "list" {
			c.OK("SELECT INBOX")
		}
		for _, n := range needActionCases {
			if !slices.Contains(strings.Split(n.actions, ","), missing) {
				continue
			}
			record := recordFrom(r.imap)
			_, answer := c.Cmd("%s", n.command)
			want := []string{"NOOP"}
			if n.command == "CLOSE" {
				want = []string{"UNSELECT", "NOOP"}
				wantPrefix(t, n.command, answer, "OK ")
			} else {
				wantPrefix(t, n.command+" without "+missing, answer, "NO [NOPERM] ")
				if !strings.Contains(answer, missing) {
					t.Errorf("%s: the refusal does not name %s: %s", n.command, missing, answer)
				}
			}
			c.OK("NOOP")
			commands, err := record.commands()
			if got := names(commands); err != nil || !slices.Equal(got, want) {
				t.Errorf("%q without %s: the provider got %q, %v", n.command, missing, got, err)
			}
			if n.command == "CLOSE" {
				c.OK("SELECT INBOX")
			}
			refused++
		}
		c.OK("LOGOUT")
	}
	if got := r.Dovecot.Messages(sales, "INBOX", "ALL"); len(got) != 1 {
		t.Errorf("messages in INBOX: %v", got)
	}
	forwarded := allForwarded(r)
	t.Logf("%d refusals, %d commands forwarded with everything granted", refused, forwarded)
}

// allForwarded: with every action each of the commands reaches Dovecot, once
// and under its own name, so that none of the refusals above had another cause.
func allForwarded(r *rig) int {
	t := r.t
	c := r.Seat(sales).IMAP(t)
	for _, n := range needActionCases {
		c.OK("SELECT INBOX")
		record := recordFrom(r.imap)
		c.Cmd("%s", n.command) // Dovecot has its own opinion of some
		c.OK("NOOP")
		commands, err := record.commands()
		got := slices.DeleteFunc(names(commands), func(name string) bool { return name == "NOOP" })
		if err != nil || len(got) == 0 || got[0] != n.name() || len(got) > 2 || len(got) == 2 && got[1] != "UID FETCH" {
			t.Errorf("%q: the provider got %q, %v", n.command, got, err)
		}
	}
	c.OK("LOGOUT")
	return len(needActionCases)
}

func neverForwarded(r *rig) {
	t := r.t
	s := r.Seat(sales)
	c := s.IMAP(t)
	for _, name := range append(slices.Clone(neverCommands), "XSECRET", "X-GM-RAW", "UID LOGIN", "UID UID FETCH", "GETANNOTATION", "ESEARCH", "CONVERT", "LANGUAGE") {
		record := recordFrom(r.imap)
		_, answer := c.Cmd("%s x y", name)
		wantPrefix(t, name, answer, "BAD ")
		c.OK("NOOP")
		commands, err := record.commands()
		if got := names(commands); err != nil || !slices.Equal(got, []string{"NOOP"}) {
			t.Errorf("%s: the provider got %q, %v", name, got, err)
		}
	}
	c.OK("LOGOUT")
}
