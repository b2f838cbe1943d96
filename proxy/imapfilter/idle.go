// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"time"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// idle hands IDLE over and waits for DONE, renewing the upstream's IDLE
// meanwhile (RFC 2177; servers drop it after 29 to 60 minutes).
func (s *clientSide) idle(cmd *imapwire.Command) error {
	tag := bytes.Clone(cmd.Tag())
	flight := inFlight{}
	flight.setTag(tag)
	s.out.Head(cmd.Tag(), cmd.Name())
	s.out.Args(cmd, 0)
	s.r.push(flight, expectForClient)
	if err := s.flush(); err != nil {
		return err
	}
	s.alone = true
	granted, err := s.awaitContinuation()
	if err != nil || !granted {
		return err
	}
	s.r.setIdling(true)
	defer s.r.setIdling(false)
	return s.idleUntilDone(tag)
}

func (s *clientSide) idleUntilDone(tag []byte) error {
	limit := time.Now().Add(s.f().silence)
	for {
		renew := time.Now().Add(s.f().reIdle - rand.N(s.f().reIdleJitter))
		wake := renew
		if limit.Before(renew) {
			wake = limit
		}
		s.deadline = time.Time{}
		if err := s.r.readBy(wake); err != nil {
			return err
		}
		s.r.session.SetIdle(true)
		line, err := s.lines.read(imapwire.MaxLine)
		s.r.session.SetIdle(false)
		switch {
		case err == nil:
			return s.done(line)
		case !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(limit):
			return err
		}
		alive, err := s.renewIdle(tag)
		if err != nil || !alive {
			return err
		}
	}
}

// done ends IDLE upstream. A line that is not DONE is BAD, and ends it too.
func (s *clientSide) done(line []byte) error {
	if s.r.idleOver() {
		// The upstream has ended it; DONE may have crossed that.
		if bytes.EqualFold(line, []byte("DONE\r\n")) {
			return nil
		}
		s.r.setIdling(false)
		return s.command(line)
	}
	s.r.setIdling(false)
	s.r.doneSent()
	s.out.Raw("DONE\r\n")
	if err := s.flush(); err != nil {
		return err
	}
	if !bytes.EqualFold(line, []byte("DONE\r\n")) {
		s.lexer.Reset()
		return s.notACommand(nil, &imapwire.SyntaxError{Text: "only DONE ends IDLE", Fatal: true})
	}
	return nil
}

// renewIdle ends the upstream's IDLE and begins it anew, unseen by the client.
// false: the upstream has ended it, or would not begin it again; the client
// has its answer.
func (s *clientSide) renewIdle(tag []byte) (bool, error) {
	if !s.r.hideIdleAnswer() {
		return false, nil
	}
	s.r.doneSent()
	s.out.Raw("DONE\r\n")
	if err := s.barrier(); err != nil {
		return false, err
	}
	own := s.nextTag()
	s.r.push(inFlight{tag: own, retag: tag}, expectForPostern)
	s.out.Raw(own + " IDLE\r\n")
	if err := s.flush(); err != nil {
		return false, err
	}
	return s.awaitContinuation()
}
