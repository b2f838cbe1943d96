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

// slicedIdle is IDLE in a session that is shown a slice. The upstream's IDLE is
// Postern's own: whenever it tells of something, it is ended, what has come is
// asked for, the client is told, and it begins anew.
func (s *clientSide) slicedIdle() error {
	tag := bytes.Clone(s.tag())
	if s.r.view.mail.isOpen() {
		if err := s.catchUp(true); err != nil {
			return err
		}
	}
	if err := s.barrier(); err != nil {
		return err
	}
	s.r.say("+ idling\r\n")
	s.r.sayChanges(true, "")
	limit := time.Now().Add(s.f().silence)
	for {
		line, err := s.idleOnce(limit)
		if err != nil {
			return err
		}
		if line != nil {
			if !bytes.EqualFold(line, []byte("DONE\r\n")) {
				s.lexer.Reset()
				return s.notACommand(nil, &imapwire.SyntaxError{Text: "only DONE ends IDLE", Fatal: true})
			}
			if s.r.view.mail.isOpen() {
				if err := s.catchUp(true); err != nil {
					return err
				}
			}
			s.r.sayChanges(true, "%s OK done\r\n", tag)
			return nil
		}
		if s.r.view.mail.isOpen() {
			if err := s.catchUp(true); err != nil {
				return err
			}
		}
		s.r.sayChanges(true, "")
	}
}

// idleOnce idles upstream until the client says something, which it returns, or
// the upstream has told something, or it is time to begin anew.
func (s *clientSide) idleOnce(limit time.Time) ([]byte, error) {
	own := s.nextTag()
	s.r.push(inFlight{tag: own, own: true}, expectForPostern)
	s.out.Raw(own + " IDLE\r\n")
	if err := s.flush(); err != nil {
		return nil, err
	}
	granted, err := s.awaitContinuation()
	if err != nil {
		return nil, err
	}
	if !granted {
		// It will not idle: then it is asked now and again instead.
		if line, err := s.listenIdle(limit, time.Now().Add(pollIdle)); line != nil || err != nil {
			return line, err
		}
		_, err := s.ask("NOOP", nil)
		return nil, err
	}
	s.r.setIdling(true)
	line, err := s.listenIdle(limit, time.Now().Add(s.f().reIdle-rand.N(s.f().reIdleJitter)))
	s.r.setIdling(false)
	if err != nil {
		return nil, err
	}
	line = bytes.Clone(line)
	if !s.r.idleOver() {
		s.r.doneSent()
		s.out.Raw("DONE\r\n")
	}
	return line, s.barrier()
}

// listenIdle waits for a line of the client's, for news, or for a time; nil is
// either of the latter.
func (s *clientSide) listenIdle(limit, wake time.Time) ([]byte, error) {
	if limit.Before(wake) {
		wake = limit
	}
	s.deadline = time.Time{}
	s.r.mu.Lock()
	switch {
	case s.r.end != nil:
		s.r.mu.Unlock()
		return nil, errOver
	case s.r.news:
		s.r.news = false
		s.r.mu.Unlock()
		return nil, nil
	}
	s.r.listensForNews = true
	err := s.r.down.SetReadDeadline(wake)
	s.r.mu.Unlock()
	var line []byte
	if err == nil {
		s.r.session.SetIdle(true)
		line, err = s.lines.read(imapwire.MaxLine)
		s.r.session.SetIdle(false)
	}
	s.r.mu.Lock()
	s.r.listensForNews, s.r.news = false, false
	s.r.mu.Unlock()
	if errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(limit) {
		return nil, nil
	}
	return line, err
}

// tellNews wakes a client's goroutine that idles.
func (r *relay) tellNews() {
	r.mu.Lock()
	if r.news = true; r.listensForNews && r.end == nil {
		_ = r.down.SetReadDeadline(time.Unix(1, 0))
	}
	r.mu.Unlock()
}
