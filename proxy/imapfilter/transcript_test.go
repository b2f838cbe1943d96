// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// transcript is a conversation with an upstream that no real server can be had
// for, as testdata/transcripts holds them. A line begins with who says it:
//
//	C  the client       U  what must reach the upstream
//	S  the upstream     R  what must reach the client
//	>  the client, and the same must reach the upstream
//	=  the upstream, and the same must reach the client
//	.  the upstream closes the connection
//	#  a comment
//
// "⟨own⟩" is the tag of a command of Postern's own.
//
// The first line that is no comment names the upstream's capabilities.
type transcript struct {
	capabilities []string
	lines        []transcriptLine
}

type transcriptLine struct {
	who  byte
	text string
}

func readTranscript(t *testing.T, name string) transcript {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "transcripts", name))
	if err != nil {
		t.Fatal(err)
	}
	var out transcript
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		words, isHead := strings.CutPrefix(line, "capabilities: ")
		switch {
		case line == "" || line[0] == '#':
		case isHead:
			out.capabilities = strings.Fields(words)
		case strings.IndexByte("CUSR>=.", line[0]) >= 0 && (len(line) == 1 || line[1] == ' '):
			out.lines = append(out.lines, transcriptLine{line[0], line[min(2, len(line)):]})
		default:
			t.Fatalf("%s: %q", name, line)
		}
	}
	return out
}

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "transcripts", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(strings.TrimSuffix(name, ".txt"), func(t *testing.T) { tr := readTranscript(t, name); tr.play(t) })
	}
}

// play plays a transcript. What the upstream says in a row comes in one piece,
// and what the client says in a row as well.
func (tr *transcript) play(t *testing.T) {
	gate, upstreams := scripted(t, tr.capabilities...)
	client := newRig(t, gate).login()
	upstream := <-upstreams
	own := ""
	for i := 0; i < len(tr.lines); {
		who := tr.lines[i].who
		var said []string
		for ; i < len(tr.lines) && tr.lines[i].who == who; i++ {
			said = append(said, tr.lines[i].text)
		}
		all := strings.ReplaceAll(strings.Join(said, "\r\n")+"\r\n", "⟨own⟩", own)
		switch who {
		case 'C', '>':
			client.raw(all)
		case 'S', '=':
			upstream.raw(all)
		case '.':
			upstream.conn.Close()
		}
		hearer := map[byte]*peer{'U': upstream, '>': upstream, 'R': client, '=': client}[who]
		for _, want := range said {
			if hearer == nil {
				break
			}
			got := hearer.line()
			if rest, isOwn := strings.CutPrefix(want, "⟨own⟩"); isOwn && strings.HasPrefix(got, "pn") {
				own, _, _ = strings.Cut(got, " ")
				want = own + rest
			}
			if got != want {
				t.Fatalf("line %d of the conversation: got %q, want %q", i, got, want)
			}
		}
	}
	if tr.ends() {
		client.closed()
		return
	}
	// Nothing else reaches either side.
	client.send("end NOOP")
	upstream.expect("end NOOP")
	upstream.raw("end OK done\r\n")
	client.expect("end OK done")
}

// ends reports whether the session is over at the end of the transcript.
func (tr *transcript) ends() bool {
	return slices.ContainsFunc(tr.lines, func(l transcriptLine) bool {
		return strings.HasPrefix(l.text, "* BYE")
	})
}
