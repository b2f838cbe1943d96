// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"errors"

	"github.com/postern-mail/postern/broker"
)

// stage is where an error met the client: SMTP has codes of its own for AUTH.
type stage int

const (
	stageAuth stage = iota
	stageMail
)

// replyTo is the one place where an error becomes what a client is told.
//
// At AUTH (RFC 4954 §6): Denied is 535 5.7.8, one text for all. Refused is
// 535 5.7.1: 535 because it is the permanent refusal of AUTH that every client
// knows; 5.7.1, "not authorized" (RFC 3463 §3.8), and not 5.7.8, "credentials
// invalid", because the credentials were right: a client told otherwise throws
// them away and asks the agent for new ones. Whatever may pass is 454 4.7.0,
// and so is an upstream that refuses the mailbox's credential: that is no
// fault of the agent's app password.
//
// Later, what may pass is 451 and a refusal 550.
func replyTo(err error, at stage) *reply {
	code, text := broker.CodeOf(err), broker.PublicText(err)
	if at == stageAuth {
		switch code {
		case broker.Denied:
			return newReply(535, "5.7.8", "authentication failed")
		case broker.Refused:
			return newReply(535, "5.7.1", text)
		case broker.CredentialRefused:
			return newReply(454, "4.7.0", "the mail server refused the mailbox's stored credential; whoever runs this service has been told; try again later")
		case broker.Limit, broker.Unavailable:
			return newReply(454, "4.7.0", text)
		}
		return newReply(454, "4.7.0", "internal error; try again")
	}
	switch code {
	case broker.Denied, broker.Refused:
		return newReply(550, "5.7.1", text)
	case broker.Limit:
		return newReply(452, "4.7.0", text)
	case broker.Unavailable:
		return newReply(451, "4.3.0", text)
	case broker.CredentialRefused:
		return newReply(451, "4.7.0", "the mail server refused the mailbox's stored credential; try again later")
	}
	return replyInternal
}

// replyToEnd is the 421 of a session that must end.
func replyToEnd(e *broker.End) *reply {
	enhanced := "4.3.0"
	switch e.Reason {
	case broker.EndDrain:
		enhanced = "4.3.2" // system not accepting network messages
	case broker.EndIdle:
		enhanced = "4.4.2"
	case broker.EndRevoked, broker.EndLocked, broker.EndExpired, broker.EndByAdmin, broker.EndBudget:
		enhanced = "4.7.0"
	}
	text := e.Text
	if text == "" {
		text = "the session has ended"
	}
	return newReply(421, enhanced, text).closing()
}

// asSMTP turns a reply into what go-smtp's Session methods return: nil is a
// success with its own text.
func asSMTP(r *reply) error {
	if r == nil {
		return nil
	}
	return r.smtpError()
}

// cause returns why a session's context was cancelled.
func causeOf(err error) *broker.End {
	var e *broker.End
	if errors.As(err, &e) {
		return e
	}
	return &broker.End{Reason: broker.EndDrain, Text: "the server is stopping"}
}
