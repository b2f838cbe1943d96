// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/rotation"
	"github.com/postern-mail/postern/test/servers"
)

const (
	// killsVariable is how often TestNever7 kills the rotator at least; rotatorKills
	// when it is not set.
	killsVariable = "POSTERN_ROTATION_KILLS"
	rotatorKills  = 28
	// rotationSeed seeds the random instants; not set: others each time.
	rotationSeed = "POSTERN_ROTATION_SEED"
	// rotatedMailboxes rotate at once, half of them over each driver.
	rotatedMailboxes = 4
	// randomKills is how often the rotator dies at random instants in one round of
	// rotations at most, which is then let to its end.
	randomKills = 6
	// longestLife is the longest that a rotator lives, once it has started, which
	// dies at a random instant.
	longestLife = 1500 * time.Millisecond
	// fullSweeps is how often every rotation is led through all points at most,
	// until one has died at each.
	fullSweeps = 3
	// stragglers is for how long the rotator is not killed yet when some of its
	// rotations are where they shall be, and others not. What times out meanwhile
	// is tried again.
	stragglers = 5 * time.Second
	// roundTime bounds a round: what a kill left in the dark takes a few looks.
	roundTime = 5 * time.Minute
)

// deaths counts what TestNever7 has done.
type deaths struct {
	all, random int
	// at is how many rotations died at each point, by driver; states those that
	// died at random instants; ended how all ended.
	at     map[string]map[string]int
	states map[broker.RotationState]int
	ended  map[string]int
}

// TestNever7: the rotator is killed before and after each step that follows an
// entry of its journal, and at random instants, and started again: each rotation
// ends with a credential in Vault that opens the mailbox and an old one that
// does not, or says what it could not prove.
func TestNever7(t *testing.T) {
	t.Parallel()
	wanted, seed := rotatorKills, rand.Uint64()
	if text := os.Getenv(killsVariable); text != "" {
		var err error
		if wanted, err = strconv.Atoi(text); err != nil || wanted < 1 {
			t.Fatalf("%s: %q is no number of kills", killsVariable, text)
		}
	}
	if text := os.Getenv(rotationSeed); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", rotationSeed, err)
		}
	}
	t.Logf("%s=%d", rotationSeed, seed)
	r := newRotated(t, false)
	random := rand.New(rand.NewPCG(seed, 7))
	k := &deaths{at: map[string]map[string]int{}, states: map[broker.RotationState]int{}, ended: map[string]int{}}
	for round := 0; round < 2 || k.all < wanted || len(k.missing()) > 0 && round < 2*fullSweeps; round++ {
		r.begin()
		deadline := time.Now().Add(roundTime)
		if round%2 == 1 {
			r.killAtRandom(k, random, deadline)
		} else {
			full := len(k.missing()) > 0
			for _, m := range r.mailboxes {
				m.sweep = points
				if !full {
					m.sweep = some(random)
				}
			}
			r.killAtPoints(k, deadline)
		}
		r.finish(deadline)
		for outcome, n := range r.judged() {
			k.ended[outcome] += n
		}
	}
	k.tell(t)
	for _, what := range k.missing() {
		t.Errorf("no rotation died %s", what)
	}
}

// missing are the points at which no rotation died yet, over some driver.
func (k *deaths) missing() []string {
	var all []string
	for _, p := range points {
		for _, driver := range []string{"sql", "ldap"} {
			if k.at[p.String()][driver] == 0 {
				all = append(all, "over "+driver+" at: "+p.String())
			}
		}
	}
	return all
}

func (k *deaths) tell(t *testing.T) {
	t.Logf("%d kills, of them %d at random instants, where the rotations' states were %v", k.all, k.random, k.states)
	for _, p := range points {
		t.Logf("died %3d times over sql, %3d over ldap at: %s", k.at[p.String()]["sql"], k.at[p.String()]["ldap"], p)
	}
	t.Logf("the rotations ended: %v", k.ended)
}

// some are some of the points, as one rotation can reach them.
func some(random *rand.Rand) []point {
	var chosen []point
	doubted := false
	for _, p := range points {
		if p.needsDoubt() && !doubted || random.IntN(3) == 0 {
			continue
		}
		doubted = doubted || p.state == broker.RotationAsking && p.when == before
		chosen = append(chosen, p)
	}
	return chosen
}

// begin begins a rotation of every mailbox.
func (r *rotated) begin() {
	r.t.Helper()
	for _, m := range r.mailboxes {
		j := &broker.Rotation{MailboxID: m.ID, Cause: broker.RotateOnDemand}
		m.before = r.stored(m)
		r.must(r.state.RequestRotation(r.t.Context(), rotatedBy, j))
		m.journal, m.hurried = j.ID, false
	}
}

// anyOpen reports whether a rotation of the round has not ended.
func (r *rotated) anyOpen() bool {
	return slices.ContainsFunc(r.mailboxes, func(m *rotatedMailbox) bool {
		j := r.journal(m)
		return j != nil && j.State != broker.RotationEnded
	})
}

// killAtRandom kills the rotator at random instants.
func (r *rotated) killAtRandom(k *deaths, random *rand.Rand, deadline time.Time) {
	r.t.Helper()
	for n := 0; n < randomKills && r.anyOpen() && time.Now().Before(deadline); n++ {
		process := r.start()
		servers.WaitFor(r.t, time.Until(deadline), func() bool { return process.Ended() || r.rotating() }, "the rotator to start")
		time.Sleep(time.Duration(random.Int64N(int64(longestLife)))) // the instant is what is tested
		r.must(process.Kill())
		k.all++
		k.random++
		for _, m := range r.mailboxes {
			k.states[r.journal(m).State]++
		}
	}
}

// killAtPoints kills the rotator when each mailbox's rotation is at the next
// point of its sweep, until all sweeps are over.
func (r *rotated) killAtPoints(k *deaths, deadline time.Time) {
	r.t.Helper()
	for {
		var aims []*aim
		for _, m := range r.mailboxes {
			if len(m.sweep) > 0 {
				aims = append(aims, r.take(m, m.sweep[0]))
			}
		}
		if len(aims) == 0 {
			return
		}
		process := r.start()
		var first time.Time // when one of them was there
		servers.WaitFor(r.t, time.Until(deadline), func() bool {
			missing := 0
			for _, a := range aims {
				switch {
				case !r.arrived(a):
					missing++
				case first.IsZero():
					first = time.Now()
				}
			}
			return process.Ended() || missing == 0 || !first.IsZero() && time.Since(first) > stragglers
		}, "the rotations to come to "+pointsOf(aims))
		if process.Ended() {
			r.t.Fatal("the rotator has ended by itself")
		}
		for _, a := range aims {
			if !a.held() && r.arrived(a) { // it has gone past
				a.sweep = a.sweep[1:]
			}
		}
		there := slices.DeleteFunc(slices.Clone(aims), func(a *aim) bool { return !a.held() })
		unlock := func() {}
		if slices.ContainsFunc(there, func(a *aim) bool { return a.when == unwritten }) {
			unlock = r.lock()
			for _, a := range there {
				if a.when == unwritten {
					a.release()
				}
			}
			servers.WaitFor(r.t, time.Until(deadline), func() bool {
				return !slices.ContainsFunc(there, func(a *aim) bool { return a.when == unwritten && !a.crossed() })
			}, "the steps to be done, at "+pointsOf(there))
		}
		r.must(process.Kill())
		k.all++
		for _, a := range aims {
			a.drop()
		}
		r.gate.Unhold()
		unlock()
		for _, a := range there {
			// On a busy machine the step may have timed out meanwhile: then again.
			if r.journal(a.rotatedMailbox).State != a.state {
				continue
			}
			a.sweep = a.sweep[1:]
			if k.at[a.point.String()] == nil {
				k.at[a.point.String()] = map[string]int{}
			}
			k.at[a.point.String()][a.driver]++
		}
	}
}

// arrived reports whether a rotation is held at its point, or will not come
// there any more.
func (r *rotated) arrived(a *aim) bool {
	if a.held() {
		return true
	}
	j := r.journal(a.rotatedMailbox)
	if j == nil || j.State != broker.RotationEnded {
		return false
	}
	if a.state == broker.RotationEnded {
		r.hurry(a.rotatedMailbox)
		return !j.CleanedAt.IsZero() || j.Outcome == broker.RotationLost // which keeps its passwords
	}
	return true
}

func pointsOf(aims []*aim) string {
	var all []string
	for _, a := range aims {
		all = append(all, a.point.String())
	}
	return strings.Join(all, ", ")
}

// finish lets the round's rotations come to their end, and their leftovers be
// destroyed.
func (r *rotated) finish(deadline time.Time) {
	r.t.Helper()
	process := r.start()
	servers.WaitFor(r.t, time.Until(deadline), func() bool {
		return !slices.ContainsFunc(r.mailboxes, func(m *rotatedMailbox) bool {
			j := r.journal(m)
			if j == nil || j.State != broker.RotationEnded {
				return true
			}
			r.hurry(m)
			return j.Outcome != broker.RotationLost && j.CleanedAt.IsZero()
		})
	}, "the rotations to end")
	if err := process.Stop(); err != nil {
		r.t.Errorf("the rotator: %v", err)
	}
}

// judged holds what the round's journals say against what logins show, and
// returns how many ended how.
func (r *rotated) judged() map[string]int {
	r.t.Helper()
	ended := map[string]int{}
	for _, m := range r.mailboxes {
		j := r.journal(m)
		ended[strings.Join(append([]string{string(j.Outcome)}, j.Unproved...), " ")]++
		now := r.stored(m)
		r.recorded(m, j, now, m.before)
		if j.Outcome == broker.RotationLost || rotation.Alarming(j) && j.Outcome == broker.RotationDone {
			r.t.Logf("%s: alerted: %s, unproved %v", m.Address, j.Outcome, j.Unproved)
			continue
		}
		if err := r.upstream.Probe(r.t.Context(), m.Mailbox, password(now)); err != nil {
			r.t.Errorf("%s: ended as %s, and the credential in Vault does not open it: %v", m.Address, j.Outcome, err)
		}
		for _, id := range j.Pending {
			if j.CleanedAt.IsZero() {
				break
			}
			if _, err := r.secrets.PendingCredential(r.t.Context(), m.FirmID, m.ID, id); broker.CodeOf(err) != broker.NotFound {
				r.t.Errorf("%s: a password that was made for it is still there: %v", m.Address, err)
			}
		}
		switch j.Outcome {
		case broker.RotationDone:
			if now == m.before {
				r.t.Errorf("%s: done, and the password is the old one", m.Address)
			}
			if err := r.upstream.Probe(r.t.Context(), m.Mailbox, password(m.before)); broker.CodeOf(err) != broker.CredentialRefused {
				r.t.Errorf("%s: done, and the old password: %v", m.Address, err)
			}
		case broker.RotationKeptOld:
			if now != m.before {
				r.t.Errorf("%s: the old one was kept, and the credential is another", m.Address)
			}
		default:
			r.t.Errorf("%s: ended as %s (%s)", m.Address, j.Outcome, j.Words)
		}
	}
	return ended
}

// recorded wants the end in the firm's log, and no password there.
func (r *rotated) recorded(m *rotatedMailbox, j *broker.Rotation, secrets ...string) {
	r.t.Helper()
	found := false
	for after := int64(-1); ; {
		events, err := r.state.Events(r.t.Context(), broker.EventQuery{FirmID: m.FirmID, After: after, Limit: 10000})
		r.must(err)
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			after = e.Seq
			found = found || e.Type == broker.EventRotationEnded && strings.Contains(string(e.Record), string(j.ID))
			for _, s := range secrets {
				if strings.Contains(string(e.Record), s) {
					r.t.Errorf("the log holds a password: %s", e.Record)
				}
			}
		}
	}
	if !found {
		r.t.Errorf("the end of rotation %s is not in the log", j.ID)
	}
}
