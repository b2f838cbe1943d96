// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bufio"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/proxy/imapwire/wiretest"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// cyrusBox is a mailbox whose IMAP server is Cyrus.
const cyrusBox = "archive@client.example"

var (
	smuggleMutations = flag.Int("smuggle.mutations", 12, "how many mutated attempts to smuggle each server gets")
	smuggleAll       = flag.Bool("smuggle.all", false, "try a literal in each place, and not in some of them")
	smuggleSeed      = flag.Uint64("smuggle.seed", 1, "what they are made from; 0: something new, which is printed")
)

// imapUpstream is a kind of server that somebody tries to smuggle commands to,
// behind a Tap.
type imapUpstream struct {
	name    string
	mailbox string
	tap     *servers.Tap
	port    uint16
}

func dovecotUpstream(r *rig) *imapUpstream {
	return &imapUpstream{"Dovecot", sales, r.imap, r.Dovecot.IMAPPort}
}

// cyrusUpstream starts Cyrus and moves cyrusBox there.
func cyrusUpstream(r *rig) *imapUpstream {
	c := servers.StartCyrus(r.t, servers.WithCyrusCA(r.CA), servers.WithCyrusUser(cyrusBox, r.Password(cyrusBox)))
	c.Deliver(cyrusBox, bulk("one", 1000))
	tap := servers.NewTap(r.t, fmt.Sprintf("127.0.0.1:%d", c.IMAPPort))
	r.Postern.CLI("mailbox", "update", cyrusBox, "--imap", fmt.Sprintf("127.0.0.1:%d", tap.Port), "--imap-tls", "none", "--remove-credential")
	r.Postern.CLIInput(r.Password(cyrusBox)+"\n", "mailbox", "set-credential", cyrusBox)
	return &imapUpstream{"Cyrus", cyrusBox, tap, c.IMAPPort}
}

// marks tell of new mail, which some attempts bring.
var marks = regexp.MustCompile(` \\(Un)?[Mm]arked`)

// folders asks the server itself.
func (up *imapUpstream) folders(r *rig) string {
	r.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", up.port))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "a LOGIN \"%s\" \"%s\"\r\nb LIST \"\" *\r\n", up.mailbox, r.Password(up.mailbox))
	var all strings.Builder
	in := bufio.NewScanner(conn)
	for in.Scan() && !strings.HasPrefix(in.Text(), "b ") {
		if strings.HasPrefix(in.Text(), "* LIST ") {
			all.WriteString(marks.ReplaceAllString(in.Text(), "") + "\n")
		}
	}
	if !strings.HasPrefix(in.Text(), "b OK") || all.Len() == 0 {
		r.t.Fatalf("%s does not list its folders: %q, %v", up.name, in.Text(), in.Err())
	}
	return all.String()
}

// smuggle tries all that is on the list, and mutations of it. What the agent
// may not do is make folders, and that is what each attempt is after.
func (up *imapUpstream) smuggle(r *rig) {
	t := r.t
	s := r.Seat(up.mailbox, slices.DeleteFunc(slices.Clone(allActions), func(a string) bool { return a == "folders" })...)
	r.noSessions()
	before := up.folders(r)
	got := make(map[string]int)
	seed := *smuggleSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	random := rand.New(rand.NewPCG(seed, 0))
	nested := nestedSmuggles()
	if !*smuggleAll {
		random.Shuffle(len(nested), func(i, j int) { nested[i], nested[j] = nested[j], nested[i] })
		nested = nested[:16]
	}
	attempts := append(slices.Clone(smuggles), nested...)
	for _, a := range attempts {
		up.try(r, s, a, got)
	}
	for i := range *smuggleMutations {
		payload := mutate(random, attempts)
		up.try(r, s, smuggling{fmt.Sprintf("mutation %d of -smuggle.seed=%d, %q", i, seed, payload), payload}, got)
	}
	if after := up.folders(r); after != before {
		t.Errorf("folders before:\n%s\nand after:\n%s", before, after)
	}
	t.Logf("%d attempts and %d mutations, -smuggle.seed=%d; all that %s got were %v", len(attempts), *smuggleMutations, seed, up.name, got)
}

// ownLogin is a tag of Postern's login.
var ownLogin = regexp.MustCompile(`^P[A-Z2-7]{6}[0-9]+$`)

// try lets a client say a payload behind its login, and hang up. Whatever the
// server got must be Postern's login, or one of the client's commands, in their
// order, each once, as the client gave it.
func (up *imapUpstream) try(r *rig, s *e2e.Seat, a smuggling, got map[string]int) {
	r.t.Helper()
	record := recordFrom(up.tap)
	c := s.IMAP(r.t)
	given := "s SELECT INBOX\r\n" + a.payload
	_, _ = c.Conn.Write([]byte(given)) // Postern may hang up first
	_ = c.Conn.(*tls.Conn).CloseWrite()
	c.ExpectClosed(patience)
	servers.WaitFor(r.t, patience, func() bool { return up.tap.Connections() == 0 }, "the provider's connection to close")
	commands, err := record.commands()
	if err != nil && !errors.Is(err, errUnended) {
		r.t.Errorf("%s: %v", a.name, err)
	}
	for len(commands) > 0 && ownLogin.MatchString(commands[0].tag) {
		commands = commands[1:]
	}
	table := tableNames(r.t)
	var octets [][]byte
	for _, command := range commands {
		got[command.name]++
		octets = append(octets, command.octets)
		if slices.Contains(neverCommands, command.name) || slices.Contains(foldersCommands, command.name) || !slices.Contains(table, strings.TrimPrefix(command.name, "UID ")) {
			r.t.Errorf("%s: the provider got %s%s", a.name, command.name, command.args)
		}
	}
	if fault := wiretest.Unexplained([]byte(given), octets); fault != "" {
		r.t.Errorf("%s: %s", a.name, fault)
	}
}

// foldersCommands take the action folders.
var foldersCommands = []string{"CREATE", "DELETE", "RENAME", "SUBSCRIBE", "UNSUBSCRIBE"}

// scraps are what mutations put in.
var scraps = []string{
	"\r\n", "\n", "\r", "\x00", "{5}\r\n", "{5+}\r\n", "~{5+}\r\n", "{0+}\r\n", "{16+}\r\nb CREATE Smuggled", "\"", "\\", "(", ")", " ", "  ", "\t", "[", "]", "}", "*", "%", "+",
	"DONE\r\n", "b CREATE Smuggled\r\n", "\r\nb CREATE Smuggled\r\n", "+ go\r\n", "* OK x\r\n", "IDLE", "UID ", "\x80", "\xc0\x8a", "\u2028", "é", "CATENATE (TEXT ", "UTF8 (", "{4294967297+}\r\n",
}

// mutate makes an attempt out of others.
func mutate(random *rand.Rand, attempts []smuggling) string {
	pick := func() string { return attempts[random.IntN(len(attempts))].payload }
	if clients := wiretest.Clients(); random.IntN(3) == 0 {
		first := string(clients[random.IntN(len(clients))].Octets)
		pick = func() string { return first }
	}
	p := pick()
	for range 1 + random.IntN(4) {
		i := random.IntN(len(p) + 1)
		j := min(len(p), i+random.IntN(12))
		switch random.IntN(6) {
		case 0:
			p = p[:i] + p[j:]
		case 1:
			p = p[:j] + p[i:j] + p[j:]
		case 2:
			p = p[:i] + pick() + p[i:]
		case 3:
			digits := regexp.MustCompile(`[0-9]+`).FindAllStringIndex(p, -1)
			if len(digits) > 0 {
				d := digits[random.IntN(len(digits))]
				p = p[:d[0]] + fmt.Sprint(random.IntN(40)) + p[d[1]:]
			}
		default:
			p = p[:i] + scraps[random.IntN(len(scraps))] + p[i:]
		}
	}
	return p + "\r\nb CREATE Smuggled\r\n"
}

// TestNever2BehindSTARTTLS: what follows STARTTLS in the clear is nobody's.
func TestNever2BehindSTARTTLS(t *testing.T) {
	t.Parallel()
	r := newRig(t, e2e.WorldOptions{Sealed: true})
	s := r.Seat(sales)
	from := len(said(r.imap, 0)) // what tried the credentials said
	for _, command := range []string{"STARTTLS\r\nb LOGIN %s %s\r\nc CREATE Smuggled\r\n", "STARTTLS\r\nb NOOP\r\n%.0s%.0s", "STARTTLS\r\n \r\n%.0s%.0s", "STARTTLS\r\n%.0s%.0s\x16\x03\x01"} {
		c := r.Postern.DialPlain(t, r.Postern.IMAPPort)
		c.Expect(`\* OK .*`)
		c.Send("a "+command, s.Mailbox, s.Token)
		if said := c.ExpectClosed(patience); strings.Contains(said, "b ") {
			t.Errorf("%q: after STARTTLS: %q", command, said)
		}
	}
	if got := said(r.imap, from); len(got) > 0 {
		t.Errorf("the provider got %q", got)
	}
}
