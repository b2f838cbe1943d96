// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestRandomSessions runs generated sessions of valid commands directly and
// through Postern and compares every answer. A session that differs is
// shrunk, and printed with its seed; CONTRIBUTING.md tells how to run more of
// them, and one of them again.
func TestRandomSessions(t *testing.T) {
	fewSessions(t)
	onEachServer(t, func(t *testing.T, server realServer) {
		gate, other := server.start(t)
		rig := newRig(t, gate)
		sessions := 0
		rapid.Check(t, func(rt *rapid.T) {
			// New connections and new folders: what went wrong before, or was
			// left in the mailbox, does not touch this session.
			sessions++
			conn, err := other.dial(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			direct, postern := newPeer(t, conn), rig.login()
			defer postern.conn.Close()
			folder := fmt.Sprintf("random%d", sessions)
			for n, raw := range session(folder).Draw(rt, "session") {
				raw = strings.ReplaceAll(raw, "⟨n⟩", fmt.Sprint(n))
				last := fmt.Sprintf("z%d", n)
				want, got := answers(direct, raw, last), answers(postern, raw, last)
				if i, same := firstDifference(want, got); !same {
					rt.Fatalf("%q, line %d\ndirect:  %q\npostern: %q", raw, i, want, got)
				}
			}
		})
	})
}

// answers runs an exchange and returns what was heard. Where several commands
// came in one piece it is sorted: Dovecot works on some of them at once, and
// answers in any order.
func answers(c *peer, raw, last string) []string {
	heard := exchange(c, raw, last)
	commands := len(commandLine.FindAllString(raw, -1))
	if commands == 1 {
		return normalise(heard)
	}
	tagged := func() (n int) {
		for _, line := range heard {
			if taggedLine.MatchString(line) {
				n++
			}
		}
		return n
	}
	for tagged() < commands {
		heard = append(heard, c.line())
	}
	heard = normalise(heard)
	slices.Sort(heard)
	return heard
}

var taggedLine = regexp.MustCompile(`^[a-z]\d+ (OK|NO|BAD)`)

// fewSessions keeps the ordinary run short, and the same each time, unless a
// flag of rapid's says what is wanted.
func fewSessions(t *testing.T) {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || strings.HasPrefix(f.Name, "rapid.") })
	if given {
		return
	}
	for name, value := range map[string]string{"rapid.checks": "10", "rapid.seed": "1"} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
}

// firstDifference compares two answers line by line.
func firstDifference(a, b []string) (int, bool) {
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return i, false
		}
	}
	return 0, true
}

// session draws the exchanges of a session that works in folders whose names
// begin so.
func session(folder string) *rapid.Generator[[]string] {
	a, b := folder+"a", folder+"b"
	return rapid.Custom(func(t *rapid.T) []string {
		all := []string{"z⟨n⟩ CREATE " + a + "\r\n", "z⟨n⟩ CREATE " + b + "\r\n"}
		// Both folders know all keywords from the start: Cyrus announces a new one
		// at another time when Postern looks up a Message-ID in between.
		for _, folder := range []string{a, b} {
			all = append(all, "z⟨n⟩ APPEND "+folder+` ($Label Work NonJunk) "01-Jan-2026 09:00:00 +0000" `+nonSync(message(1))+"\r\n")
		}
		if extension := rapid.SampledFrom([]string{"", "CONDSTORE", "QRESYNC"}).Draw(t, "enable"); extension != "" {
			all = append(all, "z⟨n⟩ ENABLE "+extension+"\r\n")
		}
		for range rapid.IntRange(0, 4).Draw(t, "messages") {
			all = append(all, "z⟨n⟩ "+drawAppend(t, a)+"\r\n")
		}
		all = append(all, "z⟨n⟩ SELECT "+a+"\r\n")
		for range rapid.IntRange(1, 15).Draw(t, "exchanges") {
			all = append(all, drawExchange(t, a, b))
		}
		return append(all, "z⟨n⟩ LIST \"\" "+folder+"*\r\n", "z⟨n⟩ UNSELECT\r\n", "z⟨n⟩ SELECT "+a+"\r\n", "z⟨n⟩ FETCH 1:* (UID FLAGS RFC822.SIZE BODY.PEEK[])\r\n")
	})
}

// drawExchange draws one command, or several in one piece.
func drawExchange(t *rapid.T, a, b string) string {
	var out strings.Builder
	for i := range rapid.IntRange(0, 3).Draw(t, "pipelined") {
		// Behind an APPEND that it does not wait for, Dovecot answers in any
		// order; and when it notices what was copied into the selected folder
		// depends on what it has read by then, while Postern lets some commands
		// stand alone. So what adds messages stands alone, or last.
		if c := drawCommand(t, a, b); !addsMessages.MatchString(c) {
			fmt.Fprintf(&out, "%c⟨n⟩ %s\r\n", 'a'+rune(i), c)
		}
	}
	return out.String() + "z⟨n⟩ " + drawCommand(t, a, b) + "\r\n"
}

var addsMessages = regexp.MustCompile(`^(UID )?(APPEND|COPY|MOVE) `)

func drawCommand(t *rapid.T, a, b string) string {
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	folder := pick("folder", a, b)
	uid := pick("uid", "", "UID ")
	set := drawSet(t)
	switch pick("command", "APPEND", "SELECT", "FETCH", "FETCH", "STORE", "STORE", "COPY", "MOVE", "SEARCH", "SEARCH", "SORT", "THREAD", "EXPUNGE", "STATUS", "LIST", "leave", "folders", "NOOP") {
	case "APPEND":
		return drawAppend(t, folder)
	case "SELECT":
		return pick("select", "SELECT ", "EXAMINE ") + folder + pick("condstore", "", " (CONDSTORE)")
	case "FETCH":
		return uid + "FETCH " + set + " " + drawItems(t) + pick("modifier", "", "", " (CHANGEDSINCE 1)")
	case "STORE":
		return uid + "STORE " + set + pick("unchanged", "", "", " (UNCHANGEDSINCE 1)") + " " + pick("sign", "", "+", "-") + "FLAGS" + pick("silent", "", ".SILENT") + " " + drawFlags(t)
	case "COPY":
		return uid + "COPY " + set + " " + folder
	case "MOVE":
		return uid + "MOVE " + set + " " + folder
	case "SEARCH":
		return uid + "SEARCH" + pick("return", "", " RETURN ()", " RETURN (MIN MAX)", " RETURN (COUNT ALL)", " CHARSET UTF-8") + " " + drawSearch(t, 3)
	case "SORT":
		return uid + "SORT " + pick("keys", "(SUBJECT)", "(REVERSE DATE)", "(FROM SIZE)", "(ARRIVAL)", "(CC TO)") + " UTF-8 " + drawSearch(t, 1)
	case "THREAD":
		return uid + "THREAD " + pick("algorithm", "REFERENCES", "ORDEREDSUBJECT", "REFS") + " UTF-8 " + drawSearch(t, 1)
	case "EXPUNGE":
		if uid != "" {
			return "UID EXPUNGE " + set
		}
		return "EXPUNGE"
	case "STATUS":
		return "STATUS " + folder + " (MESSAGES UIDNEXT UNSEEN" + pick("items", "", " RECENT", " SIZE", " HIGHESTMODSEQ") + ")"
	case "LIST":
		return pick("list", `LIST "" `, `LSUB "" `, `LIST (SUBSCRIBED) "" `) + a[:len(a)-1] + "%"
	case "leave":
		return pick("how", "CLOSE", "UNSELECT", "CHECK")
	case "folders":
		return pick("what", "CREATE "+a+"2", "DELETE "+a+"2", "RENAME "+a+"2 "+b+"2", "RENAME "+b+"2 "+a+"2", "SUBSCRIBE "+b, "UNSUBSCRIBE "+b, "CREATE "+b, "DELETE "+b+"2")
	}
	return "NOOP"
}

// drawSet draws a message set that a folder of some messages may hold.
func drawSet(t *rapid.T) string {
	n := func() string {
		return rapid.SampledFrom([]string{"1", "1", "2", "2", "3", "4", "5", "*"}).Draw(t, "number")
	}
	switch rapid.IntRange(0, 3).Draw(t, "set") {
	case 0:
		return n()
	case 1:
		return n() + ":" + n()
	case 2:
		return n() + "," + n() + ":" + n()
	}
	return "1:*"
}

func drawItems(t *rapid.T) string {
	return "(" + strings.Join(rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
		"UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODYSTRUCTURE", "BODY", "MODSEQ", "BODY[]", "BODY.PEEK[TEXT]", "BODY.PEEK[HEADER]",
		"BODY.PEEK[HEADER.FIELDS (SUBJECT \"Message-ID\")]", "BODY[1]", "BODY.PEEK[1]<0.3>", "BINARY.PEEK[1]", "BINARY.SIZE[1]", "RFC822.HEADER", "RFC822", "RFC822.TEXT", "PREVIEW",
	}), 1, 4, rapid.ID).Draw(t, "items"), " ") + ")"
}

func drawFlags(t *rapid.T) string {
	return "(" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{`\Seen`, `\Flagged`, `\Deleted`, `\Answered`, `\Draft`, "$Label", "Work", "NonJunk"}), 0, 3).Draw(t, "flags"), " ") + ")"
}

// drawAppend draws a message, announced without waiting. It has a date, since
// two runs that straddle a second would sort otherwise.
func drawAppend(t *rapid.T, folder string) string {
	i := rapid.IntRange(1, 9).Draw(t, "message")
	m := rapid.SampledFrom([]string{message(i), multipart, "Subject: x\r\n\r\n", "Subject: gr\xc3\xbcn\r\n\r\n\xff\r\n"}).Draw(t, "octets")
	flags := rapid.SampledFrom([]string{"", `(\Seen) `, `($Label \Flagged) `, `(\Deleted) `}).Draw(t, "flags")
	out := fmt.Sprintf(`APPEND %s %s"01-Jan-2026 10:%02d:00 +0000" %s`, folder, flags, i, nonSync(m))
	if rapid.IntRange(0, 4).Draw(t, "several") == 0 {
		out += fmt.Sprintf(` "02-Jan-2026 10:%02d:00 +0000" %s`, i, nonSync(message(i)))
	}
	return out
}

func drawSearch(t *rapid.T, depth int) string {
	simple := []string{
		"ALL", "SEEN", "UNSEEN", "FLAGGED", "DELETED", "UNDELETED", "KEYWORD $Label", "UNKEYWORD Work", "SUBJECT number", "FROM a1", `TEXT "body 2"`, "BODY hello", "LARGER 100", "SMALLER 200",
		"SINCE 1-Jan-2026", "SENTBEFORE 1-Jan-2027", "HEADER Message-ID <1@firm.example>", "1:*", "UID 1:3", "2", "OLDER 10", "SUBJECT " + nonSync("x"), `SUBJECT ""`, "MODSEQ 1",
	}
	if depth == 0 {
		return rapid.SampledFrom(simple).Draw(t, "key")
	}
	switch rapid.IntRange(0, 5).Draw(t, "search") {
	case 0:
		return "NOT " + drawSearch(t, depth-1)
	case 1:
		return "OR " + drawSearch(t, depth-1) + " " + drawSearch(t, depth-1)
	case 2:
		return "(" + drawSearch(t, depth-1) + " " + drawSearch(t, depth-1) + ")"
	}
	return rapid.SampledFrom(simple).Draw(t, "key")
}
