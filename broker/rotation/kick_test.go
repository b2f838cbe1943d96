// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postern-mail/postern/broker"
)

// kicker is the model's driver, and can end sessions unless it says why not.
type kicker struct {
	*model
	says []error
	// stop, where it is there, is called amid each try.
	stop  func()
	tries []time.Time
}

func (k *kicker) Kick(ctx context.Context, _ *broker.PasswordChange) error {
	k.tries = append(k.tries, k.now)
	if k.stop != nil {
		k.stop()
		return away()
	}
	if len(k.says) == 0 {
		return nil
	}
	err := k.says[0]
	if len(k.says) > 1 {
		k.says = k.says[1:]
	}
	return err
}

func away() error {
	return &broker.DriverError{Outcome: broker.NotApplied, Reason: broker.DriverUnavailable, Words: "later"}
}

func misconfigured() error {
	return &broker.DriverError{Outcome: broker.NotApplied, Reason: broker.DriverMisconfigured}
}

// TestSessionsAreEndedAfterAnOutage: a provider that is out of reach when its
// sessions are to be ended is asked again, for a while. One that cannot is not.
func TestSessionsAreEndedAfterAnOutage(t *testing.T) {
	for name, c := range map[string]struct {
		says        []error
		proved      bool
		least, most int
	}{
		"at once":        {nil, true, 1, 1},
		"later":          {[]error{away(), away(), away(), nil}, true, 4, 4},
		"never":          {[]error{away()}, false, 4, 20},
		"it cannot":      {[]error{misconfigured()}, false, 1, 1},
		"later it fails": {[]error{away(), misconfigured()}, false, 2, 2},
	} {
		rapid.Check(t, func(t *rapid.T) {
			k := &kicker{model: calm(t), says: c.says}
			k.until(broker.RotationEnded, map[string]broker.Driver{"model": k})
			proved := !slices.Contains(k.journal.Unproved, broker.UnprovedOldSessions)
			if k.journal.Outcome != broker.RotationDone || proved != c.proved || len(k.tries) < c.least || len(k.tries) > c.most {
				t.Fatalf("%s: %s, proved: %v, after %d tries", name, k.journal.Outcome, proved, len(k.tries))
			}
			if took := k.tries[len(k.tries)-1].Sub(k.journal.CommittedAt); took > 20*time.Minute {
				t.Fatalf("%s: it went on for %v", name, took)
			}
		})
	}
}

// TestStopLeavesSessionsToTheNextProcess: a process that is stopped while it asks
// the provider to end its sessions does not end the rotation as if it could not.
func TestStopLeavesSessionsToTheNextProcess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &kicker{model: calm(t)}
		drivers := map[string]broker.Driver{"model": k}
		k.until(broker.RotationCommitted, drivers)
		k.now = k.now.Add(time.Hour) // whatever it waits for is over
		ctx, cancel := context.WithCancel(t.Context())
		k.stop = cancel
		k.work(ctx, drivers)
		if k.journal.State != broker.RotationCommitted || len(k.tries) != 1 {
			t.Fatalf("stopped, it stands at %s after %d tries: %+v", k.journal.State, len(k.tries), k.journal)
		}
		k.stop = nil
		k.until(broker.RotationEnded, drivers)
		if len(k.journal.Unproved) != 0 || len(k.tries) != 2 {
			t.Fatalf("unproved %v after %d tries", k.journal.Unproved, len(k.tries))
		}
	})
}
