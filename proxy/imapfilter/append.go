// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"

	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// judgeAppend and judgeReplace see the command up to its first message, which
// is when the upstream must be asked: the rest is judged by appendRest as it
// comes.
func judgeAppend(p *parser, j *judgement) error {
	var ok bool
	if j.folder, ok = p.mailbox(); !ok {
		return errSyntax
	}
	j.need(policy.File)
	return appendMessage(p, j)
}

// judgeReplace: RFC 8508 §3.
func judgeReplace(p *parser, j *judgement) error {
	var ok, ok2 bool
	j.set, ok = p.set()
	j.folder, ok2 = p.mailbox()
	if !ok || !ok2 || bytes.ContainsAny(j.set, ",:$") {
		return errSyntax
	}
	j.need(policy.File | policy.Delete)
	return appendMessage(p, j)
}

// appendMessage takes flags, date and the beginning of one message (RFC 9051
// §6.3.12, RFC 3502, RFC 4469, RFC 6855 §4) and stops behind a Stream token,
// or at the end for a CATENATE that is made of URLs alone.
func appendMessage(p *parser, j *judgement) error {
	if p.take(imapwire.Open) {
		for !p.take(imapwire.Close) {
			deleted, ok := p.flag()
			if !ok {
				return errSyntax
			}
			if deleted {
				j.need(policy.Delete)
			}
		}
	}
	if p.at(imapwire.Quoted) {
		if !validDateTime(p.cmd.Value(p.toks[p.pos])) {
			return errSyntax
		}
		p.pos++
	}
	switch {
	case p.at(imapwire.Stream):
		if p.toks[p.pos].Binary {
			j.uses |= usesBinary
		}
		p.pos++
		return p.end()
	case p.is("UTF8"):
		j.uses |= usesUTF8
		if !p.take(imapwire.Open) || !p.at(imapwire.Stream) || !p.toks[p.pos].Binary {
			return errSyntax
		}
		p.pos++
		return p.end()
	case p.is("CATENATE"):
		j.uses |= usesCatenate
		if !p.take(imapwire.Open) {
			return errSyntax
		}
		return catenateParts(p, j)
	}
	return errSyntax
}

// extensions are those of APPEND that an upstream must have offered. To others
// they are broken commands, and what a server does about the literal in a
// broken command is not to be relied upon.
type extensions uint8

const (
	usesBinary extensions = 1 << iota
	usesUTF8
	usesCatenate
	usesMultiAppend
)

// missing returns the name of an extension that is used and not offered.
func (u *upstreamSide) missing(uses extensions) string {
	switch {
	case uses&usesBinary != 0 && !u.has(offersBinary|offersRev2):
		return "BINARY"
	case uses&usesUTF8 != 0 && !u.has(offersUTF8):
		return "UTF8=ACCEPT"
	case uses&usesCatenate != 0 && !u.has(offersCatenate):
		return "CATENATE"
	case uses&usesMultiAppend != 0 && !u.has(offersMultiAppend):
		return "MULTIAPPEND"
	}
	return ""
}

// catenateParts takes parts up to a TEXT literal, or to the list's end.
func catenateParts(p *parser, j *judgement) error {
	for {
		switch {
		case p.is("TEXT"):
			if !p.at(imapwire.Stream) || p.toks[p.pos].Binary {
				return errSyntax
			}
			p.pos++
			return p.end()
		case p.is("URL"):
			v, ok := p.astring()
			if !ok || !localURL(v) {
				return errSyntax
			}
			// What is copied out of a message's body into a header can be read
			// as a header.
			j.need(policy.Headers | policy.Read)
		case p.take(imapwire.Close):
			return anotherMessage(p, j)
		default:
			return errSyntax
		}
	}
}

// localURL accepts URLs of the same server and session alone (RFC 4469 §3):
// one with a host or an authorization would reach beyond the mailbox.
func localURL(v []byte) bool {
	return len(v) > 1 && v[0] == '/' && v[1] != '/' &&
		!bytes.Contains(bytes.ToUpper(v), []byte(";URLAUTH"))
}

// appendRest judges what follows a message's literal: from is the index of
// the first new token; catenate and utf8 say in which list the literal stood.
func appendRest(p *parser, j *judgement, from int, catenate, utf8 bool) error {
	p.pos = from
	switch {
	case catenate:
		return catenateParts(p, j)
	case utf8:
		if !p.take(imapwire.Close) {
			return errSyntax
		}
	}
	return anotherMessage(p, j)
}

// anotherMessage takes the end of the command, or the next message (RFC 3502).
func anotherMessage(p *parser, j *judgement) error {
	if !p.more() {
		return nil
	}
	j.uses |= usesMultiAppend
	return appendMessage(p, j)
}

// streamContext tells in which list the Stream token that ends toks stands.
func streamContext(cmd *imapwire.Command) (catenate, utf8 bool) {
	toks := cmd.Args()
	depth := 0
	for i := len(toks) - 1; i >= 0; i-- {
		switch toks[i].Kind {
		case imapwire.Close:
			depth++
		case imapwire.Open:
			if depth--; depth < 0 && i > 0 && toks[i-1].Kind == imapwire.Atom {
				v := cmd.Value(toks[i-1])
				return bytes.EqualFold(v, []byte("CATENATE")), bytes.EqualFold(v, []byte("UTF8"))
			}
		}
	}
	return false, false
}

// streamsHere decides whether the literal that ends toks is a message, whose
// octets pass by, or an argument, which is buffered: a mailbox or a URL. skip counts the
// tokens that belong to the command's name.
func streamsHere(name string, skip int, cmd *imapwire.Command) bool {
	toks := cmd.Args()
	fixed := skip + 1 // mailbox
	if name != "APPEND" {
		fixed++ // message and mailbox
	}
	if len(toks) <= fixed {
		return false
	}
	prev := toks[len(toks)-2]
	return prev.Kind != imapwire.Atom || !bytes.EqualFold(cmd.Value(prev), []byte("URL"))
}

// validDateTime checks the form dd-Mon-yyyy hh:mm:ss +zzzz (RFC 9051 §9).
func validDateTime(v []byte) bool {
	const form = "dd-Aaa-dddd dd:dd:dd +dddd"
	if len(v) != len(form) {
		return false
	}
	for i, c := range v {
		switch form[i] {
		case 'd':
			if (c < '0' || c > '9') && (i != 0 || c != ' ') {
				return false
			}
		case 'A', 'a':
			if (c|0x20) < 'a' || (c|0x20) > 'z' {
				return false
			}
		case '+':
			if c != '+' && c != '-' {
				return false
			}
		default:
			if c != form[i] {
				return false
			}
		}
	}
	return true
}
