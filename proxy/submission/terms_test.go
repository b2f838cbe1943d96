// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/policy"
)

// TestNever8RecipientsThatTheTermsRefuse reach no upstream, in no spelling; the
// others of the message get it.
func TestNever8RecipientsThatTheTermsRefuse(t *testing.T) {
	s, k := start(t)
	s.gate.terms.Recipients = []policy.RecipientPatterns{
		{Allow: []string{"*@friend.example", "*@*.friend.example"}},
		{Deny: []string{"boss@friend.example"}},
	}
	c := s.login(t)
	c.talk(fmt.Sprintf("C: MAIL FROM:<%s>\nS: 250 ", ownAddress))
	refused := []string{
		"x@rival.example", "boss@friend.example", "BOSS@Friend.Example", `"boss"@friend.example`, `"b oss"@friend.example`,
		"x@friend.example.rival.example", "x@evilfriend.example", "x@[192.0.2.1]",
	}
	for _, to := range refused {
		c.talk("C: RCPT TO:<" + to + ">\nS: 550 5.7.1")
	}
	c.talk("C: RCPT TO:<x@friend.example>\nS: 250 \nC: RCPT TO:<Y@Sales.Friend.Example>\nS: 250 \nC: DATA\nS: 354 ")
	c.raw(message1("x\r\n") + ".\r\n")
	c.expect("250 ")
	if got := k.only(t); strings.Join(got.to, " ") != "x@friend.example Y@Sales.Friend.Example" {
		t.Errorf("sent to %v", got.to)
	}
	c.quit()
	want := make([]string, len(refused))
	for i := range want {
		want[i] = ruleTermsRecipient
	}
	wantList(t, "rules", s.gate.rules(), want)
}

// TestNever8MoreThanTheTermsAllow: recipients are counted, and so are octets,
// whatever SIZE the client announced.
func TestNever8MoreThanTheTermsAllow(t *testing.T) {
	s, k := start(t)
	s.gate.terms.Sending = policy.Sending{MaxRecipients: 2, MaxOctets: 2000}
	c := s.login(t)
	c.talk(fmt.Sprintf(`C: EHLO client.example
S*250 SIZE 2000
C: MAIL FROM:<%[1]s> SIZE=2001
S: 552 5.3.4
C: MAIL FROM:<%[1]s> SIZE=10
S: 250 
C: RCPT TO:<a@friend.example>
S: 250 
C: RCPT TO:<b@friend.example>
S: 250 
C: RCPT TO:<c@friend.example>
S: 550 5.5.3
C: DATA
S: 354 `, ownAddress))
	c.raw(message1(strings.Repeat("0123456789\r\n", 200)) + ".\r\n")
	c.expect("552 5.3.4")
	if k.count() != 0 || s.gate.intents() != 0 {
		t.Error("it was submitted")
	}
	c.quit()
	wantList(t, "rules", s.gate.rules(), []string{ruleSize, ruleTermsRecipients, ruleSize})
}
