// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"

	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// This file holds the grammar and the judgement of all commands but FETCH,
// SEARCH and their like, and APPEND. Where a judge needs to know the special
// folders it leaves folder or target, and the relay looks them up.

// judgeNamespace: RFC 2342.
func judgeNamespace(p *parser, j *judgement) error {
	j.need(policy.List)
	return p.end()
}

func noArgs(p *parser, _ *judgement) error { return p.end() }

// judgeID: RFC 2971 §3.1.
func judgeID(p *parser, _ *judgement) error {
	if p.is("NIL") {
		return p.end()
	}
	if !p.take(imapwire.Open) {
		return errSyntax
	}
	for n := 0; !p.take(imapwire.Close); n++ {
		v, ok := p.astring()
		if !ok || n >= 60 || len(v) > 1024 {
			return errSyntax
		}
	}
	return p.end()
}

// judgeEnable: RFC 5161 §3.1. The relay drops what is not enableable.
func judgeEnable(p *parser, _ *judgement) error {
	if !p.more() {
		return errSyntax
	}
	for p.more() {
		if _, ok := p.keyword(); !ok {
			return errSyntax
		}
	}
	return nil
}

// judgeSelect: RFC 9051 §6.3.2, RFC 4466 §2.1, RFC 7162 §3.1.8 and §3.2.5.
func judgeSelect(p *parser, j *judgement) error {
	j.need(policy.List)
	var ok bool
	if j.folder, ok = p.mailbox(); !ok {
		return errSyntax
	}
	if p.take(imapwire.Open) {
		for !p.take(imapwire.Close) {
			switch {
			case p.is("CONDSTORE"):
				j.beyondSlice = "CONDSTORE"
			case p.is("QRESYNC"):
				j.beyondView = "QRESYNC"
				if !qresync(p) {
					return errSyntax
				}
			default:
				return errSyntax
			}
		}
	}
	return p.end()
}

func qresync(p *parser) bool {
	if !p.take(imapwire.Open) || !p.number() || !p.number() {
		return false
	}
	if p.at(imapwire.Atom) {
		if _, ok := p.set(); !ok {
			return false
		}
	}
	if p.take(imapwire.Open) {
		for range 2 {
			if _, ok := p.set(); !ok {
				return false
			}
		}
		if !p.take(imapwire.Close) {
			return false
		}
	}
	return p.take(imapwire.Close)
}

func judgeFolder(p *parser, j *judgement) error {
	j.need(policy.Folders)
	var ok bool
	if j.folder, ok = p.mailbox(); !ok {
		return errSyntax
	}
	return p.end()
}

// judgeCreate: RFC 9051 §6.3.4, RFC 6154 §3.
func judgeCreate(p *parser, j *judgement) error {
	j.need(policy.Folders)
	var ok bool
	if j.folder, ok = p.mailbox(); !ok {
		return errSyntax
	}
	if p.take(imapwire.Open) {
		if !p.is("USE") || !p.take(imapwire.Open) {
			return errSyntax
		}
		for !p.take(imapwire.Close) {
			if p.at(imapwire.Atom) && bytes.EqualFold(p.cmd.Value(p.toks[p.pos]), []byte(`\Trash`)) {
				j.need(policy.Delete) // what is moved there is deleted
			}
			if _, ok := p.flag(); !ok {
				return errSyntax
			}
		}
		if !p.take(imapwire.Close) {
			return errSyntax
		}
	}
	return p.end()
}

func judgeRename(p *parser, j *judgement) error {
	j.need(policy.Folders)
	var ok, ok2 bool
	j.folder, ok = p.mailbox()
	j.target, ok2 = p.mailbox()
	if !ok || !ok2 {
		return errSyntax
	}
	return p.end()
}

// judgeList: RFC 9051 §6.3.9, RFC 5258, RFC 5819, RFC 6154 §4.
func judgeList(p *parser, j *judgement) error {
	j.need(policy.List)
	if p.at(imapwire.Open) && !p.words(func(w []byte) bool {
		switch string(w) {
		case "SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE":
			return true
		}
		return false
	}) {
		return errSyntax
	}
	if _, ok := p.astring(); !ok { // the reference
		return errSyntax
	}
	if p.take(imapwire.Open) {
		for !p.take(imapwire.Close) {
			if !p.pattern() {
				return errSyntax
			}
		}
	} else if !p.pattern() {
		return errSyntax
	}
	if !p.more() {
		return nil
	}
	if !p.is("RETURN") || !p.take(imapwire.Open) {
		return errSyntax
	}
	for !p.take(imapwire.Close) {
		switch {
		case p.is("SUBSCRIBED"), p.is("CHILDREN"), p.is("SPECIAL-USE"):
		case p.is("STATUS"):
			j.beyondView = "LIST-STATUS"
			if !p.words(statusItem) {
				return errSyntax
			}
		default:
			return errSyntax
		}
	}
	return p.end()
}

// judgeLsub serves LSUB and XLIST.
func judgeLsub(p *parser, j *judgement) error {
	j.need(policy.List)
	if _, ok := p.astring(); !ok || !p.pattern() {
		return errSyntax
	}
	return p.end()
}

func statusItem(w []byte) bool {
	switch string(w) {
	case "MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED", "SIZE",
		"HIGHESTMODSEQ", "APPENDLIMIT", "MAILBOXID", "DELETED-STORAGE":
		return true
	}
	return false
}

func judgeStatus(p *parser, j *judgement) error {
	j.need(policy.List)
	var ok bool
	if j.folder, ok = p.mailbox(); !ok || !p.words(func(w []byte) bool {
		switch string(w) {
		case "MAILBOXID":
			j.beyondView = "OBJECTID"
		case "HIGHESTMODSEQ":
			j.beyondSlice = "CONDSTORE"
		}
		return statusItem(w)
	}) {
		return errSyntax
	}
	return p.end()
}

// judgeQuota: RFC 9208 §4.1.2; a root may be the empty string.
func judgeQuota(p *parser, j *judgement) error {
	j.need(policy.List)
	if _, ok := p.astring(); !ok {
		return errSyntax
	}
	return p.end()
}

func judgeQuotaRoot(p *parser, j *judgement) error {
	j.need(policy.List)
	if _, ok := p.mailbox(); !ok {
		return errSyntax
	}
	return p.end()
}

// judgeCancelUpdate: RFC 5267 §4.3.4.
func judgeCancelUpdate(p *parser, j *judgement) error {
	j.need(policy.List)
	for p.more() {
		if !p.take(imapwire.Quoted) {
			return errSyntax
		}
	}
	return nil
}

// judgeClose: CLOSE expunges, so that it takes delete; the relay turns it
// into UNSELECT where that is not granted.
func judgeClose(p *parser, j *judgement) error {
	j.need(policy.Delete)
	return p.end()
}

func judgeExpunge(p *parser, j *judgement) error {
	j.need(policy.Delete)
	return p.end()
}

// judgeUIDExpunge: RFC 4315 §2.1.
func judgeUIDExpunge(p *parser, j *judgement) error {
	j.need(policy.Delete)
	j.uids = true
	var ok bool
	if j.set, ok = p.set(); !ok {
		return errSyntax
	}
	return p.end()
}

// judgeStore: RFC 9051 §6.4.6, RFC 7162 §3.1.3, and Gmail's labels, which are
// folders: setting one files the message there.
func judgeStore(p *parser, j *judgement) error {
	var ok bool
	if j.set, ok = p.set(); !ok {
		return errSyntax
	}
	if p.take(imapwire.Open) {
		j.beyondSlice = "CONDSTORE"
		if !p.is("UNCHANGEDSINCE") || !p.number() || !p.take(imapwire.Close) {
			return errSyntax
		}
	}
	j.flagsFrom = p.pos
	item, ok := p.keyword()
	if !ok {
		return errSyntax
	}
	item = bytes.TrimLeft(item, "+-")
	if p.pos-1 == j.flagsFrom && len(p.cmd.Value(p.toks[j.flagsFrom]))-len(item) > 1 {
		return errSyntax
	}
	item = bytes.TrimSuffix(item, []byte(".SILENT"))
	var one func(*parser, *judgement) bool
	switch string(item) {
	case "FLAGS":
		one = storeFlag
		if sign := p.cmd.Value(p.toks[j.flagsFrom])[0]; sign != '+' && sign != '-' {
			j.need(policy.Flag) // whatever is set, all others are taken away
		}
	case "X-GM-LABELS":
		one = storeLabel
		j.labels = true
		j.beyondView = "X-GM-EXT-1"
		j.need(policy.File)
	default:
		return errSyntax
	}
	if p.take(imapwire.Open) {
		if p.at(imapwire.Close) && !j.labels {
			j.need(policy.Flag)
		}
		for !p.take(imapwire.Close) {
			if !one(p, j) {
				return errSyntax
			}
		}
	} else {
		if !p.more() {
			return errSyntax
		}
		for p.more() {
			if !one(p, j) {
				return errSyntax
			}
		}
	}
	j.flagsTo = p.pos
	return p.end()
}

func storeFlag(p *parser, j *judgement) bool {
	deleted, ok := p.flag()
	if deleted {
		j.need(policy.Delete)
	} else {
		j.need(policy.Flag)
	}
	return ok
}

// storeLabel takes a label: a folder's name, or one with a backslash. The
// relay adds delete for that of Trash.
func storeLabel(p *parser, _ *judgement) bool {
	if p.at(imapwire.Atom) {
		_, ok := p.flag()
		return ok
	}
	_, ok := p.mailbox()
	return ok
}

// judgeCopy and judgeMove take file; where the target is Trash, the relay asks
// for delete: by MOVE, and by COPY too where folders are labels.
func judgeCopy(p *parser, j *judgement) error {
	j.need(policy.File)
	return setAndTarget(p, j)
}

func judgeMove(p *parser, j *judgement) error {
	j.need(policy.File)
	return setAndTarget(p, j)
}

func setAndTarget(p *parser, j *judgement) error {
	var ok, ok2 bool
	j.set, ok = p.set()
	j.target, ok2 = p.mailbox()
	if !ok || !ok2 {
		return errSyntax
	}
	return p.end()
}

// judgeNotify: RFC 5465 §8. MessageNew may name FETCH items, which are pushed
// later without a command: they are judged here.
func judgeNotify(p *parser, j *judgement) error {
	j.need(policy.List)
	if p.is("NONE") {
		return p.end()
	}
	if !p.is("SET") {
		return errSyntax
	}
	p.is("STATUS")
	if !p.more() {
		return errSyntax
	}
	for p.more() {
		if !notifyGroup(p, j) {
			return errSyntax
		}
	}
	return nil
}

func notifyGroup(p *parser, j *judgement) bool {
	if !p.take(imapwire.Open) {
		return false
	}
	switch {
	case p.is("SELECTED"), p.is("SELECTED-DELAYED"), p.is("INBOXES"), p.is("PERSONAL"), p.is("SUBSCRIBED"):
	case p.is("SUBTREE"), p.is("MAILBOXES"):
		if p.take(imapwire.Open) {
			for !p.take(imapwire.Close) {
				if _, ok := p.mailbox(); !ok {
					return false
				}
			}
		} else if _, ok := p.mailbox(); !ok {
			return false
		}
	default:
		return false
	}
	if p.is("NONE") {
		return p.take(imapwire.Close)
	}
	if !p.take(imapwire.Open) {
		return false
	}
	for !p.take(imapwire.Close) {
		switch {
		case p.is("MESSAGENEW"):
			if p.at(imapwire.Open) {
				j.fetch = fetchItems{}
				if !parseFetchItems(p, j) {
					return false
				}
				j.pushed = append(j.pushed, j.fetch)
			}
		case p.is("MESSAGEEXPUNGE"), p.is("FLAGCHANGE"), p.is("MAILBOXNAME"),
			p.is("SUBSCRIPTIONCHANGE"):
		default:
			return false
		}
	}
	return p.take(imapwire.Close)
}
