// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"context"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// filingTimeout bounds the wait for a filing to become durable.
const filingTimeout = 10 * time.Second

// filing is a message that a session puts into the mailbox whose terms let it
// write only to the mailbox's correspondents (reply_only): it must be known
// again there, since it is no proof that anybody wrote. So it must have one
// Message-ID that every reader finds, and that is in the durable record before
// the upstream has the message as a whole: the upstream's answer may never be
// seen. A copy has the same Message-ID.
type filing struct {
	header []byte
	whole  bool
}

// filing returns one for a message that begins; nil: the session files what it
// likes.
func (s *clientSide) filing() *filing {
	if !s.r.decision.Sending.ReplyOnly {
		return nil
	}
	return &filing{}
}

// write takes the message's next octets; last says that they end it. An error
// must keep them from the upstream.
func (f *filing) write(s *clientSide, c *change, b []byte, last bool) error {
	if !f.whole {
		f.header = append(f.header, b[:min(len(b), proxy.MaxPlainHeader+1-len(f.header))]...)
		if end := bytes.Index(f.header, []byte("\r\n\r\n")); end >= 0 {
			f.header, f.whole = f.header[:end+2], true
		} else if len(f.header) > proxy.MaxPlainHeader || last {
			return s.unfiled("its header has no end, or is too long")
		}
	}
	if !last {
		return nil
	}
	id, err := proxy.PlainMessageID(f.header)
	if err != nil {
		return s.unfiled(err.Error())
	}
	ctx, cancel := context.WithTimeout(s.r.session.Context(), filingTimeout)
	defer cancel()
	if err := s.r.session.Append(ctx, broker.EventMessageFiling, broker.MessageFiling{Folder: c.folder, MessageID: id}); err != nil {
		s.r.say("%s NO [UNAVAILABLE] the record cannot be written, so nothing was filed\r\n", s.tag())
		return &imapwire.SyntaxError{Text: "a message that was not recorded", Fatal: true}
	}
	return nil
}

// unfiled refuses a message. Half a command is upstream: it can only be cut
// off.
func (s *clientSide) unfiled(why string) error {
	s.r.say("%s NO the terms of this mailbox (rule terms-reply-only) do not let this message be filed: %s\r\n", s.tag(), why)
	return &imapwire.SyntaxError{Text: "a message that may not be filed: " + why, Fatal: true}
}
