// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// appendCommand carries a command whose messages pass by as literals.
func (s *clientSide) appendCommand(entry *command, skip int) error {
	cmd := s.lexer.Command()
	var j judgement
	if err := s.judge(entry, skip, &j); err != nil {
		return s.swallow("BAD", err.Error())
	}
	if !j.allowed(s.r.decision) {
		s.f().metrics.command(entry.name, "refused")
		return s.swallowRefused(entry, &j)
	}
	t := s.lexer.Pending()
	if t.NonSync && !s.r.server.Allows(t.Size()) {
		return s.notACommand(nil, &imapwire.SyntaxError{Text: "a non-synchronising literal that was not offered", Fatal: true})
	}
	if err := s.barrier(); err != nil {
		return err
	}
	if err := s.identifyOpened(); err != nil {
		return err
	}
	s.f().metrics.command(entry.name, "forwarded")
	s.alone = true
	flight := inFlight{change: &change{kind: broker.EventMessageAppend, folder: printable(j.folder)}}
	flight.setTag(cmd.Tag())
	s.out.Head(cmd.Tag(), cmd.Name())
	next, pushed := 0, false
	for {
		catenate, utf8 := streamContext(cmd)
		t := s.lexer.Pending()
		next = s.out.Args(cmd, next, s.r.server)
		if !pushed {
			pushed = true
			s.r.push(flight, expectNothing)
		}
		granted, err := s.announceAndStream(t, flight.change)
		if err != nil || !granted {
			return err
		}
		line, err := s.lines.read(imapwire.MaxLine)
		if err != nil {
			return err
		}
		from := len(cmd.Args())
		done, err := s.lexer.Line(line)
		for err == nil && !done && !s.streamsHere(skip) {
			done, err = s.bufferLiteral()
		}
		if err == nil {
			s.parse.begin(cmd)
			if err = appendRest(&s.parse, from, catenate, utf8); err != nil {
				err = &imapwire.SyntaxError{Text: err.Error()}
			}
		}
		if err != nil {
			// Half a command is upstream: it can only be cut off.
			s.r.say("%s BAD %s\r\n", s.tag(), err.Error())
			return &imapwire.SyntaxError{Text: "an APPEND that is not one", Fatal: true}
		}
		if done && next == len(cmd.Args()) {
			s.out.Raw("\r\n")
			return s.flush()
		}
		if s.r.nothingUnderWay() {
			// The upstream gave its answer early and is past this command: what
			// is left of it must not be read as another.
			return &imapwire.SyntaxError{Text: "the mail server refused the message before it was complete", Fatal: true}
		}
		if done {
			s.out.Args(cmd, next, s.r.server)
			return s.flush()
		}
	}
}

// announceAndStream sends what leads up to a message, waits for leave where
// the literal is synchronising, and lets the message pass. false: the upstream
// refused it, and the client knows.
func (s *clientSide) announceAndStream(t imapwire.Token, c *change) (bool, error) {
	sync := !t.NonSync || !s.r.server.Allows(t.Size())
	if sync {
		s.r.mu.Lock()
		s.r.expect, s.r.granted = expectForClient, false
		s.r.mu.Unlock()
	}
	if err := s.flushInPieces(); err != nil {
		return false, err
	}
	if sync {
		granted, err := s.awaitContinuation()
		if err != nil || !granted {
			return false, err
		}
	}
	message := appendedMessage{octets: t.Size(), hash: sha256.New(), sniff: headerSniffer{active: true}}
	if err := s.stream(t.Size(), &message); err != nil {
		return false, err
	}
	c.messages = append(c.messages, message.data())
	return true, nil
}

// flushInPieces writes an APPEND's head, whose mailbox may be a literal that
// must be waited for.
func (s *clientSide) flushInPieces() error {
	breaks, whole := s.out.Breaks(), s.out.Bytes()
	if len(breaks) == 0 {
		return s.flush()
	}
	s.r.mu.Lock()
	after := s.r.expect
	s.r.expect, s.r.granted = expectForPostern, false
	s.r.mu.Unlock()
	start := 0
	for _, end := range breaks {
		if err := s.write(whole[start:end]); err != nil {
			return err
		}
		if granted, err := s.awaitContinuation(); err != nil || !granted {
			s.out.Reset()
			return err
		}
		s.r.mu.Lock()
		s.r.granted = false
		s.r.mu.Unlock()
		start = end
	}
	s.r.mu.Lock()
	s.r.expect = after
	s.r.mu.Unlock()
	err := s.write(whole[start:])
	s.out.Reset()
	return err
}

// stream lets size octets of a literal pass upstream.
func (s *clientSide) stream(size int64, message *appendedMessage) error {
	big := s.f().buffers.get()
	defer s.f().buffers.put(big)
	for size > 0 {
		s.deadline = time.Now().Add(silence)
		if err := s.r.down.SetReadDeadline(s.deadline); err != nil {
			return err
		}
		n, err := s.lines.readSome((*big)[:min(size, int64(len(*big)))])
		if n > 0 {
			message.write((*big)[:n])
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
