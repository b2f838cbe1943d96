// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// deed is what one client of many does with one message of its own.
type deed struct {
	message string
	// flags are given to it, then it is copied, moved away or expunged, or not.
	flags        string
	copied, gone bool
	moved        bool
}

// crowd draws what many clients do at once.
func crowd(clients int) *rapid.Generator[[][]deed] {
	one := rapid.Custom(func(t *rapid.T) deed {
		return deed{
			// A capital first: no tag of a command begins so.
			message: rapid.StringMatching(`[A-Z][a-z ]{0,39}`).Draw(t, "text"),
			flags:   rapid.SampledFrom([]string{`\Seen`, `\Flagged`, `\Seen \Answered`, "$Label", `$Label \Draft`}).Draw(t, "flags"),
			copied:  rapid.Bool().Draw(t, "copied"), gone: rapid.Bool().Draw(t, "gone"), moved: rapid.Bool().Draw(t, "moved"),
		}
	})
	return rapid.SliceOfN(rapid.SliceOfN(one, 2, 5), clients, clients)
}

// TestManyClientsOnOneMailbox: many clients work on one mailbox at once, each
// on messages of its own, directly and through Postern. Whatever the order of
// their commands was, both mailboxes hold the same in the end, and what each
// client of Dovecot's was told of EXISTS and EXPUNGE adds up to it. Cyrus 3.6
// says no EXISTS where a message came and another went and the number is what
// it last said, so that its clients do not know, directly or through Postern.
func TestManyClientsOnOneMailbox(t *testing.T) {
	const clients = 6
	seed, err := strconv.Atoi(cmp.Or(os.Getenv("POSTERN_CROWD_SEED"), "1"))
	if err != nil {
		t.Fatal(err)
	}
	rounds, err := strconv.Atoi(cmp.Or(os.Getenv("POSTERN_CROWD_ROUNDS"), "1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("POSTERN_CROWD_SEED=%d", seed)
	onEachServer(t, func(t *testing.T, server realServer) {
		gate, other := server.start(t)
		rig := newRig(t, gate)
		direct := func() *peer {
			conn, err := other.dial(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			return newPeer(t, conn)
		}
		counted := server.name == "dovecot"
		for round := range rounds {
			plan := crowd(clients).Example(seed + round)
			want, got := runCrowd(t, direct, round, plan, counted), runCrowd(t, rig.login, round, plan, counted)
			if !slices.Equal(want, got) {
				t.Errorf("round %d, directly:\n%s\nthrough Postern:\n%s", round, strings.Join(want, "\n"), strings.Join(got, "\n"))
			}
		}
	})
}

// runCrowd lets all clients do what is planned, and returns what the mailbox
// holds then; counted: each client must know how many messages there are.
func runCrowd(t *testing.T, connect func() *peer, round int, plan [][]deed, counted bool) []string {
	t.Helper()
	peers := make([]*peer, len(plan))
	for i := range plan {
		peers[i] = connect()
		peers[i].send("s SELECT INBOX")
	}
	counts := make([]int, len(plan))
	var working sync.WaitGroup
	for i, deeds := range plan {
		counts[i] = existing(peers[i].until("s "), 0)
		working.Go(func() {
			for k, d := range deeds {
				counts[i] = do(peers[i], fmt.Sprintf("r%dc%dm%d", round, i, k), d, counts[i])
			}
		})
	}
	working.Wait()
	for i, p := range peers {
		p.send("e NOOP")
		counts[i] = existing(p.until("e "), counts[i])
	}
	end := append(contents(t, peers[0], "INBOX"), contents(t, peers[0], "Archive")...)
	inbox := len(contents(t, peers[0], "INBOX"))
	for i, p := range peers {
		if counted && counts[i] != inbox {
			t.Errorf("client %d was told of %d messages, there are %d", i, counts[i], inbox)
		}
		p.send("l LOGOUT")
		p.closed()
		p.conn.Close()
	}
	return end
}

// ioError is what Cyrus says at times when many append at once.
const ioError = "t NO System I/O error"

var appendUID = regexp.MustCompile(`APPENDUID \d+ (\d+)`)

// do carries out one deed and returns how many messages the client knows of.
func do(p *peer, id string, d deed, count int) int {
	hear := func(format string, args ...any) []string {
		p.send(format, args...)
		heard := p.until("t ")
		count = existing(heard, count)
		if last := heard[len(heard)-1]; !strings.HasPrefix(last, "t OK") && last != ioError {
			p.t.Errorf("%.60q: %s", fmt.Sprintf(format, args...), last)
		}
		return heard
	}
	m := fmt.Sprintf("Message-ID: <%s@firm.example>\r\nSubject: %s\r\n\r\n%s\r\n", id, id, d.message)
	m = fmt.Sprintf("t APPEND INBOX {%d+}\r\n%s", len(m), m)
	heard := hear("%s", m)
	for tries := 0; heard[len(heard)-1] == ioError && tries < 3; tries++ {
		heard = hear("%s", m)
	}
	uid := appendUID.FindStringSubmatch(heard[len(heard)-1])
	if uid == nil {
		p.t.Errorf("no APPENDUID in %q", heard)
		return count
	}
	hear("t NOOP")
	hear("t UID STORE %s +FLAGS.SILENT (%s)", uid[1], d.flags)
	hear("t UID FETCH %s (FLAGS BODY.PEEK[TEXT])", uid[1])
	if d.copied {
		hear("t UID COPY %s Archive", uid[1])
	}
	switch {
	case d.moved:
		hear("t UID MOVE %s Archive", uid[1])
	case d.gone:
		hear(`t UID STORE %s +FLAGS.SILENT (\Deleted)`, uid[1])
		hear("t UID EXPUNGE %s", uid[1])
	}
	return count
}

var countLine = regexp.MustCompile(`^\* (\d+) (EXISTS|EXPUNGE)$`)

// existing follows EXISTS and EXPUNGE.
func existing(heard []string, count int) int {
	for _, line := range heard {
		switch m := countLine.FindStringSubmatch(line); {
		case m == nil:
		case m[2] == "EXPUNGE":
			count--
		default:
			count, _ = strconv.Atoi(m[1])
		}
	}
	return count
}

var (
	flagList  = regexp.MustCompile(`FLAGS \(([^)]*)\)`)
	messageID = regexp.MustCompile(`(?m)^Message-ID: (\S+)`)
)

// contents returns what a folder holds, sorted: Message-ID, flags and the
// octets' hash of each message.
func contents(t *testing.T, p *peer, folder string) []string {
	t.Helper()
	p.send("x EXAMINE %s", folder)
	p.until("x ")
	p.send("f UID FETCH 1:* (FLAGS BODY.PEEK[])")
	var all []string
	for {
		line := p.line()
		if strings.HasPrefix(line, "f ") {
			break
		}
		size := imapwire.TrailingLiteral([]byte(line + "\r\n"))
		if size < 0 {
			continue
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(p.r, body); err != nil {
			t.Fatal(err)
		}
		line += p.line()
		flags := strings.Fields(flagList.FindStringSubmatch(line)[1])
		flags = slices.DeleteFunc(flags, func(f string) bool { return f == `\Recent` })
		slices.Sort(flags)
		all = append(all, fmt.Sprintf("%s %s %v %x", folder, messageID.FindSubmatch(body)[1], flags, sha256.Sum256(body)))
	}
	slices.Sort(all)
	return all
}
