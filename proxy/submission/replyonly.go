// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"context"
	"strings"

	"go.uber.org/zap"
)

// mayReplyTo holds a recipient against reply_only; nil: he may be written to.
// What was found holds for the session: its decision does too.
func (s *session) mayReplyTo(to Address) *reply {
	if !s.live.Decision().Sending.ReplyOnly || s.known[to.Key()] {
		return nil
	}
	// An address with two spellings may stand in a message in the other.
	if to.utf8 || strings.ContainsAny(to.String(), `"[`) {
		return replyTermsReplyOnly
	}
	if s.gateway.correspondents == nil {
		return replyNotAsked
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.gateway.limits.SentTimeout)
	defer cancel()
	known, err := s.gateway.correspondents.Known(ctx, s.live, to)
	switch {
	case err != nil:
		s.log.Warn("whether a recipient is a correspondent could not be asked", zap.Error(err))
		return replyNotAsked
	case !known:
		return replyTermsReplyOnly
	}
	if s.known == nil {
		s.known = make(map[string]bool)
	}
	s.known[to.Key()] = true
	return nil
}
