// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// appendCommand carries a command whose messages pass by as literals.
//
// Each message is announced upstream by a synchronising literal: no octet of
// it is sent before the upstream has said that it will read as many. A client
// that does not wait is held back by its socket meanwhile.
func (s *clientSide) appendCommand(entry *command, skip int) error {
	cmd := s.lexer.Command()
	j := s.judge(entry, skip)
	if j.err != nil {
		s.f().metrics.command(entry, outcomeBad)
		return s.swallow("BAD", j.err.Error())
	}
	if !j.allowed(s.r.decision) {
		return s.swallowRefused(entry, j)
	}
	if s.r.view != nil {
		if refusal, err := s.viewAppend(); err != nil {
			return err
		} else if refusal != "" {
			return s.swallow("NO", refusal)
		}
	}
	if err := s.barrier(); err != nil {
		return err
	}
	if err := s.identifyOpened(entry); err != nil {
		return err
	}
	s.f().metrics.command(entry, outcomeForwarded)
	s.alone = true
	flight := inFlight{change: s.changeFor(entry.name, j)}
	flight.setTag(cmd.Tag())
	s.out.Head(cmd.Tag(), cmd.Name())
	s.r.push(flight, expectNothing)
	for next := 0; ; {
		catenate, utf8 := streamContext(cmd)
		next = s.out.Args(cmd, next)
		granted, err := s.announceAndStream(s.lexer.Pending(), flight.change)
		if err != nil {
			return err
		}
		if !granted { // the upstream refused, and the client knows
			return s.swallowLiterals()
		}
		from := len(cmd.Args())
		done, err := s.appendNext(j, skip, from, catenate, utf8)
		if err != nil {
			return err
		}
		if done && next == len(cmd.Args()) {
			s.out.Raw("\r\n")
			return s.flush()
		}
		if s.r.nothingUnderWay() {
			return errAnsweredEarly()
		}
		if done {
			s.out.Args(cmd, next)
			_, err := s.flushInPieces()
			return err
		}
	}
}

// errAnsweredEarly: the upstream gave its answer and is past this command,
// so that what is left of it must not be read as another.
func errAnsweredEarly() error {
	return &imapwire.SyntaxError{Text: "the mail server answered before the message was complete", Fatal: true}
}

// appendNext reads what follows a message: the end of the command, or what
// leads up to the next message.
func (s *clientSide) appendNext(j *judgement, skip, from int, catenate, utf8 bool) (done bool, err error) {
	line, err := s.lines.read(imapwire.MaxLine)
	if err != nil {
		return false, err
	}
	done, err = s.lexer.Line(line)
	for err == nil && !done && !s.streamsHere(skip) {
		done, err = s.bufferLiteral()
	}
	if err == nil {
		s.parse.begin(s.lexer.Command())
		if err = appendRest(&s.parse, j, from, catenate, utf8); err != nil {
			err = &imapwire.SyntaxError{Text: err.Error()}
		} else if !j.allowed(s.r.decision) {
			err = &imapwire.SyntaxError{Text: "the mailbox's owner did not grant you " + (j.needs &^ s.r.decision.Actions).String()}
		} else if s.r.view != nil && j.uses&(usesCatenate|usesUTF8) != 0 {
			err = &imapwire.SyntaxError{Text: "not offered where a part of the mailbox is shown"}
		} else if missing := s.r.upstream.missing(j.uses); missing != "" {
			err = &imapwire.SyntaxError{Text: "the mail server does not offer " + missing}
		}
	}
	if syntax := (*imapwire.SyntaxError)(nil); errors.As(err, &syntax) {
		// Half a command is upstream: it can only be cut off.
		s.r.say("%s BAD %s\r\n", s.tag(), syntax.Text)
		err = &imapwire.SyntaxError{Text: "an APPEND that is not one", Fatal: true}
	}
	return done, err
}

// announceAndStream sends what leads up to a message, waits for the
// upstream's leave, and lets the message pass. false: the upstream refused it.
func (s *clientSide) announceAndStream(t imapwire.Token, c *change) (bool, error) {
	expect := expectForClient
	if t.NonSync {
		expect = expectForPostern
	}
	s.r.mu.Lock()
	s.r.expect, s.r.granted = expect, false
	s.r.mu.Unlock()
	if granted, err := s.flushInPieces(); err != nil || !granted {
		return false, err
	}
	if granted, err := s.awaitContinuation(); err != nil || !granted {
		return false, err
	}
	message := appendedMessage{octets: t.Size(), hash: sha256.New(), sniff: headerSniffer{active: true}}
	if err := s.stream(t.Size(), &message, c); err != nil {
		return false, err
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if len(s.r.pending) == 0 {
		return false, errAnsweredEarly()
	}
	c.messages = append(c.messages, message.data())
	return true, nil
}

// flushInPieces writes what leads up to a message, in which a mailbox or a URL
// may be a literal that must be waited for. false: the upstream refused it.
func (s *clientSide) flushInPieces() (bool, error) {
	breaks, whole := s.out.Breaks(), s.out.Bytes()
	if len(breaks) == 0 {
		return true, s.flush()
	}
	s.r.mu.Lock()
	after := s.r.expect
	s.r.mu.Unlock()
	start := 0
	for _, end := range breaks {
		s.r.mu.Lock()
		s.r.expect, s.r.granted = expectForPostern, false
		s.r.mu.Unlock()
		if err := s.write(whole[start:end]); err != nil {
			return false, err
		}
		if granted, err := s.awaitContinuation(); err != nil || !granted {
			s.out.Reset()
			return false, err
		}
		start = end
	}
	s.r.mu.Lock()
	s.r.expect, s.r.granted = after, false
	s.r.mu.Unlock()
	err := s.write(whole[start:])
	s.out.Reset()
	return err == nil, err
}

// stream lets size octets of a literal pass upstream.
func (s *clientSide) stream(size int64, message *appendedMessage, c *change) error {
	filing := s.filing()
	big := s.f().buffers.get()
	defer s.f().buffers.put(big)
	for size > 0 {
		s.deadline = time.Now().Add(s.f().silence)
		if err := s.r.readBy(s.deadline); err != nil {
			return err
		}
		n, err := s.lines.readSome((*big)[:min(size, int64(len(*big)))])
		if n > 0 {
			message.write((*big)[:n])
			if filing != nil {
				if err := filing.write(s, c, (*big)[:n], int64(n) == size); err != nil {
					return err
				}
			}
			if err := s.write((*big)[:n]); err != nil {
				return err
			}
			size -= int64(n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// swallowRefused refuses an APPEND, and lets the octets by that a client
// sends without waiting.
func (s *clientSide) swallowRefused(entry *command, j *judgement) error {
	if err := s.swallowLiterals(); err != nil {
		return err
	}
	return s.refuse(entry, j)
}

func (s *clientSide) swallow(status, text string) error {
	if err := s.swallowLiterals(); err != nil {
		return err
	}
	return s.answer(status, text)
}

// swallowLiterals reads a refused command to its end. A synchronising literal
// is never sent, so that the command ends at its announcement.
func (s *clientSide) swallowLiterals() error {
	for {
		t := s.lexer.Pending()
		if t.Kind != imapwire.Stream || !t.NonSync {
			return nil
		}
		if t.Size() > s.f().maxSwallow {
			return &imapwire.SyntaxError{Text: "a refused literal that is too large to read past", Fatal: true}
		}
		if err := s.flush(); err != nil {
			return err
		}
		if err := s.lines.discard(t.Size()); err != nil {
			return err
		}
		line, err := s.lines.read(imapwire.MaxLine)
		if err != nil {
			return err
		}
		done, err := s.lexer.Line(line)
		if err != nil {
			return &imapwire.SyntaxError{Text: err.Error(), Fatal: true}
		}
		if done {
			return nil
		}
	}
}

func (s *clientSide) streamsHere(skip int) bool {
	name := "APPEND"
	if string(s.lexer.Command().Name()) != "APPEND" {
		name = "REPLACE"
	}
	return streamsHere(name, skip, s.lexer.Command())
}

// appendedMessage gathers what is recorded of a message on its way up.
type appendedMessage struct {
	octets int64
	hash   hash.Hash
	sniff  headerSniffer
}

func (m *appendedMessage) write(b []byte) {
	_, _ = m.hash.Write(b)
	_, _ = m.sniff.Write(b)
}

func (m *appendedMessage) data() broker.MessageAppend {
	return broker.MessageAppend{
		Octets: m.octets, SHA256: fmt.Sprintf("%x", m.hash.Sum(nil)), MessageID: m.sniff.messageID(),
	}
}
