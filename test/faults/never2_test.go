// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"crypto/tls"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

const victim = "victim@client.example"

// TestNever2: a command that is not allowed reaches the provider, or octets of
// one command act as another. Here all of Postern stands between a client and
// Dovecot or Postfix, and every octet that they get is read as a command that
// Postern means.
func TestNever2(t *testing.T) {
	w := newRig(t, e2e.WorldOptions{Sealed: true, Mailboxes: []string{sales, support, victim}})
	w.Dovecot.Deliver(sales, "", bulk("one", 1000))
	t.Run("actions", func(t *testing.T) { needActions(w.For(t)) })
	t.Run("never forwarded", func(t *testing.T) { neverForwarded(w.For(t)) })
	t.Run("IMAP smuggling", func(t *testing.T) { smugglesIMAP(w.For(t)) })
	t.Run("SMTP smuggling", func(t *testing.T) { smugglesSMTP(w.For(t)) })
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

// smuggles are what a client says after its login; each holds a CREATE that
// some reader other than Postern could take for a command.
var smuggles = map[string]string{
	"bare LF":                           "a NOOP\nb CREATE Smuggled\r\n",
	"bare CR":                           "a NOOP\rb CREATE Smuggled\r\n",
	"NUL":                               "a NOOP\x00\r\nb CREATE Smuggled\x00\r\n",
	"CRLF in a quoted string":           "a SELECT \"x\r\nb CREATE Smuggled\r\n\"\r\n",
	"LF in a quoted string":             "a SELECT \"x\nb CREATE Smuggled\n\"\r\n",
	"escaped quote":                     "a SELECT \"x\\\"\r\nb CREATE Smuggled\r\n",
	"literal with CRLF for a folder":    "a SELECT {22+}\r\nx\r\nb CREATE Smuggled\r\n\r\n",
	"literal with CRLF to search for":   "a SEARCH SUBJECT {24+}\r\nxx\r\nb CREATE Smuggled\r\n\r\n",
	"literal that announces another":    "a SEARCH SUBJECT {4+}\r\n{20} SUBJECT {22+}\r\n\r\nb CREATE Smuggled\r\n\r\n",
	"text that looks like a literal":    "a SEARCH SUBJECT \"{20}\"\r\nb SEARCH SUBJECT \"{22+}\"\r\n",
	"refused non-synchronising literal": "a APPEND INBOX {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n",
	"refused synchronising literal":     "a APPEND INBOX {21}\r\nb CREATE Smuggled\r\n\r\n\r\n",
	"literal that is too large":         "a SELECT {5000000+}\r\nb CREATE Smuggled\r\n",
	"literal that is far too large":     "a SELECT {99999999999999999999+}\r\nb CREATE Smuggled\r\n",
	"negative literal":                  "a SELECT {-5}\r\nb CREATE Smuggled\r\n",
	"literal with a sign":               "a SELECT {+5}\r\nb CREATE Smuggled\r\n",
	"literal with a space":              "a SELECT { 5}\r\nb CREATE Smuggled\r\n",
	"literal with a minus":              "a SELECT {5-}\r\nINBOX\r\nb CREATE Smuggled\r\n",
	"literal with zeros":                "a SELECT {0000005+}\r\nINBOX\r\nb CREATE Smuggled\r\n",
	"literal behind a literal's end":    "a SELECT {5+}x\r\nb CREATE Smuggled\r\n",
	"literal8":                          "a SELECT ~{5+}\r\nINBOX\r\nb CREATE Smuggled\r\n",
	"literal with a bare LF":            "a SELECT {5+}\nINBOX\r\nb CREATE Smuggled\r\n",
	"empty literal":                     "a SELECT {0+}\r\n\r\nb CREATE Smuggled\r\n",
	// Dovecot 2.3 knows neither of these two, and takes the literal of a command
	// that it does not know for commands.
	"literal of a command unknown there":  "a REPLACE 1 Archive {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n",
	"pattern with a literal":              "a XLIST \"\" {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n",
	"reference with a literal":            "a XLIST {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n *\r\n",
	"LSUB with a literal":                 "a LSUB \"\" {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n",
	"quota root with a literal":           "a GETQUOTA {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n",
	"SORT with a literal":                 "a SORT (ARRIVAL) UTF-8 SUBJECT {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n",
	"X-GM-RAW with a literal":             "a SEARCH X-GM-RAW {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n",
	"tag with a plus":                     "+ CREATE Smuggled\r\na+b CREATE Smuggled\r\n",
	"tag with a star":                     "* CREATE Smuggled\r\n",
	"IDLE that ends with a command":       "a IDLE\r\nb CREATE Smuggled\r\nDONE\r\n",
	"IDLE with what follows":              "a IDLE\r\nDONE\r\nb CREATE Smuggled\r\n",
	"IDLE and bare LF":                    "a IDLE\r\nDONE\nb CREATE Smuggled\r\n",
	"UID and a literal":                   "a UID {6+}\r\nCREATE Smuggled\r\n",
	"name in a literal":                   "a {6+}\r\nCREATE Smuggled\r\n",
	"lower case":                          "a create Smuggled\r\n",
	"two spaces":                          "a  CREATE Smuggled\r\na CREATE  Smuggled\r\n",
	"tab":                                 "a\tCREATE\tSmuggled\r\n",
	"other spaces of Unicode":             "a\u00a0CREATE\u2028Smuggled\r\na NOOP\u2028b CREATE Smuggled\r\na NOOP\u0085b CREATE Smuggled\r\n",
	"overlong UTF-8 line end":             "a SEARCH SUBJECT \"\xc0\x8d\xc0\x8ab CREATE Smuggled\"\r\n",
	"long line":                           "a SEARCH SUBJECT \"" + strings.Repeat("x", 70000) + "\"\r\nb CREATE Smuggled\r\n",
	"half a line":                         "a CREATE Smuggled",
	"STARTTLS with what follows":          "a STARTTLS\r\nb CREATE Smuggled\r\n",
	"AUTHENTICATE with what follows":      "a AUTHENTICATE PLAIN\r\nb CREATE Smuggled\r\n",
	"ID with a command":                   "a ID (\"name\" \"x\r\nb CREATE Smuggled\")\r\n",
	"flag with a command":                 "a STORE 1 +FLAGS (x) CREATE Smuggled\r\n",
	"FETCH section with a literal":        "a FETCH 1 BODY.PEEK[HEADER.FIELDS ({23+}\r\nx\r\nb CREATE Smuggled\r\n\r\n)]\r\n",
	"ENABLE":                              "a ENABLE UTF8=ACCEPT\r\nb CREATE Smuggled\r\n",
	"many before":                         strings.Repeat("a NOOP\r\n", 200) + "b CREATE Smuggled\r\n",
	"COMPRESS":                            "a COMPRESS DEFLATE\r\nb CREATE Smuggled\r\n",
	"ends with a literal of nothing more": "a SEARCH SUBJECT {100+}\r\nb CREATE Smuggled\r\n",
}

// harmless are the commands that this session may give, and Postern's own.
var harmless = []string{
	"CAPABILITY", "AUTHENTICATE", "LIST", "NOOP", "ID", "IDLE", "SELECT", "SEARCH", "FETCH", "ENABLE", "LOGOUT",
	"LSUB", "XLIST", "GETQUOTA", "SORT", "REPLACE", "APPEND",
}

func smugglesIMAP(r *rig) {
	t := r.t
	s := r.Seat(sales, slices.DeleteFunc(slices.Clone(allActions), func(a string) bool { return a == "folders" })...)
	r.noSessions()
	got := make(map[string]bool)
	for name, payload := range smuggles {
		record := recordFrom(r.imap)
		c := s.IMAP(t)
		c.OK("SELECT INBOX")
		c.Send("%s", payload)
		if err := c.Conn.(*tls.Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.ExpectClosed(patience)
		servers.WaitFor(t, patience, func() bool { return r.imap.Connections() == 0 }, "the provider's connection to close")
		commands, err := record.commands()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, command := range commands {
			got[command.name] = true
			if !slices.Contains(harmless, command.name) {
				t.Errorf("%s: the provider got %s%s", name, command.name, command.args)
			}
		}
	}
	if folders := r.Dovecot.Doveadm("mailbox", "list", "-u", sales); strings.Contains(folders, "Smuggled") {
		t.Errorf("a folder was smuggled in: %s", folders)
	}
	// Before the login: what follows STARTTLS in the clear is nobody's.
	c := r.Postern.DialPlain(t, r.Postern.IMAPPort)
	c.Expect(`\* OK .*`)
	c.Send("a STARTTLS\r\nb LOGIN %s %s\r\nc CREATE Smuggled\r\n", s.Mailbox, s.Token)
	if said := c.ExpectClosed(patience); strings.Contains(said, "b ") {
		t.Errorf("after STARTTLS: %q", said)
	}
	t.Logf("%d attempts; all that Dovecot got were %q", len(smuggles), sortedKeys(got))
}

func sortedKeys(m map[string]bool) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// smuggled is a second message, which a smuggler wants read as commands.
const smuggled = "MAIL FROM:<" + sales + ">\r\nRCPT TO:<" + victim + ">\r\nDATA\r\nFrom: " + sales + "\r\nSubject: smuggled\r\n\r\nx\r\n.\r\nQUIT\r\n"

func smugglesSMTP(r *rig) {
	t := r.t
	s := r.Seat(sales)
	r.noSessions()
	inData := make(map[string]string)
	for _, end := range []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r\n.\r\r\n", "\r\n\x00.\r\n", "\r\n.\x00\r\n",
		"\n\n.\n\n", "\r\n .\r\n", "\r\n. \r\n", "\r\n..\r\n", "\r\n.\t\r\n", "\r\n.\v\r\n", "\u2028.\u2028", "\u0085.\u0085",
	} {
		inData[end] = message(sales, support, "smuggle-"+mark(t), "x"+end+smuggled)
	}
	refused := 0
	for end, m := range inData {
		c := s.Submission(t)
		from := len(r.smtp.Seen(servers.ToServer)) // what the login says was said
		c.Ask(250, "MAIL FROM:<%s>", sales)
		c.Ask(250, "RCPT TO:<%s>", support)
		c.Ask(354, "DATA")
		// The smuggled message has an end of data of its own, with which the
		// whole of it is one message, if Postern takes it at all.
		c.Send("%s", m)
		if !strings.HasPrefix(c.Reply(), "250") {
			refused++
		}
		c.Close()
		r.checkSMTP("DATA ending in "+strings.ReplaceAll(end, "\n", "LF"), from)
	}
	for name, payload := range map[string]string{
		"bare LF":               "MAIL FROM:<" + sales + ">\nRCPT TO:<" + victim + ">\r\n",
		"bare CR":               "MAIL FROM:<" + sales + ">\rRCPT TO:<" + victim + ">\r\n",
		"LF in a recipient":     "MAIL FROM:<" + sales + ">\r\nRCPT TO:<" + support + ">\nRCPT TO:<" + victim + ">\r\n",
		"NUL":                   "MAIL FROM:<" + sales + ">\r\nRCPT TO:<" + support + ">\x00RCPT TO:<" + victim + ">\r\n",
		"quoted parameters":     "MAIL FROM:<" + sales + ">\r\nRCPT TO:<\"" + victim + "> NOTIFY=NEVER ORCPT=rfc822;x\"@client.example>\r\n",
		"ORCPT with a line end": "MAIL FROM:<" + sales + "> ENVID=x+0D+0ARCPT\r\nRCPT TO:<" + support + "> ORCPT=rfc822;x\nRCPT\r\n",
		"BDAT":                  "MAIL FROM:<" + sales + ">\r\nRCPT TO:<" + support + ">\r\nBDAT 600 LAST\r\n" + smuggled,
		"DATA refused":          "DATA\r\n" + smuggled,
		"DATA without RCPT":     "MAIL FROM:<" + sales + ">\r\nDATA\r\n" + smuggled,
		"DATA with an argument": "MAIL FROM:<" + sales + ">\r\nRCPT TO:<" + support + ">\r\nDATA x\r\nQUIT\r\n",
		"AUTH twice":            "AUTH PLAIN\r\nRCPT TO:<" + victim + ">\r\n",
		"XCLIENT":               "XCLIENT ADDR=192.0.2.1\r\nXFORWARD NAME=x\r\n",
		"unknown parameter":     "MAIL FROM:<" + sales + "> XVERP=+-\r\nMAIL FROM:<" + sales + "> AUTH=<>\r\n",
		"long line":             "MAIL FROM:<" + sales + "> " + strings.Repeat("x", 4000) + "\r\nRCPT TO:<" + victim + ">\r\n",
		"half a line":           "MAIL FROM:<" + sales + ">\r\nRCPT TO:<" + victim + ">",
		"HELO with a line":      "EHLO x\nRCPT TO:<" + victim + ">\r\n",
		"STARTTLS":              "STARTTLS\r\nMAIL FROM:<" + sales + ">\r\n",
		"bytes of 8 bits":       "MAIL FROM:<" + sales + ">\r\nRCPT TO:<" + support + "\x85RCPT TO:<" + victim + ">\r\n",
	} {
		c := s.Submission(t)
		from := len(r.smtp.Seen(servers.ToServer))
		c.Send("%s", payload)
		if err := c.Conn.(*tls.Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.ExpectClosed(patience)
		r.checkSMTP(name, from)
	}
	servers.WaitFor(t, patience, func() bool { return r.queued() == 0 }, "Postfix to deliver what it has")
	if got := r.Dovecot.Messages(victim, "INBOX", "ALL"); len(got) != 0 {
		t.Errorf("the victim got mail: %v", got)
	}
	t.Logf("%d ends of data, %d of them refused", len(inData), refused)
}

// checkSMTP waits for the end of a session, and reads what Postfix got of it.
func (r *rig) checkSMTP(name string, from int) {
	r.t.Helper()
	servers.WaitFor(r.t, patience, func() bool { return r.smtp.Connections() == 0 }, "the provider's connection to close")
	got, err := parseSMTP(said(r.smtp, from))
	if err != nil && !errors.Is(err, errUnended) {
		r.t.Errorf("%s: %v", name, err)
	}
	for _, command := range got.commands {
		if strings.HasPrefix(command, "RCPT TO:<"+victim) || strings.HasPrefix(command, "EHLO") {
			r.t.Errorf("%s: the provider got %q", name, command)
		}
	}
	if len(got.messages) > 1 {
		r.t.Errorf("%s: the provider got %d messages", name, len(got.messages))
	}
}
