// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-mail/postern/policy"
)

// TestNever2ViewModel runs random commands on a view, and on a plain mailbox
// that holds the visible messages alone, under the same UIDs: the answers are
// the same. CONTRIBUTING.md tells how to run more of it, and one run again.
func TestNever2ViewModel(t *testing.T) {
	fewSessions(t)
	onEachServer(t, func(t *testing.T, server realServer) {
		gate, other := server.start(t)
		gate.decision = policy.Decision{Actions: policy.All, Slices: []policy.Slice{"NOT SUBJECT secret"}}
		rig := newRig(t, gate)
		runs := 0
		rapid.Check(t, func(rt *rapid.T) {
			runs++
			m := &viewModel{t: rt, folder: fmt.Sprintf("model%d", runs), cyrus: server.name == "cyrus"}
			var done func()
			if m.owners, done = dialBoth(t, gate, other); done != nil {
				defer done()
			}
			plain, err := other.dial(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			m.view, m.plain = rig.login(), newPeer(t, plain)
			defer m.view.conn.Close()
			m.run()
		})
	})
}

// dialBoth connects the owner to the mailbox with hidden messages, and to the
// one without.
func dialBoth(t *testing.T, gate, other *fakeGate) (owners [2]*peer, done func()) {
	var conns []interface{ Close() error }
	for i, g := range []*fakeGate{gate, other} {
		c, err := g.dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		owners[i] = newPeer(t, c)
	}
	return owners, func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
}

// viewModel is one run: an agent with a view and one with a plain mailbox, and
// their owners.
type viewModel struct {
	t           *rapid.T
	folder      string
	owners      [2]*peer
	view, plain *peer
	uid         int
	// counts are how many messages each agent knows of.
	counts [2]int
	cyrus  bool
}

func (m *viewModel) own(i int, command string) []string {
	heard := exchange(m.owners[i], "z "+command+"\r\n", "z")
	if last := heard[len(heard)-1]; !strings.HasPrefix(last, "z OK") {
		m.t.Fatalf("%q: %q", command, heard)
	}
	return heard
}

// arrive appends a message to both; a hidden one goes from the plain mailbox at
// once, so that the UIDs stay the same.
func (m *viewModel) arrive(hidden bool) {
	m.uid++
	text := strings.Replace(message(m.uid), "Message-ID: <", "Message-ID: <"+m.folder+".", 1)
	if hidden {
		text = strings.Replace(text, "Subject: ", "Subject: secret ", 1)
	}
	for i := range m.owners {
		m.own(i, fmt.Sprintf(`APPEND %s "%02d-Jan-2026 10:00:00 +0000" %s`, m.folder, m.uid%28+1, nonSync(text)))
		if hidden && i == 1 {
			m.own(i, fmt.Sprintf(`UID STORE %d +FLAGS.SILENT (\Deleted)`, m.uid))
			m.own(i, fmt.Sprintf("UID EXPUNGE %d", m.uid))
		}
	}
}

func (m *viewModel) run() {
	for i := range m.owners {
		m.own(i, "CREATE "+m.folder)
		m.own(i, "CREATE "+m.folder+"x")
		m.own(i, "SELECT "+m.folder)
	}
	for range rapid.IntRange(0, 6).Draw(m.t, "messages") {
		m.arrive(rapid.Bool().Draw(m.t, "hidden"))
	}
	m.both("SELECT " + m.folder)
	for range rapid.IntRange(1, 25).Draw(m.t, "commands") {
		m.step()
	}
	m.both("NOOP")
	m.both("FETCH 1:* (UID FLAGS BODY.PEEK[])")
	m.both("SELECT " + m.folder + "x")
	m.both("FETCH 1:* (UID FLAGS BODY.PEEK[])")
}

// numbers draws a set of numbers that are there.
func (m *viewModel) numbers() string {
	n := rapid.IntRange(1, m.counts[0])
	a, b := n.Draw(m.t, "number"), n.Draw(m.t, "number")
	return rapid.SampledFrom([]string{"1:*", "*", fmt.Sprint(a), fmt.Sprintf("%d:%d", a, b), fmt.Sprintf("%d,%d:*", a, b)}).Draw(m.t, "set")
}

// step does one thing as the owner, or as the agents.
func (m *viewModel) step() {
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(m.t, label) }
	uid := pick("uid", "", "UID ")
	if m.counts[0] == 0 {
		uid = "UID " // servers differ in what they make of numbers that are not there
	}
	var set string
	if uid == "" {
		set = m.numbers()
	} else {
		set = pick("uids", "1:*", "*", "1", "2:5", "3,1", "999", "4:*", "2,7:9,5", "10:1", "1:3,*")
		if m.cyrus && (set == "*" || set == "1:3,*") {
			set = "1:3" // its * may be a message that was expunged
		}
	}
	set1 := "UID " + set
	if uid == "" {
		set1 = set
	}
	switch pick("what", "arrive", "arrive", "hide", "own", "FETCH", "FETCH", "SEARCH", "SEARCH", "SORT", "STORE", "STORE", "COPY", "MOVE", "EXPUNGE", "NOOP", "leave") {
	case "arrive":
		m.arrive(false)
	case "hide":
		m.arrive(true)
	case "own":
		command := fmt.Sprintf(`UID STORE %d +FLAGS.SILENT (%s)`, rapid.IntRange(1, m.uid+1).Draw(m.t, "uid"), pick("flag", `\Flagged`, `\Deleted`, "Work"))
		for i := range m.owners {
			m.own(i, command)
			if strings.Contains(command, "Deleted") {
				m.own(i, "EXPUNGE")
			}
		}
	case "FETCH":
		m.both(uid + "FETCH " + set + " " + pick("items", "(UID FLAGS)", "(UID ENVELOPE)", "(UID BODY.PEEK[])", "(UID RFC822.SIZE INTERNALDATE)", "(UID BODY[TEXT])"))
		return
	case "SEARCH":
		m.both(uid + "SEARCH " + pick("return", "", "RETURN () ", "RETURN (MIN MAX COUNT) ", "RETURN (ALL COUNT) ") + pick("keys", "ALL", "UID 2:4", "NOT UID 1", set1, "SUBJECT number", "SUBJECT secret", "NOT SUBJECT secret", "DELETED", "UNSEEN", "OR UID 1 FLAGGED", "SINCE 5-Jan-2026", `TEXT "body 2"`, "KEYWORD Work", "NOT UID 1:3", "(UID 1:* UID 1)", "NOT "+set1))
		return
	case "SORT":
		m.both(uid + "SORT " + pick("keys", "(SUBJECT)", "(REVERSE ARRIVAL)", "(REVERSE DATE)", "(FROM)") + " UTF-8 " + pick("search", "ALL", "UNSEEN", "NOT UID 1", set1))
		return
	case "STORE":
		m.both(uid + "STORE " + set + " " + pick("sign", "+", "-", "") + "FLAGS " + pick("flags", `(\Seen)`, `(\Deleted)`, `(\Flagged Work)`, "()"))
		return
	case "COPY":
		m.both(uid + "COPY " + set + " " + m.folder + pick("to", "x", "x", "y"))
		return
	case "MOVE":
		m.both(uid + "MOVE " + set + " " + m.folder + "x")
		return
	case "EXPUNGE":
		if uid != "" {
			m.both("UID EXPUNGE " + set)
			return
		}
		m.both("EXPUNGE")
		return
	case "leave":
		m.both(pick("how", "CLOSE", "UNSELECT"))
		m.both("SELECT " + m.folder)
		return
	}
	// What others do is told at any time: ask, and look.
	m.both("NOOP")
	m.both("UID FETCH 1:* (UID FLAGS)")
}

var (
	toldLine   = regexp.MustCompile(`^\* (\d+) (EXISTS|EXPUNGE)$`)
	fetchLine  = regexp.MustCompile(`^\* \d+ FETCH \(`)
	uidItem    = regexp.MustCompile(` ?UID \d+ ?`)
	recentFlag = regexp.MustCompile(`\\Recent ?`)
	copyUID    = regexp.MustCompile(`COPYUID \d+ ([\d,:]+) ([\d,:]+)`)
	flagItem   = regexp.MustCompile(`FLAGS \(([^)]*)\)`)
)

// both has both agents say the same; what they hear must be the same, and they
// must know of as many messages.
func (m *viewModel) both(command string) {
	// Servers differ in what they answer to numbers in an empty folder.
	empty := m.counts == [2]int{} && !strings.HasPrefix(command, "UID ") && !strings.HasPrefix(command, "SELECT")
	var heard [2][]string
	for i, p := range []*peer{m.view, m.plain} {
		lines := exchange(p, "z "+command+"\r\n", "z")
		heard[i] = m.normalise(i, command, lines)
	}
	if strings.HasSuffix(command, "y") { // whether a folder is looked for, for no messages at all
		empty = empty || len(heard[0])+len(heard[1]) == 2
	}
	if !empty && !slices.Equal(heard[0], heard[1]) {
		m.t.Fatalf("%q\nview:  %q\nplain: %q", command, heard[0], heard[1])
	}
	if m.counts[0] != m.counts[1] {
		m.t.Fatalf("after %q: %d messages in the view, %d in the plain mailbox", command, m.counts[0], m.counts[1])
	}
}

// normalise counts messages, and leaves out what servers may say at any time or
// in their own words.
func (m *viewModel) normalise(i int, command string, lines []string) (out []string) {
	if strings.HasPrefix(command, "SELECT") {
		m.counts[i] = 0
	}
	for _, line := range lines {
		if c := toldLine.FindStringSubmatch(line); c != nil {
			if n, _ := strconv.Atoi(c[1]); c[2] == "EXISTS" {
				m.counts[i] = n
			} else if m.counts[i]--; n > m.counts[i]+1 {
				m.t.Fatalf("%q: %q of %d messages", command, line, m.counts[i]+1)
			}
			continue
		}
		switch {
		case strings.HasPrefix(line, "* OK [COPYUID"):
			out = append(out, copyUID.FindStringSubmatch(line)[1:]...)
		case strings.HasPrefix(line, "* OK"), strings.HasPrefix(line, "* FLAGS"), strings.HasSuffix(line, " RECENT"):
		case fetchLine.MatchString(line) && !strings.Contains(command, "FETCH") && !strings.Contains(command, "STORE"):
		case fetchLine.MatchString(line):
			line = recentFlag.ReplaceAllString(line, "")
			line = flagItem.ReplaceAllStringFunc(line, func(s string) string {
				flags := strings.Fields(flagItem.FindStringSubmatch(s)[1])
				slices.Sort(flags)
				return "FLAGS (" + strings.Join(flags, " ") + ")"
			})
			if strings.Contains(command, "STORE") {
				line = uidItem.ReplaceAllString(line, "")
			}
			out = append(out, line)
		case strings.HasPrefix(line, "z "):
			// For numbers that are not there Dovecot says BAD, and Cyrus NO.
			out = append(out, strings.Replace(strings.Fields(line)[1], "BAD", "NO", 1))
			if c := copyUID.FindStringSubmatch(line); c != nil {
				out = append(out, c[1:]...)
			}
		case strings.HasPrefix(line, "* ESEARCH"): // whose items come in any order
			items := regexp.MustCompile(`(MIN|MAX|COUNT|ALL) \S+`).FindAllString(line, -1)
			slices.Sort(items)
			out = append(out, append(items, strconv.FormatBool(strings.Contains(line, ") UID")))...)
		default:
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}
