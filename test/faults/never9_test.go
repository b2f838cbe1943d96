// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

const (
	// agents work on a tenth as many mailboxes.
	agents       = 50
	mailboxCount = 5
	// slow is how many slow connections there are.
	slow = 2000

	// What agents notice of an attack is compared with the same work without
	// one, on the same busy machine: factor times as long, and grace more.
	factor = 5
	grace  = 2 * time.Second

	// spareDescriptors and spareMemory are what a server under attack may hold
	// beyond its places, and octets for each place.
	spareDescriptors  = 100
	octetsOfAPlace    = 100 << 10
	leftDescriptors   = 8
	leftGoroutines    = 16
	leftHeap          = 16 << 20
	defaultPlaces     = 1024
	placesOfInsider   = 64
	descriptorsOfWork = 4 * agents // a client's and an upstream's, for IMAP and submission
)

// thrifty has Dovecot fork no process for each login, and log less.
const thrifty = `auth_verbose = no
service imap-login {
  service_count = 0
  process_min_avail = 1
}
service imap {
  service_count = 100
}
`

// office is a world with agents at work in it. Its limits are the defaults but
// for the budgets of its mailboxes.
type office struct {
	*staff
	workers []*worker
	insider *worker // a hostile agent
}

func newOffice(t *testing.T, n int, config string) *office {
	t.Helper()
	var mailboxes []string
	for i := range mailboxCount {
		mailboxes = append(mailboxes, fmt.Sprintf("box-%d@client.example", i))
	}
	w := e2e.NewWorld(t, e2e.WorldOptions{
		Sealed: true, Mailboxes: mailboxes, Postern: e2e.Options{Config: config},
		Dovecot: []servers.DovecotOption{servers.WithDovecotConfig(thrifty)},
		// What the provider computes for TLS would be most of what is measured.
		IMAP:       func(w *e2e.World) broker.Endpoint { return w.Dovecot.IMAP(broker.TLSNone) },
		Submission: func(w *e2e.World) broker.Endpoint { return w.Postfix.Submission(broker.TLSNone) },
	})
	o := &office{staff: newStaff(t, w)}
	for _, m := range mailboxes {
		o.mailboxAt(m)
		w.Dovecot.Fill(m, "", 3, func(i int) []byte { return bulk(fmt.Sprintf("old-%d", i), 12<<10) })
	}
	for i := range n {
		o.workers = append(o.workers, o.hire(mailboxes[i%len(mailboxes)]))
		// Every fifth has an old mail program.
		o.workers[i].startTLS = i%5 == 4
	}
	o.insider = o.hire(mailboxes[0])
	return o
}

// work has every agent do his shift so many times, at once, and returns how
// long things took. Whatever fails fails the test.
func (o *office) work(t *testing.T, rounds int) *timings {
	t.Helper()
	times := &timings{}
	var all sync.WaitGroup
	for _, w := range o.workers {
		all.Go(func() {
			for range rounds {
				if err := w.shift(times); err != nil {
					t.Errorf("an agent was hindered: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	return times
}

// compare holds what agents noticed against a calm day.
func (s *timings) compare(t *testing.T, calm *timings) {
	t.Helper()
	for what, took := range s.took {
		slices.Sort(took)
		slices.Sort(calm.took[what])
		median, before := took[len(took)/2], calm.took[what][len(calm.took[what])/2]
		worst, worstBefore := took[len(took)-1], calm.took[what][len(calm.took[what])-1]
		t.Logf("%-24s median %7v, %7v without (× %.1f); worst %7v, %7v without", what, median.Round(time.Millisecond), before.Round(time.Millisecond),
			float64(median)/float64(before), worst.Round(time.Millisecond), worstBefore.Round(time.Millisecond))
		if median > factor*before+grace {
			t.Errorf("%s takes %v in the median, %v without the attack", what, median, before)
		}
	}
}

// rested waits until nothing of what was is left of connections.
func (o *office) rested(t *testing.T, before usage) usage {
	t.Helper()
	var after usage
	servers.WaitFor(t, patience, func() bool {
		after = measure(t, o.world.Postern)
		return after.descriptors <= before.descriptors+leftDescriptors && after.goroutines <= before.goroutines+leftGoroutines
	}, "descriptors and goroutines to come back")
	return after
}

// TestNever9SlowLorisKeepsNobodyOut holds 2,000 connections that never log in,
// from several addresses and from the agents' own, while 50 agents work.
func TestNever9SlowLorisKeepsNobodyOut(t *testing.T) {
	o := newOffice(t, agents, "limits:\n  mailbox_connections: 40\n  mailbox_submissions: 40\n")
	p := o.world.Postern
	o.work(t, 1) // caches fill
	calm := o.work(t, 2)
	before := o.rested(t, measure(t, p))
	t.Logf("at rest: %v", before)

	s, ctx := newSiege(p)
	defer s.end()
	strangers, insiders := lorises(t, o.staff, o.insider)
	own, foreign := []string{"127.0.0.1"}, []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7"}
	for i := range slow {
		ways, from := strangers, foreign[i%len(foreign)]
		if i%4 == 0 {
			from = own[0]
		}
		if i%20 == 0 {
			ways = insiders
		}
		s.hold(ctx, from, &ways[i/20%len(ways)])
	}
	servers.WaitFor(t, patience, func() bool { return s.opened.Load() >= slow }, "every attacker to connect")

	var worst usage
	watched := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-watched:
				return
			case <-time.After(200 * time.Millisecond):
			}
			u := measure(t, p)
			worst.descriptors, worst.goroutines = max(worst.descriptors, u.descriptors), max(worst.goroutines, u.goroutines)
			worst.resident, worst.heap = max(worst.resident, u.resident), max(worst.heap, u.heap)
		}
	})
	attacked := o.work(t, 3)
	close(watched)
	watch.Wait()
	m := readMetrics(t, p)
	s.end()
	attacked.compare(t, calm)
	t.Logf("under attack, at worst: %v; %d connections were opened", worst, s.opened.Load())
	places := 2*defaultPlaces + placesOfInsider
	if most := before.descriptors + places + descriptorsOfWork + spareDescriptors; worst.descriptors > most {
		t.Errorf("%d descriptors at worst, more than %d", worst.descriptors, most)
	}
	if most := before.resident + places*octetsOfAPlace; worst.resident > most {
		t.Errorf("%d octets resident at worst, more than %d", worst.resident, most)
	}
	t.Logf("pushed out: %v strangers, %v handshakes, %v with a certificate", m.evicted("stranger"), m.evicted("handshake"), m.evicted("certificate"))
	for _, class := range []string{"stranger", "certificate"} {
		if m.evicted(class) == 0 {
			t.Errorf("nobody of the class %s was pushed out: that was no attack", class)
		}
	}
	o.rested(t, before)
	o.work(t, 1)
	after := o.rested(t, before)
	// Garbage goes when the server has been at rest for some seconds.
	servers.WaitFor(t, patience, func() bool {
		after = measure(t, p)
		return after.heap <= 2*before.heap+leftHeap
	}, "the heap to be what it was")
	t.Logf("afterwards: %v", after)
}
