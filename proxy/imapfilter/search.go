// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"

	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// judgeSearch: RFC 9051 §6.4.4, RFC 4731, RFC 5182, RFC 5267.
func judgeSearch(p *parser, j *judgement) error {
	j.need(policy.List)
	if !returnOptions(p, j) {
		return errSyntax
	}
	if p.is("CHARSET") {
		if _, ok := p.astring(); !ok {
			return errSyntax
		}
	}
	return searchProgram(p, j)
}

// judgeSort: RFC 5256 §3, RFC 5957, RFC 5267 §3.
func judgeSort(p *parser, j *judgement) error {
	j.need(policy.List)
	if !returnOptions(p, j) {
		return errSyntax
	}
	headers := false
	if !p.words(func(w []byte) bool {
		switch string(w) {
		case "ARRIVAL", "SIZE", "REVERSE":
		case "CC", "DATE", "FROM", "SUBJECT", "TO", "DISPLAYFROM", "DISPLAYTO", "RELEVANCY":
			headers = true
		default:
			return false
		}
		return true
	}) {
		return errSyntax
	}
	if headers {
		j.need(policy.Headers)
	}
	if _, ok := p.astring(); !ok { // the charset
		return errSyntax
	}
	return searchProgram(p, j)
}

// judgeThread: RFC 5256 §3; REFS is Dovecot's.
func judgeThread(p *parser, j *judgement) error {
	j.need(policy.List | policy.Headers)
	if !p.is("ORDEREDSUBJECT") && !p.is("REFERENCES") && !p.is("REFS") {
		return errSyntax
	}
	if _, ok := p.astring(); !ok {
		return errSyntax
	}
	return searchProgram(p, j)
}

func returnOptions(p *parser, j *judgement) bool {
	if !p.is("RETURN") {
		return true
	}
	if !p.take(imapwire.Open) {
		return false
	}
	for !p.take(imapwire.Close) {
		switch {
		case p.is("MIN"), p.is("MAX"), p.is("ALL"), p.is("COUNT"):
		case p.is("SAVE"):
			j.beyondView = "SEARCHRES"
		case p.is("UPDATE"), p.is("CONTEXT"), p.is("RELEVANCY"):
			j.beyondView = "CONTEXT"
		case p.is("PARTIAL"):
			j.beyondView = "CONTEXT"
			if !p.at(imapwire.Atom) || !validSet(p.cmd.Value(p.toks[p.pos])) {
				return false
			}
			p.pos++
		default:
			return false
		}
	}
	return true
}

func searchProgram(p *parser, j *judgement) error {
	if !p.more() {
		return errSyntax
	}
	for p.more() {
		if !searchKey(p, j) {
			return errSyntax
		}
	}
	return nil
}

// searchKey takes one key. OR and NOT are no recursion: clients join a hundred
// addresses by them. Lists are, which the lexer bounds.
func searchKey(p *parser, j *judgement) bool {
	for due := 1; due > 0; due-- {
		switch {
		case p.is("OR"):
			due += 2
		case p.is("NOT"), p.is("FUZZY"):
			due++
		case p.at(imapwire.Open):
			if !searchList(p, j) {
				return false
			}
		case !simpleKey(p, j):
			return false
		}
	}
	return true
}

func searchList(p *parser, j *judgement) bool {
	p.pos++
	if p.at(imapwire.Close) {
		return false
	}
	for !p.take(imapwire.Close) {
		if !p.more() || !searchKey(p, j) {
			return false
		}
	}
	return true
}

// simpleKey takes a key that holds no other.
func simpleKey(p *parser, j *judgement) bool {
	if set, ok := p.set(); ok {
		j.noteSet(p, set, false)
		return true
	}
	w, ok := p.keyword()
	if !ok {
		return false
	}
	switch string(w) {
	case "ALL", "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "NEW", "OLD", "RECENT", "SEEN",
		"UNANSWERED", "UNDELETED", "UNDRAFT", "UNFLAGGED", "UNSEEN", "SAVEDATESUPPORTED":
		return true
	case "BEFORE", "ON", "SINCE", "SAVEDBEFORE", "SAVEDON", "SAVEDSINCE":
		return searchDate(p)
	case "SENTBEFORE", "SENTON", "SENTSINCE":
		j.need(policy.Headers)
		return searchDate(p)
	case "LARGER", "SMALLER", "OLDER", "YOUNGER":
		return p.number()
	case "X-GM-MSGID", "X-GM-THRID":
		j.beyondView = "X-GM-EXT-1"
		return p.number()
	case "KEYWORD", "UNKEYWORD":
		_, ok := p.flag()
		return ok
	case "EMAILID", "THREADID", "X-GM-LABELS":
		j.beyondView = "OBJECTID"
		return searchString(p)
	case "BCC", "CC", "FROM", "SUBJECT", "TO":
		j.need(policy.Headers)
		return searchString(p)
	case "HEADER":
		j.need(policy.Headers)
		ok := searchString(p)
		return ok && searchString(p)
	case "BODY":
		j.need(policy.Read)
		return searchString(p)
	case "TEXT", "X-GM-RAW": // which look in the header too
		j.need(policy.Headers | policy.Read)
		if string(w) == "X-GM-RAW" {
			j.beyondView = "X-GM-EXT-1"
		}
		return searchString(p)
	case "UID":
		set, ok := p.set()
		j.noteSet(p, set, true)
		return ok
	case "MODSEQ":
		j.beyondSlice = "CONDSTORE"
		return searchModSeq(p)
	}
	return false
}

// searchString takes an astring that may hold any octets in a literal.
func searchString(p *parser) bool {
	if p.at(imapwire.Atom) && bytes.IndexByte(p.cmd.Value(p.toks[p.pos]), '\\') >= 0 {
		return false
	}
	// Clients search for * and %: RFC 9051 has them quoted, servers take both.
	// A literal8 stands in APPEND alone.
	if !p.more() || !p.toks[p.pos].IsString() || p.toks[p.pos].Binary {
		return false
	}
	p.pos++
	return true
}

// searchDate takes a date such as 1-Feb-2026, quoted or not.
func searchDate(p *parser) bool {
	v, ok := p.astring()
	if !ok {
		return false
	}
	parts := bytes.Split(v, []byte("-"))
	if len(parts) != 3 || len(parts[0]) < 1 || len(parts[0]) > 2 || !isNumber(parts[0]) ||
		len(parts[2]) != 4 || !isNumber(parts[2]) || len(parts[1]) != 3 {
		return false
	}
	switch string(bytes.ToLower(parts[1])) {
	case "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec":
		return true
	}
	return false
}

// searchModSeq takes MODSEQ's arguments (RFC 7162 §3.1.5): an entry name and
// type may stand before the number.
func searchModSeq(p *parser) bool {
	if p.take(imapwire.Quoted) {
		if !p.is("PRIV") && !p.is("SHARED") && !p.is("ALL") {
			return false
		}
	}
	return p.number()
}

// noteSet notes where a set stands that was just taken, and whether it is the
// saved result of a search (RFC 5182).
func (j *judgement) noteSet(p *parser, set []byte, uid bool) {
	if string(set) == "$" {
		j.beyondView = "SEARCHRES"
	}
	j.sets = append(j.sets, setAt{p.pos - 1, uid})
}
