// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var (
	office   = netip.MustParseAddr("192.0.2.1")
	stranger = netip.MustParseAddr("198.51.100.1")
)

// Addresses take turns, whatever one of them wants.
func TestNever9HandshakesOfOneAddressDelayNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1)
		far := time.Now().Add(time.Hour)
		if err := turns.take(t.Context(), far, stranger); err != nil {
			t.Fatal(err)
		}
		var done []string
		wait := func(name string, addr netip.Addr) {
			go func() {
				if err := turns.take(t.Context(), far, addr); err != nil {
					t.Error(err)
				}
				done = append(done, name)
				turns.give()
			}()
			synctest.Wait()
		}
		for _, name := range []string{"s1", "s2", "s3", "s4"} {
			wait(name, stranger)
		}
		wait("a1", office)
		wait("a2", office)
		turns.give()
		synctest.Wait()
		if want := []string{"s1", "a1", "s2", "a2", "s3", "s4"}; !slices.Equal(done, want) {
			t.Errorf("got %v, want %v", done, want)
		}
		if turns.free != 1 || len(turns.waiting)+len(turns.order) != 0 {
			t.Errorf("left behind: %+v", &turns)
		}
	})
}

func TestTurnIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1)
		began := time.Now()
		if err := turns.take(t.Context(), began, office); err != nil { // a free one takes no time
			t.Fatal(err)
		}
		if err := turns.take(t.Context(), began.Add(time.Second), office); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := turns.take(ctx, began.Add(time.Hour), office); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		// Called and given up at once, in whichever order: the turn is not lost.
		ctx, cancel = context.WithCancel(t.Context())
		given := make(chan error)
		go func() { given <- turns.take(ctx, began.Add(time.Hour), office) }()
		synctest.Wait()
		cancel()
		turns.give()
		if err := <-given; err == nil {
			turns.give()
		}
		if turns.free != 1 || len(turns.waiting)+len(turns.order) != 0 {
			t.Errorf("left behind: %+v", &turns)
		}
	})
}
