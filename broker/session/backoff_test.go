// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/broker"
)

func TestBackoffGrowsAndDecays(t *testing.T) {
	b := newBackoff()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var delays []time.Duration
	for range 8 {
		delays = append(delays, b.fail("a", now))
		now = now.Add(time.Second)
	}
	want := []time.Duration{
		250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second,
		4 * time.Second, 8 * time.Second, 8 * time.Second, 8 * time.Second,
	}
	if !slices.Equal(delays, want) {
		t.Errorf("delays %v", delays)
	}
	if d := b.fail("b", now); d != firstDelay {
		t.Errorf("another source waits %v", d)
	}
	if d := b.fail("a", now.Add(3*forgetInterval)); d != time.Second {
		t.Errorf("after three quiet minutes: %v", d)
	}
	if d := b.fail("a", now.Add(time.Hour)); d != firstDelay {
		t.Errorf("after an hour: %v", d)
	}
}

func TestBackoffSources(t *testing.T) {
	tests := []struct{ pin, a, b string }{
		{"", "2001:db8:0:1::1", "2001:db8:0:1:ffff::2"},
		{"", "192.0.2.1", "::ffff:192.0.2.1"},
		{"pin", "192.0.2.1", "198.51.100.1"},
	}
	for _, test := range tests {
		if a, b := sourceOf(test.pin, netip.MustParseAddr(test.a)), sourceOf(test.pin, netip.MustParseAddr(test.b)); a != b {
			t.Errorf("%s and %s are two sources, %s and %s", test.a, test.b, a, b)
		}
	}
	if a, b := sourceOf("", netip.MustParseAddr("2001:db8:0:1::1")), sourceOf("", netip.MustParseAddr("2001:db8:0:2::1")); a == b {
		t.Error("two networks are one source")
	}
	if a, b := sourceOf("", netip.MustParseAddr("192.0.2.1")), sourceOf("", netip.MustParseAddr("192.0.2.2")); a == b {
		t.Error("two IPv4 addresses are one source")
	}
}

func TestBackoffIsBounded(t *testing.T) {
	b := newBackoff()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 6 {
		b.fail("steady", now)
	}
	for i := range 2 * maxSources {
		b.fail(fmt.Sprint(i), now)
		if i%1000 == 0 {
			if d := b.fail("steady", now); d != longestDelay {
				t.Errorf("a source that goes on failing was forgotten: %v", d)
			}
		}
	}
	if len(b.sources) != maxSources || b.recent.Len() != maxSources {
		t.Errorf("%d sources, %d in order", len(b.sources), b.recent.Len())
	}
	if d := b.fail("0", now); d != firstDelay {
		t.Errorf("the oldest was not forgotten: %v", d)
	}
}

// TestNever9FailuresDelayNobodyElse: while strangers fail from the agent's own
// address, and even with his own certificate, his token opens at once.
func TestNever9FailuresDelayNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(t)
		var wg sync.WaitGroup
		for i := range 50 {
			l := w.login()
			l.Token = broker.NewSecret([]byte("wrong"))
			if i%2 == 0 {
				l.Certificate = nil
			}
			wg.Go(func() {
				if _, err := w.manager.Open(context.Background(), l); broker.CodeOf(err) != broker.Denied {
					t.Errorf("Open: %v", err)
				}
			})
		}
		time.Sleep(time.Second)
		began := time.Now()
		w.open(t)
		if took := time.Since(began); took != 0 {
			t.Errorf("a valid token waited %v", took)
		}
		wg.Wait()
		if took := time.Since(began); took > longestDelay {
			t.Errorf("a failure waited %v", took)
		}
	})
}

// TestNever9RefusalsDelayOnlyTheirAgent: an agent who is refused again and again
// waits longer and longer, so that he cannot fill the log; his colleagues at the
// same workstation do not wait.
func TestNever9RefusalsDelayOnlyTheirAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 9, "locked", "b")
		defer c.close()
		for _, a := range c.agents {
			if a.Name == "locked" {
				c.lock(broker.LockAgent, a.ID, time.Time{})
			}
		}
		var waits []time.Duration
		for range 8 {
			began := time.Now()
			if _, err := c.enter(t, "locked", broker.ProtocolIMAP); broker.CodeOf(err) != broker.Refused {
				t.Fatalf("Open: %v", err)
			}
			waits = append(waits, time.Since(began))
			began = time.Now()
			c.must(t, "b")
			if took := time.Since(began); took != 0 {
				t.Errorf("a colleague waited %v", took)
			}
		}
		if waits[0] != 0 {
			t.Errorf("the first refusal took %v", waits[0])
		}
		if !slices.IsSorted(waits) || waits[7] < longestDelay/2 || waits[7] > longestDelay {
			t.Errorf("refusals took %v", waits)
		}
	})
}

func TestBackoffEndsWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(t)
		l := w.login()
		l.Certificate = &x509.Certificate{RawSubjectPublicKeyInfo: []byte("another")}
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := w.manager.Open(ctx, l); broker.CodeOf(err) != broker.Denied {
			t.Errorf("Open: %v", err)
		}
		if took := time.Since(began); took != time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}
