// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
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
	// offered are the server's capabilities that the command table knows.
	offered []string
	// said is every exchange, and what the server itself answered.
	said []said
}

type said struct {
	raw   string
	heard []string
}

func newTwoSides(t *testing.T, server realServer) *twoSides {
	gate, other := server.start(t)
	conn, err := other.dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &twoSides{
		t: t, direct: newPeer(t, conn), postern: newRig(t, gate).login(),
		offered: strings.Fields(offered(offeredExtensions, conn.Capabilities)),
	}
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
	s.compare(raw, want, got)
}

// compare compares two answers, and notes what was exchanged.
func (s *twoSides) compare(raw string, want, got []string) {
	s.t.Helper()
	s.said = append(s.said, said{raw, want})
	compareExchange(s.t, raw, normalise(want), normalise(got))
}

// offers reports whether the server has an extension of the command table.
func (s *twoSides) offers(extension string) bool {
	return slices.ContainsFunc(s.offered, func(o string) bool { return strings.EqualFold(o, extension) })
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

// TestBigFetchIsTheSameOctetByOctet: 200 messages from nothing to 3 MB, read
// in one command, directly and through Postern.
func TestBigFetchIsTheSameOctetByOctet(t *testing.T) {
	onEachServer(t, sameBigFetch)
}

func sameBigFetch(t *testing.T, server realServer) {
	s := newTwoSides(t, server)
	s.one("SELECT INBOX")
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 96 {
		size := []int{0, 1, 100, 4095, 4096, 4097, 12000, 16384, 65535, 65536, 65537, 200000}[i%12]
		if i%32 == 31 {
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
