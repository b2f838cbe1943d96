// SPDX-License-Identifier: Apache-2.0

package session

import (
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// TestNever2NoSessionUnderTermsThatAreNotEnforced: with every rule for sending
// that there is, a submission is opened; with one where the gateway does not
// look for it, none is.
func TestNever2NoSessionUnderTermsThatAreNotEnforced(t *testing.T) {
	d := &policy.Decision{
		Actions: policy.All, Recipients: []policy.RecipientPatterns{{Allow: []string{"*@x.example"}}},
		Sending: policy.Sending{
			ReplyOnly: true, MaxRecipients: 1, MessagesPerHour: 1, RecipientsPerHour: 1, MaxOctets: 1, NoAttachments: true,
			Content: []policy.ContentRule{{Name: "a", Pattern: "a"}},
		},
	}
	if refused := enforceable(d, broker.ProtocolSubmission); refused != nil {
		t.Errorf("%v", refused)
	}
	d.Sending.Recipients.Deny = []string{"*@y.example"} // Decide never leaves any there
	if refused := enforceable(d, broker.ProtocolSubmission); refused == nil || refused.Reason != policy.ReasonNotEnforced {
		t.Errorf("%v", refused)
	}
	if refused := enforceable(d, broker.ProtocolIMAP); refused != nil {
		t.Errorf("the rules for sending do not bind IMAP: %v", refused)
	}
}
