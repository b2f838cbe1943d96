// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"

	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// fetchItems is what the items of a FETCH ask for.
type fetchItems struct {
	// from and to are the item tokens' indexes; bare says that one item stands
	// without parentheses.
	from, to int
	bare     bool
	uid      bool // UID is among them
	body     bool // body octets are
	// seen says that an item sets \Seen; rewritable that each such item has a
	// PEEK form with the same answer.
	seen       bool
	rewritable bool
}

// judgeFetch: RFC 9051 §6.4.5, RFC 7162 §3.1.4, RFC 3516, RFC 8970, RFC 8474,
// RFC 8514, and Gmail's X-GM-EXT-1.
func judgeFetch(p *parser, j *judgement) error {
	j.need(policy.List)
	var ok bool
	if j.set, ok = p.set(); !ok {
		return errSyntax
	}
	switch {
	case p.is("ALL"), p.is("FULL"):
		j.need(policy.Headers)
	case p.is("FAST"):
	default:
		if !parseFetchItems(p, j) {
			return errSyntax
		}
	}
	if p.take(imapwire.Open) {
		for !p.take(imapwire.Close) {
			switch {
			case p.is("CHANGEDSINCE"):
				j.beyondSlice = "CONDSTORE"
				if !p.number() {
					return errSyntax
				}
			case p.is("VANISHED"):
				j.beyondView = "QRESYNC"
			default:
				return errSyntax
			}
		}
	}
	return p.end()
}

// parseFetchItems takes one item, or a list of them.
func parseFetchItems(p *parser, j *judgement) bool {
	f := &j.fetch
	f.rewritable = true
	f.from = p.pos
	if f.bare = !p.at(imapwire.Open); f.bare {
		ok := fetchItem(p, j)
		f.to = p.pos
		return ok
	}
	p.pos++
	if p.at(imapwire.Close) {
		return false
	}
	for !p.take(imapwire.Close) {
		if !fetchItem(p, j) {
			return false
		}
	}
	f.to = p.pos
	return true
}

func fetchItem(p *parser, j *judgement) bool {
	if !p.at(imapwire.Atom) {
		return false
	}
	raw := p.cmd.Value(p.toks[p.pos])
	if i := bytes.IndexByte(raw, '['); i >= 0 {
		return fetchSection(p, j, raw[:i], raw[i+1:])
	}
	w, ok := p.keyword()
	if !ok {
		return false
	}
	switch string(w) {
	case "UID":
		j.fetch.uid = true
	case "FLAGS", "INTERNALDATE", "RFC822.SIZE", "SAVEDATE":
	case "MODSEQ":
		j.beyondSlice = "CONDSTORE"
	case "EMAILID", "THREADID", "X-GM-MSGID", "X-GM-THRID", "X-GM-LABELS":
		j.beyondView = "OBJECTID"
	case "ENVELOPE", "BODY", "BODYSTRUCTURE", "RFC822.HEADER":
		j.need(policy.Headers)
	case "PREVIEW", "SNIPPET":
		j.need(policy.Headers)
		if p.take(imapwire.Open) { // (LAZY), or the older (LAZY=FUZZY)
			if !p.is("LAZY") && !p.is("FUZZY") && !p.is("LAZY=FUZZY") || !p.take(imapwire.Close) {
				return false
			}
		}
	case "RFC822", "RFC822.TEXT":
		j.need(policy.Read)
		if string(w) == "RFC822" {
			j.need(policy.Headers)
		}
		j.fetch.body, j.fetch.seen, j.fetch.rewritable = true, true, false
	default:
		return false
	}
	return true
}

// fetchSection takes BODY[…], BODY.PEEK[…], BINARY[…], BINARY.PEEK[…] or
// BINARY.SIZE[…]; section is what follows '[' in the first token.
func fetchSection(p *parser, j *judgement, name, section []byte) bool {
	binary, peek, partial := false, true, true
	switch {
	case bytes.EqualFold(name, []byte("BODY.PEEK")):
	case bytes.EqualFold(name, []byte("BODY")):
		peek = false
	case bytes.EqualFold(name, []byte("BINARY.PEEK")):
		binary = true
	case bytes.EqualFold(name, []byte("BINARY")):
		binary, peek = true, false
	case bytes.EqualFold(name, []byte("BINARY.SIZE")):
		binary, partial = true, false
	default:
		return false
	}
	p.pos++
	path := partPath(section)
	rest := section[path:]
	switch {
	case len(rest) > 0 && rest[0] == ']':
		if path > 0 && section[path-1] == '.' {
			return false
		}
	case binary || (path > 0 && section[path-1] != '.'):
		return false
	default:
		var ok bool
		if rest, ok = sectionText(p, rest, path > 0); !ok {
			return false
		}
	}
	if !validPartial(rest[1:], partial) {
		return false
	}
	switch {
	case !partial || imapwire.ClassifySection(section) == imapwire.ContentHeader:
		j.need(policy.Headers)
	case section[0] == ']': // the whole message
		j.need(policy.Headers | policy.Read)
		j.fetch.body = true
	default:
		j.need(policy.Read)
		j.fetch.body = true
	}
	j.fetch.seen = j.fetch.seen || !peek
	return true
}

// partPath returns how many octets of a section are its part numbers and dots.
func partPath(s []byte) int {
	i := 0
	for i < len(s) && s[i] >= '1' && s[i] <= '9' {
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		if i == len(s) || s[i] != '.' {
			return i
		}
		i++
	}
	return i
}

// sectionText takes HEADER, HEADER.FIELDS (…), TEXT or MIME, and returns what
// begins with the closing bracket.
func sectionText(p *parser, rest []byte, inPart bool) ([]byte, bool) {
	word, tail := rest, []byte(nil)
	if i := bytes.IndexByte(rest, ']'); i >= 0 {
		word, tail = rest[:i], rest[i:]
	}
	switch {
	case bytes.EqualFold(word, []byte("HEADER")), bytes.EqualFold(word, []byte("TEXT")):
		return tail, tail != nil
	case bytes.EqualFold(word, []byte("MIME")):
		return tail, tail != nil && inPart
	case bytes.EqualFold(word, []byte("HEADER.FIELDS")), bytes.EqualFold(word, []byte("HEADER.FIELDS.NOT")):
	default:
		return nil, false
	}
	if tail != nil || !p.take(imapwire.Open) || p.at(imapwire.Close) {
		return nil, false
	}
	for !p.take(imapwire.Close) {
		if v, ok := p.astring(); !ok || len(v) == 0 || len(v) > 998 {
			return nil, false
		}
	}
	if !p.at(imapwire.Atom) || p.toks[p.pos].Space {
		return nil, false
	}
	tail = p.cmd.Value(p.toks[p.pos])
	p.pos++
	return tail, tail[0] == ']'
}

// validPartial checks what follows the bracket: nothing, or <offset.count>.
func validPartial(s []byte, allowed bool) bool {
	if len(s) == 0 {
		return true
	}
	if !allowed || s[0] != '<' || s[len(s)-1] != '>' {
		return false
	}
	offset, count, ok := bytes.Cut(s[1:len(s)-1], []byte("."))
	return ok && isNumber(offset) && isNumber(count) && string(count) != "0"
}

// rewriteFetch makes the FETCH (or NOTIFY) ask for UIDs where it asks for
// bodies, which the record needs, and, unless flags may be changed, turns
// BODY[…] into BODY.PEEK[…]. scratch is reused for the new tokens.
func rewriteFetch(cmd *imapwire.Command, f *fetchItems, uid, peek bool, scratch []imapwire.Token) []imapwire.Token {
	args := cmd.Args()
	addUID := uid && f.body && !f.uid
	if !addUID && (!peek || !f.seen) {
		return scratch
	}
	out := append(scratch[:0], args[:f.from]...)
	items := args[f.from:f.to]
	if f.bare {
		out = append(out, imapwire.Token{Kind: imapwire.Open, Space: true})
	} else {
		out = append(out, items[0])
		items = items[1 : len(items)-1]
	}
	if addUID {
		out = append(out, cmd.NewAtom("UID", false))
	}
	for i, t := range items {
		v := cmd.Value(t)
		if peek && t.Kind == imapwire.Atom {
			if k := bytes.IndexByte(v, '['); k >= 0 && (k == 4 || k == 6) { // BODY[, BINARY[
				t = cmd.NewAtom(string(v[:k])+".PEEK"+string(v[k:]), t.Space)
			}
		}
		if i == 0 {
			t.Space = addUID
		}
		out = append(out, t)
	}
	out = append(out, imapwire.Token{Kind: imapwire.Close})
	out = append(out, args[f.to:]...)
	cmd.SetArgs(out)
	return out
}
