// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"errors"

	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// errSyntax says that the arguments do not follow the command's grammar.
var errSyntax = errors.New("the arguments do not fit the command")

// parser walks a command's tokens. Its methods advance only when they succeed.
type parser struct {
	cmd  *imapwire.Command
	toks []imapwire.Token
	pos  int
	// word is where keywords are put in upper case.
	word [64]byte
}

func (p *parser) begin(cmd *imapwire.Command) {
	p.cmd, p.toks, p.pos = cmd, cmd.Args(), 0
}

func (p *parser) more() bool { return p.pos < len(p.toks) }

func (p *parser) end() error {
	if p.more() {
		return errSyntax
	}
	return nil
}

// at reports whether the next token is of kind k.
func (p *parser) at(k imapwire.Kind) bool { return p.more() && p.toks[p.pos].Kind == k }

func (p *parser) take(k imapwire.Kind) bool {
	if !p.at(k) {
		return false
	}
	p.pos++
	return true
}

// keyword returns the next token, an atom, in upper case. The result is valid
// until the next call.
func (p *parser) keyword() ([]byte, bool) {
	w, ok := p.peekKeyword()
	if ok {
		p.pos++
	}
	return w, ok
}

func (p *parser) peekKeyword() ([]byte, bool) {
	if !p.at(imapwire.Atom) {
		return nil, false
	}
	v := p.cmd.Value(p.toks[p.pos])
	if len(v) > len(p.word) {
		return nil, false
	}
	w := p.word[:len(v)]
	for i, c := range v {
		if c >= 'a' && c <= 'z' {
			c -= 32
		}
		w[i] = c
	}
	return w, true
}

// is takes the next token if it is the keyword.
func (p *parser) is(keyword string) bool {
	if w, ok := p.peekKeyword(); ok && string(w) == keyword {
		p.pos++
		return true
	}
	return false
}

// astring returns the next string: an atom without list wildcards or '\', a
// quoted string, or a literal.
func (p *parser) astring() ([]byte, bool) {
	if !p.more() || !p.toks[p.pos].IsString() || p.toks[p.pos].Binary {
		return nil, false
	}
	t := p.toks[p.pos]
	if t.Special {
		return nil, false
	}
	p.pos++
	return p.cmd.Value(t), true
}

// pattern is astring with list wildcards.
func (p *parser) pattern() bool {
	if !p.more() || !p.toks[p.pos].IsString() || p.toks[p.pos].Binary {
		return false
	}
	if v := p.cmd.Value(p.toks[p.pos]); p.at(imapwire.Atom) && bytes.IndexByte(v, '\\') >= 0 {
		return false
	}
	p.pos++
	return true
}

// mailbox returns a folder's name as the client wrote it.
func (p *parser) mailbox() ([]byte, bool) {
	v, ok := p.astring()
	if !ok || len(v) == 0 || len(v) > 1024 || bytes.ContainsAny(v, "\r\n\x00") {
		return nil, false
	}
	return v, true
}

// set takes a sequence set (RFC 9051 §9), or "$".
func (p *parser) set() ([]byte, bool) {
	if !p.at(imapwire.Atom) {
		return nil, false
	}
	v := p.cmd.Value(p.toks[p.pos])
	if !validSet(v) {
		return nil, false
	}
	p.pos++
	return v, true
}

func validSet(v []byte) bool {
	if string(v) == "$" {
		return true
	}
	i := 0
	for {
		if i = setNumber(v, i); i < 0 {
			return false
		}
		if i < len(v) && v[i] == ':' {
			if i = setNumber(v, i+1); i < 0 {
				return false
			}
		}
		if i == len(v) {
			return true
		}
		if v[i] != ',' {
			return false
		}
		i++
	}
}

// setNumber reads a nonzero 32-bit number or '*' at v[i] and returns where it
// ends; -1: neither is there.
func setNumber(v []byte, i int) int {
	if i < len(v) && v[i] == '*' {
		return i + 1
	}
	if i >= len(v) || v[i] < '1' || v[i] > '9' {
		return -1
	}
	var n uint64
	for i < len(v) && v[i] >= '0' && v[i] <= '9' {
		if n = n*10 + uint64(v[i]-'0'); n > 0xffffffff {
			return -1
		}
		i++
	}
	return i
}

// number takes an unsigned number of at most 63 bits.
func (p *parser) number() bool {
	if !p.at(imapwire.Atom) || !isNumber(p.cmd.Value(p.toks[p.pos])) {
		return false
	}
	p.pos++
	return true
}

func isNumber(v []byte) bool {
	if len(v) == 0 || len(v) > 19 || (len(v) == 19 && string(v) > "9223372036854775807") {
		return false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// flag takes one flag: a keyword, or one with a backslash, and reports
// whether it is \Deleted.
func (p *parser) flag() (deleted, ok bool) {
	if !p.at(imapwire.Atom) {
		return false, false
	}
	v := p.cmd.Value(p.toks[p.pos])
	if i := bytes.LastIndexByte(v, '\\'); i > 0 || len(v) == 0 || bytes.ContainsAny(v, "*%]") {
		return false, false
	}
	p.pos++
	return bytes.EqualFold(v, []byte(`\Deleted`)), true
}

// words takes a parenthesised list of atoms, each of which ok accepts in
// upper case.
func (p *parser) words(ok func([]byte) bool) bool {
	if !p.take(imapwire.Open) {
		return false
	}
	for !p.take(imapwire.Close) {
		w, isWord := p.keyword()
		if !isWord || !ok(w) {
			return false
		}
	}
	return true
}

// judgement is what the grammar of a command found out about it.
type judgement struct {
	// err says why the arguments are none of the command's.
	err error
	// needs are the actions that it takes; sendInstead says that send would do
	// in the place of file.
	needs       policy.Actions
	sendInstead bool
	// folder and target are the names that it bears, as the client wrote them.
	folder []byte
	target []byte
	// set is its message set; uids says that it holds UIDs.
	set  []byte
	uids bool
	// flagsFrom and flagsTo describe what STORE does, as token indexes; labels
	// says that it is about Gmail's labels.
	flagsFrom, flagsTo int
	labels             bool
	// uses are the extensions of APPEND that it uses.
	uses extensions
	// fetch is what FETCH asks for; pushed is what NOTIFY does.
	fetch  fetchItems
	pushed []fetchItems
	// beyondView names an extension that it uses and views withhold.
	beyondView string
	// beyondSlice names one that views withhold that hide messages.
	beyondSlice string
	// sets are where a search names messages.
	sets []setAt
}

// setAt is a set of a search, by its token's index: of numbers, or of UIDs.
type setAt struct {
	index int
	uid   bool
}

func (j *judgement) need(a policy.Actions) { j.needs |= a }

// allowed reports whether the decision allows the command.
func (j *judgement) allowed(d *policy.Decision) bool {
	return d.Actions.Has(j.needs) || (j.sendInstead && d.Actions.Has(j.needs&^policy.File|policy.Send))
}
