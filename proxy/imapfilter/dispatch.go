// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// dispatch judges a complete command and sends it on.
func (s *clientSide) dispatch(entry *command, skip int) error {
	cmd := s.lexer.Command()
	if entry.judge == nil {
		s.f().metrics.command(entry, outcomeNever)
		return s.answer("BAD", "never here: "+entry.never)
	}
	j := s.judge(entry, skip)
	if j.err != nil {
		s.f().metrics.command(entry, outcomeBad)
		return s.answer("BAD", j.err.Error())
	}
	if !j.allowed(s.r.decision) {
		if entry.name == "CLOSE" {
			return s.closeWithoutExpunge(entry, cmd)
		}
		return s.refuse(entry, j)
	}
	if v := s.r.view; v != nil {
		if done, err := s.viewCommand(entry, skip); done || err != nil {
			s.f().metrics.command(entry, outcomeRewritten)
			return err
		}
	}
	s.f().metrics.command(entry, outcomeForwarded)
	if entry.alone || (!entry.numbers && s.r.wantsIdentify()) {
		if err := s.barrier(); err != nil {
			return err
		}
		if err := s.identifyOpened(entry); err != nil {
			return err
		}
	}
	switch entry.name {
	case "ENABLE":
		if !s.keepEnableable(cmd) {
			s.r.say("* ENABLED\r\n") // RFC 5161 §3.1
			return s.answer("OK", "nothing to enable")
		}
	case "FETCH", "UID FETCH":
		peek := j.fetch.seen && !s.r.decision.Actions.Has(policy.Flag)
		s.scratch = rewriteFetch(cmd, &j.fetch, skip == 0, peek, s.scratch)
	case "NOTIFY":
		peek := !s.r.decision.Actions.Has(policy.Flag)
		for i := len(j.pushed) - 1; i >= 0; i-- { // from the end, so that the indexes hold
			s.scratch = rewriteFetch(cmd, &j.pushed[i], true, peek, s.scratch)
		}
	case "IDLE":
		return s.idle(cmd)
	}
	flight := inFlight{kind: kindOf(entry.name)}
	flight.change = s.changeFor(entry.name, j)
	flight.setTag(cmd.Tag())
	s.alone = entry.alone
	return s.forward(cmd, flight)
}

func kindOf(name string) inFlightKind {
	switch name {
	case "SELECT", "EXAMINE":
		return selecting
	case "CLOSE", "UNSELECT":
		return closing
	case "LOGOUT":
		return logout
	}
	return plain
}

// judge runs the command's grammar, and adds what only the session knows. The
// result is valid until the next call.
func (s *clientSide) judge(entry *command, skip int) *judgement {
	j := &s.judged
	*j = judgement{uids: skip > 0, sets: j.sets[:0]}
	s.parse.begin(s.lexer.Command())
	s.parse.pos = skip
	if j.err = entry.judge(&s.parse, j); j.err != nil {
		return j
	}
	if missing := s.r.upstream.missing(j.uses); missing != "" {
		j.err = errors.New("the mail server does not offer " + missing)
		return j
	}
	if v := s.r.view; v != nil {
		if name := v.withheld(entry, j); name != "" {
			j.err = errors.New("not offered where a part of the mailbox is shown: " + name)
			return j
		}
	}
	special := &s.r.special
	switch entry.name {
	case "COPY", "UID COPY", "MOVE", "UID MOVE":
		j.needs = special.trashActions(j.target)
	case "STORE", "UID STORE":
		if j.labels {
			s.judgeLabels(j)
		}
	case "APPEND", "REPLACE", "UID REPLACE":
		j.sendInstead = special.isSentOrDrafts(j.folder)
	case "FETCH", "UID FETCH":
		s.judgeSeen(j, &j.fetch)
	case "NOTIFY":
		for i := range j.pushed {
			s.judgeSeen(j, &j.pushed[i])
		}
	}
	return j
}

// judgeSeen: RFC822 sets \Seen and has no PEEK form.
func (s *clientSide) judgeSeen(j *judgement, f *fetchItems) {
	if f.seen && !f.rewritable && !s.r.decision.Actions.Has(policy.Flag) {
		j.need(policy.Flag)
	}
	if v := s.r.view; f.seen && !f.rewritable && v.sliced() && v.watches(`\Seen`) {
		j.err = errors.New("RFC822 would set \\Seen, which what you see depends on: use BODY.PEEK[]")
	}
}

// judgeLabels: to label a message with Trash is to move it there.
func (s *clientSide) judgeLabels(j *judgement) {
	cmd := s.lexer.Command()
	for _, t := range cmd.Args()[j.flagsFrom+1 : j.flagsTo] {
		switch label := cmd.Value(t); {
		case len(label) == 0: // a parenthesis
		case bytes.EqualFold(label, []byte(`\Trash`)):
			j.need(policy.Delete)
		default:
			j.need(s.r.special.trashActions(label))
		}
	}
}

// refuse answers a command that the decision does not allow. The first of its
// kind in a session is recorded.
func (s *clientSide) refuse(entry *command, j *judgement) error {
	s.f().metrics.command(entry, outcomeRefused)
	missing := j.needs &^ s.r.decision.Actions
	if key := entry.name + " " + missing.String(); !s.refused[key] {
		if s.refused == nil {
			s.refused = make(map[string]bool)
		}
		s.refused[key] = true
		folder := j.folder
		if folder == nil {
			folder = j.target
		}
		s.r.session.Submit(broker.EventCommandRefused, broker.CommandRefused{
			Command: entry.name, Needs: missing, Folder: printable(folder),
		})
	}
	return s.answer("NO", fmt.Sprintf("[NOPERM] %s needs the action %q, which the mailbox's owner did not grant you", entry.name, missing.String()))
}

// closeWithoutExpunge turns CLOSE into UNSELECT for a session that may not
// delete.
func (s *clientSide) closeWithoutExpunge(entry *command, cmd *imapwire.Command) error {
	if !s.r.upstream.has(offersUnselect | offersRev2) {
		return s.answer("NO", "[NOPERM] CLOSE would expunge, which the mailbox's owner did not grant you; select another folder instead")
	}
	s.f().metrics.command(entry, outcomeRewritten)
	if err := s.barrier(); err != nil {
		return err
	}
	cmd.SetName("UNSELECT")
	flight := inFlight{kind: closing}
	flight.setTag(cmd.Tag())
	s.alone = true
	return s.forward(cmd, flight)
}

// keepEnableable drops extensions that the table does not know; false: none
// is left.
func (s *clientSide) keepEnableable(cmd *imapwire.Command) bool {
	kept := s.scratch[:0]
	for _, t := range cmd.Args() {
		if onList(s.r.view.enableable(), cmd.Value(t)) {
			kept = append(kept, t)
		}
	}
	s.scratch = kept
	cmd.SetArgs(kept)
	return len(kept) > 0
}
