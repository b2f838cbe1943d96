// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// forward serialises the command and queues it for the upstream. Only a
// command with literals that must be waited for is written at once.
func (s *clientSide) forward(cmd *imapwire.Command, flight inFlight) error {
	room, unique := s.r.admits(cmd.Tag())
	if !unique {
		// Answers are told apart by their tags. One that is under way already
		// is a client's fault, which costs it no more than its pipeline.
		if err := s.barrier(); err != nil {
			return err
		}
	} else if !room {
		if err := s.flush(); err != nil {
			return err
		}
		if err := s.wait(roomToPipeline); err != nil {
			return err
		}
	}
	start := len(s.out.Bytes())
	s.out.Head(cmd.Tag(), cmd.Name())
	s.out.Args(cmd, 0)
	if len(s.out.Breaks()) == 0 {
		s.r.push(flight, expectNothing)
		if len(s.out.Bytes()) > smallBuffer || s.alone {
			return s.flush()
		}
		return nil
	}
	return s.forwardInPieces(start, flight)
}

// forwardInPieces sends a command that has synchronising literals: at each it
// waits until the upstream is ready, or has answered.
func (s *clientSide) forwardInPieces(start int, flight inFlight) error {
	whole := s.out.Bytes()
	if start > 0 {
		if err := s.write(whole[:start]); err != nil {
			return err
		}
	}
	if err := s.wait(nothingPending); err != nil {
		return err
	}
	s.r.push(flight, expectForPostern)
	for _, end := range s.out.Breaks() {
		if err := s.write(whole[start:end]); err != nil {
			return err
		}
		granted, err := s.awaitContinuation()
		if err != nil {
			return err
		}
		if !granted { // the upstream refused; its answer has gone to the client
			s.out.Reset()
			return nil
		}
		s.r.mu.Lock()
		s.r.expect, s.r.granted = expectForPostern, false
		s.r.mu.Unlock()
		start = end
	}
	s.r.mu.Lock()
	s.r.expect = expectNothing
	s.r.mu.Unlock()
	err := s.write(whole[start:])
	s.out.Reset()
	return err
}

// awaitContinuation waits for a continuation request; false: the command was
// answered instead.
func (s *clientSide) awaitContinuation() (bool, error) {
	if err := s.wait(continued); err != nil {
		return false, err
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	return s.r.granted, nil
}

// nextTag makes a tag for a command of Postern's own.
func (s *clientSide) nextTag() string {
	s.own++
	return fmt.Sprintf("%s%d", s.r.prefix, s.own)
}
