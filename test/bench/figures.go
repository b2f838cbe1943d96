// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// scale is how much work a run does.
type scale struct {
	// runs are made of each figure; their median counts.
	runs int
	// What one run does of each figure. Sessions that idle are so many that what a
	// server sets up once, such as its database's caches, weighs little in each.
	sessions, fetches, noops, messages, idle int
	// storm is how many agents log in within ten seconds; revoke how many
	// sessions end at once.
	storm, revoke int
	// benchTime is `go test -benchtime` of the last figures.
	benchTime string
}

var (
	// fullScale is for about half an hour on two cores. More work in a run
	// changes the figures by less than they differ from run to run.
	fullScale = scale{
		runs: 5, sessions: 300, fetches: 30, noops: 16_000, messages: 800, idle: 1200,
		storm: 300, revoke: 5000, benchTime: "1s",
	}
	quickScale = scale{
		runs: 3, sessions: 300, fetches: 20, noops: 16_000, messages: 600, idle: 1200,
		storm: 300, revoke: 1000, benchTime: "200ms",
	}
)

// longer is a scale whose runs do more of all that takes CPU time.
func (s scale) longer(times int) scale {
	s.sessions, s.fetches, s.noops, s.messages = s.sessions*times, s.fetches*times, s.noops*times, s.messages*times
	return s
}

// How many clients work at once; agents too are many.
const (
	sessionClients = 4
	fetchClients   = 4
	noopClients    = 8
	messageClients = 16
)

// figure is a row of the first table.
type figure struct {
	// key is its name on the command line.
	key  string
	name string
	// unit follows the value, which is multiplied by times.
	unit  string
	times float64
	// limit is the multiple of nginx's beyond which the work is not done.
	limit float64
	// measure returns seconds of CPU, or octets of memory, per unit.
	measure func(b *bench, p *proxy) (float64, error)
}

const milli, micro, kilo = 1e3, 1e6, 1.0 / (1 << 10)

// figures are the first table's rows. Memory comes last: it starts the
// servers anew.
func (b *bench) figures() []figure {
	all := []figure{
		{"session", "CPU per session (TLS handshake, login, SELECT, LOGOUT)", "ms", milli, 1.5, (*bench).sessionCost},
		{"fetch", "CPU per GB fetched (12 KB messages)", "s", 1, 1.5, (*bench).fetchCost},
		{"noop", "CPU per small command (NOOP)", "µs", micro, 1.3, (*bench).noopCost},
		{"message", "CPU per submitted message (12 KB)", "ms", milli, 2, (*bench).messageCost},
		{"idle", "memory per idle TLS session", "KB", kilo, 1.5, (*bench).idleMemory},
	}
	return slices.DeleteFunc(all, func(f figure) bool { return len(b.chosen) > 0 && !slices.Contains(b.chosen, f.key) })
}

// bench is one run of this program.
type bench struct {
	h *harness
	scale
	// chosen are the keys of the figures to measure; none: all.
	chosen []string
	// submitted numbers the messages, so that each has a Message-ID of its own.
	submitted int
	// negotiated is what all proxies' handshakes must come to.
	negotiated string
	// provider is what the proxies stand before.
	provider *provider
	// working is called when measured work begins and, with true, when it ends.
	working func(over bool)
}

// spent returns the CPU time that p uses for work, per unit of n. Work is over
// when p rests: what it does afterwards, such as records, is counted.
func (b *bench) spent(p *proxy, n float64, work func() error) (float64, error) {
	if err := rest(p); err != nil {
		return 0, err
	}
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	if b.working != nil {
		b.working(false)
	}
	if err := work(); err != nil {
		return 0, err
	}
	if err := rest(p); err != nil {
		return 0, err
	}
	if b.working != nil {
		b.working(true)
	}
	after, err := p.cpu()
	return (after - before).Seconds() / n, err
}

// rest waits until p does next to nothing.
func rest(p *proxy) error {
	const (
		window  = 100 * time.Millisecond
		idle    = 2 * time.Millisecond
		timeout = 10 * time.Second
	)
	last, err := p.cpu()
	for end := time.Now().Add(timeout); err == nil && time.Now().Before(end); {
		time.Sleep(window)
		var now time.Duration
		if now, err = p.cpu(); now-last < idle {
			return err
		}
		last = now
	}
	return errors.Join(err, errors.New("it does not come to rest"))
}

func (b *bench) sessionCost(p *proxy) (float64, error) {
	const warmUp = 40
	negotiated, err := wholeSessions(p, warmUp, sessionClients)
	if err != nil {
		return 0, err
	}
	if b.negotiated == "" {
		b.negotiated = negotiated
	}
	if !p.accounts[0].postQuantum && b.negotiated != negotiated {
		return 0, fmt.Errorf("TLS differs: %s, with another %s", negotiated, b.negotiated)
	}
	return b.spent(p, float64(b.sessions), func() error {
		_, err := wholeSessions(p, b.sessions, sessionClients)
		return err
	})
}

func (b *bench) fetchCost(p *proxy) (float64, error) {
	d := p.imap()
	d.buffer = 64 << 10
	clients, err := openIMAP(d, fetchClients)
	if err != nil {
		return 0, err
	}
	defer closeAll(clients)
	if err := fetchAll(clients, 1); err != nil {
		return 0, err
	}
	gigabytes := float64(b.fetches*fetchClients*messagesPerMailbox*messageOctets) / 1e9
	return b.spent(p, gigabytes, func() error { return fetchAll(clients, b.fetches) })
}

func (b *bench) noopCost(p *proxy) (float64, error) {
	clients, err := openIMAP(p.imap(), noopClients)
	if err != nil {
		return 0, err
	}
	defer closeAll(clients)
	const warmUp = 200
	if err := noops(clients, warmUp); err != nil {
		return 0, err
	}
	return b.spent(p, float64(b.noops), func() error { return noops(clients, b.noops) })
}

func (b *bench) messageCost(p *proxy) (float64, error) {
	clients, err := openSMTP(p.submission(), messageClients)
	if err != nil {
		return 0, err
	}
	defer closeAll(clients)
	submit := func(n int) error {
		b.submitted += n
		return submitAll(clients, p.accounts, n, b.submitted-n)
	}
	if err := submit(2 * messageClients); err != nil {
		return 0, err
	}
	before, sent := b.provider.sink.messages.Load(), int64(0)
	cost, err := b.spent(p, float64(b.messages), func() error {
		err := submit(b.messages)
		sent = b.provider.sink.messages.Load() - before
		return err
	})
	if err == nil && sent != int64(b.messages) {
		err = fmt.Errorf("%d messages arrived of %d", sent, b.messages)
	}
	return cost, err
}

// idleMemory starts p anew, warms it up, and reads its memory before sessions
// and with them, when they have been in IDLE for a while.
func (b *bench) idleMemory(p *proxy) (float64, error) {
	const (
		warmUp = 50
		while  = 5 * time.Second
	)
	p.restart()
	if _, err := wholeSessions(p, warmUp, sessionClients); err != nil {
		return 0, err
	}
	// Both readings are of a server that has rested as long: what it then gives
	// back of the warm-up must not count against the sessions' growth.
	time.Sleep(while)
	before, err := p.memory()
	if err != nil {
		return 0, err
	}
	clients, err := openIMAP(p.imap(), b.idle)
	if err != nil {
		return 0, err
	}
	defer closeAll(clients)
	for _, c := range clients {
		if err := c.idle(); err != nil {
			return 0, err
		}
	}
	time.Sleep(while)
	after, err := p.memory()
	return float64(after-before) / float64(b.idle), err
}
