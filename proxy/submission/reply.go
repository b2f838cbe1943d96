// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"fmt"
	"strings"

	"github.com/emersion/go-smtp"
)

// reply is one answer to the client.
type reply struct {
	code     int
	enhanced smtp.EnhancedCode
	text     string // lines joined by \n
	// rule names what was broken, for send.refused; "": no rule, an error.
	rule string
	// address is the one that the rule refused, for send.refused.
	address string
	// fatal says that the connection is closed after it.
	fatal bool
}

// Rules, as send.refused and the metric name them.
const (
	ruleSendAction          = "send-action"
	ruleOwnAddress          = "own-address"
	ruleAddress             = "malformed-address"
	ruleParameter           = "parameter"
	ruleCapability          = "upstream-capability"
	ruleRecipients          = "recipients"
	ruleSize                = "size"
	ruleTermsRecipient      = "terms-recipient"
	ruleTermsRecipients     = "terms-max-recipients"
	ruleTermsReplyOnly      = "terms-reply-only"
	ruleTermsAttachments    = "terms-no-attachments"
	ruleTermsContent        = "terms-content"
	ruleTermsMessagesHour   = "terms-messages-per-hour"
	ruleTermsRecipientsHour = "terms-recipients-per-hour"
	ruleLineBreak           = "line-break"
	ruleMalformedHeader     = "malformed-header"
	ruleHeaderFrom          = "header-from"
	ruleHeaderSender        = "header-sender"
	ruleHeaderResent        = "header-resent"
)

// newReply takes an enhanced code as it is written, such as "5.7.1".
func newReply(code int, enhanced, text string) *reply {
	return &reply{code: code, enhanced: mustEnhanced(enhanced), text: text}
}

// refusal is a reply that a rule gave.
func refusal(code int, enhanced, rule, text string) *reply {
	r := newReply(code, enhanced, text)
	r.rule = rule
	return r
}

func malformed(enhanced, text string) *reply {
	return refusal(501, enhanced, ruleAddress, text)
}

// closing returns r as a reply that ends the connection.
func (r *reply) closing() *reply {
	c := *r
	c.fatal = true
	return &c
}

func (r *reply) positive() bool { return r.code/100 == 2 }

// smtpError is the only form in which go-smtp passes on a reply and nothing
// else: any other error it would send to the client verbatim.
func (r *reply) smtpError() *smtp.SMTPError {
	return &smtp.SMTPError{Code: r.code, EnhancedCode: r.enhanced, Message: r.text}
}

// append writes r as it goes on the wire; every line has the enhanced code
// (RFC 2034 §4).
func (r *reply) append(b []byte) []byte {
	lines := strings.Split(cleanText(r.text, true), "\n")
	for i, line := range lines {
		separator := byte('-')
		if i == len(lines)-1 {
			separator = ' '
		}
		b = fmt.Appendf(b, "%03d%c%d.%d.%d %s\r\n", r.code, separator, r.enhanced[0], r.enhanced[1], r.enhanced[2], line)
	}
	return b
}

// cleanText makes text fit for a reply line: printable ASCII, and line feeds
// where newlines is set; everything else becomes a question mark.
func cleanText(s string, newlines bool) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= ' ' && r <= '~', newlines && r == '\n':
			return r
		case r == '\t':
			return ' '
		}
		return '?'
	}, s)
}

// parseEnhanced reads RFC 3463's class.subject.detail; the class must be
// the reply code's.
func parseEnhanced(s string, class int) (smtp.EnhancedCode, bool) {
	var e smtp.EnhancedCode
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return e, false
	}
	for i, part := range parts {
		if part == "" || len(part) > 3 || strings.Trim(part, "0123456789") != "" {
			return e, false
		}
		for _, c := range []byte(part) {
			e[i] = e[i]*10 + int(c-'0')
		}
	}
	return e, e[0] == class
}

// mustEnhanced reads the constants of this package.
func mustEnhanced(s string) smtp.EnhancedCode {
	e, ok := parseEnhanced(s, int(s[0]-'0'))
	if !ok {
		panic("submission: enhanced code " + s)
	}
	return e
}

// Replies to what a client wrote.
var (
	replySyntax           = newReply(500, "5.5.2", "this line cannot be understood")
	replyControl          = newReply(500, "5.5.2", "control characters are not allowed in a command")
	replyUnknownCommand   = newReply(500, "5.5.1", "unknown command")
	replyNotImplemented   = newReply(502, "5.5.1", "this command is not implemented")
	replyNoArgument       = newReply(501, "5.5.4", "this command takes no argument")
	replyHelloName        = newReply(501, "5.5.4", "say EHLO with a host name or an address literal")
	replyPathSyntax       = refusal(501, "5.5.2", ruleAddress, "write MAIL FROM:<address> or RCPT TO:<address>, without spaces around the colon")
	replyBadParameter     = refusal(501, "5.5.4", ruleParameter, "a parameter's value is malformed, or it stands there twice")
	replyUnknownParameter = refusal(555, "5.5.4", ruleParameter, "this parameter is not supported here")
	replyLineTooLong      = newReply(500, "5.5.2", "the line is too long").closing()
	replyBareCommand      = newReply(500, "5.5.2", "lines end in CR LF, and neither stands alone").closing()
	replyBDAT             = newReply(502, "5.5.1", "CHUNKING is not offered; closing, since what follows BDAT is not commands").closing()
	replyPipelinedTLS     = newReply(501, "5.5.0", "nothing may follow STARTTLS before the handshake").closing()
	replyTLSActive        = newReply(503, "5.5.1", "TLS is active already")
	replyTLSGo            = newReply(220, "2.0.0", "ready for TLS")
	replyVRFY             = newReply(252, "2.5.0", "send a message and see")
	replyHelloFirst       = newReply(503, "5.5.1", "say EHLO first")
	replyAuthFirst        = newReply(530, "5.7.0", "authenticate first")
	replyTLSFirst         = newReply(538, "5.7.11", "encryption is required: say STARTTLS first")
	replyAuthTwice        = newReply(503, "5.5.1", "already authenticated")
	replyMechanism        = newReply(504, "5.5.4", "this mechanism is not offered")
	replySASL             = newReply(501, "5.5.2", "the SASL response is malformed")
	replyMailTwice        = newReply(503, "5.5.1", "a message is being sent already; say RSET")
	replyMailFirst        = newReply(503, "5.5.1", "say MAIL first")
	replyRcptFirst        = newReply(503, "5.5.1", "no recipient was accepted; say RCPT first")
	replyTooManyErrors    = newReply(421, "4.7.0", "too many errors; closing").closing()
	replyTooManyLogins    = newReply(421, "4.7.0", "too many failed logins; closing").closing()
	replyIdle             = newReply(421, "4.4.2", "silent for too long; closing").closing()
	replyInternal         = newReply(451, "4.3.0", "internal error; try again")
)

// Replies to a message.
var (
	replySendAction          = refusal(550, "5.7.1", ruleSendAction, "your assignment on this mailbox does not include sending; ask whoever assigned it to you")
	replyNullPath            = refusal(550, "5.7.1", ruleOwnAddress, "MAIL FROM:<> is for mail servers; send as one of this mailbox's own addresses")
	replyOwnAddress          = refusal(550, "5.7.1", ruleOwnAddress, "MAIL FROM must be one of this mailbox's own addresses")
	replyRecipients          = refusal(452, "4.5.3", ruleRecipients, "too many recipients in one message")
	replyTermsTo             = refusal(550, "5.7.1", ruleTermsRecipient, "the terms of this mailbox do not allow you to write to this recipient (rule terms-recipient)")
	replyTermsMany           = refusal(550, "5.5.3", ruleTermsRecipients, "the terms of this mailbox do not allow as many recipients in one message (rule terms-max-recipients)")
	replyTermsReplyOnly      = refusal(550, "5.7.1", ruleTermsReplyOnly, "the terms of this mailbox let you write only to those who stand in a message that it got (rule terms-reply-only)")
	replyTermsMessageID      = refusal(554, "5.6.0", ruleTermsReplyOnly, "the terms of this mailbox demand one well-formed Message-ID, in a header by the letter (rule terms-reply-only)")
	replyNotAsked            = newReply(451, "4.4.3", "whether this recipient has written to the mailbox cannot be told now; try again later (rule terms-reply-only)")
	replyTermsMessagesHour   = refusal(451, "4.7.1", ruleTermsMessagesHour, "the terms of this mailbox do not allow more messages within an hour; try again later (rule terms-messages-per-hour)")
	replyTermsRecipientsHour = refusal(451, "4.7.1", ruleTermsRecipientsHour, "the terms of this mailbox do not allow more recipients within an hour; try again later (rule terms-recipients-per-hour)")
	replyNoUTF8              = refusal(553, "5.6.7", ruleAddress, "this recipient needs SMTPUTF8 in the MAIL command")
	replySize                = refusal(552, "5.3.4", ruleSize, "the message is larger than is allowed")
	replyNoConvert           = refusal(554, "5.6.3", ruleCapability, "the mail server behind takes no 8-bit messages")
	replyNoDSN               = refusal(555, "5.5.4", ruleCapability, "the mail server behind does not offer DSN")
	replyNoSMTPUTF8          = refusal(555, "5.6.7", ruleCapability, "the mail server behind does not offer SMTPUTF8")
	replyLineBreak           = refusal(554, "5.6.0", ruleLineBreak, "the message holds a bare CR, a bare LF or a NUL; its lines must end in CR LF").closing()
	replyUpstream            = newReply(451, "4.4.2", "the mail server behind cannot be reached or broke off; nothing was sent; try again")
	replyRecord              = newReply(451, "4.3.0", "the record cannot be written, so nothing was sent; try again")
	replyUnknown             = newReply(451, "4.4.2", "the mail server broke off while it had the whole message, and it is not in Sent; it may have been sent all the same")
	replyStillGoing          = newReply(451, "4.5.0", "this very message is being submitted on another connection; try again later")
	replyNotLooked           = newReply(451, "4.4.2", "whether this message was sent before cannot be told now; it was not sent again; try again later")
)
