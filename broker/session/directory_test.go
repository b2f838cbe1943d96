// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// fakeDirectory is a broker.Directory in memory. Like a real one it says yes to
// an empty password (RFC 4513 §5.1.2), so that whoever asks for that is let in.
type fakeDirectory struct {
	mu        sync.Mutex
	passwords map[string]string
	down      error
	takes     time.Duration
	// asked are the accounts and passwords of all binds, looked the accounts of
	// all look-ups.
	asked  []string
	looked []string
}

func (d *fakeDirectory) Check(ctx context.Context, account string, password broker.Secret) error {
	d.mu.Lock()
	d.asked = append(d.asked, account+" "+string(password.Reveal()))
	right, known := d.passwords[account]
	down, takes := d.down, d.takes
	d.mu.Unlock()
	time.Sleep(takes)
	switch {
	case down != nil:
		return down
	case known && (password.Empty() || right == string(password.Reveal())):
		return nil
	}
	return fakeNo(broker.ReasonPassword)
}

func (d *fakeDirectory) Look(ctx context.Context, account string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looked = append(d.looked, account)
	if _, known := d.passwords[account]; d.down == nil && !known {
		return fakeNo(broker.ReasonNoAccount)
	}
	return d.down
}

func fakeNo(reason string) error {
	err := broker.Errorf(broker.Denied, "no")
	err.Reason = reason
	return err
}

func (d *fakeDirectory) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

// binds returns those in an account's name, and how many there were in all.
func (d *fakeDirectory) binds(account string) (own []string, all int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.asked {
		if strings.HasPrefix(a, account+" ") {
			own = append(own, a)
		}
	}
	return own, len(d.asked)
}

const directoryPassword = "Correct-Horse 9"

// newDirectoryWorld is a world in which bela has his password in the directory,
// as "bnagy".
func newDirectoryWorld(t testing.TB, change ...func(*Config)) (*world, *fakeDirectory, *broker.Agent) {
	t.Helper()
	d := &fakeDirectory{passwords: map[string]string{"bnagy": directoryPassword}}
	w := newWorld(t, append([]func(*Config){func(c *Config) { c.Directory = d }}, change...)...)
	bela := &broker.Agent{ID: broker.NewID(), Name: "bela", Authentication: broker.AuthLDAP, DirectoryAccount: "bnagy"}
	w.agents[bela.ID] = bela
	w.assign(bela, w.delegation, policy.Terms{Actions: policy.All})
	return w, d, bela
}

// bela logs in with a password, from the workstation.
func (w *world) bela(password string) broker.Login {
	l := w.login()
	l.Username, l.Token = "bela/info@firm.example", broker.NewSecret([]byte(password))
	return l
}

// try opens a session, closes it again, and returns the error's code.
func (w *world) try(l broker.Login) broker.Code {
	s, err := w.manager.Open(context.Background(), l)
	if err != nil {
		return broker.CodeOf(err)
	}
	s.End(&broker.End{Reason: broker.EndLogout}, nil)
	return ""
}

func TestDirectoryPasswordLetsItsAgentIn(t *testing.T) {
	for _, name := range [][2]string{
		{"bela/info@firm.example", ""},
		{"BELA/Info@firm.example", ""},
		{"bela", "info@firm.example"},
		{"bela/info@firm.example", "info@firm.example"},
		{"", "bela/info@firm.example"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w, d, bela := newDirectoryWorld(t)
			w.run(t)
			l := w.bela(directoryPassword)
			l.Username, l.AuthorizationID = name[0], name[1]
			s, err := w.manager.Open(context.Background(), l)
			if err != nil {
				t.Fatalf("%q: %v", name, err)
			}
			defer s.End(&broker.End{Reason: broker.EndLogout}, nil)
			r := s.Record()
			if r.AgentID != bela.ID || r.Authentication != broker.AuthLDAP || r.AppPasswordID != "" || r.WorkstationID != w.workstation.ID {
				t.Errorf("record %+v", r)
			}
			if own, all := d.binds("bnagy"); len(own) != 1 || all != 1 {
				t.Errorf("asked: %q of %d", own, all)
			}
		})
	}
}

// TestDirectoryAgentsAreDenied: whatever is wrong, one text after one time, the
// cause in the log alone, and the account is asked for only where its password
// would let him in.
func TestDirectoryAgentsAreDenied(t *testing.T) {
	for _, test := range []struct {
		cause string
		binds int // in his name
		setup func(w *world, bela *broker.Agent, l *broker.Login)
	}{
		{broker.ReasonPassword, 1, func(w *world, _ *broker.Agent, l *broker.Login) { *l = w.bela("wrong") }},
		{causeUnknownToken, 0, func(w *world, _ *broker.Agent, l *broker.Login) { l.Username = "nobody/info@firm.example" }},
		{causeUnknownToken, 0, func(w *world, _ *broker.Agent, l *broker.Login) { l.Username = "info@firm.example" }},
		{causeUnknownToken, 0, func(w *world, _ *broker.Agent, l *broker.Login) { l.Username = "anna/info@firm.example" }},
		{causeUnknownToken, 0, func(w *world, b *broker.Agent, l *broker.Login) { b.Authentication = "" }},
		{causeUnknownToken, 0, func(w *world, b *broker.Agent, l *broker.Login) { delete(w.agents, b.ID) }},
		{causeUnknownMailbox, 0, func(w *world, _ *broker.Agent, l *broker.Login) { l.Username = "bela/who@firm.example" }},
		{causeNotAssigned, 0, func(w *world, _ *broker.Agent, l *broker.Login) { clear(w.assigned) }},
		{causeNoCertificate, 0, func(w *world, _ *broker.Agent, l *broker.Login) { l.Certificate = nil }},
		{causeUnknownCertificate, 0, func(w *world, _ *broker.Agent, l *broker.Login) {
			l.Certificate = &x509.Certificate{RawSubjectPublicKeyInfo: []byte("another key")}
		}},
		{causeUsername, 0, func(w *world, _ *broker.Agent, l *broker.Login) { l.AuthorizationID = "other@firm.example" }},
	} {
		t.Run(test.cause, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, d, bela := newDirectoryWorld(t)
				w.run(t)
				d.takes = 10 * time.Millisecond
				l := w.bela(directoryPassword)
				test.setup(w, bela, &l)
				began := time.Now()
				_, err := w.manager.Open(context.Background(), l)
				if broker.CodeOf(err) != broker.Denied || broker.PublicText(err) != textDenied {
					t.Fatalf("the error is %v", err)
				}
				if took := time.Since(began); took != firstDelay {
					t.Errorf("it took %v", took)
				}
				failed := w.log.of(broker.EventAuthFailed)
				if len(failed) != 1 || failed[0].Data.(broker.AuthFailed).Cause != test.cause {
					t.Errorf("recorded: %+v", failed)
				}
				if own, _ := d.binds("bnagy"); len(own) != test.binds {
					t.Errorf("asked: %q", own)
				}
			})
		})
	}
}

// TestEmptyPasswordNeverReachesTheDirectory: a directory says yes to a name
// without a password, which proves nothing (RFC 4513 §5.1.2).
func TestEmptyPasswordNeverReachesTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d, _ := newDirectoryWorld(t)
		w.run(t)
		if code := w.try(w.bela("")); code != broker.Denied {
			t.Errorf("without a password: %q", code)
		}
		if _, all := d.binds(""); all != 0 {
			t.Errorf("the directory was asked %d times", all)
		}
	})
}

// TestAppPasswordsStayOutOfTheDirectory: a token goes to nobody, whatever user
// name comes with it: a local part may begin with an agent's name and a slash.
func TestAppPasswordsStayOutOfTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d, _ := newDirectoryWorld(t)
		w.mailbox.Address = "bela/x@firm.example"
		w.run(t)
		l := w.login()
		for name, want := range map[string]broker.Code{
			"bela/x@firm.example": "", "anna/bela/x@firm.example": "", "bela/bela/x@firm.example": broker.Denied,
		} {
			if l.Username = name; w.try(l) != want {
				t.Errorf("%s: not %q", name, want)
			}
		}
		w.password.RevokedAt = time.Now()
		w.set(broker.Change{Kind: "app-password", ID: w.password.ID}, func() {})
		synctest.Wait()
		l.Username = "bela/x@firm.example"
		if code := w.try(l); code != broker.Denied {
			t.Errorf("revoked: %q", code)
		}
		if _, all := d.binds(""); all != 0 {
			t.Errorf("the directory was asked: %q", d.asked)
		}
	})
}

// TestDirectoryDownIsNoRefusal: an outage is told as one, to agents and to names
// that are nobody's alike, and counts as nobody's failure.
func TestDirectoryDownIsNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d, _ := newDirectoryWorld(t)
		w.run(t)
		d.set(func() { d.down = broker.Errorf(broker.Unavailable, "down").WithCause(errors.New("no route")) })
		for i := range 20 {
			for _, name := range []string{"bela/info@firm.example", "nobody/info@firm.example", "anna/info@firm.example", "bela/who@firm.example"} {
				l := w.bela(fmt.Sprintf("guess %d", i))
				l.Username = name
				_, err := w.manager.Open(context.Background(), l)
				if broker.CodeOf(err) != broker.Unavailable || broker.PublicText(err) != textDirectory {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		if failed := w.log.of(broker.EventAuthFailed); len(failed) != 0 {
			t.Errorf("%d failures were recorded", len(failed))
		}
		// Who has an app password is not touched.
		if code := w.try(w.login()); code != "" {
			t.Errorf("with an app password: %q", code)
		}
		d.set(func() { d.down = nil })
		began := time.Now()
		if code := w.try(w.bela(directoryPassword)); code != "" {
			t.Errorf("when it is back: %q", code)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("he waited %v for the outage", waited)
		}
	})
}

// TestGuessesLockNoDirectoryAccount: whoever has a workstation can have wrong
// passwords tried in a colleague's name, and directories lock after some. One
// workstation, or address, can cause all but one of few, and all of them few;
// what the colleague has left is enough for him. After the window it begins
// anew.
func TestGuessesLockNoDirectoryAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d, _ := newDirectoryWorld(t)
		w.run(t)
		guesser := func(number int) *x509.Certificate {
			c := &x509.Certificate{RawSubjectPublicKeyInfo: fmt.Appendf(nil, "key %d", number)}
			s := &broker.Workstation{ID: broker.NewID(), Name: fmt.Sprint(number), Class: broker.ClassSoftware, KeyPins: []string{broker.KeyPin(c)}}
			w.set(broker.Change{Kind: "workstation", ID: s.ID}, func() { w.stations[s.ID] = s })
			return c
		}
		guess := func(from *x509.Certificate, times int) {
			for i := range times {
				l := w.bela(fmt.Sprintf("guess %d", i))
				l.Certificate = from
				if code := w.try(l); code != broker.Denied {
					t.Fatalf("a guess: %q", code)
				}
			}
		}
		guess(guesser(1), 20)
		if own, _ := d.binds("bnagy"); len(own) != DirectoryFailures-1 {
			t.Fatalf("one workstation had %d tried", len(own))
		}
		if code := w.try(w.bela(directoryPassword)); code != "" {
			t.Errorf("at his own: %q", code)
		}
		for i := range 10 {
			guess(guesser(2+i), 20)
		}
		if own, _ := d.binds("bnagy"); len(own) != DirectoryFailures+1 {
			t.Fatalf("eleven workstations had %d tried", len(own)-1)
		}
		// Nothing is left, for a right one neither: not here, but the account is
		// not locked.
		time.Sleep(goodFor)
		if code := w.try(w.bela(directoryPassword)); code != broker.Denied {
			t.Errorf("when all are used up: %q", code)
		}
		if failed := w.log.of(broker.EventAuthFailed); failed[len(failed)-1].Data.(broker.AuthFailed).Cause != reasonAttempts {
			t.Errorf("recorded: %+v", failed[len(failed)-1].Data)
		}
		time.Sleep(DirectoryWindow)
		if code := w.try(w.bela(directoryPassword)); code != "" {
			t.Errorf("after the window: %q", code)
		}
	})
}

// TestOneSourceTriesFewAccounts: one password for each of many colleagues is
// bounded as well.
func TestOneSourceTriesFewAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d, _ := newDirectoryWorld(t)
		for i := range 100 {
			a := &broker.Agent{ID: broker.NewID(), Name: fmt.Sprintf("agent-%d", i), Authentication: broker.AuthLDAP}
			w.agents[a.ID] = a
			w.assign(a, w.delegation, policy.Terms{Actions: policy.All})
		}
		w.run(t)
		for i := range 100 {
			l := w.bela("Summer2031")
			l.Username = fmt.Sprintf("agent-%d/info@firm.example", i)
			if code := w.try(l); code != broker.Denied {
				t.Fatal(code)
			}
		}
		if _, all := d.binds(""); all != DirectoryFailures*sourceAccounts {
			t.Errorf("one workstation had %d tried", all)
		}
	})
}

// TestAClientsManyConnectionsAskOnce: ten at once are one question, whether the
// password is right or an old one.
func TestAClientsManyConnectionsAskOnce(t *testing.T) {
	for password, want := range map[string]broker.Code{directoryPassword: "", "the old one": broker.Denied} {
		synctest.Test(t, func(t *testing.T) {
			w, d, _ := newDirectoryWorld(t, func(c *Config) { c.Connections = 20 })
			d.takes = time.Second
			w.run(t)
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					if code := w.try(w.bela(password)); code != want {
						t.Errorf("%q: %q", password, code)
					}
				})
			}
			wg.Wait()
			if own, _ := d.binds("bnagy"); len(own) != 1 {
				t.Errorf("%d questions", len(own))
			}
		})
	}
}

// TestAYesIsGoodForSecondsAndNoChange: what the directory said is not good for
// another password, later, or after anything was changed.
func TestAYesIsGoodForSecondsAndNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d, bela := newDirectoryWorld(t)
		w.run(t)
		in := func(step, password string, want broker.Code, questions int) {
			t.Helper()
			before, _ := d.binds("bnagy")
			if code := w.try(w.bela(password)); code != want {
				t.Errorf("%s: %q", step, code)
			}
			if after, _ := d.binds("bnagy"); len(after)-len(before) != questions {
				t.Errorf("%s: %d questions", step, len(after)-len(before))
			}
		}
		in("first", directoryPassword, "", 1)
		in("again", directoryPassword, "", 0)
		in("another password", directoryPassword+" ", broker.Denied, 1)
		in("the right one after it", directoryPassword, "", 1)
		d.set(func() { d.passwords["bnagy"] = "changed" })
		time.Sleep(goodFor)
		in("the old one, later", directoryPassword, broker.Denied, 1)
		in("the new one", "changed", "", 1)
		l := &broker.Lock{ID: broker.NewID(), Target: broker.LockAgent, TargetID: bela.ID, Message: "Stop."}
		w.set(broker.Change{Kind: "lock", ID: l.ID, Target: l.Target, TargetID: bela.ID}, func() { w.locked[l.ID] = l })
		synctest.Wait()
		in("locked", "changed", broker.Refused, 1)
		w.set(broker.Change{Kind: "lock", ID: l.ID, Target: l.Target, TargetID: bela.ID}, func() { delete(w.locked, l.ID) })
		synctest.Wait()
		in("unlocked", "changed", "", 1)
	})
}

// TestAgentsOfTheDirectoryHaveNoOtherWayIn, and those with app passwords none
// through it; who is moved from the one to the other is out.
func TestAgentsOfTheDirectoryHaveNoOtherWayIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, bela := newDirectoryWorld(t)
		w.run(t)
		annas := w.open(t)
		s, err := w.manager.Open(context.Background(), w.bela(directoryPassword))
		if err != nil {
			t.Fatal(err)
		}
		defer s.End(nil, nil)
		w.set(broker.Change{Kind: "agent", ID: bela.ID}, func() {
			moved := *bela
			moved.Authentication, moved.DirectoryAccount = "", ""
			w.agents[bela.ID] = &moved
		})
		synctest.Wait()
		if end := ended(t, s); end.Detail != causeAuthentication || !strings.Contains(end.Text, textSignIn) {
			t.Errorf("bela's session ended so: %+v", end)
		}
		alive(t, annas)
		w.set(broker.Change{Kind: "agent", ID: w.agent.ID}, func() {
			moved := *w.agent
			moved.Authentication = broker.AuthLDAP
			w.agents[w.agent.ID] = &moved
		})
		synctest.Wait()
		if end := ended(t, annas); end.Detail != causeAuthentication {
			t.Errorf("anna's session ended so: %+v", end)
		}
		if code := w.try(w.login()); code != broker.Denied {
			t.Errorf("with what was an app password: %q", code)
		}
	})
}

// TestADisabledAccountEndsItsSessions at the next look; an outage ends none.
func TestADisabledAccountEndsItsSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d, _ := newDirectoryWorld(t, func(c *Config) { c.DirectoryInterval = time.Minute })
		w.run(t)
		s, err := w.manager.Open(context.Background(), w.bela(directoryPassword))
		if err != nil {
			t.Fatal(err)
		}
		defer s.End(nil, nil)
		annas := w.open(t)
		d.set(func() { d.down = broker.Errorf(broker.Unavailable, "down") })
		time.Sleep(3 * time.Minute)
		alive(t, s)
		d.set(func() {
			d.down = nil
			delete(d.passwords, "bnagy")
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if end := ended(t, s); end.Reason != broker.EndRevoked || end.Detail != broker.ReasonNoAccount || !strings.Contains(end.Text, textAccount) {
			t.Errorf("it ended so: %+v", end)
		}
		alive(t, annas)
		if slices.ContainsFunc(d.looked, func(account string) bool { return account != "bnagy" }) {
			t.Errorf("looked for %q", d.looked)
		}
	})
}

func TestAgentOf(t *testing.T) {
	for _, test := range []struct{ username, identity, want string }{
		{"info@firm.example", "", ""},
		{"Bela/info@firm.example", "", "bela"},
		{"bela", "info@firm.example", "bela"},
		{"bela/info@firm.example", "info@firm.example", "bela"},
		{"info@firm.example", "bela/info@firm.example", "info@firm.example"},
		{"", "Bela/info@firm.example", "bela"},
		{"", "info@firm.example", ""},
		{"", "", ""},
		{"/info@firm.example", "", ""},
		{"bela\x00", "info@firm.example", ""},
	} {
		if got := agentOf(test.username, test.identity); got != test.want {
			t.Errorf("agentOf(%q, %q) = %q, want %q", test.username, test.identity, got, test.want)
		}
	}
}
