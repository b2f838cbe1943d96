// SPDX-License-Identifier: Apache-2.0

package session

import (
	"crypto/x509"
	"net/netip"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/test/servers"
)

// standing waits until every session was decided by the policy as it is now,
// and returns those that go on.
func (o *office) standing(t *testing.T) map[broker.ID]bool {
	t.Helper()
	revision, err := o.store.PolicyRevision(t.Context())
	must(t, err)
	watch := servers.StartStopwatch(t)
	deadline := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if records, ok := o.manager.Standing(revision); ok {
			ids := map[broker.ID]bool{}
			for _, r := range records {
				ids[r.ID] = true
			}
			watch.Within(t, "every session's decision", time.Second)
			return ids
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not every session is decided by revision %d a minute later", revision)
		}
	}
}

func (o *office) open(t *testing.T, l broker.Login) broker.LiveSession {
	t.Helper()
	s, err := o.manager.Open(t.Context(), l)
	must(t, err)
	t.Cleanup(func() { s.End(&broker.End{Reason: broker.EndLogout}, nil) })
	return s
}

// TestStandingTellsWhichSessionsGoOn: what a change makes wider stands, what it
// makes narrower does not, from the moment at which the change was followed.
func TestStandingTellsWhichSessionsGoOn(t *testing.T) {
	o := newOffice(t, 5)
	o.delegation.Terms.Actions = policy.List | policy.Read
	must(t, o.store.UpdateDelegation(t.Context(), admin, o.delegation))
	s := o.open(t, o.login)
	for _, step := range []struct {
		name    string
		actions policy.Actions
		stands  bool
	}{
		{"wider", policy.All, true},
		{"narrower", policy.List, false},
		{"wider again", policy.All, false},
	} {
		o.delegation.Terms.Actions = step.actions
		must(t, o.store.UpdateDelegation(t.Context(), admin, o.delegation))
		if stands := o.standing(t)[s.Record().ID]; stands != step.stands {
			t.Errorf("%s: it stands: %v", step.name, stands)
		}
		if live := o.manager.Live(); len(live) != 1 {
			t.Errorf("%s: %d sessions have a connection, want 1 until it closes", step.name, len(live))
		}
	}
	if _, ok := o.manager.Standing(1 << 40); ok {
		t.Error("a revision that never was is followed")
	}
}

// TestStandingIsNotKnownWhileAnySessionIsUndecided: a session that could not be
// decided is not said to go on.
func TestStandingIsNotKnownWhileAnySessionIsUndecided(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	s := w.open(t)
	w.mu.Lock()
	w.failOnly["Assignment"] = broker.Errorf(broker.Internal, "a row that cannot be read")
	w.mu.Unlock()
	failed := make(chan struct{}, 8)
	w.mu.Lock()
	w.hook = func(call string) {
		if call == "after Assignment" {
			select {
			case failed <- struct{}{}:
			default:
			}
		}
	}
	w.mu.Unlock()
	w.set(broker.Change{Kind: "assignment", ID: w.assignment.ID}, func() {})
	// At the second failure, the first pass is over.
	<-failed
	<-failed
	if records, ok := w.manager.Standing(w.revision); ok {
		t.Errorf("undecided, and standing: %+v", records)
	}
	w.mu.Lock()
	delete(w.failOnly, "Assignment")
	w.mu.Unlock()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		records, ok := w.manager.Standing(w.revision)
		if ok {
			if len(records) != 1 || records[0].ID != s.Record().ID {
				t.Errorf("standing %+v", records)
			}
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never decided")
		}
	}
}

// TestNever4RemovedKeyEndsItsSessions: when a workstation gets a new key in the
// place of its old one, what was opened with the old one ends within the
// second, and opens nothing more; sessions of a key that stays go on.
func TestNever4RemovedKeyEndsItsSessions(t *testing.T) {
	o := newOffice(t, 5)
	renewed := o.login
	renewed.Certificate = &x509.Certificate{RawSubjectPublicKeyInfo: []byte("a new key")}
	oldPin, newPin := o.workstation.KeyPins[0], broker.KeyPin(renewed.Certificate)
	old := o.open(t, o.login)

	o.workstation.KeyPins = []string{oldPin, newPin}
	must(t, o.store.UpdateWorkstation(t.Context(), admin, o.workstation))
	if !o.standing(t)[old.Record().ID] {
		t.Fatal("a key was added, and the old key's session ended")
	}
	kept := o.open(t, renewed)

	o.workstation.KeyPins = []string{newPin}
	must(t, o.store.UpdateWorkstation(t.Context(), admin, o.workstation))
	waitFor(t, old, broker.EndRevoked)
	if standing := o.standing(t); standing[old.Record().ID] || !standing[kept.Record().ID] {
		t.Errorf("standing %v: want the new key's session alone", standing)
	}
	if _, err := o.manager.Open(t.Context(), o.login); broker.CodeOf(err) != broker.Denied {
		t.Errorf("the removed key: %v", err)
	}
}

// TestNever4WorkstationThatIsMovedOrRegrouped ends what the workstation could
// no longer open.
func TestNever4WorkstationThatIsMovedOrRegrouped(t *testing.T) {
	tests := map[string]struct {
		change func(o *office, w *broker.Workstation)
		stands bool
	}{
		"another name":        {func(_ *office, w *broker.Workstation) { w.Name = "desk-2" }, true},
		"a group more":        {func(_ *office, w *broker.Workstation) { w.Groups = append(w.Groups, "night") }, true},
		"roaming":             {func(_ *office, w *broker.Workstation) { w.SiteID = "" }, true},
		"class software":      {func(_ *office, w *broker.Workstation) { w.Class = broker.ClassSoftware }, false},
		"no group":            {func(_ *office, w *broker.Workstation) { w.Groups = nil }, false},
		"bound to other site": {func(o *office, w *broker.Workstation) { w.SiteID = o.addSite(t, "198.51.100.0/24") }, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, 5)
			o.workstation.Groups = []string{"day"}
			must(t, o.store.UpdateWorkstation(t.Context(), admin, o.workstation))
			o.delegation.Terms.HardwareKey = true
			must(t, o.store.UpdateDelegation(t.Context(), admin, o.delegation))
			token, hash, err := o.manager.NewToken()
			must(t, err)
			must(t, o.store.CreateAppPassword(t.Context(), admin, &broker.AppPassword{AgentID: o.agent.ID, Hash: hash, Groups: []string{"day"}}))
			o.login.Token = broker.NewSecret([]byte(token))
			s := o.open(t, o.login)
			test.change(o, o.workstation)
			must(t, o.store.UpdateWorkstation(t.Context(), admin, o.workstation))
			if stands := o.standing(t)[s.Record().ID]; stands != test.stands {
				t.Errorf("it stands: %v", stands)
			}
			if !test.stands {
				waitFor(t, s, broker.EndRevoked)
			}
		})
	}
}

func (o *office) addSite(t *testing.T, network string) broker.ID {
	t.Helper()
	site := &broker.Site{Name: network, Networks: []netip.Prefix{netip.MustParsePrefix(network)}}
	must(t, o.store.CreateSite(t.Context(), admin, site))
	return site.ID
}
