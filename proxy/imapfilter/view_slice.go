// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

const noneSelected = "select a folder first"

// slicedCommand does what is about messages in a session that is shown a slice.
// All of it goes upstream as commands of Postern's own, one at a time, with UIDs
// of visible messages alone. false: the command has nothing to do with messages.
func (s *clientSide) slicedCommand(entry *command, skip int) (done bool, err error) {
	if s.r.wantsIdentify() {
		// The client's numbers are the view's: none of them changes by it.
		if err := s.identifyOpened(&command{}); err != nil {
			return true, err
		}
	}
	v := s.r.view
	name := strings.TrimPrefix(entry.name, "UID ")
	switch name {
	case "NOOP", "CHECK":
		answer, err := s.ask(name, nil)
		if err != nil {
			return true, err
		}
		if !answer.good {
			return true, s.answerAs(answer)
		}
		return true, s.freshened("done")
	case "SELECT", "EXAMINE":
		return true, s.slicedSelect(name)
	case "CLOSE", "UNSELECT":
		return true, s.slicedClose(name)
	case "IDLE":
		return true, s.slicedIdle()
	case "FETCH", "STORE", "COPY", "MOVE", "EXPUNGE", "SEARCH", "SORT":
	default:
		return false, nil
	}
	if !v.mail.isOpen() {
		return true, s.answer("BAD", noneSelected)
	}
	if err := s.catchUp(false); err != nil {
		return true, err
	}
	s.r.sayChanges(false, "")
	switch name {
	case "SEARCH", "SORT":
		return true, s.slicedSearch(name, skip)
	case "EXPUNGE":
		return true, s.slicedExpunge(skip)
	case "STORE":
		if refusal := s.storeRefusal(); refusal != "" {
			return true, s.answer("NO", refusal)
		}
	case "FETCH":
		s.scratch = rewriteFetch(s.lexer.Command(), &s.judged.fetch, false,
			s.judged.fetch.seen && (v.watches(`\Seen`) || !s.r.decision.Actions.Has(policy.Flag)), s.scratch)
	}
	return true, s.slicedSet(name, skip)
}

// slicedSet carries out a command on a set of messages.
func (s *clientSide) slicedSet(name string, skip int) error {
	cmd := s.lexer.Command()
	j := &s.judged
	m := &s.r.view.mail
	spans, ok := m.spans(j.set, j.uids)
	if !ok {
		return s.answer("BAD", errNumbers)
	}
	var err error
	uids := m.chosen(spans)
	if name == "COPY" || name == "MOVE" {
		f, err := s.find(j.target, true)
		if err != nil {
			return err
		}
		if f == nil || !f.selectable() {
			return s.answer("NO", tryCreate)
		}
		cmd.SetArg(skip+1, cmd.NewQuoted(f.raw, true))
	}
	rest := slices.Clone(cmd.Args()[skip+1:])
	cmd.SetName("UID")
	var copied []string
	for refusal := ""; len(uids) > 0; {
		part := uids
		uids = nil
		if name == "FETCH" && s.counts() {
			if part, uids, refusal, err = s.reserve(part); err != nil {
				return err
			}
		}
		for _, set := range m.sets(part) {
			cmd.SetArgs(append([]imapwire.Token{cmd.NewAtom(name, true), cmd.NewAtom(set, true)}, rest...))
			answer, err := s.askCommand(cmd, s.changeOf(name, set))
			if err != nil {
				return err
			}
			if !answer.good {
				return s.answerAs(answer)
			}
			if strings.EqualFold(answer.code, "COPYUID") {
				copied = append(copied, answer.args)
			}
		}
		if refusal != "" {
			return s.settled("NO", refusal, skip > 0)
		}
	}
	return s.settled("OK", mergeCopied(copied)+"done", skip > 0 || name == "COPY" || name == "MOVE")
}

// changeOf is changeFor with the set that goes upstream.
func (s *clientSide) changeOf(name, set string) *change {
	c := s.changeFor(name, &s.judged)
	if c != nil {
		c.set, c.uids = cut(set, 2000), true
	}
	return c
}

// mergeCopied puts the COPYUIDs of parts together (RFC 4315 §3).
func mergeCopied(parts []string) string {
	var validity string
	var from, to []string
	for _, p := range parts {
		f := strings.Fields(p)
		if len(f) != 3 || validity != "" && f[0] != validity {
			return ""
		}
		validity = f[0]
		from, to = append(from, f[1]), append(to, f[2])
	}
	if validity == "" {
		return ""
	}
	return fmt.Sprintf("[COPYUID %s %s %s] ", validity, strings.Join(from, ","), strings.Join(to, ","))
}

// storeRefusal: who can change the flags that the slice looks at can choose
// what he sees.
func (s *clientSide) storeRefusal() string {
	v := s.r.view
	if len(v.flags) == 0 {
		return ""
	}
	cmd := s.lexer.Command()
	toks := cmd.Args()[s.judged.flagsFrom:s.judged.flagsTo]
	if sign := cmd.Value(toks[0])[0]; sign != '+' && sign != '-' {
		return "[NOPERM] what you see depends on flags: add flags or take them away instead"
	}
	for _, t := range toks[1:] {
		if t.Kind == imapwire.Atom && v.watches(string(cmd.Value(t))) {
			return "[NOPERM] what you see depends on this flag, which you cannot change"
		}
	}
	return ""
}

// watches reports whether the slice looks at a flag.
func (v *view) watches(flag string) bool {
	return slices.ContainsFunc(v.flags, func(f string) bool { return strings.EqualFold(f, flag) })
}

// slicedExpunge expunges visible messages alone (RFC 4315 §2.1).
func (s *clientSide) slicedExpunge(skip int) error {
	refusal, err := s.expungeVisible(skip)
	if err != nil {
		return err
	}
	if refusal != nil {
		return s.answerAs(refusal)
	}
	return s.settled("OK", "done", true)
}

// expungeVisible asks for the visible messages with \Deleted and expunges them;
// with skip, those in the client's set.
func (s *clientSide) expungeVisible(skip int) (refusal *ownAnswer, err error) {
	m := &s.r.view.mail
	if !s.r.view.uidPlus {
		return &ownAnswer{status: "NO", code: "CANNOT", text: "the mail server cannot expunge a part of a folder"}, nil
	}
	answer, err := s.ask("UID SEARCH DELETED", nil)
	if err != nil || !answer.good {
		return answer, err
	}
	slices.Sort(answer.numbers)
	uids := m.visible(slices.Compact(answer.numbers))
	if skip > 0 {
		spans, _ := m.spans(s.judged.set, true)
		within := m.chosen(spans)
		uids = slices.DeleteFunc(uids, func(uid uint32) bool { _, found := slices.BinarySearch(within, uid); return !found })
	}
	for _, set := range m.sets(uids) {
		answer, err := s.ask("UID EXPUNGE "+set, s.changeOf("EXPUNGE", set))
		if err != nil || !answer.good {
			return answer, err
		}
	}
	return nil, nil
}
