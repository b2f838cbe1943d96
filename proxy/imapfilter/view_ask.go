// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// This file is how a view asks the upstream with commands of Postern's own.

// askCommand sends the client's command as Postern's own.
func (s *clientSide) askCommand(cmd *imapwire.Command, c *change) (*ownAnswer, error) {
	if err := s.barrier(); err != nil {
		return nil, err
	}
	a, tag := s.expectAnswer()
	defer s.r.view.answer.Store(nil)
	s.out.Head([]byte(tag), cmd.Name())
	s.out.Args(cmd, 0)
	flight := inFlight{tag: tag, own: true, change: c}
	if len(s.out.Breaks()) > 0 {
		if err := s.forwardInPieces(0, flight); err != nil {
			return nil, err
		}
	} else {
		s.r.push(flight, expectNothing)
	}
	return a, s.barrier()
}

// askFlight sends a line as Postern's own command, for what it means.
func (s *clientSide) askFlight(line []byte, flight inFlight) (*ownAnswer, error) {
	if err := s.barrier(); err != nil {
		return nil, err
	}
	a, tag := s.expectAnswer()
	defer s.r.view.answer.Store(nil)
	flight.tag, flight.own = tag, true
	s.out.Raw(tag + " " + string(bytes.TrimSpace(line)) + "\r\n")
	s.r.push(flight, expectNothing)
	return a, s.barrier()
}

// expectAnswer makes ready for the answer to an own command, and its tag.
func (s *clientSide) expectAnswer() (*ownAnswer, string) {
	a := &ownAnswer{status: "NO"}
	s.r.view.answer.Store(a)
	return a, s.nextTag()
}
