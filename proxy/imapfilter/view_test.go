// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-mail/postern/policy"
)

// viewed is one mailbox, seen directly by its owner and through a view by an
// agent.
type viewed struct {
	t     *testing.T
	owner *peer
	agent *peer
	rig   *rig
	// separator is the server's, for which "›" stands in commands and answers.
	separator string
}

// newViewed starts a server; the owner has carried out what is given, before
// the agent logs in.
func newViewed(t *testing.T, server realServer, d policy.Decision, owner ...string) *viewed {
	t.Helper()
	gate, _ := server.start(t)
	conn, err := gate.dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if d.Actions == 0 {
		d.Actions = policy.All
	}
	gate.decision = d
	v := &viewed{t: t, owner: newPeer(t, conn), separator: "›"}
	v.separator = regexp.MustCompile(`"(.)"`).FindStringSubmatch(v.own(`LIST "" ""`)[0])[1]
	for _, command := range owner {
		v.own(command)
	}
	v.rig = newRig(t, gate)
	v.agent = v.rig.login()
	return v
}

// own carries out a command directly; it must succeed.
func (v *viewed) own(command string) []string {
	v.t.Helper()
	heard := v.say(v.owner, command)
	if last := heard[len(heard)-1]; !strings.HasPrefix(last, "z OK") {
		v.t.Fatalf("%q: %q", command, heard)
	}
	return heard
}

// ask carries out a command through the view.
func (v *viewed) ask(command string) []string {
	v.t.Helper()
	return v.say(v.agent, command)
}

func (v *viewed) say(p *peer, command string) []string {
	v.t.Helper()
	heard := exchange(p, "z "+strings.ReplaceAll(command, "›", v.separator)+"\r\n", "z")
	for i := range heard {
		heard[i] = strings.ReplaceAll(heard[i], v.separator, "›")
	}
	return heard
}

// expect carries out a command through the view, whose tagged answer must begin
// so.
func (v *viewed) expect(command, status string) []string {
	v.t.Helper()
	heard := v.ask(command)
	if last := heard[len(heard)-1]; !strings.HasPrefix(last, "z "+status) {
		v.t.Errorf("%q: %q, want %s", command, heard, status)
	}
	return heard
}

// silent fails when anything that was heard holds one of the words.
func (v *viewed) silent(command string, heard []string, words ...string) {
	v.t.Helper()
	for _, line := range heard {
		for _, w := range words {
			if strings.Contains(strings.ToLower(line), strings.ToLower(w)) {
				v.t.Errorf("%q tells %q", command, line)
			}
		}
	}
}

// folders returns a decision that shows such folders.
func shows(allow ...string) policy.Decision {
	return policy.Decision{Folders: []policy.FolderPatterns{{Allow: allow}}}
}

func hides(deny ...string) policy.Decision {
	return policy.Decision{Folders: []policy.FolderPatterns{{Deny: deny}}}
}

// secretBox are the owner's commands for a mailbox with hidden folders.
func secretBox() []string {
	return []string{
		"CREATE Secret", "CREATE Secret›Deep", "CREATE Work", "CREATE Work›Open", "CREATE Work›Closed", "CREATE Top›Visible",
		"SUBSCRIBE Secret", "SUBSCRIBE Work", "SUBSCRIBE Work›Closed",
		"APPEND Secret " + nonSync(message(1)), "APPEND INBOX " + nonSync(message(2)), "APPEND Work " + nonSync(message(3)),
	}
}

var secretView = policy.Decision{Folders: []policy.FolderPatterns{{
	Allow: []string{"INBOX", "Work", "Work/*", "Top/Visible", "New*", "Trash"}, Deny: []string{"Work/Closed"},
}}}

// TestNever2ViewHiddenFoldersDoNotExist: whatever names a folder gets the same
// answer for a hidden one and for one that is not there, however it is spelled,
// and does nothing to it.
func TestNever2ViewHiddenFoldersDoNotExist(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		v := newViewed(t, server, secretView, secretBox()...)
		before := v.own("STATUS Secret (MESSAGES UIDNEXT UIDVALIDITY)")
		v.expect("SELECT INBOX", "OK")
		spell := []func(string) string{
			func(n string) string { return n },
			func(n string) string { return `"` + n + `"` },
			nonSync, synchronising,
			strings.ToUpper, strings.ToLower,
			func(n string) string { return n + "›" },
			func(n string) string { return "›" + n },
			func(n string) string { return ".›" + n },
			func(n string) string { return "INBOX›..›" + n },
			func(n string) string { return "Work›..›" + n },
			func(n string) string { return n + "/Deep" },
			func(n string) string { return "&" + n + "-" },
			func(n string) string { return "INBOX." + n },
			func(n string) string { return "user." + n },
			func(n string) string { return `"` + n + ` "` },
			func(n string) string { return `"` + n + "\xcc\x88" + `"` },
			func(n string) string { return "Work›Closed›" + n },
		}
		for _, command := range []string{
			"SELECT %s", "EXAMINE %s", "STATUS %s (MESSAGES UIDNEXT)", "APPEND %s " + nonSync(message(9)), "APPEND %s " + synchronising(message(9)),
			"COPY 1 %s", "UID COPY 1 %s", "MOVE 1 %s", "UID MOVE 1 %s", "CREATE %s", "DELETE %s", "RENAME %s New2", "RENAME Work %s",
			"SUBSCRIBE %s", "UNSUBSCRIBE %s", "LIST \"\" %s", "LSUB \"\" %s", "LIST (SUBSCRIBED) \"\" %s", "LIST (SPECIAL-USE) \"\" %s RETURN (CHILDREN)",
		} {
			for _, as := range spell {
				hidden := strings.ReplaceAll(command, "%s", as("Secret"))
				absent := strings.ReplaceAll(command, "%s", as("Absent"))
				got, want := v.ask(hidden), v.ask(absent)
				if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != strings.ReplaceAll(w, "Absent", "Secret") {
					t.Errorf("%.80q: %q\n%.80q: %q", hidden, g, absent, w)
				}
				if strings.HasPrefix(command, "SELECT") || strings.HasPrefix(command, "EXAMINE") {
					v.expect("SELECT INBOX", "OK")
				} else if last := got[len(got)-1]; strings.HasPrefix(last, "z OK") && !strings.HasPrefix(command, "L") {
					t.Errorf("%.80q: %q", hidden, got)
				}
			}
		}
		if after := v.own("STATUS Secret (MESSAGES UIDNEXT UIDVALIDITY)"); after[0] != before[0] {
			t.Errorf("before %q, after %q", before, after)
		}
	})
}

// TestNever2ViewListTellsTheVisibleAlone: patterns, references and options of
// LIST and LSUB.
func TestNever2ViewListTellsTheVisibleAlone(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		v := newViewed(t, server, secretView, secretBox()...)
		for _, command := range []string{
			`LIST "" *`, `LIST "" %`, `LIST "" "%›%"`, `LIST "" "S*"`, `LIST "Sec" "ret"`, `LIST "Secret›" %`, `LIST "Secret" *`, `LIST "Work›" %`, `LIST "" "*t"`,
			`LIST () "" ("S%" "*Deep" "Work›C%")`, `LIST (SUBSCRIBED) "" *`, `LIST (SUBSCRIBED RECURSIVEMATCH) "" %`, `LIST (RECURSIVEMATCH SUBSCRIBED) "" ("Work" "Secret")`,
			`LIST (SPECIAL-USE) "" *`, `LIST (REMOTE) "" *`, `LIST "" * RETURN (CHILDREN SUBSCRIBED SPECIAL-USE)`, `LIST "" % RETURN (CHILDREN)`,
			`LSUB "" *`, `LSUB "" %`, `LSUB "Secret" *`, `LSUB "" "Work›%"`, "LIST \"\" " + nonSync("Sec*"), `LIST "" ""`, "NAMESPACE",
		} {
			v.silent(command, v.expect(command, "OK"), "secret", "deep", "closed", "archive", "drafts")
		}
		for command, want := range map[string][]string{
			`LIST "" *`: {
				`* LIST (\HasNoChildren) "›" "INBOX"`, `* LIST (\Noselect \HasChildren) "›" "Top"`, `* LIST (\HasNoChildren) "›" "Top›Visible"`,
				`* LIST (\Trash \HasNoChildren) "›" "Trash"`, `* LIST (\HasChildren) "›" "Work"`, `* LIST (\HasNoChildren) "›" "Work›Open"`, "z OK done",
			},
			`LIST "" "W%"`:                     {`* LIST (\HasChildren) "›" "Work"`, "z OK done"},
			`LSUB "" W*`:                       {`* LSUB () "›" "Work"`, "z OK done"},
			`LIST (SUBSCRIBED) "" ("W*" "S*")`: {`* LIST (\Subscribed \HasNoChildren) "›" "Work"`, "z OK done"},
			`LIST "" ""`:                       {`* LIST (\Noselect) "›" ""`, "z OK done"},
		} {
			got := v.ask(command)
			if strings.HasPrefix(command, "LIST (SUB") { // which children it has is no part of that
				got = strings.Split(strings.ReplaceAll(strings.Join(got, "\n"), `\HasChildren`, `\HasNoChildren`), "\n")
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("%q: %q, want %q", command, got, want)
			}
		}
		// A parent whose only children are hidden has none.
		v.own("DELETE Work›Open")
		v.silent("LIST", v.expect(`LIST "" Work`, "OK"), `\HasChildren`, "closed")
		// One that was deleted, and stands only above a hidden one, is gone.
		v.expect("DELETE Work", "")
		v.silent("LIST", v.expect(`LIST "" W*`, "OK"), "closed")
		v.silent("LIST", v.ask(`LIST "" ""`), "secret")
	})
}

// TestNever2ViewWithholdsExtensions: what the view does not model is not
// offered, cannot be enabled, and is BAD where it is used all the same.
func TestNever2ViewWithholdsExtensions(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		v := newViewed(t, server, secretView, secretBox()...)
		withheld := regexp.MustCompile(`\b(QRESYNC|NOTIFY|CATENATE|URL-PARTIAL|CONTEXT=|LIST-STATUS|SEARCHRES|OBJECTID|REPLACE|X-GM-EXT-1|XLIST|QUOTA|UTF8=|IMAP4rev2|CREATE-SPECIAL-USE|METADATA|ACL|URLAUTH)`)
		again := v.rig.connect()
		again.send("l LOGIN box@firm.example secret")
		for _, line := range append(v.ask("CAPABILITY"), again.until("l ")...) {
			if m := withheld.FindString(line); m != "" {
				t.Errorf("%s is offered: %q", m, line)
			}
		}
		v.expect("ENABLE QRESYNC UTF8=ACCEPT IMAP4rev2 METADATA", "OK nothing")
		v.expect("SELECT INBOX", "OK")
		for _, command := range []string{
			"SELECT INBOX (QRESYNC (1 1))", "FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)", "UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)",
			"NOTIFY SET (personal (MailboxName))", "NOTIFY SET (subtree Secret (MessageNew))", "NOTIFY NONE",
			"SEARCH RETURN (SAVE) ALL", "SEARCH $", "UID SEARCH UID $", "FETCH $ FLAGS", "UID STORE $ +FLAGS (x)", "COPY $ Work", "UID MOVE $ Work", "UID EXPUNGE $",
			"SEARCH RETURN (UPDATE) ALL", "SEARCH RETURN (CONTEXT) ALL", "SEARCH RETURN (PARTIAL 1:2) ALL", `CANCELUPDATE "x"`,
			`LIST "" * RETURN (STATUS (MESSAGES))`, "STATUS INBOX (MAILBOXID)", "FETCH 1 EMAILID", "FETCH 1 (THREADID)", "SEARCH EMAILID x", "SEARCH THREADID x",
			`FETCH 1 X-GM-LABELS`, "SEARCH X-GM-RAW x", "SEARCH X-GM-LABELS Secret", "STORE 1 +X-GM-LABELS (Secret)", `XLIST "" *`, "GETQUOTAROOT INBOX", "GETQUOTAROOT Secret", `GETQUOTA ""`,
			"REPLACE 1 Secret " + nonSync(message(1)), "UID REPLACE 1 Work " + nonSync(message(1)),
			`APPEND INBOX CATENATE (URL "/Secret/;UID=1")`, `APPEND INBOX CATENATE (URL "/INBOX;UIDVALIDITY=1/;UID=1" TEXT ` + nonSync("x") + ")",
			`APPEND INBOX ` + nonSync(message(5)) + ` CATENATE (URL "/Secret/;UID=1")`,
			`GETMETADATA Secret (/private/comment)`, "GETMETADATA \"\" (/shared/comment)", "MYRIGHTS Secret", "GETACL Secret", "LISTRIGHTS Secret x", "ESEARCH IN (mailboxes Secret) ALL",
			"URLFETCH imap:///Secret/;UID=1", "GENURLAUTH imap:///Secret/;UID=1 INTERNAL",
		} {
			heard := v.agentSays(command)
			if last := heard[len(heard)-1]; !strings.HasPrefix(last, "z BAD") {
				t.Errorf("%q: %q", command, heard)
			}
			v.silent(command, heard, "number 1")
		}
		if heard := v.own("STATUS INBOX (MESSAGES)"); !strings.Contains(heard[0], "MESSAGES 1)") {
			t.Errorf("the folder holds %q", heard)
		}
	})
}

// agentSays is ask on a connection of its own where the command may end it.
func (v *viewed) agentSays(command string) []string {
	v.t.Helper()
	p := v.rig.login()
	defer p.conn.Close()
	exchange(p, "s SELECT INBOX\r\n", "s")
	return exchange(p, "z "+command+"\r\n", "z")
}

// TestNever2ViewRenameKeepsEachFolderOnItsSide: nothing is renamed into or out of
// view, itself or with what it stands below.
func TestNever2ViewRenameKeepsEachFolderOnItsSide(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		d := secretView
		d.Folders = []policy.FolderPatterns{{Allow: []string{"INBOX", "Work", "Work/*", "New*", "New/Closed/x"}, Deny: []string{"Work/Closed"}}}
		v := newViewed(t, server, d, secretBox()...)
		for _, command := range []string{
			"RENAME Secret New", "RENAME Secret›Deep Work›Deep", "RENAME Work Elsewhere", "RENAME Work›Open Secret2", "RENAME Work›Open Secret", "RENAME Work›Open Secret›Deep",
			"RENAME Work New", // Work›Closed would come into view
			"RENAME Work›Closed New", "RENAME Work›Open Work›Closed›x", "RENAME Work›Open Work›closed", "RENAME Work›Open Work›CLOSED›x", "RENAME Work›Open INBOX", "RENAME INBOX Elsewhere",
			"CREATE Work›closed", "CREATE Work›CLOSED", "CREATE \"Work›Closed\"", "CREATE Work›Closed›x", "CREATE Work›&-Closed›..›Closed", "CREATE New›..›Secret", "CREATE Work››x", "CREATE Elsewhere",
			"CREATE Work›&2D8-", "CREATE Work›&AEM-losed", "CREATE Work›Open", "CREATE Work›x (USE (\\Junk))",
			"CREATE Work›&,yM-losed", // fullwidth C
			"DELETE Secret", "DELETE Work›Closed",
		} {
			v.silent(command, v.expect(command, "NO"), "secret")
		}
		v.expect("RENAME Work›Open New", "OK")
		v.expect("CREATE Work›Later›", "OK")
		var there []string
		for _, line := range v.own(`LIST "" *`) {
			if i := strings.LastIndexByte(line, ' '); strings.HasPrefix(line, "* LIST") {
				there = append(there, strings.Trim(line[i+1:], `"`))
			}
		}
		for _, want := range []string{"Secret", "Secret›Deep", "Work", "Work›Closed", "New", "Work›Later"} {
			if !strings.Contains(" "+strings.Join(there, " ")+" ", " "+want+" ") {
				t.Errorf("no %s among %q", want, there)
			}
		}
	})
}

// TestNever2ViewNames: INBOX in any case, modified UTF-7 against UTF-8, case and
// normal forms.
func TestNever2ViewNames(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		v := newViewed(t, server, policy.Decision{Folders: []policy.FolderPatterns{{Allow: []string{"INBOX", "Entwürfe", "R&D", "Plus*"}}}},
			"CREATE Entw&APw-rfe", "CREATE R&-D", "CREATE &ZeVnLIqe-", "CREATE Entwu&Awg-rfe", "CREATE entw&APw-rfe", "CREATE Plus1", "CREATE &APY-l")
		for _, name := range []string{"INBOX", "inbox", "iNbOx", `"Inbox"`, nonSync("inBOX"), "Entw&APw-rfe", "R&-D", "Plus1"} {
			v.expect("SELECT "+name, "OK")
			v.expect("STATUS "+name+" (MESSAGES)", "OK")
		}
		for _, name := range []string{
			"Entwu&Awg-rfe",        // the same letters, in another normal form
			"entw&APw-rfe",         // in another case
			"\"Entw\xc3\xbcrfe\"",  // in UTF-8, which was not enabled
			nonSync("Entw\xfcrfe"), // in Latin-1
			"R&D", "R&AAY-D", "&AFI-&-D", "Entw&APw-&AHI-fe", "Entw&APw", "&ZeVnLIqe-", "\"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\"", "INBOX›", "INBOX&AC8-", "&AEkATgBCAE8AWA-", "&APY-l",
			"pLUS1", "Plus1&AAA-", "Plus1›..›Entw&APw-rfe",
		} {
			heard := v.ask("SELECT " + name)
			if last := heard[len(heard)-1]; !strings.HasPrefix(last, "z NO") && !strings.HasPrefix(last, "z BAD") || len(heard) != 1 {
				t.Errorf("SELECT %q: %q", name, heard)
			}
		}
		v.silent("LIST", v.expect(`LIST "" *`, "OK"), "&ZeVnLIqe-", "Awg", "&APY-l")
	})
}

// TestNever2ViewPipelining: commands that are sent at once get past none of
// Postern's own, and none of them is answered in another's place.
func TestNever2ViewPipelining(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		v := newViewed(t, server, secretView, secretBox()...)
		var all strings.Builder
		for i := range 20 {
			fmt.Fprintf(&all, "a%d SELECT Secret\r\nb%d FETCH 1:* (FLAGS BODY.PEEK[])\r\nc%d LIST \"\" *\r\nd%d EXAMINE INBOX\r\ne%d FETCH 1 (ENVELOPE)\r\n", i, i, i, i, i)
			fmt.Fprintf(&all, "f%d COPY 1 Secret\r\ng%d SELECT Work›Closed\r\nh%d UID SEARCH ALL\r\ni%d STATUS Secret (MESSAGES)\r\nj%d CREATE Secret\r\n", i, i, i, i, i)
		}
		v.agent.raw(strings.ReplaceAll(all.String(), "›", v.separator) + "z NOOP\r\n")
		status := map[string]string{"a": "NO", "b": "BAD", "c": "OK", "d": "OK", "e": "OK", "f": "NO", "g": "NO", "h": "BAD", "i": "NO", "j": "NO"}
		n := 0
		for _, line := range v.agent.until("z ") {
			if m := regexp.MustCompile(`^([a-j])\d+ (\w+)`).FindStringSubmatch(line); m != nil {
				if n++; status[m[1]] != m[2] {
					t.Errorf("%q, want %s", line, status[m[1]])
				}
			}
			v.silent("a pipeline", []string{line}, "secret", "number 1", "closed")
		}
		if n != 200 {
			t.Errorf("%d answers", n)
		}
	})
}

// TestNever2ViewFoldersChangeUnderTheSession: what is renamed out of view,
// made, or replaced by another meanwhile.
func TestNever2ViewFoldersChangeUnderTheSession(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		v := newViewed(t, server, secretView, secretBox()...)
		v.expect("STATUS Work (MESSAGES)", "OK")
		v.own("RENAME Work›Open Secret›Open")
		v.expect("SELECT Work›Open", "NO")
		v.expect("STATUS Work›Open (MESSAGES)", "NO")
		v.silent("LIST", v.expect(`LIST "" *`, "OK"), "open")
		v.own("CREATE Work›Made")
		v.agent = v.rig.login() // Dovecot may tell an old session of it a second later
		v.expect("SELECT Work›Made", "OK")
		// Recreated: another folder of the same name has another UIDVALIDITY.
		old := uidValidity(t, v.expect("SELECT Work", "OK"))
		v.own("RENAME Work Hidden")
		v.own("CREATE Work")
		v.own("APPEND Work " + nonSync(message(7)))
		heard := v.expect("SELECT Work", "OK")
		if now := uidValidity(t, heard); now == old {
			t.Errorf("UIDVALIDITY %s before and after", now)
		}
		v.silent("FETCH", v.expect("FETCH 1:* (BODY.PEEK[])", "OK"), "number 3")
		v.expect("SELECT Hidden", "NO")
	})
}

func uidValidity(t *testing.T, heard []string) string {
	t.Helper()
	m := regexp.MustCompile(`UIDVALIDITY (\d+)`).FindStringSubmatch(strings.Join(heard, "\n"))
	if m == nil {
		t.Fatalf("no UIDVALIDITY in %q", heard)
	}
	return m[1]
}
