// SPDX-License-Identifier: Apache-2.0

package session

import (
	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// notEnforced names what a decision demands of a proxy and the proxy does not
// enforce; "": nothing. It is the one list of this: a session is opened only
// when it is empty, so that no term is ever a promise alone. Whoever teaches a
// proxy a rule takes it out here.
//
// Actions, hours, ends, sites and classes are decided before a session is
// opened, or checked by both proxies. What is hidden, and quotas on what is
// opened, bind IMAP alone; the rules for sending, submission alone.
func notEnforced(d *policy.Decision, protocol broker.Protocol) string {
	if protocol == broker.ProtocolIMAP {
		return ""
	}
	rest := d.Sending
	// The gateway keeps these, and recipients' patterns: every rule that there is.
	rest.MaxRecipients, rest.MaxOctets, rest.MessagesPerHour, rest.RecipientsPerHour = 0, 0, 0, 0
	rest.NoAttachments, rest.Content, rest.ReplyOnly = false, nil, false
	if !rest.IsZero() {
		return "apply a rule to what is sent"
	}
	return ""
}

// enforceable refuses a decision that a proxy would not keep.
func enforceable(d *policy.Decision, protocol broker.Protocol) *policy.Refusal {
	missing := notEnforced(d, protocol)
	if missing == "" {
		return nil
	}
	return &policy.Refusal{
		Reason: policy.ReasonNotEnforced,
		Text:   "The terms for this mailbox ask Postern to " + missing + ", which it cannot do yet, so it does not open it.",
	}
}
