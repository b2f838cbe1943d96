// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// TestOneMachineWithManyKeysIsOneSource: a company's CA gives a machine as many
// keys as it asks for; its failures count together all the same.
func TestOneMachineWithManyKeysIsOneSource(t *testing.T) {
	source := func(pin string, c *broker.CompanyCertificate) string {
		return (&attempt{
			pin: strings.Repeat(pin, 64), company: c,
			login: broker.Login{RemoteAddr: netip.MustParseAddrPort("192.0.2.1:1")},
		}).source()
	}
	first := source("a", &broker.CompanyCertificate{Authority: "head-office", Name: "pune-07"})
	if second := source("b", &broker.CompanyCertificate{Authority: "head-office", Name: "pune-07"}); second != first {
		t.Errorf("another key of it is %q, and the first %q", second, first)
	}
	for name, other := range map[string]string{
		"another machine's":            source("a", &broker.CompanyCertificate{Authority: "head-office", Name: "pune-08"}),
		"another authority's":          source("a", &broker.CompanyCertificate{Authority: "branch", Name: "pune-07"}),
		"one that names nobody":        source("a", &broker.CompanyCertificate{Authority: "head-office"}),
		"that key without a company's": source("a", nil),
	} {
		if other == first {
			t.Errorf("%s is the same source: %q", name, other)
		}
	}
}
