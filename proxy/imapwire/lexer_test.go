// SPDX-License-Identifier: Apache-2.0

package imapwire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// lexAll lexes one command from whole input, buffering every literal.
func lexAll(l *Lexer, input []byte) (rest []byte, err error) {
	l.Reset()
	for {
		i := bytes.IndexByte(input, '\n')
		if i < 0 {
			return nil, errors.New("no line")
		}
		done, err := l.Line(input[:i+1])
		input = input[i+1:]
		if err != nil || done {
			return input, err
		}
		size := l.Pending().Size()
		if size > int64(len(input)) {
			return nil, errors.New("literal is cut")
		}
		b, err := l.BufferLiteral()
		if err != nil {
			return nil, err
		}
		copy(b, input)
		if err := l.CheckLiteral(); err != nil {
			return nil, err
		}
		input = input[size:]
	}
}

// serialise writes a command as it goes upstream.
func serialise(c *Command) []byte {
	var w Writer
	w.Head(c.Tag(), c.Name())
	w.Args(c, 0)
	return w.Bytes()
}

func TestLexerRoundTrip(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"a noop\r\n", "a NOOP\r\n"},
		{"A.1 select inbox\r\n", "A.1 SELECT inbox\r\n"},
		{"a SELECT [Gmail]/Sent\r\n", "a SELECT [Gmail]/Sent\r\n"},
		{"a SELECT \"a \\\"b\\\\ c\"\r\n", "a SELECT \"a \\\"b\\\\ c\"\r\n"},
		{"a SELECT {5}\r\nIn\"ox\r\n", "a SELECT \"In\\\"ox\"\r\n"},
		{"a SEARCH TEXT {3+}\r\n\xffab BODY x\r\n", "a SEARCH TEXT {3}\r\n\xffab BODY x\r\n"},
		{"a FETCH 1:*,3 (BODY.PEEK[HEADER.FIELDS (From \"To\")]<0.10> UID)\r\n", "a FETCH 1:*,3 (BODY.PEEK[HEADER.FIELDS (From \"To\")]<0.10> UID)\r\n"},
		{"a STORE 1 +FLAGS.SILENT (\\Seen $x)\r\n", "a STORE 1 +FLAGS.SILENT (\\Seen $x)\r\n"},
		{"a STORE 1 FLAGS ()\r\n", "a STORE 1 FLAGS ()\r\n"},
		{"a ID (\"k\" NIL)\r\n", "a ID (\"k\" NIL)\r\n"},
		{"a LIST \"\" {0}\r\n\r\n", "a LIST \"\" \"\"\r\n"},
		{"a SELECT \"Entwürfe\"\r\n", "a SELECT \"Entwürfe\"\r\n"},
		{"a X ~{3}\r\na\x00b\r\n", "a X ~{3}\r\na\x00b\r\n"},
	} {
		var l Lexer
		if _, err := lexAll(&l, []byte(tc.in)); err != nil {
			t.Errorf("%q: %v", tc.in, err)
			continue
		}
		if got := string(serialise(l.Command())); got != tc.want {
			t.Errorf("%q became %q, want %q", tc.in, got, tc.want)
		}
	}
}

func TestLexerRefuses(t *testing.T) {
	for _, tc := range []struct {
		in    string
		fatal bool
	}{
		{"a NOOP\n", true},
		{"a NO\rOP\r\n", true},
		{"a NO\x00OP\r\n", true},
		{"a LOGIN x {9999999999999999999999}\r\n", true},
		{"a LOGIN x {-1}\r\n", true},
		{"a LOGIN x {5}y\r\n", true},
		{"a LOGIN \"x {5}\r\n", true}, // an upstream might see a literal
		{"a LOGIN x {5} \r\n", true},
		{"NOOP\r\n", false},
		{"\r\n", false},
		{"a+b NOOP\r\n", false},
		{"* NOOP\r\n", false},
		{"a  NOOP\r\n", false},
		{"a NOOP \r\n", false},
		{"a SELECT  x\r\n", false},
		{"a SELECT \"x\r\n", false},
		{"a SELECT \"x\\y\"\r\n", false},
		{"a SELECT \"x\x01\"\r\n", false},
		{"a SELECT \"\xff\"\r\n", false},
		{"a SELECT \xc3\xbc\r\n", false},
		{"a SELECT x\ty\r\n", false},
		{"a SELECT \"x\"y\r\n", false},
		{"a SELECT x\"y\"\r\n", false},
		{"a SORT (ARRIVAL)]UTF-8 ALL\r\n", false},
		{"a FETCH 1 (BODY[1] BODY[HEADER.FIELDS (A)] FLAGS (B)]x)\r\n", false},
		{"a STORE 1 FLAGS (\\Seen\r\n", false},
		{"a STORE 1 FLAGS \\Seen)\r\n", false},
		{"a STORE 1 FLAGS ( \\Seen)\r\n", false},
		{"a STORE 1 FLAGS (\\Seen )\r\n", false},
		{"a X " + strings.Repeat("(", MaxDepth+1) + "\r\n", false},
		{"a X" + strings.Repeat(" x", MaxTokens+1) + "\r\n", false},
		{strings.Repeat("a", MaxTag+1) + " NOOP\r\n", false},
	} {
		var l Lexer
		_, err := l.Line([]byte(tc.in))
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%.60q: error %v", tc.in, err)
		} else if syntax.Fatal != tc.fatal {
			t.Errorf("%.60q: fatal is %v (%s)", tc.in, syntax.Fatal, syntax.Text)
		}
	}
}

func TestLexerLimitsBufferedLiterals(t *testing.T) {
	var l Lexer
	if done, err := l.Line([]byte("a SEARCH TEXT {65537}\r\n")); done || err != nil {
		t.Fatal(done, err)
	}
	if _, err := l.BufferLiteral(); err == nil {
		t.Fatal("65,537 octets were taken")
	}
}

func TestLexerDoesNotAllocate(t *testing.T) {
	var l Lexer
	var w Writer
	line := []byte("a1 UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (From To)])\r\n")
	if n := testing.AllocsPerRun(100, func() {
		l.Reset()
		w.Reset()
		if _, err := l.Line(line); err != nil {
			t.Fatal(err)
		}
		w.Head(l.Command().Tag(), l.Command().Name())
		w.Args(l.Command(), 0)
	}); n != 0 {
		t.Fatalf("%v allocations a line", n)
	}
}

func BenchmarkLexAndSerialise(b *testing.B) {
	var l Lexer
	var w Writer
	line := []byte("a1 UID FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (From To)])\r\n")
	b.ReportAllocs()
	for b.Loop() {
		l.Reset()
		w.Reset()
		_, _ = l.Line(line)
		w.Head(l.Command().Tag(), l.Command().Name())
		w.Args(l.Command(), 0)
	}
}
