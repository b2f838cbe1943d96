// SPDX-License-Identifier: Apache-2.0

package imapwire

// FetchEvent is what a FetchScanner found.
type FetchEvent uint8

// The events.
const (
	// FetchMore: everything given was consumed; the response goes on.
	FetchMore FetchEvent = iota
	// FetchLiteral: a literal of Size octets comes next; when Content is not
	// ContentNone it is the value of the item Section.
	FetchLiteral
	// FetchString: the item Section had a quoted value of Size octets.
	FetchString
	// FetchEnd: the response's CRLF was consumed.
	FetchEnd
	// FetchBroken: these octets follow no grammar of a FETCH response.
	FetchBroken
)

// Content is what a FETCH item's value holds.
type Content uint8

// The kinds of content.
const (
	ContentNone   Content = iota // flags, sizes, structure, envelope, …
	ContentHeader                // header fields of the message itself, MIME headers
	ContentBody                  // body octets
)

// FetchScanner finds the framing of one FETCH response, and its UID, section
// names and literal sizes, without holding its values (RFC 9051 §7.5.2). It
// tolerates odd spacing and case, and allocates nothing.
type FetchScanner struct {
	// UID is the response's, once seen; else 0.
	UID uint32
	// Flags says that the response holds FLAGS.
	Flags bool
	// Size is the octets of the literal or string of the last event.
	Size int64
	// Content is what they hold.
	Content Content

	state   fetchState
	depth   int // of lists inside a value
	bracket bool
	escape  bool
	quote   bool // within brackets or a list
	number  uint64
	digits  int
	plus    bool // seen in {n+}
	// name has room for what names were so far, at most maxSection octets.
	name []byte
}

const (
	maxSection = 512
	// MaxQuotedBody is the longest quoted string that may hold header fields
	// or body octets: these are counted at its end. Servers quote what is short.
	MaxQuotedBody = 64 << 10
)

type fetchState uint8

const (
	fetchOpen  fetchState = iota // before the outer parenthesis
	fetchName                    // in an item's name
	fetchValue                   // before an item's value
	fetchAtom
	fetchQuoted
	fetchList
	fetchAnnounce // in {n}
	fetchCR       // after {n}
	fetchLF
	fetchAfter // after a value
	fetchEndCR // after the outer parenthesis
	fetchEndLF
)

// Reset makes the scanner ready for a response; what it is given next follows
// "FETCH".
func (s *FetchScanner) Reset() {
	s.UID, s.Size, s.Content, s.Flags = 0, 0, ContentNone, false
	s.state, s.depth, s.name = fetchOpen, 0, s.name[:0]
	s.bracket, s.quote, s.escape = false, false, false
}

// Section returns the current item's name as the server wrote it, cut to 512
// octets; it is valid until the next Scan.
func (s *FetchScanner) Section() []byte { return s.name }

// Scan consumes octets up to the next event and returns how many. After
// FetchLiteral the caller skips Size octets before it scans on.
func (s *FetchScanner) Scan(b []byte) (int, FetchEvent) {
	for i, c := range b {
		switch s.state {
		case fetchOpen:
			switch c {
			case ' ':
			case '(':
				s.state, s.name = fetchName, s.name[:0]
			default:
				return i, FetchBroken
			}
		case fetchName:
			if ev := s.inName(c); ev != FetchMore {
				return i, ev
			}
		case fetchValue:
			if !s.beginValue(c) {
				return i, FetchBroken
			}
		case fetchAtom:
			switch {
			case c == ' ' || c == ')':
				s.endAtom()
				s.after(c)
			case c == '\r' || c == '\n' || !s.inAtom(c):
				return i, FetchBroken
			}
		case fetchQuoted:
			switch {
			case c == '\r' || c == '\n':
				return i, FetchBroken
			case s.escape:
				s.escape = false
				s.Size++
			case c == '\\':
				s.escape = true
			case c == '"':
				s.state = fetchAfter
				if s.Content != ContentNone {
					return i + 1, FetchString
				}
			default:
				s.Size++
			}
			if s.Size > MaxQuotedBody && s.Content != ContentNone {
				return i, FetchBroken
			}
		case fetchList:
			if !s.inList(c) {
				return i, FetchBroken
			}
		case fetchAnnounce:
			switch {
			case c >= '0' && c <= '9' && s.Size < MaxLiteral/16 && !s.plus:
				s.Size = s.Size*10 + int64(c-'0')
				s.digits++
			case c == '+' && s.digits > 0 && !s.plus:
				s.plus = true
			case c == '}' && s.digits > 0:
				s.state = fetchCR
			default:
				return i, FetchBroken
			}
		case fetchCR:
			if c != '\r' {
				return i, FetchBroken
			}
			s.state = fetchLF
		case fetchLF:
			if c != '\n' {
				return i, FetchBroken
			}
			s.afterAnnounce()
			return i + 1, FetchLiteral
		case fetchAfter:
			switch c {
			case ' ':
				s.state, s.name = fetchName, s.name[:0]
			case ')':
				s.state = fetchEndCR
			default:
				return i, FetchBroken
			}
		case fetchEndCR:
			if c == '\r' {
				s.state = fetchEndLF
			} else if c != ' ' {
				return i, FetchBroken
			}
		case fetchEndLF:
			if c != '\n' {
				return i, FetchBroken
			}
			return i + 1, FetchEnd
		}
	}
	return len(b), FetchMore
}

func (s *FetchScanner) inName(c byte) FetchEvent {
	switch {
	case s.quote:
		if s.escape {
			s.escape = false
		} else if c == '\\' {
			s.escape = true
		} else if c == '"' {
			s.quote = false
		}
	case s.bracket && c == '"':
		s.quote = true
	case s.bracket && c == '{':
		s.announce()
		return FetchMore
	case c == '[':
		s.bracket = true
	case c == ']':
		s.bracket = false
	case s.bracket:
	case c == ' ':
		if len(s.name) > 0 {
			s.state = fetchValue
		}
		return FetchMore
	case c == ')' && len(s.name) == 0: // an empty list, or a space before its end
		s.state = fetchEndCR
		return FetchMore
	case c == '(' || c == ')' || c == '"':
		return FetchBroken
	}
	if c == '\r' || c == '\n' {
		return FetchBroken
	}
	if len(s.name) < maxSection {
		s.name = append(s.name, c)
	}
	return FetchMore
}

// announce is called at the '{' of a literal.
func (s *FetchScanner) announce() {
	s.state, s.Size, s.digits, s.plus = fetchAnnounce, 0, 0, false
}

// beginValue is called for the first octet of a value. What holds header
// fields or body octets is a string or NIL.
func (s *FetchScanner) beginValue(c byte) bool {
	s.Size, s.number, s.digits = 0, 0, 0
	s.Content = classify(s.Section())
	switch {
	case c == ' ' || c == '~':
	case c == '"':
		s.state = fetchQuoted
	case c == '(':
		s.state, s.depth = fetchList, 1
		s.Flags = s.Flags || equalFold(s.Section(), "FLAGS")
		return !s.needsString()
	case c == '{':
		s.announce()
	case c == ')' || c < 0x20:
		return false
	default:
		s.state = fetchAtom
		return s.inAtom(c)
	}
	return true
}

// inAtom takes one octet of a value without quotes: a number, as a rule.
func (s *FetchScanner) inAtom(c byte) bool {
	if s.needsString() && (s.digits == 3 || c|0x20 != "nil"[s.digits]) {
		return false
	}
	s.digits++
	if c >= '0' && c <= '9' && s.number < 1<<40 {
		s.number = s.number*10 + uint64(c-'0')
	}
	return true
}

// needsString reports whether the item's value can only be a string or NIL.
func (s *FetchScanner) needsString() bool {
	return s.Content != ContentNone && knownItem(s.Section())
}

func (s *FetchScanner) inList(c byte) bool {
	switch {
	case s.quote:
		switch {
		case c == '\r' || c == '\n':
			return false
		case s.escape:
			s.escape = false
		case c == '\\':
			s.escape = true
		case c == '"':
			s.quote = false
		}
	case c == '"':
		s.quote = true
	case c == '(':
		s.depth++
	case c == ')':
		if s.depth--; s.depth == 0 {
			s.state = fetchAfter
		}
	case c == '{':
		s.announce()
	case c == '\r' || c == '\n':
		return false
	}
	return true
}

// afterAnnounce decides where the scanner stands once the literal is over.
func (s *FetchScanner) afterAnnounce() {
	switch {
	case s.bracket:
		s.state, s.Content = fetchName, ContentNone
	case s.depth > 0:
		s.state, s.Content = fetchList, ContentNone
	default:
		s.state = fetchAfter
	}
}

func (s *FetchScanner) endAtom() {
	if equalFold(s.Section(), "UID") && s.number <= 0xffffffff {
		s.UID = uint32(s.number)
	}
}

func (s *FetchScanner) after(c byte) {
	if c == ')' {
		s.state = fetchEndCR
	} else {
		s.state, s.name = fetchName, s.name[:0]
	}
}

// noContent are the items whose values hold neither header fields nor body
// octets, or no more of them than an excerpt.
var noContent = []string{
	"UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY", "BODYSTRUCTURE", "MODSEQ",
	"EMAILID", "THREADID", "SAVEDATE", "PREVIEW", "SNIPPET", "X-GM-MSGID", "X-GM-THRID", "X-GM-LABELS",
}

// classify tells what an item's value holds from its name. What has a name
// that is not known is taken for body octets: an upstream may push anything.
func classify(name []byte) Content {
	switch {
	case hasPrefixFold(name, "BODY["):
		return ClassifySection(name[len("BODY["):])
	case equalFold(name, "RFC822.HEADER"):
		return ContentHeader
	case hasPrefixFold(name, "BINARY.SIZE["):
		return ContentNone
	}
	for _, item := range noContent {
		if equalFold(name, item) {
			return ContentNone
		}
	}
	return ContentBody
}

// knownItem reports whether a name with content is one that has a meaning.
func knownItem(name []byte) bool {
	return hasPrefixFold(name, "BODY[") || hasPrefixFold(name, "BINARY[") || hasPrefixFold(name, "RFC822")
}

// ClassifySection tells what a section holds, given what follows "BODY[": the
// message's own header and MIME headers are headers; all else is body, the
// header of an enclosed message too, since that is part of a body.
func ClassifySection(s []byte) Content {
	if hasPrefixFold(s, "HEADER") {
		return ContentHeader
	}
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.') {
		i++
	}
	if i > 0 && hasPrefixFold(s[i:], "MIME]") {
		return ContentHeader
	}
	return ContentBody
}

func equalFold(b []byte, upper string) bool {
	return len(b) == len(upper) && hasPrefixFold(b, upper)
}

func hasPrefixFold(b []byte, upper string) bool {
	if len(b) < len(upper) {
		return false
	}
	for i := range len(upper) {
		c := b[i]
		if c >= 'a' && c <= 'z' {
			c -= 32
		}
		if c != upper[i] {
			return false
		}
	}
	return true
}
