// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// exchange sends raw octets, answers the server's continuation requests by the
// pieces that stand between the markers "⟨wait⟩", and reads up to the answer
// to the last tag. What was said and heard is returned line by line.
func exchange(c *peer, raw, lastTag string) (heard []string) {
	pieces := strings.Split(raw, "⟨wait⟩")
	for i, piece := range pieces {
		c.raw(piece)
		for i < len(pieces)-1 {
			line := c.line()
			if strings.HasPrefix(line, "+") {
				break
			}
			heard = append(heard, line)
			if strings.HasPrefix(line, lastTag+" ") {
				return heard // refused before the literal
			}
		}
	}
	return append(heard, c.until(lastTag+" ")...)
}

// twoSides runs the same exchanges directly and through Postern, on mailboxes
// that are alike, and compares the answers.
type twoSides struct {
	t               *testing.T
	direct, postern *peer
	n               int
}

func newTwoSides(t *testing.T) *twoSides {
	gate, other := dovecotGate(t)
	conn, err := other.dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &twoSides{t: t, direct: newPeer(t, conn), postern: newRig(t, gate).login()}
}

// both runs one exchange on both; "⟨n⟩" in it is the number of the exchange,
// for tags, and the last tag is "z⟨n⟩".
func (s *twoSides) both(raw string) {
	s.t.Helper()
	s.n++
	n := strconv.Itoa(s.n)
	raw = strings.ReplaceAll(raw, "⟨n⟩", n)
	want := exchange(s.direct, raw, "z"+n)
	got := exchange(s.postern, raw, "z"+n)
	compareExchange(s.t, raw, normalise(want), normalise(got))
}

// one runs one command.
func (s *twoSides) one(command string) {
	s.t.Helper()
	s.both("z⟨n⟩ " + command + "\r\n")
}

func compareExchange(t *testing.T, raw string, want, got []string) {
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
			t.Errorf("%.300q, line %d\ndirect:  %q\npostern: %q", raw, i, w, g)
			return
		}
	}
}

// TestSameAsDovecotAtLength compares what a plain script does not: pipelines,
// literals of each kind, resynchronisation, and what goes wrong.
func TestSameAsDovecotAtLength(t *testing.T) {
	s := newTwoSides(t)
	message := func(i int) string {
		return fmt.Sprintf("From: a%d@firm.example\r\nTo: box@firm.example\r\nSubject: number %d\r\nMessage-ID: <%d@firm.example>\r\nIn-Reply-To: <%d@firm.example>\r\nDate: Thu, 1 Jan 2026 10:%02d:00 +0000\r\n\r\nbody %d\r\n", i, i, i, i-1, i, i)
	}
	sync := func(m string) string { return fmt.Sprintf("{%d}\r\n⟨wait⟩%s", len(m), m) }
	nonSync := func(m string) string { return fmt.Sprintf("{%d+}\r\n%s", len(m), m) }

	s.one("ENABLE QRESYNC CONDSTORE")
	s.one("SELECT INBOX (CONDSTORE)")
	// MULTIAPPEND with literals of both kinds, and what may go wrong in one.
	s.both("z⟨n⟩ APPEND INBOX (\\Seen) \"01-Jan-2026 10:00:00 +0000\" " + sync(message(1)) + " " + nonSync(message(2)) + " (\\Flagged) " + nonSync(message(3)) + " (\\Answered $Label) " + sync(message(4)) + "\r\n")
	s.one("NOOP")
	s.both("z⟨n⟩ APPEND INBOX " + nonSync("") + "\r\n")
	s.both("z⟨n⟩ APPEND INBOX " + sync("x\r\n\r\n") + "\r\n")
	s.both("z⟨n⟩ APPEND Nowhere " + sync(message(1)) + "\r\n")
	s.both("z⟨n⟩ APPEND Nowhere " + nonSync(message(1)) + "\r\n")
	s.both("y⟨n⟩ APPEND Nowhere " + nonSync(message(1)) + " " + nonSync(message(2)) + "\r\nz⟨n⟩ NOOP\r\n")
	s.both("z⟨n⟩ APPEND INBOX \"01-Jan-2026 10:00:00 +0000\" ~" + nonSync("From: x\r\n\r\n8bit\x00\r\n") + "\r\n")
	s.both("z⟨n⟩ APPEND " + sync("Archive") + " " + sync(message(9)) + "\r\n")
	s.both("z⟨n⟩ APPEND " + nonSync("Archive") + " (\\Seen) " + nonSync(message(9)) + "\r\n")
	// CATENATE with texts and URLs.
	s.both("z⟨n⟩ APPEND INBOX CATENATE (TEXT " + nonSync("Subject: put together\r\n\r\n") + " URL \"/INBOX/;UID=1/;SECTION=TEXT\" TEXT " + sync("the end\r\n") + ")\r\n")
	s.both("z⟨n⟩ APPEND INBOX CATENATE (URL \"/INBOX/;UID=2\")\r\n")
	s.both("z⟨n⟩ APPEND INBOX CATENATE (URL \"/INBOX/;UID=999\")\r\n")
	s.both("z⟨n⟩ APPEND INBOX CATENATE (URL " + nonSync("/INBOX/;UID=1/;SECTION=HEADER") + " TEXT " + nonSync("z\r\n") + ")\r\n")
	s.one("NOOP")
	s.one("UID FETCH 1:* (FLAGS RFC822.SIZE INTERNALDATE BODY.PEEK[])")
	s.one("FETCH 1:* (UID FLAGS MODSEQ ENVELOPE BODY)")
	// Pipelines.
	s.both("a⟨n⟩ NOOP\r\nb⟨n⟩ FETCH 1:3 FLAGS\r\nc⟨n⟩ STATUS Archive (MESSAGES)\r\nd⟨n⟩ SEARCH ALL\r\ne⟨n⟩ UID FETCH 2 BODY.PEEK[TEXT]\r\nz⟨n⟩ CHECK\r\n")
	s.both("a⟨n⟩ SELECT Archive\r\nb⟨n⟩ FETCH 1:* (UID)\r\nc⟨n⟩ SELECT Nowhere\r\nd⟨n⟩ FETCH 1 FLAGS\r\ne⟨n⟩ EXAMINE Archive\r\nf⟨n⟩ STORE 1 +FLAGS (\\Seen)\r\nz⟨n⟩ SELECT INBOX\r\n")
	s.both("a⟨n⟩ IDLE\r\n⟨wait⟩DONE\r\nb⟨n⟩ IDLE\r\n⟨wait⟩DONE\r\nz⟨n⟩ NOOP\r\n")
	// Searches, in UTF-8 and ISO-8859-1, with SEARCHRES.
	for _, search := range []string{
		"SEARCH CHARSET UTF-8 SUBJECT " + nonSync("gr\xc3\xbc\xc3\x9fe"), "SEARCH CHARSET ISO-8859-1 SUBJECT " + sync("gr\xfc\xdfe"),
		"SEARCH CHARSET UTF-8 BODY " + nonSync("\xff\xfe"), "SEARCH CHARSET NONSENSE SUBJECT x", "SEARCH CHARSET UTF-8 OR SUBJECT " + sync("\xc3\xbc") + " FROM " + nonSync("a1"),
		"UID SEARCH RETURN (SAVE) SUBJECT number", "UID FETCH $ FLAGS", "SEARCH $ SEEN", "UID SEARCH RETURN (MIN MAX COUNT ALL SAVE) OR SEEN FLAGGED", "STORE $ +FLAGS ($Saved)", "SEARCH KEYWORD $Saved",
		"SEARCH RETURN () ALL", "SEARCH OLDER 1 YOUNGER 1000000", "SEARCH SENTSINCE 1-Jan-2026 SENTBEFORE 2-Jan-2026", "SEARCH NOT (OR SEEN (FLAGGED ANSWERED))", "SEARCH 2:* UID 1:*,5 LARGER 10", "SEARCH MODSEQ 1",
		"SEARCH HEADER Message-ID <1@firm.example>", "SEARCH TEXT \"a \\\"quoted\\\" \\\\ string\"", "SEARCH RETURN (PARTIAL 1:2) ALL",
		"SORT (REVERSE SUBJECT DATE) UTF-8 ALL", "UID SORT RETURN (COUNT ALL) (ARRIVAL) US-ASCII UNDELETED", "SORT (DISPLAYFROM) UTF-8 ALL", "SORT RETURN (PARTIAL 1:2 COUNT) (SUBJECT) UTF-8 ALL",
		"THREAD REFERENCES UTF-8 ALL", "UID THREAD ORDEREDSUBJECT UTF-8 SUBJECT number", "THREAD REFS UTF-8 ALL",
	} {
		s.both("z⟨n⟩ " + search + "\r\n")
	}
	// Live searches.
	s.both("u⟨n⟩ UID SEARCH RETURN (UPDATE COUNT) UNSEEN\r\nz⟨n⟩ NOOP\r\n")
	s.one("STORE 1 -FLAGS (\\Seen)")
	s.one("NOOP")
	s.one("CANCELUPDATE \"u" + strconv.Itoa(s.n-2) + "\"")
	// Folders: names in modified UTF-7, with spaces, quotes and backslashes, as
	// literals; refusals.
	for _, folder := range []string{
		"CREATE Entw&APw-rfe", "CREATE \"With space\"", "CREATE " + nonSync("Li\\t\"eral"), "CREATE " + sync("&ZeVnLIqe-"), "CREATE &bad", "CREATE &AGE-", "CREATE \"gr\xc3\xbcn\"", "CREATE a.b.c", "CREATE INBOX", "CREATE Archive",
		"LIST \"\" \"*\"", "LIST \"\" {1+}\r\n%", "LIST (SUBSCRIBED) \"\" (\"A*\" \"Entw*\") RETURN (CHILDREN STATUS (MESSAGES UNSEEN))", "LIST \"\" \"\"", "LIST (SPECIAL-USE) \"\" *", "LSUB \"\" *", "LIST \"\" % RETURN (SPECIAL-USE)",
		"SUBSCRIBE Entw&APw-rfe", "UNSUBSCRIBE \"With space\"", "STATUS \"With space\" (MESSAGES UIDNEXT UNSEEN SIZE HIGHESTMODSEQ)", "STATUS " + nonSync("Entw&APw-rfe") + " (MESSAGES)",
		"RENAME \"With space\" " + nonSync("Other \"one\""), "RENAME Nowhere x", "RENAME Archive Sent", "DELETE Nowhere", "DELETE INBOX", "DELETE a.b", "RENAME a z.y", "LIST \"\" *",
		"COPY 1 Nowhere", "UID COPY 1:2 Archive", "UID COPY 999 Archive", "MOVE 1 Nowhere", "UID MOVE 2 Archive", "UID MOVE 999 Archive", "COPY 1:2 Entw&APw-rfe", "GETQUOTAROOT INBOX", "GETQUOTA \"User quota\"", "GETQUOTA nonsense",
	} {
		s.both("z⟨n⟩ " + folder + "\r\n")
	}
	// Flags, and what a second client would find changed.
	for _, command := range []string{
		"STORE 1 FLAGS (\\Seen $A $B)", "STORE 1 -FLAGS.SILENT ($A)", "UID STORE 1 (UNCHANGEDSINCE 1) +FLAGS (\\Flagged)", "STORE 999 FLAGS (\\Seen)", "UID STORE 999 FLAGS (\\Seen)", "STORE 1 +FLAGS (\\Nonsense)",
		"STORE 1:2 +FLAGS (\\Deleted)", "UID EXPUNGE 999", "UID EXPUNGE 1", "EXPUNGE", "UNSELECT", "FETCH 1 FLAGS", "CLOSE",
		"SELECT INBOX (QRESYNC (1 1))", "FETCH 1:* (FLAGS) (CHANGEDSINCE 1)", "UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)",
	} {
		s.one(command)
	}
	s.resync()
	s.notify()
	for _, command := range []string{
		"FETCH 1 (PREVIEW SAVEDATE EMAILID THREADID)", "FETCH 1 (BINARY.SIZE[1] BINARY.PEEK[1] BODYSTRUCTURE)", "FETCH 1 BODY.PEEK[HEADER.FIELDS.NOT (FROM \"TO\" {7+}\r\nSUBJECT)]<5.20>", "FETCH 1:2 FULL", "FETCH 1 FAST",
		"FETCH * (UID)", "FETCH 1:*,2,3:1 UID", "FETCH 999 FLAGS", "FETCH 1 BODY[1.MIME]", "FETCH 1 BODY[99]", "FETCH 1 (RFC822.TEXT RFC822.HEADER RFC822)", "FETCH 1 BODY[TEXT]<0.3>", "FETCH 1 BODY[]<100000.5>",
		"ID NIL", "ID (\"name\" \"x\" \"version\" NIL)", "NAMESPACE", "CHECK", "NOOP", "LOGOUT",
	} {
		s.one(command)
	}
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
	s.one("STORE 1 +FLAGS (\\Deleted)")
	s.one("STORE 2 +FLAGS ($Changed)")
	s.one("EXPUNGE")
	s.one("CLOSE")
	say := func(p *peer, state [2]string) []string {
		p.send("q SELECT INBOX (QRESYNC (%s %s 1:100))", state[0], state[1])
		return p.until("q ")
	}
	want, got := say(s.direct, direct), say(s.postern, postern)
	if !strings.Contains(strings.Join(want, "\n"), "VANISHED (EARLIER)") {
		s.t.Errorf("nothing vanished: %q", want)
	}
	compareExchange(s.t, "QRESYNC", normalise(want), normalise(got))
}

// notify has messages pushed that come in while nothing is asked.
func (s *twoSides) notify() {
	s.t.Helper()
	s.one("NOTIFY SET STATUS (selected (MessageNew (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)]) MessageExpunge FlagChange)) (mailboxes Archive (MessageNew MessageExpunge))")
	m := "Subject: pushed\r\n\r\nbody\r\n"
	s.both(fmt.Sprintf("z⟨n⟩ APPEND INBOX {%d+}\r\n%s\r\n", len(m), m))
	s.both(fmt.Sprintf("z⟨n⟩ APPEND Archive {%d+}\r\n%s\r\n", len(m), m))
	s.one("NOOP")
	s.one("NOTIFY NONE")
}

// TestBigFetchIsTheSameOctetByOctet: 200 messages from nothing to 3 MB, read
// in one command, directly and through Postern.
func TestBigFetchIsTheSameOctetByOctet(t *testing.T) {
	s := newTwoSides(t)
	s.one("SELECT INBOX")
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		size := []int{0, 1, 100, 4095, 4096, 4097, 12000, 16384, 65535, 65536, 65537, 200000}[i%12]
		if i%50 == 49 {
			size = 3 << 20
		}
		body := make([]byte, size)
		for k := range body {
			body[k] = byte(' ' + random.IntN(95))
			if k%77 == 76 && k+1 < len(body) {
				body[k-1], body[k] = '\r', '\n'
			}
		}
		message := fmt.Sprintf("Subject: %d\r\nMessage-ID: <%d@x.example>\r\n\r\n%s", i, i, body)
		if size == 0 {
			message = fmt.Sprintf("A: %d\n", i) // a header alone, and a bare LF
		}
		s.both(fmt.Sprintf("z⟨n⟩ APPEND INBOX {%d+}\r\n%s\r\n", len(message), message))
	}
	s.one("NOOP")
	for _, items := range []string{
		"(UID FLAGS BODY.PEEK[])", "(UID RFC822.SIZE BODY.PEEK[TEXT] BODY.PEEK[HEADER])", "(UID BODY.PEEK[]<0.5000> BINARY.PEEK[1])",
	} {
		var sums [2]string
		for i, p := range []*peer{s.direct, s.postern} {
			p.send("f UID FETCH 1:* %s", items)
			sums[i] = digest(t, p)
		}
		if sums[0] != sums[1] {
			t.Errorf("%s differs: %s, directly %s", items, sums[1], sums[0])
		}
	}
}

// digest reads the answer to the command f and returns its length and hash. It
// follows literals, so that their octets are taken for nothing else.
func digest(t *testing.T, p *peer) string {
	h := sha256.New()
	total, literals := 0, 0
	for {
		line := p.line() + "\r\n"
		if strings.HasPrefix(line, "f OK") {
			break
		}
		total += len(line)
		_, _ = io.WriteString(h, line)
		for {
			size := imapwire.TrailingLiteral([]byte(line))
			if size < 0 {
				break
			}
			literals++
			n, err := io.CopyN(h, p.r, size)
			if err != nil {
				t.Fatal(err)
			}
			total += int(n)
			line = p.line() + "\r\n"
			total += len(line)
			_, _ = io.WriteString(h, line)
		}
	}
	return fmt.Sprintf("%d octets, %d literals, %x", total, literals, h.Sum(nil))
}
