// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// otherMailbox is one that Postern serves, and that the agents of transcripts
// are not assigned to.
const otherMailbox = "other@client.example"

// closeTimeout is how soon a connection must be closed after the last words.
const closeTimeout = 3 * time.Second

// A Transcript is a conversation as it goes over the wire, with what else
// happens meanwhile: a file of test/testdata. Its comment says what it shows,
// and holds lines "actions: list read" (what is granted; without it, all) and
// "aliases: info@client.example". The file "transcript" has a line per step:
//
//	open imaps|imap|submissions|submission [NAME] [without certificate]
//	                 connects; NAME is a digit that C and S lines then bear
//	starttls         begins TLS on the last connection named
//	C: text          the client sends this line, and CRLF
//	C= "octets"      the client sends these octets, in Go's quotes, and no CRLF
//	C< FILE          the client sends a message as DATA has it: dots doubled,
//	                 and one at the end
//	C* N             the client sends N octets in lines of 80
//	C+ N             the client sends N octets without a line's end
//	S: text          the server says exactly this line
//	S~ regexp        the server says a line that matches as a whole; what its
//	                 named groups match becomes a variable
//	S? regexp        the same, after any number of other lines
//	S. closed        the server closes, without another word
//	run: ARGS        the command line, as an admin
//	deliver: FOLDER FILE     a message arrives at the provider
//	provider: FOLDER QUERY = N   how many messages doveadm finds there
//	arrives: SUBJECT [FILE]  the peer gets one message with this subject,
//	                 unaltered
//	event: TYPE TEXT TEXT... an event of this type is on record for the agent or
//	                 the workstation, whose data has each text
//	sent: N          so many messages are on record as accepted
//
// $NAME stands for a variable (see Play) or what was captured, $$ for a
// dollar sign. Empty lines and lines that begin with # are skipped. Other files are
// messages; those named FOLDER/… lie in the mailbox from the start.
type Transcript struct {
	Name    string
	Aliases []string

	actions []string
	archive *txtar.Archive
}

// Mailbox is the address of the transcript's own mailbox.
func (tr *Transcript) Mailbox() string { return tr.Name + "@client.example" }

// ReadTranscript reads one file.
func ReadTranscript(path string) (*Transcript, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	tr := &Transcript{Name: strings.TrimSuffix(name, ".txtar"), archive: txtar.Parse(content)}
	for line := range strings.Lines(string(tr.archive.Comment)) {
		if list, ok := strings.CutPrefix(line, "actions: "); ok {
			tr.actions = strings.Fields(list)
		}
		if list, ok := strings.CutPrefix(line, "aliases: "); ok {
			tr.Aliases = strings.Fields(list)
		}
	}
	if tr.file("transcript") == nil {
		return nil, fmt.Errorf("%s has no transcript", path)
	}
	return tr, nil
}

// file returns a file's octets with CRLF line ends; nil: it is not there.
func (tr *Transcript) file(name string) []byte {
	for _, f := range tr.archive.Files {
		if f.Name == name {
			return []byte(strings.ReplaceAll(string(f.Data), "\n", "\r\n"))
		}
	}
	return nil
}

// player plays one transcript.
type player struct {
	t           *testing.T
	tr          *Transcript
	w           *World
	s           *Seat
	peer        string
	variables   map[string]string
	connections map[string]*Conn
	last        string // the connection that was opened last
	line        int
}

// Play delivers the transcript's mail, makes its seat, and plays it; peer is
// the mailbox to which it sends.
func (tr *Transcript) Play(t *testing.T, w *World, peer string) {
	for _, f := range tr.archive.Files {
		if folder, _, ok := strings.Cut(f.Name, "/"); ok {
			w.Dovecot.Deliver(tr.Mailbox(), folder, tr.file(f.Name))
		}
	}
	s := w.Seat(tr.Mailbox(), tr.actions...)
	p := &player{t: t, tr: tr, w: w, s: s, peer: peer, connections: make(map[string]*Conn)}
	p.variables = map[string]string{
		"MAILBOX": s.Mailbox, "PEER": peer, "AGENT": s.Agent, "TOKEN": s.Token, "PASSWORD": w.Password(s.Mailbox),
		"PLAIN": s.SASLPlain(), "CONTACT": FirmContact, "OTHER": otherMailbox,
		"WORKSTATION": s.Workstation, "DELEGATION": string(s.Delegation), "ASSIGNMENT": string(s.Assignment),
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s.txtar, line %d of the transcript", tr.Name, p.line)
		}
	})
	for line := range strings.Lines(string(tr.file("transcript"))) {
		p.line++
		if line = strings.TrimRight(line, "\r\n"); strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
			p.step(line)
		}
	}
	for _, c := range p.connections {
		if found := Leaks(c.Seen(), w.Passwords()); len(found) > 0 {
			t.Errorf("the client received passwords of mailboxes: %q", found)
		}
	}
}

var (
	spoken = regexp.MustCompile(`^([CS])([0-9]?)([:=<*+~?.]) ?(.*)$`)
	name   = regexp.MustCompile(`\$\$|\$[A-Za-z]+`)
)

// expand puts the variables in; in a pattern they stand for themselves.
func (p *player) expand(text string, pattern bool) string {
	p.t.Helper()
	return name.ReplaceAllStringFunc(text, func(n string) string {
		value, ok := p.variables[n[1:]]
		if n == "$$" {
			value, ok = "$", true
		}
		switch {
		case !ok && pattern: // an end of line, or so
			return n
		case !ok:
			p.t.Fatalf("there is no variable %s", n)
		case pattern:
			return regexp.QuoteMeta(value)
		}
		return value
	})
}

func (p *player) step(line string) {
	p.t.Helper()
	if m := spoken.FindStringSubmatch(line); m != nil {
		c := p.connections[m[2]]
		if c == nil {
			p.t.Fatalf("%q: that connection is not open", line)
		}
		if m[1] == "C" {
			p.say(c, m[3], m[4])
		} else {
			p.hear(c, m[3], m[4])
		}
		return
	}
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "open":
		p.open(strings.Fields(rest))
	case "starttls":
		p.connections[p.last].StartTLS(p.w.Postern, p.s.Certificate)
	case "run:":
		p.w.Postern.CLI(strings.Fields(p.expand(rest, false))...)
	case "deliver:":
		folder, file, _ := strings.Cut(rest, " ")
		p.w.Dovecot.Deliver(p.tr.Mailbox(), folder, p.tr.file(file))
	case "provider:":
		p.provider(rest)
	case "arrives:":
		p.arrives(strings.Fields(rest))
	case "event:":
		p.event(rest)
	case "sent:":
		p.sent(rest)
	default:
		p.t.Fatalf("%q is no step", line)
	}
}

func (p *player) open(words []string) {
	p.t.Helper()
	ports := map[string]uint16{
		"imaps": p.w.Postern.IMAPSPort, "imap": p.w.Postern.IMAPPort,
		"submissions": p.w.Postern.SubmissionsPort, "submission": p.w.Postern.SubmissionPort,
	}
	p.last = ""
	if len(words) > 1 && words[1] != "without" {
		p.last = words[1]
	}
	var c *Conn
	switch {
	case !strings.HasSuffix(words[0], "s"):
		c = p.w.Postern.DialPlain(p.t, ports[words[0]])
	case words[len(words)-1] == "certificate":
		c = p.w.Postern.DialTLS(p.t, ports[words[0]])
	default:
		c = p.w.Postern.DialTLS(p.t, ports[words[0]], p.s.Certificate)
	}
	p.connections[p.last] = c
}

func (p *player) say(c *Conn, how, text string) {
	p.t.Helper()
	switch how {
	case ":":
		c.Send("%s\r\n", p.expand(text, false))
	case "=":
		octets, err := strconv.Unquote(text)
		if err != nil {
			p.t.Fatalf("%s: %v", text, err)
		}
		c.Send("%s", p.expand(octets, false))
	case "<":
		lines := strings.ReplaceAll("\r\n"+p.expand(string(p.tr.file(text)), false), "\r\n.", "\r\n..")
		c.Send("%s.\r\n", strings.TrimPrefix(lines, "\r\n"))
	case "*":
		n, err := strconv.Atoi(text)
		if err != nil {
			p.t.Fatal(err)
		}
		const width = 80
		lines := strings.Repeat(strings.Repeat("x", width-2)+"\r\n", n/width+1)
		c.Send("%s", lines[len(lines)-n:])
	case "+":
		n, err := strconv.Atoi(text)
		if err != nil {
			p.t.Fatal(err)
		}
		c.Send("%s", strings.Repeat("x", n))
	default:
		p.t.Fatalf("C%s is no step", how)
	}
}

func (p *player) hear(c *Conn, how, text string) {
	p.t.Helper()
	switch how {
	case ":":
		if got, want := c.Line(), p.expand(text, false); got != want {
			p.t.Fatalf("line %d: the server said\n\t%s\nand not\n\t%s", p.line, got, want)
		}
	case "~":
		if line := c.Line(); !p.match(text, line) {
			p.t.Fatalf("line %d: the server said\n\t%s\nwhich is not\n\t%s", p.line, line, text)
		}
	case "?":
		var heard []string
		for {
			line, err := c.TryLine(answerTimeout)
			if err != nil {
				p.t.Fatalf("line %d: the server said\n\t%s\nand then (%v) nothing that is\n\t%s", p.line, strings.Join(heard, "\n\t"), err, text)
			}
			if p.match(text, line) {
				return
			}
			heard = append(heard, line)
		}
	case ".":
		if rest := c.ExpectClosed(closeTimeout); rest != "" {
			p.t.Fatalf("line %d: the server said %q before it closed", p.line, rest)
		}
	default:
		p.t.Fatalf("S%s is no step", how)
	}
}

// match holds a line against a pattern, and keeps what named groups match.
func (p *player) match(pattern, line string) bool {
	p.t.Helper()
	compiled, err := regexp.Compile("^(?:" + p.expand(pattern, true) + ")$")
	if err != nil {
		p.t.Fatal(err)
	}
	groups := compiled.FindStringSubmatch(line)
	for i, n := range compiled.SubexpNames() {
		if groups != nil && n != "" {
			p.variables[n] = groups[i]
		}
	}
	return groups != nil
}

func (p *player) provider(text string) {
	p.t.Helper()
	folder, query, _ := strings.Cut(text, " ")
	query, want, _ := strings.Cut(query, " = ")
	if got := len(p.w.Dovecot.Messages(p.tr.Mailbox(), folder, query)); strconv.Itoa(got) != want {
		p.t.Errorf("line %d: %d messages %s in %s at the provider, want %s", p.line, got, query, folder, want)
	}
}

func (p *player) arrives(words []string) {
	p.t.Helper()
	got := p.w.AwaitMail(p.peer, "INBOX", words[0])
	if len(words) > 1 {
		if want := p.expand(string(p.tr.file(words[1])), false); !strings.HasSuffix(string(got), want) {
			p.t.Errorf("line %d: what arrived is\n%s\nand not\n%s", p.line, got, want)
		}
	}
}

func (p *player) event(text string) {
	p.t.Helper()
	kind, rest, _ := strings.Cut(text, " ")
	wanted := strings.Fields(p.expand(rest, false))
	var seen []string
	found := func() bool {
		seen = nil
		all := append(p.w.Postern.Events(FirmName, "--type", kind), p.w.Postern.Events("", "--type", kind)...)
		for _, e := range all {
			if e.AgentID != p.s.AgentID && e.WorkstationID != p.s.WorkstationID {
				continue
			}
			// One line, whatever the command line makes of it.
			data := strings.Join(strings.Fields(string(e.Data)), "")
			seen = append(seen, data)
			has := true
			for _, text := range wanted {
				has = has && strings.Contains(data, text)
			}
			if has {
				return true
			}
		}
		return false
	}
	defer func() {
		if p.t.Failed() {
			p.t.Logf("the events %s are\n\t%s", kind, strings.Join(seen, "\n\t"))
		}
	}()
	servers.WaitFor(p.t, eventTimeout, found, fmt.Sprintf("an event %s with %q", kind, wanted))
}

func (p *player) sent(want string) {
	p.t.Helper()
	n, err := strconv.Atoi(want)
	if err != nil {
		p.t.Fatal(err)
	}
	servers.WaitFor(p.t, eventTimeout, func() bool { return len(p.s.Events(broker.EventSendResult)) >= n }, "messages on record")
	accepted := 0
	for _, e := range p.s.Events(broker.EventSendResult) {
		if Decode[broker.SendResult](p.t, e).Outcome == "accepted" {
			accepted++
		}
	}
	if intents := len(p.s.Events(broker.EventSendIntent)); accepted != n || intents < n {
		p.t.Errorf("line %d: %d messages on record as accepted, %d intents; want %d", p.line, accepted, intents, n)
	}
}
