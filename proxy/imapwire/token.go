// SPDX-License-Identifier: Apache-2.0

package imapwire

// Limits of the lexer. A client that exceeds one gets BAD, or is cut off where
// it would otherwise be unclear what its next octets are.
const (
	// MaxLine is the longest line, CRLF included, in octets: what Dovecot and
	// Cyrus take, and well above the 8,192 that RFC 7162 §4 recommends.
	MaxLine = 64 << 10
	// MaxTag is the longest tag in octets.
	MaxTag = 64
	// MaxTokens is the most tokens in a command.
	MaxTokens = 4096
	// MaxDepth is the deepest nesting of parentheses.
	MaxDepth = 32
	// MaxBuffered is the most octets of buffered literals in a command.
	MaxBuffered = 64 << 10
	// MaxLiteral is the largest literal that can be announced: RFC 9051 §4.3
	// has number64; 2^53 is beyond any mailbox.
	MaxLiteral = 1 << 53
	// keepArena is how much memory a lexer keeps between commands.
	keepArena = 4 << 10
)

// Kind is a token's kind.
type Kind uint8

// The kinds.
const (
	// Atom is a run of printable ASCII without SP, parentheses, '{' and '"':
	// wider than RFC 9051's atom, so that it holds sets, flags, list patterns,
	// BODY[ and ]<0>. The command table narrows it.
	Atom Kind = iota
	// Quoted is a quoted string; its value is decoded.
	Quoted
	// Literal is a literal whose octets are buffered in the command.
	Literal
	// Stream is a literal whose octets are not held here: they pass by.
	Stream
	// Open and Close are parentheses.
	Open
	Close
)

// Token is one token of a command. Its value lies in the command's memory:
// use Command.Value.
type Token struct {
	Kind Kind
	// Space says that a SP stands before it.
	Space bool
	// NonSync says that the literal was announced with '+' (RFC 7888).
	NonSync bool
	// Binary says that it is a literal8 (RFC 3516 §4.4).
	Binary bool
	// Special says that an Atom holds '%', '*' or '\\', which no astring may.
	Special bool
	start   uint32
	end     uint32
	size    int64
}

// Size returns the octets that a literal announced.
func (t Token) Size() int64 { return t.size }

// Command is one client command: a tag, a name, and arguments. It is valid
// until its Lexer is reset.
type Command struct {
	mem    []byte
	tag    Token
	name   Token
	tokens []Token
}

// Tag returns the tag as the client wrote it.
func (c *Command) Tag() []byte { return c.mem[c.tag.start:c.tag.end] }

// Name returns the command's name in upper case.
func (c *Command) Name() []byte { return c.mem[c.name.start:c.name.end] }

// Args returns the arguments, which the caller may read but not change.
func (c *Command) Args() []Token { return c.tokens }

// Value returns the decoded octets of an Atom, Quoted or Literal.
func (c *Command) Value(t Token) []byte { return c.mem[t.start:t.end] }

// NewAtom stores v in the command's memory and returns it as a token. It
// serves rewriting; v must consist of atom characters that are not Special.
func (c *Command) NewAtom(v string, space bool) Token {
	start := len(c.mem)
	c.mem = append(c.mem, v...)
	return Token{Kind: Atom, Space: space, start: uint32(start), end: uint32(len(c.mem))}
}

// NewQuoted stores v in the command's memory and returns it as a quoted string.
// It serves rewriting; v must be printable.
func (c *Command) NewQuoted(v string, space bool) Token {
	t := c.NewAtom(v, space)
	t.Kind = Quoted
	return t
}

// SetArg replaces the argument at index i.
func (c *Command) SetArg(i int, t Token) { c.tokens[i] = t }

// SetArgs replaces the arguments by a copy of tokens: the caller's memory must
// not become the one that the next command is lexed into.
func (c *Command) SetArgs(tokens []Token) { c.tokens = append(c.tokens[:0], tokens...) }

// SetName replaces the name, which must be upper case.
func (c *Command) SetName(name string) { c.name = c.NewAtom(name, false) }

// IsString reports whether the token is an astring's form: an atom that could
// stand for one, a quoted string, or a buffered literal.
func (t Token) IsString() bool { return t.Kind == Atom || t.Kind == Quoted || t.Kind == Literal }

var classes = makeClasses()

const (
	classAtom    = 1 << iota // may stand in an Atom token
	classTag                 // may stand in a tag: ASTRING-CHAR except '+'
	classQuoted              // may stand in a quoted string unescaped
	classSpecial             // '%', '*' and '\\'
)

func makeClasses() (t [256]uint8) {
	for c := 0x21; c < 0x7f; c++ {
		switch c {
		case '(', ')', '{', '"':
		case '%', '*', '\\':
			t[c] |= classAtom | classSpecial
		case '+':
			t[c] |= classAtom
		default:
			t[c] |= classAtom | classTag
		}
	}
	for c := 0x20; c < 0x100; c++ {
		if c != '"' && c != '\\' && c != 0x7f {
			t[c] |= classQuoted
		}
	}
	return t
}
