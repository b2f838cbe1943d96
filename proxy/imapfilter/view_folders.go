// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"strings"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// listed is a folder that the upstream lists.
type listed struct {
	// raw is the name as the upstream writes it, which commands bear upstream;
	// name is it decoded, with INBOX in upper case.
	raw, name string
	delimiter byte // 0: NIL
	flags     []string
	// visible says that it may be seen, exists that LIST told it, and
	// subscribed that LSUB did.
	visible, exists, subscribed bool
	// made says that it only stands above a visible one.
	made bool
}

func (f *listed) has(flag string) bool {
	for _, x := range f.flags {
		if strings.EqualFold(x, flag) {
			return true
		}
	}
	return false
}

// selectable reports whether the folder can hold messages.
func (f *listed) selectable() bool {
	return f.exists && !f.made && !f.has(`\Noselect`) && !f.has(`\NonExistent`)
}

// folderList is what the upstream lists, in its order.
type folderList struct {
	all    []*listed
	byName map[string]*listed
	// delimiter is INBOX's; delimiters are all that occur.
	delimiter  byte
	delimiters []byte
}

// virtual are the special uses of folders whose messages lie in others (RFC
// 6154 §2, and XLIST's names for them).
var virtual = []string{`\All`, `\Flagged`, `\Important`, `\AllMail`, `\Starred`}

// add notes one LIST, XLIST or LSUB response. What follows no grammar, or has a
// name that cannot be told for certain, is hidden.
func (l *folderList) add(v *view, line []byte) {
	f, keyword, ok := parseListed(line)
	if !ok {
		return
	}
	subscribed := keyword == "LSUB"
	if known := l.byName[f.name]; known != nil {
		if subscribed && known.raw == f.raw && !f.has(`\Noselect`) {
			known.subscribed = true
		}
		if known.raw == f.raw || subscribed {
			return
		}
		known.visible = false // two folders for one name
		return
	}
	if subscribed && f.has(`\Noselect`) {
		return // it only stands above a subscribed one (RFC 3501 §6.3.9)
	}
	f.exists, f.subscribed = !subscribed, subscribed
	f.visible = v.decision.Visible(f.name, f.delimiter)
	for _, flag := range virtual {
		f.visible = f.visible && !f.has(flag)
	}
	if l.byName == nil {
		l.byName = make(map[string]*listed)
	}
	l.all = append(l.all, f)
	l.byName[f.name] = f
	if f.name == "INBOX" || l.delimiter == 0 {
		l.delimiter = f.delimiter
	}
	if bytes.IndexByte(l.delimiters, f.delimiter) < 0 {
		l.delimiters = append(l.delimiters, f.delimiter)
	}
}

// parseListed reads a whole LIST, XLIST or LSUB response.
func parseListed(line []byte) (f *listed, keyword string, ok bool) {
	resp := imapwire.ParseResponse(line)
	keyword = strings.ToUpper(string(resp.Keyword))
	rest, ok := bytes.CutPrefix(line[resp.Len:], []byte(" ("))
	if !ok {
		return nil, "", false
	}
	flags, rest, ok := bytes.Cut(rest, []byte(") "))
	if !ok {
		return nil, "", false
	}
	f = &listed{flags: strings.Fields(string(flags))}
	switch {
	case len(rest) > 4 && bytes.EqualFold(rest[:4], []byte("NIL ")):
		rest = rest[4:]
	case len(rest) > 4 && string(rest[:2]) == `"\` && string(rest[3:5]) == `" `:
		f.delimiter, rest = rest[2], rest[5:]
	case len(rest) > 4 && rest[0] == '"' && string(rest[2:4]) == `" `:
		f.delimiter, rest = rest[1], rest[4:]
	default:
		return nil, "", false
	}
	name, rest, ok := listedName(rest)
	if !ok || (rest[0] != '\r' && rest[0] != ' ') {
		return nil, "", false
	}
	f.raw = string(name)
	f.name, ok = folderName(name, f.delimiter)
	return f, keyword, ok && validDelimiter(f.delimiter)
}

// listedName takes a name at the head of b: an atom, a quoted string or a
// literal.
func listedName(b []byte) (name, rest []byte, ok bool) {
	if len(b) > 0 && b[0] == '"' {
		for i := 1; i < len(b)-1; i++ {
			switch b[i] {
			case '\\':
				i++
				name = append(name, b[i])
			case '"':
				return name, b[i+1:], true
			default:
				name = append(name, b[i])
			}
		}
		return nil, nil, false
	}
	if nl := bytes.IndexByte(b, '\n'); len(b) > 0 && b[0] == '{' && nl > 0 {
		size := imapwire.TrailingLiteral(b[:nl+1])
		if rest = b[nl+1:]; size < 0 || size >= int64(len(rest)) {
			return nil, nil, false
		}
		return rest[:size], rest[size:], true
	}
	i := bytes.IndexAny(b, " \r")
	if i <= 0 {
		return nil, nil, false
	}
	return b[:i], b[i:], true
}

// folderName decodes a name, as the upstream or the client writes it. Only one
// in well-formed modified UTF-7 is certain: servers differ in what they take
// other octets for.
func folderName(raw []byte, delimiter byte) (string, bool) {
	if len(raw) == 0 || len(raw) > 1024 {
		return "", false
	}
	for _, c := range raw {
		if c < 0x20 || c > 0x7e {
			return "", false
		}
	}
	name, ok := imapwire.ParseMailbox(raw)
	if n := len("INBOX"); ok && len(name) >= n && strings.EqualFold(name[:n], "INBOX") && (len(name) == n || name[n] == delimiter) {
		name = "INBOX" + name[n:]
	}
	return name, ok
}

// validDelimiter: one that may occur within what modified UTF-7 encodes could
// not take names apart.
func validDelimiter(c byte) bool {
	return c == 0 || c > ' ' && c < 0x7f && bytes.IndexByte([]byte("+,&-%*"), c) < 0 &&
		(c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z')
}

// folders returns the upstream's folders, as they are now when fresh is asked
// for.
func (s *clientSide) folders(fresh bool) (*folderList, error) {
	v := s.r.view
	if v.listed && !v.stale && !fresh {
		return &v.list, nil
	}
	var list folderList
	for _, command := range v.lists {
		answer, err := s.ask(command, nil)
		if err != nil {
			return nil, err
		}
		if !answer.good {
			return nil, errFolders
		}
		for _, line := range answer.lines {
			list.add(v, line)
		}
	}
	shown := make(map[string]*listed)
	for _, f := range list.all {
		if f.visible {
			shown[f.raw] = f
		}
	}
	v.shown.Store(&shown)
	if !v.listed {
		s.tellUnmatched(&list)
	}
	v.list, v.listed, v.stale = list, true, false
	return &v.list, nil
}

// find returns the folder that the client calls so, or nil when the view holds
// none.
func (s *clientSide) find(raw []byte, mayAsk bool) (*listed, error) {
	v := s.r.view
	l := &v.list
	if mayAsk {
		var err error
		if l, err = s.folders(false); err != nil {
			return nil, err
		}
	}
	name, ok := folderName(raw, l.delimiter)
	if !ok || !v.decision.Visible(name, l.delimiter) {
		return nil, nil
	}
	f := l.byName[name]
	if f == nil && mayAsk { // somebody else may have made it since
		var err error
		if l, err = s.folders(true); err != nil {
			return nil, err
		}
		f = l.byName[name]
	}
	if f == nil || !f.visible {
		return nil, nil
	}
	return f, nil
}
