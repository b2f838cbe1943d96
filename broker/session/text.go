// SPDX-License-Identifier: Apache-2.0

package session

import (
	"strings"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// What clients are told. textDenied is the one text for every unknown token,
// certificate, combination, mailbox and agent.
const (
	textDenied      = "Sign-in failed. Check the mailbox's address and your app password, and use a workstation that is registered."
	textUnavailable = "Postern cannot check your access at the moment. Try again in a few minutes."
	textDirectory   = "Postern cannot check passwords at the moment. Try again in a few minutes."
	textRevocation  = "Postern cannot check this workstation's certificate at the moment. Try again in a few minutes."
	textUnrecorded  = "Postern cannot record sessions at the moment. Try again in a few minutes."
	textDraining    = "Postern is being stopped. Try again in a few minutes."
	textLease       = "Postern can no longer check your access. Connect again in a few minutes."
	textBudget      = "All connections that this mailbox allows are in use. Close mail windows that you do not need, or try again in a few minutes."
	textHandover    = "This connection was closed to make room for a colleague. Your mail program may connect again."
	textChanged     = "Your access to this mailbox was changed. Connect again."
	textMailbox     = "This mailbox's settings were changed. Connect again."
	textRotated     = "The mailbox's password was changed. Connect again."
	textRotating    = "The mailbox's password is being changed. Try again in a minute."
	textGone        = "This mailbox is no longer served."
	textToken       = "Your app password is no longer valid."
	textWorkstation = "This workstation may no longer be used."
	textAgent       = "Your account was closed."
	textAccount     = "Your account in your company's directory is closed or disabled."
	textSignIn      = "The way that you signed in by is no longer open to you."
	textExpired     = "Your access to this mailbox has ended."
	textByAdmin     = "An administrator ended this session."
	textNoMailbox   = "No credential is stored for this mailbox."
	textVault       = "The mailbox's credential cannot be read at the moment. Try again in a few minutes."
	textUpstream    = "The mail provider cannot be reached at the moment. Try again in a few minutes."
	textDrift       = "The mail provider did not let Postern into this mailbox. Nothing that you enter can change that."
	textConsent     = "The firm's consent to use this mailbox was withdrawn or has ended. Nothing that you enter can change that: the firm must consent again."
	textWitness     = "The record of this mailbox's use is not witnessed at the moment, and its firm wants no work without."
	textInternal    = "Postern failed to open this mailbox."
)

// reasonWitness is of a refusal because the witness of the firm's log is silent.
const reasonWitness = "witness-silent"

// supervisor is whom to ask when the firm names nobody.
const supervisor = "your supervisor"

// advise adds whom to ask to a whole sentence.
func advise(text, contact string) string {
	if contact = strings.TrimSuffix(strings.TrimSpace(oneLine(contact, maxText)), "."); contact == "" {
		contact = supervisor
	}
	text = strings.TrimSpace(oneLine(text, maxText))
	if !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "!") && !strings.HasSuffix(text, "?") {
		text += "."
	}
	return text + " Ask " + contact + "."
}

// endReason says how a session ends whose decision became a refusal.
func endReason(r *policy.Refusal) broker.EndReason {
	switch r.Reason {
	case policy.ReasonLocked:
		return broker.EndLocked
	case policy.ReasonExpired, policy.ReasonHours:
		return broker.EndExpired
	}
	return broker.EndRevoked
}

// endText is for an agent whose sign-in stopped being good while in session.
func endText(cause string) string {
	switch cause {
	case causeUnknownToken, causeRevokedToken, causeExpiredToken:
		return textToken
	case causeUnknownAgent:
		return textAgent
	case causeAuthentication, causeCertificateAlone:
		return textSignIn
	case causeUnknownMailbox:
		return textGone
	}
	return textWorkstation
}

// endError is what a caller is told who works for a session that is over.
func endError(e *broker.End) *broker.Error {
	code := broker.Unavailable
	switch e.Reason {
	case broker.EndRevoked, broker.EndLocked, broker.EndExpired, broker.EndByAdmin:
		code = broker.Refused
	case broker.EndBudget:
		code = broker.Limit
	}
	err := broker.Errorf(code, "%s", e.Text).WithCause(e)
	err.Reason = string(e.Reason)
	return err
}
