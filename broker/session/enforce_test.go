// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// TestNever2NoSessionUnderTermsThatAreNotEnforced: terms that a proxy cannot
// keep open no session with it, whichever side wrote them, and end one that is
// open when they come.
func TestNever2NoSessionUnderTermsThatAreNotEnforced(t *testing.T) {
	tests := []struct {
		name     string
		change   func(*policy.Terms)
		protocol broker.Protocol
		text     string
	}{
		{"reply_only", func(x *policy.Terms) { x.Sending.ReplyOnly = true }, broker.ProtocolSubmission, "apply a rule"},
	}
	for _, test := range tests {
		for _, side := range []string{"delegation", "assignment"} {
			t.Run(test.name+" of the "+side, func(t *testing.T) {
				w := newWorld(t)
				w.run(t)
				login := w.login()
				login.Protocol = test.protocol
				s, err := w.manager.Open(context.Background(), login)
				if err != nil {
					t.Fatal(err)
				}
				defer s.End(&broker.End{Reason: broker.EndLogout}, nil)
				if side == "delegation" {
					w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { test.change(&w.delegation.Terms) })
				} else {
					w.set(broker.Change{Kind: "assignment", ID: w.assignment.ID}, func() { test.change(&w.assignment.Terms) })
				}
				<-s.Context().Done()
				if end := ended(t, s); end.Reason != broker.EndRevoked {
					t.Errorf("end %+v", end)
				}
				_, err = w.manager.Open(context.Background(), login)
				if refused := (*broker.Error)(nil); !errors.As(err, &refused) || refused.Code != broker.Refused ||
					refused.Reason != policy.ReasonNotEnforced || !strings.Contains(refused.Public, test.text) || !strings.Contains(refused.Public, "Ask Priya") {
					t.Errorf("Open: %v", err)
				}
				if w.upstream.conn != nil {
					t.Error("the upstream was dialled")
				}
				// The other protocol is not bound by it.
				login.Protocol = map[broker.Protocol]broker.Protocol{broker.ProtocolIMAP: broker.ProtocolSubmission, broker.ProtocolSubmission: broker.ProtocolIMAP}[test.protocol]
				other, err := w.manager.Open(context.Background(), login)
				if err != nil {
					t.Fatalf("the other protocol: %v", err)
				}
				other.End(&broker.End{Reason: broker.EndLogout}, nil)
			})
		}
	}
}
