// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// crew is several agents on one mailbox.
type crew struct {
	*world
	tokens map[string]string
}

func newCrew(t *testing.T, connections int, names ...string) *crew {
	w := newWorld(t, func(c *Config) { c.Connections, c.Submissions = connections, 2 })
	c := &crew{w, map[string]string{}}
	for _, name := range names {
		a, _, token := w.hire(name)
		w.assign(a, w.delegation, policy.Terms{Actions: policy.All})
		c.tokens[name] = token
	}
	w.run(t)
	return c
}

// enter opens a session of an agent; its proxy closes it when it must.
func (c *crew) enter(t *testing.T, name string, protocol broker.Protocol) (broker.LiveSession, error) {
	t.Helper()
	l := c.login()
	l.Token, l.Protocol = broker.NewSecret([]byte(c.tokens[name])), protocol
	s, err := c.manager.Open(context.Background(), l)
	if err == nil {
		context.AfterFunc(s.Context(), func() { s.End(nil, nil) })
	}
	return s, err
}

func (c *crew) must(t *testing.T, name string) broker.LiveSession {
	t.Helper()
	s, err := c.enter(t, name, broker.ProtocolIMAP)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s
}

// close ends everything that is left, within the bubble.
func (c *crew) close() {
	c.manager.EndAll(&broker.End{Reason: broker.EndDrain})
	synctest.Wait()
}

func TestNever9BudgetIsSharedFairly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 7, "a", "b", "d") // six for sessions
		defer c.close()
		var greedy []broker.LiveSession
		for range 6 {
			s := c.must(t, "a")
			time.Sleep(time.Second)
			s.SetIdle(true)
			greedy = append(greedy, s)
		}
		if _, err := c.enter(t, "a", broker.ProtocolIMAP); broker.CodeOf(err) != broker.Limit || broker.PublicText(err) != textBudget {
			t.Fatalf("a seventh: %v", err)
		}
		greedy[0].SetIdle(false)
		greedy[2].SetIdle(false)
		greedy[2].SetIdle(true) // it is the last to have become idle

		// b gets a half: the longest idle ones of a go first, busy ones not while
		// others are idle.
		for i, gone := range []int{1, 3, 4} {
			c.must(t, "b").SetIdle(i > 0)
			synctest.Wait()
			if end := ended(t, greedy[gone]); end.Reason != broker.EndBudget || end.Text == "" {
				t.Errorf("end %+v", end)
			}
		}
		for _, lives := range []int{0, 2, 5} {
			alive(t, greedy[lives])
		}
		if _, err := c.enter(t, "b", broker.ProtocolIMAP); broker.CodeOf(err) != broker.Limit {
			t.Errorf("b has three of six: %v", err)
		}
		// d takes from either, since both hold more than d would.
		c.must(t, "d")
		c.must(t, "d")
		if _, err := c.enter(t, "d", broker.ProtocolIMAP); broker.CodeOf(err) != broker.Limit {
			t.Errorf("d has two of six: %v", err)
		}
		held := map[string]int{}
		for _, info := range c.manager.Sessions() {
			held[info.Agent]++
		}
		if held["a"] != 2 || held["b"] != 2 || held["d"] != 2 {
			t.Errorf("shares %v", held)
		}
		refused := c.log.of(broker.EventSessionRefused)
		if len(refused) != 3 || refused[0].Data.(broker.SessionRefused).Code != broker.Limit {
			t.Errorf("events %+v", refused)
		}
	})
}

// TestNever9BusySessionsKeepNobodyOut: an agent who never reads what he asked
// for, or never ends what he sends, is not idle for ever, and keeps no more than
// his share all the same.
func TestNever9BusySessionsKeepNobodyOut(t *testing.T) {
	for _, protocol := range []broker.Protocol{broker.ProtocolIMAP, broker.ProtocolSubmission} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, 5, "a", "b", "d")
			c.manager.submissions = 4
			defer c.close()
			var greedy []broker.LiveSession
			for range 4 {
				s, err := c.enter(t, "a", protocol)
				if err != nil {
					t.Fatal(err)
				}
				greedy = append(greedy, s)
				time.Sleep(time.Second)
			}
			for range 2 {
				if _, err := c.enter(t, "b", protocol); err != nil {
					t.Fatalf("%s: b is kept out: %v", protocol, err)
				}
			}
			for i, s := range greedy { // the oldest went
				if i >= 2 {
					alive(t, s)
				} else if end := ended(t, s); end.Reason != broker.EndBudget {
					t.Errorf("end %+v", end)
				}
			}
			// Nobody takes busy ones from each other for ever.
			for _, name := range []string{"a", "b"} {
				if _, err := c.enter(t, name, protocol); broker.CodeOf(err) != broker.Limit {
					t.Errorf("%s: %s has two of four, and gets one more: %v", protocol, name, err)
				}
			}
			// d would have as many as the others have left.
			if _, err := c.enter(t, "d", protocol); err != nil {
				t.Errorf("%s: d is kept out: %v", protocol, err)
			}
			if _, err := c.enter(t, "d", protocol); broker.CodeOf(err) != broker.Limit {
				t.Errorf("%s: d gets a second: %v", protocol, err)
			}
		})
	}
}

// Whoever would have as many as the greediest then gets none of his: otherwise
// two agents would take one place from each other for ever.
func TestBudgetComesToRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 8, "a", "b") // seven for sessions
		defer c.close()
		for range 4 {
			c.must(t, "a").SetIdle(true)
		}
		for range 3 {
			c.must(t, "b").SetIdle(true)
		}
		for _, name := range []string{"a", "b"} {
			if _, err := c.enter(t, name, broker.ProtocolIMAP); broker.CodeOf(err) != broker.Limit {
				t.Errorf("%s gets one more: %v", name, err)
			}
		}
	})
}

func TestBudgetPlacesComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 2, "a")
		defer c.close()
		for range 5 {
			s := c.must(t, "a")
			s.End(&broker.End{Reason: broker.EndLogout}, nil)
		}
	})
}

// A session that is ending but whose proxy has not closed it yet gives its
// place to the next, which waits for it.
func TestBudgetWaitsForWhatIsEnding(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Connections = 2 })
			w.run(t)
			first, err := w.manager.Open(context.Background(), w.login())
			if err != nil {
				t.Fatal(err)
			}
			if err := w.manager.EndSession(context.Background(), broker.Actor{Kind: "admin"}, first.Record().ID); err != nil {
				t.Fatal(err)
			}
			began, want := time.Now(), handoverTimeout/2
			if late {
				want = handoverTimeout
			} else {
				time.AfterFunc(want, func() { first.End(nil, nil) })
			}
			w.open(t)
			if took := time.Since(began); took != want {
				t.Errorf("took %v, want %v", took, want)
			}
			first.End(nil, nil)
			if _, err := w.manager.Open(context.Background(), w.login()); broker.CodeOf(err) != broker.Limit {
				t.Errorf("the place was given twice: %v", err)
			}
		})
	}
}

func TestBudgetOfTheMailbox(t *testing.T) {
	for _, test := range []struct{ mailbox, config, reserved, want int }{
		{0, 0, 0, DefaultConnections - DefaultReserved},
		{3, 0, 0, 2},
		{1, 0, 0, 1},
		{0, 5, 2, 3},
		{4, 0, -1, 4},
	} {
		w := newWorld(t, func(c *Config) { c.Connections, c.Reserved = test.config, test.reserved })
		w.mailbox.MaxConnections = test.mailbox
		w.run(t)
		got := 0
		for ; ; got++ {
			s, err := w.manager.Open(t.Context(), w.login())
			if err != nil {
				break
			}
			defer s.End(nil, nil)
		}
		if got != test.want {
			t.Errorf("%+v: %d sessions", test, got)
		}
	}
}

func TestSubmissionHasItsOwnBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 2, "a")
		defer c.close()
		c.must(t, "a")
		for range 2 {
			if _, err := c.enter(t, "a", broker.ProtocolSubmission); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.enter(t, "a", broker.ProtocolSubmission); broker.CodeOf(err) != broker.Limit {
			t.Errorf("a third: %v", err)
		}
	})
}
