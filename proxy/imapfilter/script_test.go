// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// message returns the i-th message of the script.
func message(i int) string {
	return fmt.Sprintf("From: a%d@firm.example\r\nTo: box@firm.example\r\nSubject: number %d\r\nMessage-ID: <%d@firm.example>\r\nIn-Reply-To: <%d@firm.example>\r\nDate: Thu, 1 Jan 2026 10:%02d:00 +0000\r\n\r\nbody %d\r\n", i, i, i, i-1, i, i)
}

const multipart = "From: a@firm.example\r\nTo: box@firm.example\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <parts@firm.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: text/plain; name=\"x.txt\"\r\nContent-Transfer-Encoding: base64\r\n\r\nYXR0YWNoZWQ=\r\n--b--\r\n"

// synchronising and nonSync write a literal of either kind.
func synchronising(m string) string { return fmt.Sprintf("{%d}\r\n⟨wait⟩%s", len(m), m) }
func nonSync(m string) string       { return fmt.Sprintf("{%d+}\r\n%s", len(m), m) }

// script says everything that the command table knows, and what goes wrong
// with it. coverage_test.go fails for what is missing.
func (s *twoSides) script() {
	s.t.Helper()
	s.each("CAPABILITY", "NOOP", `ID ("name" "test")`, "ID NIL", `ID ("name" "x" "version" NIL)`, "NAMESPACE", "ENABLE QRESYNC CONDSTORE", "ENABLE CONDSTORE FOO", "SELECT INBOX (CONDSTORE)")
	s.appends()
	s.pipelines()
	s.searches()
	s.folders()
	s.fetches()
	s.flags()
	s.resync()
	s.notify()
	s.each("CHECK", "NOOP", "LOGOUT")
}

func (s *twoSides) each(commands ...string) {
	s.t.Helper()
	for _, c := range commands {
		s.one(c)
	}
}

// appends: MULTIAPPEND with literals of both kinds, CATENATE with texts and
// URLs, and what may go wrong in one.
func (s *twoSides) appends() {
	s.t.Helper()
	// Each has a date, by which threads are sorted where the header has none.
	at := func(minute int) string { return fmt.Sprintf(`"01-Jan-2026 10:%02d:00 +0000" `, minute) }
	s.each(
		`APPEND INBOX (\Seen) `+at(1)+synchronising(message(1))+" "+at(2)+nonSync(message(2))+` (\Flagged) `+at(3)+nonSync(message(3))+` (\Answered $Label) `+at(4)+synchronising(message(4)),
		"NOOP",
		"APPEND INBOX "+at(5)+nonSync(""),
		"APPEND INBOX "+at(6)+synchronising("x\r\n\r\n"),
		"APPEND Nowhere "+synchronising(message(1)),
		"APPEND Nowhere "+nonSync(message(1)),
	)
	s.both("y⟨n⟩ APPEND Nowhere " + nonSync(message(1)) + " " + nonSync(message(2)) + "\r\nz⟨n⟩ NOOP\r\n")
	s.each(
		"APPEND INBOX "+at(7)+"~"+nonSync("From: x\r\n\r\n8bit\x00\r\n"),
		"APPEND "+synchronising("Archive")+" "+synchronising(message(9)),
		"APPEND "+nonSync("Archive")+` (\Seen) `+nonSync(message(9)),
		"APPEND INBOX "+at(8)+"CATENATE (TEXT "+nonSync("Subject: put together\r\n\r\n")+` URL "/INBOX/;UID=1/;SECTION=TEXT" TEXT `+synchronising("the end\r\n")+")",
		"APPEND INBOX "+at(9)+`CATENATE (URL "/INBOX/;UID=2")`,
		"APPEND INBOX "+at(10)+`CATENATE (URL "/INBOX/;UID=2/;SECTION=TEXT/;PARTIAL=0.4")`,
		`APPEND INBOX CATENATE (URL "/INBOX/;UID=999")`,
		"APPEND INBOX "+at(11)+"CATENATE (URL "+nonSync("/INBOX/;UID=1/;SECTION=HEADER")+" TEXT "+nonSync("z\r\n")+")",
		"NOOP",
		"UID FETCH 1:* (FLAGS RFC822.SIZE BODY.PEEK[])",
		"FETCH 1:2 (INTERNALDATE)",
		"FETCH 1:* (UID FLAGS MODSEQ ENVELOPE BODY)",
	)
}

func (s *twoSides) pipelines() {
	s.t.Helper()
	s.both("a⟨n⟩ NOOP\r\nb⟨n⟩ FETCH 1:3 FLAGS\r\nc⟨n⟩ STATUS Archive (MESSAGES)\r\nd⟨n⟩ SEARCH ALL\r\ne⟨n⟩ UID FETCH 2 BODY.PEEK[TEXT]\r\nz⟨n⟩ CHECK\r\n")
	s.both("a⟨n⟩ SELECT Archive\r\nb⟨n⟩ FETCH 1:* (UID)\r\nc⟨n⟩ SELECT Nowhere\r\nd⟨n⟩ FETCH 1 FLAGS\r\ne⟨n⟩ EXAMINE Archive\r\nf⟨n⟩ STORE 1 +FLAGS (\\Seen)\r\nz⟨n⟩ SELECT INBOX\r\n")
	s.both("a⟨n⟩ IDLE\r\n⟨wait⟩DONE\r\nb⟨n⟩ IDLE\r\n⟨wait⟩DONE\r\nz⟨n⟩ NOOP\r\n")
}

// searches: in UTF-8 and ISO-8859-1, saved, partial and live.
func (s *twoSides) searches() {
	s.t.Helper()
	s.each(
		"SEARCH UNSEEN", "UID SEARCH FLAGGED", "SEARCH BODY \"body 2\"", "SEARCH X-GM-RAW nothing", "SEARCH FUZZY SUBJECT number",
		"SEARCH CHARSET UTF-8 SUBJECT "+nonSync("gr\xc3\xbc\xc3\x9fe"), "SEARCH CHARSET ISO-8859-1 SUBJECT "+synchronising("gr\xfc\xdfe"),
		"SEARCH CHARSET UTF-8 BODY "+nonSync("\xff\xfe"), "SEARCH CHARSET NONSENSE SUBJECT x", "SEARCH CHARSET UTF-8 OR SUBJECT "+synchronising("\xc3\xbc")+" FROM "+nonSync("a1"),
		"UID SEARCH RETURN (SAVE) SUBJECT number", "UID FETCH $ FLAGS", "SEARCH $ SEEN", "UID SEARCH RETURN (MIN MAX COUNT ALL SAVE) OR SEEN FLAGGED", "STORE $ +FLAGS ($Saved)", "SEARCH KEYWORD $Saved",
		"SEARCH RETURN () ALL", "SEARCH RETURN (COUNT MIN MAX ALL) ALL", "SEARCH OLDER 1 YOUNGER 1000000", "SEARCH SENTSINCE 1-Jan-2026 SENTBEFORE 2-Jan-2026", "SEARCH NOT (OR SEEN (FLAGGED ANSWERED))", "SEARCH 2:* UID 1:*,5 LARGER 10", "SEARCH MODSEQ 1",
		"SEARCH HEADER Message-ID <1@firm.example>", `SEARCH TEXT "a \"quoted\" \\ string"`, "SEARCH RETURN (PARTIAL 1:2) ALL",
		"SEARCH SAVEDSINCE 1-Jan-2026", "SEARCH SAVEDATESUPPORTED", "SEARCH EMAILID nonsense", "SEARCH THREADID nonsense",
		"SORT (SUBJECT) UTF-8 ALL", "SORT (REVERSE SUBJECT DATE) UTF-8 ALL", "UID SORT RETURN (COUNT ALL) (ARRIVAL) US-ASCII UNDELETED", "SORT (DISPLAYFROM) UTF-8 ALL", "SORT RETURN (PARTIAL 1:2 COUNT) (SUBJECT) UTF-8 ALL", "UID SORT (REVERSE SIZE) UTF-8 ALL",
		"THREAD REFERENCES UTF-8 ALL", "THREAD ORDEREDSUBJECT UTF-8 ALL", "UID THREAD ORDEREDSUBJECT UTF-8 SUBJECT number", "THREAD REFS UTF-8 ALL", "UID THREAD REFERENCES UTF-8 ALL",
	)
	s.both("u⟨n⟩ UID SEARCH RETURN (UPDATE COUNT) UNSEEN\r\nz⟨n⟩ NOOP\r\n")
	s.each("STORE 1 -FLAGS (\\Seen)", "NOOP", `CANCELUPDATE "u`+strconv.Itoa(s.n)+`"`)
}

// folders: names in modified UTF-7, with spaces, quotes and backslashes, as
// literals; refusals; and messages put into them.
func (s *twoSides) folders() {
	s.t.Helper()
	s.each(
		"CREATE Entw&APw-rfe", `CREATE "With space"`, "CREATE "+nonSync(`Li\t"eral`), "CREATE "+synchronising("&ZeVnLIqe-"), "CREATE &bad", "CREATE &AGE-", "CREATE \"gr\xc3\xbcn\"", "CREATE a.b.c", "CREATE d/e/f", "CREATE INBOX", "CREATE Archive",
		`CREATE Kept (USE (\Important))`, "CREATE "+nonSync("Dr&-ft"),
		`LIST "" "*"`, "LIST \"\" {1+}\r\n%", `LIST (SUBSCRIBED) "" ("A*" "Entw*") RETURN (CHILDREN STATUS (MESSAGES UNSEEN))`, `LIST "" ""`, `LIST (SPECIAL-USE) "" *`, `LSUB "" *`, `LIST "" % RETURN (SPECIAL-USE)`,
		`LIST "" "%" RETURN (SUBSCRIBED CHILDREN SPECIAL-USE STATUS (MESSAGES UIDNEXT))`, `LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"`, `XLIST "" "*"`,
		"SUBSCRIBE Entw&APw-rfe", `UNSUBSCRIBE "With space"`, "UNSUBSCRIBE Entw&APw-rfe", "STATUS \"With space\" (MESSAGES UIDNEXT UNSEEN SIZE HIGHESTMODSEQ)", "STATUS "+nonSync("Entw&APw-rfe")+" (MESSAGES)",
		"STATUS INBOX (MESSAGES RECENT UIDNEXT UNSEEN)", "STATUS INBOX (APPENDLIMIT)", "STATUS INBOX (MAILBOXID)", "STATUS INBOX (DELETED)", "STATUS Nowhere (MESSAGES)",
		`RENAME "With space" `+nonSync(`Other "one"`), "RENAME Entw&APw-rfe Other", "RENAME Nowhere x", "RENAME Archive Sent", "DELETE Nowhere", "DELETE INBOX", "DELETE a.b", "DELETE d/e/f", "RENAME a z.y", `LIST "" *`,
		"COPY 1 Nowhere", "UID COPY 1:2 Archive", "UID COPY 999 Archive", "COPY 1:2 Other", "MOVE 1 Nowhere", "UID MOVE 2 Archive", "UID MOVE 999 Archive", "MOVE 1 Archive", "DELETE Other",
		"GETQUOTAROOT INBOX", `GETQUOTA "User quota"`, "GETQUOTA INBOX", "GETQUOTA nonsense", `GETQUOTA ""`,
	)
}

func (s *twoSides) fetches() {
	s.t.Helper()
	s.each(
		"APPEND INBOX "+nonSync(multipart), "NOOP", "SELECT INBOX",
		"FETCH * (ENVELOPE BODYSTRUCTURE BODY)", "FETCH * BODY[]", "FETCH * (FLAGS)", "UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT FROM)])",
		"FETCH * (BODY.PEEK[1]<0.5> BINARY.PEEK[2] BINARY.SIZE[2])", "FETCH * (BINARY[2])", "FETCH * (BODY.PEEK[2.MIME] BODY.PEEK[2])",
		"FETCH 1 (PREVIEW)", "FETCH 1 (PREVIEW (LAZY))", "FETCH 1 (PREVIEW (FUZZY))", "FETCH 1 (SNIPPET (FUZZY))", "FETCH 1 (SNIPPET (LAZY=FUZZY))", "FETCH 1 (SAVEDATE)", "FETCH 1 (EMAILID)", "FETCH 1 (THREADID)",
		"FETCH 1 (BINARY.SIZE[1] BINARY.PEEK[1] BODYSTRUCTURE)", "FETCH 1 BODY.PEEK[HEADER.FIELDS.NOT (FROM \"TO\" {7+}\r\nSUBJECT)]<5.20>", "FETCH 1:2 FULL", "FETCH 1 FAST", "FETCH 1 ALL",
		"FETCH * (UID)", "FETCH 1:*,2,3:1 UID", "FETCH 999 FLAGS", "UID FETCH 999 FLAGS", "FETCH 1 BODY[1.MIME]", "FETCH 1 BODY[99]", "FETCH 1 RFC822.HEADER", "FETCH 1 (RFC822.TEXT RFC822.HEADER RFC822)", "FETCH 1 BODY[TEXT]<0.3>", "FETCH 1 BODY[]<100000.5>",
		"FETCH 1 (X-GM-MSGID)",
	)
}

// flags, and what a second client would find changed.
func (s *twoSides) flags() {
	s.t.Helper()
	s.each(
		`STORE 1 FLAGS (\Seen $A $B)`, "STORE 1 -FLAGS.SILENT ($A)", `UID STORE 1:2 FLAGS.SILENT (\Seen)`, `UID STORE 1 (UNCHANGEDSINCE 1) +FLAGS (\Flagged)`, `STORE 2 (UNCHANGEDSINCE 1) +FLAGS (\Flagged)`, `STORE 999 FLAGS (\Seen)`, `UID STORE 999 FLAGS (\Seen)`, `STORE 1 +FLAGS (\Nonsense)`,
		`STORE 1:2 +FLAGS (\Deleted)`, "UID EXPUNGE 999", "UID EXPUNGE 1:5", "EXPUNGE", "UNSELECT", "FETCH 1 FLAGS", "CLOSE",
		"SELECT INBOX (QRESYNC (1 1))", "FETCH 1:* (FLAGS) (CHANGEDSINCE 1)", "UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)", "EXAMINE INBOX", "CLOSE",
		"SELECT Archive (CONDSTORE)", "FETCH 1:* (FLAGS MODSEQ) (CHANGEDSINCE 1)", "SELECT INBOX",
	)
}

var selectedState = regexp.MustCompile(`\[(UIDVALIDITY|HIGHESTMODSEQ) (\d+)\]`)

// resync resynchronises a client that was away while messages vanished.
func (s *twoSides) resync() {
	s.t.Helper()
	known := func(p *peer) (state [2]string) {
		p.send("k SELECT INBOX")
		for _, line := range p.until("k ") {
			if m := selectedState.FindStringSubmatch(line); m != nil {
				state[map[string]int{"UIDVALIDITY": 0, "HIGHESTMODSEQ": 1}[m[1]]] = m[2]
			}
		}
		return state
	}
	direct, postern := known(s.direct), known(s.postern)
	s.each(`STORE 1 +FLAGS (\Deleted)`, "STORE 2 +FLAGS ($Changed)", "EXPUNGE", "CLOSE")
	raw := "z0 SELECT INBOX (QRESYNC (%s %s 1:100))"
	say := func(p *peer, state [2]string) []string {
		p.send(raw, state[0], state[1])
		return p.until("z0 ")
	}
	want, got := say(s.direct, direct), say(s.postern, postern)
	if !strings.Contains(strings.Join(want, "\n"), "VANISHED (EARLIER)") {
		s.t.Errorf("nothing vanished: %q", want)
	}
	s.compare(raw, want, got)
}

// notify has messages pushed that come in while nothing is asked.
func (s *twoSides) notify() {
	s.t.Helper()
	m := "Subject: pushed\r\n\r\nbody\r\n"
	s.each(
		"NOTIFY SET STATUS (selected (MessageNew (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)]) MessageExpunge FlagChange)) (mailboxes Archive (MessageNew MessageExpunge))",
		"APPEND INBOX "+nonSync(m), "APPEND Archive "+nonSync(m), "NOOP", "NOTIFY NONE",
	)
}
