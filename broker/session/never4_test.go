// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// change is something that the state may do to a session.
type change struct {
	name  string
	setup func(*world)
	apply func(*world)
	// reason is how the session ends; empty: it lives on.
	reason broker.EndReason
}

func changes() []change {
	lock := func(target broker.LockTarget, id func(*world) broker.ID) func(*world) {
		return func(w *world) { w.lock(target, id(w), time.Now().Add(time.Hour)) }
	}
	return []change{
		{"delegation revoked", nil, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.RevokedAt = time.Now() })
		}, broker.EndRevoked},
		{"delegation narrowed", nil, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.Terms.Actions &^= policy.Send })
		}, broker.EndRevoked},
		{"delegation shortened", nil, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.Terms.NotAfter = time.Now().Add(time.Hour) })
		}, broker.EndRevoked},
		{"delegation made to end now", nil, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.Terms.NotAfter = time.Now() })
		}, broker.EndExpired},
		{"delegation asks for a hardware key", nil, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.Terms.HardwareKey = true })
		}, broker.EndRevoked},
		{"delegation asks for another site", nil, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.Terms.Sites = []string{string(broker.NewID())} })
		}, broker.EndRevoked},
		{"assignment revoked", nil, func(w *world) {
			w.set(broker.Change{Kind: "assignment", ID: w.assignment.ID}, func() { w.assignment.RevokedAt = time.Now() })
		}, broker.EndRevoked},
		{"assignment narrowed", nil, func(w *world) {
			w.set(broker.Change{Kind: "assignment", ID: w.assignment.ID}, func() { w.assignment.Terms.Actions = policy.List })
		}, broker.EndRevoked},
		{"app password revoked", nil, func(w *world) {
			w.set(broker.Change{Kind: "app-password", ID: w.password.ID}, func() { w.password.RevokedAt = time.Now() })
		}, broker.EndRevoked},
		{"agent deleted", nil, func(w *world) {
			w.set(broker.Change{Kind: "agent", ID: w.agent.ID}, func() { delete(w.agents, w.agent.ID) })
		}, broker.EndRevoked},
		{"workstation deleted", nil, func(w *world) {
			w.set(broker.Change{Kind: "workstation", ID: w.workstation.ID}, func() { delete(w.stations, w.workstation.ID) })
		}, broker.EndRevoked},
		{"workstation's key changed", nil, func(w *world) {
			w.set(broker.Change{Kind: "workstation", ID: w.workstation.ID}, func() { w.workstation.KeyPins = []string{strings.Repeat("ab", 32)} })
		}, broker.EndRevoked},
		{"workstation leaves the token's group", func(w *world) { w.password.Groups = []string{"support"} }, func(w *world) {
			w.set(broker.Change{Kind: "workstation", ID: w.workstation.ID}, func() { w.workstation.Groups = []string{"sales"} })
		}, broker.EndRevoked},
		{"workstation bound to another site", nil, func(w *world) {
			w.set(broker.Change{Kind: "workstation", ID: w.workstation.ID}, func() { w.workstation.SiteID = broker.NewID() })
		}, broker.EndRevoked},
		{"workstation's class lowered", func(w *world) {
			w.workstation.Class, w.delegation.Terms.HardwareKey = broker.ClassHardware, true
		}, func(w *world) {
			w.set(broker.Change{Kind: "workstation", ID: w.workstation.ID}, func() { w.workstation.Class = broker.ClassSoftware })
		}, broker.EndRevoked},
		{"site's networks changed", nil, func(w *world) {
			w.set(broker.Change{Kind: "site", ID: w.site.ID}, func() { w.site.Networks = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")} })
		}, broker.EndRevoked},
		{"mailbox gone", nil, func(w *world) {
			w.set(broker.Change{Kind: "mailbox", ID: w.mailbox.ID}, func() { delete(w.boxes, w.mailbox.ID) })
		}, broker.EndRevoked},
		{"mailbox renamed", nil, func(w *world) {
			w.set(broker.Change{Kind: "mailbox", ID: w.mailbox.ID}, func() { w.change(func(m *broker.Mailbox) { m.Address = "new@firm.example" }) })
		}, broker.EndRevoked},
		{"mailbox moved to another server", nil, func(w *world) {
			w.set(broker.Change{Kind: "mailbox", ID: w.mailbox.ID}, func() { w.change(func(m *broker.Mailbox) { m.IMAP.Host = "new.firm.example" }) })
		}, broker.EndRevoked},
		{"mailbox's login name changed", nil, func(w *world) {
			w.set(broker.Change{Kind: "mailbox", ID: w.mailbox.ID}, func() { w.change(func(m *broker.Mailbox) { m.Username = "u1" }) })
		}, broker.EndRevoked},
		{"mailbox given to another firm", nil, func(w *world) {
			w.set(broker.Change{Kind: "mailbox", ID: w.mailbox.ID}, func() { w.change(func(m *broker.Mailbox) { m.FirmID = "another" }) })
		}, broker.EndRevoked},
		{"mailbox lost an address", nil, func(w *world) {
			w.set(broker.Change{Kind: "mailbox", ID: w.mailbox.ID}, func() { w.change(func(m *broker.Mailbox) { m.Aliases = nil }) })
		}, broker.EndRevoked},
		{"delegation hides recovery mail", nil, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.Terms.RecoveryMail = policy.RecoveryHidden })
		}, broker.EndRevoked},
		{"mailbox has another sender of recovery mail", nil, func(w *world) {
			w.set(broker.Change{Kind: "mailbox", ID: w.mailbox.ID}, func() {
				w.change(func(m *broker.Mailbox) { m.RecoverySenders = []string{"accounts.provider.example"} })
			})
		}, broker.EndRevoked},
		{"agent locked", nil, lock(broker.LockAgent, func(w *world) broker.ID { return w.agent.ID }), broker.EndLocked},
		{"workstation locked", nil, lock(broker.LockWorkstation, func(w *world) broker.ID { return w.workstation.ID }), broker.EndLocked},
		{"mailbox locked", nil, lock(broker.LockMailbox, func(w *world) broker.ID { return w.mailbox.ID }), broker.EndLocked},
		{"firm locked", nil, lock(broker.LockFirm, func(w *world) broker.ID { return w.firm.ID }), broker.EndLocked},
		{"site locked", nil, lock(broker.LockSite, func(w *world) broker.ID { return w.site.ID }), broker.EndLocked},
		{"a wider site that holds the address locked", func(w *world) {
			wide := &broker.Site{ID: "wide", Networks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
			w.places[wide.ID] = wide
		}, lock(broker.LockSite, func(w *world) broker.ID { return "wide" }), broker.EndLocked},

		{"delegation widened", func(w *world) { w.delegation.Terms.Actions = policy.List }, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.Terms.Actions = policy.All })
		}, ""},
		{"delegation prolonged", func(w *world) { w.delegation.Terms.NotAfter = time.Now().Add(time.Hour) }, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.Terms.NotAfter = time.Time{} })
		}, ""},
		{"narrowed in what the session had not", func(w *world) { w.assignment.Terms.Actions = policy.List }, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.Terms.Actions = policy.List | policy.Read })
		}, ""},
		{"delegation names the session's own site", nil, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.Terms.Sites = []string{string(w.site.ID)} })
		}, ""},
		{"delegation shows recovery mail", func(w *world) {
			w.mailbox.RecoverySenders, w.assignment.Terms.RecoveryMail = []string{"accounts.provider.example"}, policy.RecoveryShown
		}, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.Terms.RecoveryMail = policy.RecoveryShown })
		}, ""},
		{"another delegation revoked", nil, func(w *world) {
			w.set(broker.Change{Kind: "delegation", ID: broker.NewID()}, func() {})
		}, ""},
		{"mailbox has one more address", nil, func(w *world) {
			w.set(broker.Change{Kind: "mailbox", ID: w.mailbox.ID}, func() {
				w.change(func(m *broker.Mailbox) { m.Aliases = append(m.Aliases[:1:1], "more@firm.example") })
			})
		}, ""},
		{"mailbox's other service and budget changed", nil, func(w *world) {
			w.set(broker.Change{Kind: "mailbox", ID: w.mailbox.ID}, func() {
				w.change(func(m *broker.Mailbox) { m.Submission.Host, m.MaxConnections = "new.firm.example", 3 })
			})
		}, ""},
		{"firm's contact changed", nil, func(w *world) {
			w.set(broker.Change{Kind: "firm", ID: w.firm.ID}, func() { w.firm.Contact = "Ravi" })
		}, ""},
		{"workstation in one more group", nil, func(w *world) {
			w.set(broker.Change{Kind: "workstation", ID: w.workstation.ID}, func() { w.workstation.Groups = []string{"support", "sales"} })
		}, ""},
		{"another agent locked", nil, lock(broker.LockAgent, func(*world) broker.ID { return "someone" }), ""},
		{"something of a kind not known", nil, func(w *world) { w.set(broker.Change{Kind: "guardrail", ID: "x"}, func() {}) }, ""},
	}
}

// change replaces the mailbox, which live sessions point to.
func (w *world) change(f func(*broker.Mailbox)) {
	m := *w.boxes[w.mailbox.ID]
	f(&m)
	w.boxes[m.ID] = &m
}

// TestNever4SessionEndsWithTheChange: told of the change, it ends at once;
// when the notice is lost, within the second.
func TestNever4SessionEndsWithTheChange(t *testing.T) {
	for _, c := range changes() {
		for _, mute := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, notice lost %v", c.name, mute), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					if c.setup != nil {
						c.setup(w)
					}
					w.run(t)
					s := w.open(t)
					w.mute = mute
					began := time.Now()
					c.apply(w)
					if mute {
						time.Sleep(PollInterval) // in the bubble's time
					}
					synctest.Wait()
					if took := time.Since(began); took > time.Second {
						t.Fatalf("took %v", took)
					}
					if c.reason == "" {
						time.Sleep(5 * time.Second)
						alive(t, s)
						if err := s.Check(context.Background()); err != nil {
							t.Errorf("Check: %v", err)
						}
						return
					}
					end := ended(t, s)
					if end.Reason != c.reason || end.Text == "" {
						t.Errorf("end %+v, want reason %s", end, c.reason)
					}
					s.End(&broker.End{Reason: broker.EndClientClosed}, nil)
					events := w.log.of(broker.EventSessionEnd)
					if len(events) != 1 || events[0].Data.(broker.SessionEnd).Reason != c.reason || events[0].Actor.Kind != "system" {
						t.Errorf("events %+v", events)
					}
				})
			})
		}
	}
}

// TestNever4Check: SMTP's last look before the final dot finds a change that
// nobody has told of, and ends the session.
func TestNever4Check(t *testing.T) {
	for _, c := range changes() {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				if c.setup != nil {
					c.setup(w)
				}
				w.run(t)
				s := w.open(t)
				w.mute = true
				c.apply(w)
				err := s.Check(context.Background())
				if c.reason == "" {
					if err != nil {
						t.Fatalf("Check: %v", err)
					}
					alive(t, s)
					return
				}
				if broker.CodeOf(err) != broker.Refused || broker.PublicText(err) != ended(t, s).Text {
					t.Errorf("Check: %v", err)
				}
				if ended(t, s).Reason != c.reason {
					t.Errorf("end %+v", ended(t, s))
				}
			})
		})
	}
}

func TestNever4CheckWithoutState(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	s := w.open(t)
	w.mu.Lock()
	w.failOnly["PolicyRevision"] = broker.Errorf(broker.Unavailable, "away")
	w.mu.Unlock()
	if err := s.Check(t.Context()); broker.CodeOf(err) != broker.Unavailable {
		t.Errorf("Check: %v", err)
	}
	if end := ended(t, s); end.Reason != broker.EndLease {
		t.Errorf("end %+v", end)
	}
}

func TestNever4Expiry(t *testing.T) {
	tests := []struct {
		name  string
		setup func(*world)
	}{
		{"delegation", func(w *world) { w.delegation.Terms.NotAfter = time.Now().Add(90 * time.Minute) }},
		{"assignment", func(w *world) { w.assignment.Terms.NotAfter = time.Now().Add(90 * time.Minute) }},
		{"the delegation's hours", func(w *world) { w.delegation.Terms.Hours = shiftFor(90 * time.Minute) }},
		{"the assignment's hours", func(w *world) { w.assignment.Terms.Hours = shiftFor(90 * time.Minute) }},
		{"app password", func(w *world) { w.password.ExpiresAt = time.Now().Add(90 * time.Minute) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				test.setup(w)
				w.run(t)
				s := w.open(t)
				time.Sleep(90*time.Minute - 1)
				alive(t, s)
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if end := ended(t, s); end.Reason != broker.EndExpired {
					t.Errorf("end %+v", end)
				}
			})
		})
	}
}

// shiftFor is a shift in India that began an hour ago and ends in so long.
func shiftFor(left time.Duration) policy.Hours {
	const zone = "Asia/Kolkata"
	india := time.FixedZone("IST", 19800)
	from, to := time.Now().In(india).Add(-time.Hour), time.Now().In(india).Add(left)
	return policy.Hours{Zone: zone, Shifts: []policy.Shift{{
		Days: []string{strings.ToLower(from.Format("Mon"))}, From: from.Format("15:04"), To: to.Format("15:04"),
	}}}
}

// TestNever4NoSessionOutOfHours: an agent on his own workstation is told why,
// and no upstream is dialled.
func TestNever4NoSessionOutOfHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.delegation.Terms.Hours = shiftFor(30 * time.Minute)
		w.run(t)
		alive(t, w.open(t))
		time.Sleep(30 * time.Minute)
		_, err := w.manager.Open(context.Background(), w.login())
		if refused := (*broker.Error)(nil); !errors.As(err, &refused) || refused.Code != broker.Refused ||
			refused.Reason != policy.ReasonHours || !strings.Contains(refused.Public, "at this hour. Ask Priya") {
			t.Errorf("Open: %v", err)
		}
	})
}

// A clock that is set forward takes no timer with it.
func TestNever4ExpiryWhenTheClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var set time.Duration
		w := newWorld(t, func(c *Config) {
			c.Now = func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				return time.Now().Add(set)
			}
		})
		w.delegation.Terms.NotAfter = time.Now().Add(8 * time.Hour)
		w.run(t)
		s := w.open(t)
		checked := w.open(t)
		mu.Lock()
		set = 8 * time.Hour
		mu.Unlock()
		if err := checked.Check(context.Background()); broker.CodeOf(err) != broker.Refused || ended(t, checked).Reason != broker.EndExpired {
			t.Errorf("Check: %v", err)
		}
		time.Sleep(PollInterval)
		synctest.Wait()
		if end := ended(t, s); end.Reason != broker.EndExpired {
			t.Errorf("end %+v", end)
		}
	})
}

// A session that is over holds nothing until its decision's end.
func TestEndStopsTheTimer(t *testing.T) {
	w := newWorld(t)
	w.delegation.Terms.NotAfter = time.Now().Add(time.Hour)
	w.run(t)
	s := w.open(t).(*live)
	if s.timer == nil {
		t.Fatal("there is no timer")
	}
	s.End(nil, nil)
	if s.timer.Stop() {
		t.Error("the timer still ran")
	}
}

// TestNever4Lease: a node that cannot read the state ends its sessions, and
// lets nobody in; a shorter outage ends none.
func TestNever4Lease(t *testing.T) {
	outage := broker.Errorf(broker.Unavailable, "the database is away")
	t.Run("outage", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.run(t)
			s := w.open(t)
			w.mu.Lock()
			w.fail = outage
			w.mu.Unlock()
			time.Sleep(LeaseTime - PollInterval - 1)
			alive(t, s)
			time.Sleep(PollInterval + 1)
			synctest.Wait()
			if end := ended(t, s); end.Reason != broker.EndLease {
				t.Errorf("end %+v", end)
			}
			w.mu.Lock()
			w.fail = nil
			w.mu.Unlock()
			time.Sleep(PollInterval)
			synctest.Wait()
			w.open(t)
		})
	})
	t.Run("short outage", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.run(t)
			s := w.open(t)
			for range 3 {
				w.mu.Lock()
				w.fail = outage
				w.mu.Unlock()
				time.Sleep(LeaseTime - 4*PollInterval)
				w.mu.Lock()
				w.fail = nil
				w.mu.Unlock()
				time.Sleep(4 * PollInterval)
			}
			synctest.Wait()
			alive(t, s)
		})
	})
	t.Run("state that hangs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.run(t)
			s := w.open(t)
			release := make(chan struct{})
			w.mu.Lock()
			w.hook = func(string) { <-release }
			w.mu.Unlock()
			time.Sleep(LeaseTime)
			synctest.Wait()
			if end := ended(t, s); end.Reason != broker.EndLease {
				t.Errorf("end %+v", end)
			}
			w.mu.Lock()
			w.hook = nil
			w.mu.Unlock()
			close(release)
		})
	})
	t.Run("one thing unreadable", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			_, _, token := w.hire("bob")
			for _, a := range w.agents {
				if a.Name == "bob" {
					w.assign(a, w.delegation, policy.Terms{Actions: policy.All})
				}
			}
			w.run(t)
			s := w.open(t)
			w.mu.Lock()
			w.failOnly["Assignment"] = broker.Errorf(broker.Internal, "a row that cannot be read")
			w.mu.Unlock()
			w.set(broker.Change{Kind: "assignment", ID: w.assignment.ID}, func() {})
			time.Sleep(LeaseTime / 2)
			alive(t, s)
			time.Sleep(LeaseTime / 2)
			synctest.Wait()
			if end := ended(t, s); end.Reason != broker.EndLease {
				t.Errorf("end %+v", end)
			}
			// It is no reason to keep out others.
			l := w.login()
			l.Token = broker.NewSecret([]byte(token))
			other, err := w.manager.Open(context.Background(), l)
			if err != nil {
				t.Fatal(err)
			}
			other.End(nil, nil)
		})
	})
}

// TestNever4OpenRacingARevoke commits a revoke at every call that an Open
// makes of the state and of the log, before and after it, with the notice
// delivered at once, and lost: no session may outlive it.
func TestNever4OpenRacingARevoke(t *testing.T) {
	revokes := changes()[:6]
	for _, c := range append(revokes, changes()[8:10]...) {
		for _, mute := range []bool{false, true} {
			for _, warm := range []bool{false, true} {
				for step := 0; ; step++ {
					if !raced(t, fmt.Sprintf("%s, notice lost %v, state read before %v, step %d", c.name, mute, warm, step), c, mute, warm, step) {
						if step < 2 {
							t.Fatal("Open makes no calls")
						}
						break
					}
				}
			}
		}
	}
}

// raced reports whether Open came as far as the step.
func raced(t *testing.T, name string, c change, mute, warm bool, step int) (reached bool) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.run(t)
			if warm {
				first, err := w.manager.Open(context.Background(), w.login())
				if err != nil {
					t.Fatal(err)
				}
				first.End(nil, nil)
			} else {
				w.manager.view.Store(&view{state: w, revision: 1})
			}
			w.mute = mute
			var mu sync.Mutex
			n := 0
			strike := func() {
				mu.Lock()
				now := n == step && !reached
				n++
				reached = reached || now
				mu.Unlock()
				if now {
					c.apply(w)
				}
			}
			w.mu.Lock()
			w.hook = func(string) { strike() }
			w.mu.Unlock()
			w.log.mu.Lock()
			w.log.hook = strike
			w.log.mu.Unlock()
			s, err := w.manager.Open(context.Background(), w.login())
			w.mu.Lock()
			w.hook = nil
			w.mu.Unlock()
			w.log.mu.Lock()
			w.log.hook = nil
			w.log.mu.Unlock()
			mu.Lock()
			struck := reached
			mu.Unlock()
			if !struck {
				if err != nil {
					t.Fatalf("Open without a revoke: %v", err)
				}
				s.End(nil, nil)
				return
			}
			if err == nil {
				time.Sleep(PollInterval)
				synctest.Wait()
				if s.Context().Err() == nil {
					// Then it was opened under what the change has left.
					now, err := w.manager.Open(context.Background(), w.login())
					if err != nil {
						t.Fatalf("the session lives on, and a new one gets %v", err)
					}
					if !now.Decision().Covers(s.Decision()) {
						t.Errorf("the session lives on with %+v, a new one gets %+v", s.Decision(), now.Decision())
					}
					now.End(nil, nil)
				} else if end := ended(t, s); end.Reason == broker.EndInternal {
					t.Errorf("end %+v", end)
				}
				s.End(nil, nil)
			}
			opened, over := w.log.of(broker.EventSessionOpen), w.log.of(broker.EventSessionEnd)
			if len(opened) != len(over) {
				t.Errorf("%d sessions were recorded as opened, %d as ended", len(opened), len(over))
			}
			if live := w.manager.Live(); len(live) != 0 {
				t.Errorf("live: %v", live)
			}
		})
	})
	return reached
}

// Each thing is read once for all the sessions that hang on it.
func TestPassReadsEachThingOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Connections = 1000 })
		w.run(t)
		for range 500 {
			w.open(t)
		}
		w.taken()
		w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.Terms.NotBefore = time.Now().Add(-time.Hour) })
		synctest.Wait()
		seen := map[string]int{}
		for _, call := range w.taken() {
			if seen[call]++; seen[call] > 1 {
				t.Errorf("%s was called %d times", call, seen[call])
			}
		}
		if seen["Delegation"] != 1 || seen["AppPassword"] != 1 {
			t.Errorf("calls %v", seen)
		}
		w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.RevokedAt = time.Now() })
		synctest.Wait()
		if calls := w.taken(); len(calls) != 2 {
			t.Errorf("a revoke reads %v, want the locks and the delegation alone", calls)
		}
		for _, info := range w.manager.Sessions() {
			if !info.Ending {
				t.Fatal("a session lives on")
			}
		}
	})
}

// Too many notices at once are not lost: everything is decided anew.
func TestManyNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(t)
		s := w.open(t)
		gate := make(chan struct{})
		w.mu.Lock()
		w.hook = func(string) { <-gate }
		w.mu.Unlock()
		time.Sleep(PollInterval) // Run hangs in its poll
		w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.RevokedAt = time.Now() })
		for range 3 * maxNotices {
			w.set(broker.Change{Kind: "agent", ID: "someone"}, func() {})
		}
		close(gate)
		synctest.Wait()
		ended(t, s)
	})
}
