// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func testLobby(t interface{ Fatal(...any) }, pending, perAddress int) *Lobby {
	l, err := NewLobby(LobbyConfig{Limits: Limits{Pending: pending, PendingPerAddress: perAddress, PendingPerCertificate: 2}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLobbyEvicts(t *testing.T) {
	for name, tc := range map[string]struct {
		pending, perAddress int
		arrivals            []string
		evicted             []int // of arrivals, in order
	}{
		"nobody while there is room":     {3, 3, []string{"192.0.2.1", "192.0.2.1", "192.0.2.2"}, nil},
		"its own oldest":                 {9, 2, []string{"192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.1"}, []int{0}},
		"the greediest's oldest":         {3, 3, []string{"192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.3"}, []int{1}},
		"the oldest when none is greedy": {3, 8, []string{"192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.3"}, []int{0}},
		"the oldest when all have one":   {2, 2, []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"}, []int{0, 1}},
		"a newcomer's greed is his own":  {3, 7, []string{"192.0.2.9", "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.1"}, []int{1, 2}},
		"hosts of one /64 are one":       {9, 2, []string{"2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "2001:db8::3"}, []int{0}},
		"IPv4 in IPv6 is IPv4":           {9, 2, []string{"::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2", "192.0.2.1"}, []int{0}},
		"the unknown addresses are one":  {9, 1, []string{"", ""}, []int{0}},
		"a zone does not make a new one": {9, 1, []string{"fe80::1%eth0", "fe80::1%eth1"}, []int{0}},
	} {
		t.Run(name, func(t *testing.T) {
			l := testLobby(t, tc.pending, tc.perAddress)
			var evicted []int
			for i, a := range tc.arrivals {
				addr, _ := netip.ParseAddr(a) // "" is the zero Addr
				l.enter(addr, func(string) { evicted = append(evicted, i) })
			}
			if diff := cmp.Diff(tc.evicted, evicted); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLobbyLeaveIsOnce(t *testing.T) {
	l := testLobby(t, 1, 1)
	a := l.enter(netip.MustParseAddr("192.0.2.1"), func(string) {})
	b := l.enter(netip.MustParseAddr("192.0.2.2"), func(string) { t.Error("the one that is left was evicted") })
	if l.leave(a) {
		t.Error("an evicted place was left")
	}
	if !l.leave(b) || l.leave(b) {
		t.Error("a place is left once")
	}
	if l.relieve("test") {
		t.Error("there was somebody in an empty lobby")
	}
	if n := len(l.strangers.owners) + len(l.strangers.greediest); n != 0 {
		t.Errorf("an empty lobby remembers %d owners", n)
	}
}

// The heap must agree with a plain reading of the rule, whatever comes and
// goes.
func TestLobbyAgreesWithItsRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pending := rapid.IntRange(1, 12).Draw(t, "pending")
		perAddress := rapid.IntRange(1, 12).Draw(t, "perAddress")
		l := testLobby(t, pending, perAddress)
		type guest struct {
			addr  netip.Addr
			place *place
		}
		var inside []*guest // oldest first
		for step := range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(inside) > 0 && rapid.Bool().Draw(t, "leave") {
				i := rapid.IntRange(0, len(inside)-1).Draw(t, "who")
				if !l.leave(inside[i].place) {
					t.Fatalf("step %d: somebody inside could not leave", step)
				}
				inside = slices.Delete(inside, i, i+1)
				continue
			}
			g := &guest{addr: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", rapid.IntRange(1, 5).Draw(t, "addr")))}
			inside = append(inside, g)
			count := make(map[netip.Addr]int)
			for _, o := range inside {
				count[o.addr]++
			}
			want := -1
			for i, o := range inside {
				switch {
				case count[g.addr] > perAddress:
					if want < 0 && o.addr == g.addr {
						want = i
					}
				case len(inside) > pending:
					greedier := count[o.addr] > perAddress/greedyShare && want >= 0 && count[o.addr] > count[inside[want].addr]
					if want < 0 || greedier {
						want = i
					}
				}
			}
			evictions := 0
			for _, o := range inside {
				if o.place != nil {
					o.place.evict = func(string) {
						if evictions++; want < 0 || inside[want] != o {
							t.Fatalf("step %d: %s was evicted, not number %d", step, o.addr, want)
						}
					}
				}
			}
			g.place = l.enter(g.addr, func(string) { t.Fatalf("step %d: the newcomer was evicted", step) })
			if wantEvictions := min(1, want+1); evictions != wantEvictions {
				t.Fatalf("step %d: %d evictions, want %d", step, evictions, wantEvictions)
			}
			if want >= 0 {
				inside = slices.Delete(inside, want, want+1)
			}
		}
	})
}
