// SPDX-License-Identifier: Apache-2.0

package imapwire

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/postern-mail/postern/proxy/imapwire/wiretest"
)

// The corpus is what it says: each entry of a client is one command, each
// answer of a server is framed to its end.
func TestCorpus(t *testing.T) {
	for _, e := range wiretest.Clients() {
		var l Lexer
		rest, err := lexAll(&l, e.Octets)
		if err != nil || len(rest) > 0 && string(rest) != "DONE\r\n" {
			t.Errorf("%s: %q: %v, then %q", e.From, e.Octets, err, rest)
		}
		compareWithTokens(t, e.Octets)
	}
	for _, e := range wiretest.Servers() {
		rest := e.Octets
		for len(rest) > 0 {
			var err error
			if rest, err = frameOne(rest); err != nil {
				t.Errorf("%s: %q: %v", e.From, e.Octets, err)
				break
			}
		}
	}
}

// frameOne takes one response off b.
func frameOne(b []byte) ([]byte, error) {
	i := bytes.Index(b, []byte("\r\n")) + 2
	if i < 2 {
		return nil, fmt.Errorf("no line in %q", b)
	}
	r := ParseResponse(b[:i])
	switch r.Kind {
	case ResponseBroken:
		return nil, fmt.Errorf("broken: %q", b[:i])
	case ResponseFetch:
		events, _, used := scanFetch(string(b[r.Len:]), 1<<30)
		if events[len(events)-1] != "end" {
			return nil, fmt.Errorf("%q: %q", b, events)
		}
		return b[r.Len+used:], nil
	case ResponseData:
		for size := TrailingLiteral(b[:i]); size >= 0; {
			i += int(size)
			i += bytes.Index(b[i:], []byte("\r\n")) + 2
			size = TrailingLiteral(b[:i])
		}
	}
	return b[i:], nil
}

func sameCommand(a, b *Command) bool {
	if !bytes.Equal(a.Tag(), b.Tag()) || !bytes.Equal(a.Name(), b.Name()) || len(a.tokens) != len(b.tokens) {
		return false
	}
	for i, x := range a.tokens {
		y := b.tokens[i]
		sameKind := x.Kind == y.Kind || x.Kind == Literal && y.Kind == Quoted
		if !sameKind || x.Space != y.Space || x.Binary != y.Binary && x.Kind == Literal || !bytes.Equal(a.Value(x), b.Value(y)) {
			return false
		}
	}
	return true
}

// FuzzLexer: what lexes is written so that it lexes to the same, in exactly
// one command, whatever literals the upstream takes and whoever reads it.
func FuzzLexer(f *testing.F) {
	for _, s := range []string{
		"a NOOP\r\n", "a SELECT {5}\r\nIn\"ox\r\n", "a SEARCH TEXT {3+}\r\n\xffab BODY x\r\n",
		"a FETCH 1:*,3 (BODY.PEEK[HEADER.FIELDS (From \"To\")]<0.10> UID)\r\n", "a X ~{3}\r\na\x00b\r\n",
		"a LOGIN x {5}\r\nb NOOP\r\nc", "a X \"\\\"{3}\"\r\n", "a X {2}\r\n\r\n\r\nb NOOP\r\n",
		"a X {0+}\r\n\r\n", "a X ~{0}\r\n {0+}\r\n\r\n", "a X ({3+}\r\n{3} {1}\r\n\")\r\n", "a X \"{3+}\" {4}\r\n{3+}\r\n",
		"a X y}\r\n", "a X \\{3}\r\nabc\r\n", "a SEARCH SUBJECT \"\u2028\u0085\"\r\n",
	} {
		f.Add([]byte(s))
	}
	for _, e := range wiretest.Clients() {
		f.Add(e.Octets)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var l Lexer
		if _, err := lexAll(&l, in); err != nil {
			return
		}
		compareWithTokens(t, in)
		checkWritten(t, l.Command(), fmt.Sprintf("%q", in))
	})
}

// compareWithTokens: what lexes is what a reader without any cleverness takes
// out of the same octets.
func compareWithTokens(t *testing.T, in []byte) {
	t.Helper()
	var l Lexer
	rest, err := lexAll(&l, in)
	if err != nil {
		t.Fatalf("%q: %v", in, err)
	}
	tokens, used := wiretest.Tokens(in)
	if used != len(in)-len(rest) {
		t.Fatalf("%q: took %d octets, and naively %d", in, len(in)-len(rest), used)
	}
	want := spell(l.Command())
	tokens[2] = strings.ToUpper(tokens[2])
	if !slices.Equal(tokens, want) {
		t.Fatalf("%q: lexes to %q, and naively to %q", in, want, tokens)
	}
}

// spell writes a command as wiretest.Tokens does.
func spell(c *Command) []string {
	all := []string{"A:" + string(c.Tag()), " ", "A:" + string(c.Name())}
	for _, t := range c.tokens {
		if t.Space {
			all = append(all, " ")
		}
		switch {
		case t.Kind == Open:
			all = append(all, "(")
		case t.Kind == Close:
			all = append(all, ")")
		case t.Kind == Atom:
			all = append(all, "A:"+string(c.Value(t)))
		case t.Binary:
			all = append(all, "B:"+string(c.Value(t)))
		default:
			all = append(all, "S:"+string(c.Value(t)))
		}
	}
	return all
}

// checkWritten writes a command and reads it again in every way.
func checkWritten(t *testing.T, c *Command, from string) {
	t.Helper()
	var w Writer
	w.Head(c.Tag(), c.Name())
	w.Args(c, 0)
	out := w.Bytes()
	var again Lexer
	rest, err := lexAll(&again, out)
	if err != nil {
		t.Fatalf("%s became %q: %v", from, out, err)
	}
	if len(rest) != 0 {
		t.Fatalf("%s became more than one command: %q", from, out)
	}
	if !sameCommand(c, again.Command()) {
		t.Fatalf("%s became %q", from, out)
	}
	if tokens, used := wiretest.Tokens(out); used != len(out) || !slices.Equal(tokens, spell(c)) {
		t.Fatalf("%s became %q, which reads naively as %q", from, out, tokens)
	}
	for _, lf := range []bool{false, true} {
		if commands, whole := wiretest.Lines(out, lf); len(commands) != 1 || !whole {
			t.Fatalf("%s became %q, which a server that takes LF %v reads as %q", from, out, lf, commands)
		}
	}
	checkBreaks(t, &w, again.Command(), from)
}

// checkBreaks: before each literal there is a break, where one line has gone
// out. A server that refuses there has got that line and nothing else.
func checkBreaks(t *testing.T, w *Writer, c *Command, from string) {
	t.Helper()
	out, breaks, start := w.Bytes(), w.Breaks(), 0
	for _, token := range c.Args() {
		if token.NonSync {
			t.Fatalf("%s became %q: a literal that does not wait", from, out)
		}
		if token.Kind != Literal {
			continue
		}
		if len(breaks) == 0 || breaks[0] < start {
			t.Fatalf("%s became %q, with breaks at %v", from, out, w.Breaks())
		}
		line := out[start:breaks[0]]
		if bytes.IndexByte(line, '\n') != len(line)-1 || !wiretest.Announces.Match(bytes.TrimSuffix(line, []byte("\r\n"))) {
			t.Fatalf("%s became %q, where a break leaves %q", from, out, line)
		}
		start = breaks[0] + int(token.Size())
		breaks = breaks[1:]
	}
	if last := out[start:]; len(breaks) != 0 || bytes.IndexByte(last, '\n') != len(last)-1 {
		t.Fatalf("%s became %q, with breaks at %v", from, out, w.Breaks())
	}
}

// FuzzSerialise: lex(serialise(command)) is the command, for any that the
// grammar has, and not only for those that a text leads to.
func FuzzSerialise(f *testing.F) {
	for _, s := range []string{
		"a5INBOX", "q3a\"b", "l4x\r\n{", "b3\x00\r\n", "(a2xy)l0", "(l9\r\nb NOOP\r\n)q1\\", "l2{}l5{3+}\r\n", "a9BODY.PEEK[(a1x)]",
		"q9\u2028\u00e9\u0085", "l9\xff\xfe\xc0\x80aaaaa", "b9~{3}\r\nabc",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, recipe []byte) {
		c := commandOf(recipe)
		checkWritten(t, c, fmt.Sprintf("%q", spell(c)))
	})
}

// commandOf makes a command by a recipe: 'a', 'q', 'l' and 'b' and a digit
// take as many octets for an atom, a quoted string, a literal and a literal8.
func commandOf(recipe []byte) *Command {
	var l Lexer
	if _, err := l.Line([]byte("a1 X-TEST\r\n")); err != nil {
		panic(err)
	}
	c, depth := l.Command(), 0
	push := func(t Token, v []byte) {
		var last Kind = Atom
		if n := len(c.tokens); n > 0 {
			last = c.tokens[n-1].Kind
		}
		t.Space = t.Kind != Close && last != Open
		t.start = uint32(len(c.mem))
		c.mem = append(c.mem, v...)
		t.end, t.size = uint32(len(c.mem)), int64(len(v))
		c.tokens = append(c.tokens, t)
	}
	for len(recipe) > 0 && len(c.tokens) < 100 && len(c.mem) < 4<<10 {
		kind := recipe[0]
		recipe = recipe[1:]
		switch kind {
		case '(':
			if depth++; depth <= MaxDepth {
				push(Token{Kind: Open}, nil)
			} else {
				depth--
			}
			continue
		case ')':
			if depth > 0 {
				depth--
				push(Token{Kind: Close}, nil)
			}
			continue
		}
		n := 1
		if len(recipe) > 0 && recipe[0] >= '0' && recipe[0] <= '9' {
			n, recipe = int(recipe[0]-'0'), recipe[1:]
		}
		v := recipe[:min(n, len(recipe))]
		recipe = recipe[len(v):]
		switch kind {
		case 'q':
			if v = slices.DeleteFunc(bytes.Clone(v), func(b byte) bool { return b < ' ' || b == 0x7f }); utf8.Valid(v) {
				push(Token{Kind: Quoted}, v)
			}
		case 'l':
			push(Token{Kind: Literal, NonSync: n%2 == 1}, bytes.ReplaceAll(v, []byte{0}, nil))
		case 'b':
			push(Token{Kind: Literal, Binary: true}, v)
		default:
			if v = slices.DeleteFunc(bytes.Clone(v), func(b byte) bool { return b <= ' ' || b > '~' || strings.IndexByte(`(){"`, b) >= 0 }); len(v) > 0 {
				push(Token{Kind: Atom}, v)
			}
		}
	}
	for ; depth > 0; depth-- {
		push(Token{Kind: Close}, nil)
	}
	for i := range c.tokens { // a literal's kind keeps no '+', nor does lexing give it back
		c.tokens[i].NonSync = false
	}
	return c
}

// FuzzFetchScanner: what a scanner finds does not depend on how the octets
// arrive, it neither stops nor runs on, and it finds what the grammar has
// there: above all no body that passes for something else.
func FuzzFetchScanner(f *testing.F) {
	f.Add(" (UID 7 BODY[] {3}\r\na)\r FLAGS ())\r\n")
	f.Add(" (BODY[HEADER.FIELDS ({3}\r\na]b)] {2}\r\nab)\r\n")
	f.Add(" (ENVELOPE (\"d\" {4}\r\nU)D( ((\"UID 5\" NIL)))  UID 4)\r\n")
	f.Add(" (X (\"{3}\") BODY[1] \"a\\\\\\\"b\" UID 4294967296)\r\n")
	for _, e := range wiretest.Servers() {
		for _, line := range bytes.SplitAfter(e.Octets, []byte("* ")) {
			if _, rest, ok := bytes.Cut(line, []byte("FETCH")); ok {
				f.Add(string(rest))
			}
		}
	}
	f.Fuzz(func(t *testing.T, in string) {
		want, uid, used := scanFetch(in, 1<<30)
		for _, step := range []int{1, 3} {
			got, u, n := scanFetch(in, step)
			if strings.Join(got, ",") != strings.Join(want, ",") || u != uid || n != used {
				t.Fatalf("%q by %d: %q %d %d, whole: %q %d %d", in, step, got, u, n, want, uid, used)
			}
		}
		if last := want[len(want)-1]; last == "end" {
			// Who goes by the ends of lines alone sees the same response.
			responses, _ := wiretest.Lines([]byte(in), false)
			if len(responses) == 0 || len(responses[0]) != used {
				t.Fatalf("%q: ends at %d, by its lines as %q", in, used, responses)
			}
		}
		if items, n := wiretest.Fetch([]byte(in)); n > 0 {
			compareFetch(t, in, items, want, uid, used == n)
		}
	})
}

// compareFetch holds a scanner's events against the items of a response that
// follows the grammar.
func compareFetch(t *testing.T, in string, items []wiretest.Item, events []string, uid uint32, sameEnd bool) {
	t.Helper()
	var wantUID uint32
	var strs []string
	for _, item := range items {
		if strings.EqualFold(item.Name, "UID") && !item.Str {
			var n uint64
			if _, err := fmt.Sscanf(item.Value, "%d", &n); err != nil || n > 0xffffffff || fmt.Sprint(n) != item.Value {
				return // no UID that anybody could rely on
			}
			wantUID = uint32(n)
		}
		holdsString := item.Str || strings.EqualFold(item.Value, "NIL")
		if hasBody(item.Name) && !holdsString {
			return // the scanner takes no body that is no string
		}
		if len(item.Name) > maxSection || item.Size > MaxQuotedBody {
			return
		}
		if item.Str && hasBody(item.Name) {
			strs = append(strs, fmt.Sprintf("%s %d", item.Name, item.Size))
		}
	}
	if events[len(events)-1] == "broken" && strings.Contains(in, "~") {
		return // "~" before what is no literal
	}
	if events[len(events)-1] != "end" || !sameEnd || uid != wantUID {
		t.Fatalf("%q: events %q, UID %d, want %d, and %v", in, events, uid, wantUID, items)
	}
	var got []string
	for _, e := range events {
		kind, rest, _ := strings.Cut(e, " ")
		if kind == "literal" {
			rest = rest[:strings.LastIndexByte(rest, ' ')] // the content
		}
		if name, _, _ := strings.Cut(rest, " "); hasBody(name) {
			got = append(got, rest)
		}
	}
	if !slices.Equal(got, strs) {
		t.Fatalf("%q: bodies %q, want %q", in, got, strs)
	}
}

// hasBody reports whether an item is one that always holds parts of a message:
// whatever else may come to begin with RFC822 is taken for one.
func hasBody(name string) bool {
	name = strings.ToUpper(name)
	return strings.HasPrefix(name, "BODY[") || strings.HasPrefix(name, "BINARY[") ||
		strings.HasPrefix(name, "RFC822") && name != "RFC822.SIZE"
}

// FuzzParseResponse: a head is what its words say, and a code is nothing that
// a looser reader could take for another.
func FuzzParseResponse(f *testing.F) {
	for _, s := range []string{
		"* 12 FETCH (FLAGS ())\r\n", "a OK [X \"]\"] y\r\n", "* 4294967296 EXISTS\r\n", "*  0  recent\r\n", "+\r\n", "* OK [REFERRAL imap://x/] {3}\r\n",
		"* OK [X \"a\\\"]\"] [CAPABILITY X]\r\n", "* OK  [CAPABILITY X] y\r\n", "* LIST () NIL {20+}\r\n",
	} {
		f.Add([]byte(s))
	}
	for _, e := range wiretest.Servers() {
		f.Add(e.Octets)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		line, _, found := bytes.Cut(in, []byte("\r\n"))
		if !found || bytes.ContainsAny(line, "\r\n") {
			return // the relay hands over whole lines
		}
		line = append(bytes.Clone(line), "\r\n"...)
		r := ParseResponse(line)
		if r.Len > len(line) {
			t.Fatalf("%q: %d octets", line, r.Len)
		}
		checkHead(t, line, r)
		size := TrailingLiteral(line)
		if endOfNumber.Match(line) { // the end of a line that is not held whole
			if size <= MaxLiteral {
				t.Fatalf("%q: a literal of %d", line, size)
			}
		} else if (size >= 0) != wiretest.Announces.Match(line[:len(line)-2]) {
			t.Fatalf("%q: a literal of %d", line, size)
		}
		if r.Kind == ResponseStatus || r.Kind == ResponseTagged {
			checkCode(t, line[r.Len:len(line)-2])
		}
	})
}

var endOfNumber = regexp.MustCompile(`^([0-9]{2,}|[0-9]+\+)\}\r\n$`)

// checkHead compares with a reading by words.
func checkHead(t *testing.T, line []byte, r Response) {
	t.Helper()
	head := strings.TrimSuffix(string(line), "\r\n")
	if strings.HasPrefix(head, "+") {
		if r.Kind != ResponseContinue {
			t.Fatalf("%q: %+v", line, r)
		}
		return
	}
	if i := strings.IndexByte(head, '('); i >= 0 {
		head = head[:i]
	}
	if r.Kind == ResponseBroken || strings.ContainsFunc(head, func(c rune) bool { return c < ' ' }) {
		return
	}
	words := strings.Split(head, " ")
	words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
	if len(words) < 2 {
		t.Fatalf("%q: %+v", line, r)
	}
	keyword, kind := words[1], ResponseData
	switch status := slices.Contains([]string{"OK", "NO", "BAD"}, strings.ToUpper(keyword)); {
	case words[0] != "*":
		kind = ResponseTagged
		if !status || string(r.Tag) != words[0] {
			t.Fatalf("%q: %+v", line, r)
		}
	case status, strings.EqualFold(keyword, "BYE"), strings.EqualFold(keyword, "PREAUTH"):
		kind = ResponseStatus
	case r.Number > 0 || string(r.Keyword) != keyword:
		if len(words) < 3 || fmt.Sprint(r.Number) != strings.TrimLeft(keyword[:len(keyword)-1], "0")+keyword[len(keyword)-1:] {
			t.Fatalf("%q: %+v", line, r)
		}
		if keyword = words[2]; strings.EqualFold(keyword, "FETCH") {
			kind = ResponseFetch
		}
	}
	if r.Kind != kind || string(r.Keyword) != keyword {
		t.Fatalf("%q: kind %d, keyword %q, want %d, %q", line, r.Kind, r.Keyword, kind, keyword)
	}
}

// checkCode: what Code calls the text does not begin with a bracket unless a
// code stood before it, and nothing is in it that was not in the line.
func checkCode(t *testing.T, text []byte) {
	t.Helper()
	name, args, rest := Code(text)
	if len(name) == 0 && args == nil && bytes.HasPrefix(bytes.TrimLeft(rest, " "), []byte("[")) {
		t.Fatalf("%q: without a code, the text is %q", text, rest)
	}
	if bytes.ContainsAny(name, " ") {
		t.Fatalf("%q: the code is %q", text, name)
	}
	whole := append(append(bytes.Clone(name), args...), rest...)
	if at := 0; len(whole) > 0 {
		for _, c := range whole { // in the order of the text
			n := bytes.IndexByte(text[at:], c)
			if n < 0 {
				t.Fatalf("%q: %q, %q and %q", text, name, args, rest)
			}
			at += n + 1
		}
	}
}

// FuzzParseMailbox: a name that is well-formed in modified UTF-7 is what
// encodes to it again; whoever decodes more loosely meets no other name.
func FuzzParseMailbox(f *testing.F) {
	for _, s := range []string{
		"INBOX", "Entw&APw-rfe", "A&-B", "bad&x", "&AGE-", "&2D3eAA-", "Ü&-", "\xff", "&AOkA6Q-", "&AOk-&AOk-", "&-&-", "&AOl-", "&2D0-", "Tr&AGE-sh", "&BCMENAQwBDsENQQ9BD0ESwQ1-",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, name []byte) {
		got, ok := ParseMailbox(name)
		if !utf8.ValidString(got) {
			t.Fatalf("%q became %q", name, got)
		}
		ascii := !bytes.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' })
		if ok && ascii {
			if again := wiretest.EncodeMailbox(got); again != string(name) {
				t.Fatalf("%q became %q, which is %q", name, got, again)
			}
		}
		if s := string(name); utf8.ValidString(s) && !strings.ContainsRune(s, utf8.RuneError) {
			if decoded, ok := ParseMailbox([]byte(wiretest.EncodeMailbox(s))); !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }) && (!ok || decoded != s) {
				t.Fatalf("%q is %q in modified UTF-7, which becomes %q, %v", s, wiretest.EncodeMailbox(s), decoded, ok)
			}
		}
	})
}
