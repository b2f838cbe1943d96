// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// stormTime is how long the shift's start lasts.
const stormTime = 10 * time.Second

// stormRow lets every agent log in once within stormTime, evenly spread, and
// stay. It returns a row: how long each waited for his INBOX.
func (b *bench) stormRow(d *deployed) []string {
	p := d.postern.proxy("storm", "tls")
	if err := rest(p); err != nil {
		b.h.Fatal(err)
	}
	before, err := p.cpu()
	if err != nil {
		b.h.Fatal(err)
	}
	clients := make([]*mailClient, b.storm)
	waits, errs := make([]time.Duration, b.storm), make([]error, b.storm)
	defer closeAll(clients)
	var all sync.WaitGroup
	begin := time.Now()
	for i := range clients {
		at := time.Duration(i) * stormTime / time.Duration(b.storm)
		all.Go(func() {
			<-time.After(time.Until(begin.Add(at)))
			clients[i], errs[i] = stormLogin(p, p.accounts[i])
			waits[i] = time.Since(begin) - at
		})
	}
	all.Wait()
	failed := 0
	for i, err := range errs {
		if err != nil {
			failed++
			b.h.Logf("storm: agent %d: %v", i, err)
		}
	}
	if failed > 0 {
		b.h.Fatalf("storm: %d of %d agents did not get in", failed, b.storm)
	}
	after, err := p.cpu()
	if err != nil {
		b.h.Fatal(err)
	}
	return []string{
		fmt.Sprintf("session storm: %d agents within %v, from connecting to INBOX", b.storm, stormTime),
		spread(waits), fmt.Sprintf("none refused; %.1f %% of one core", 100*(after-before).Seconds()/stormTime.Seconds()),
	}
}

// stormLogin is what a mail client does first: log in, list, select, look for
// what is new, wait.
func stormLogin(p *proxy, a account) (*mailClient, error) {
	c, err := p.imap().loginIMAP(a)
	if err != nil {
		return nil, err
	}
	for _, command := range []string{`LIST "" "*"`, "SELECT INBOX", "UID FETCH 1:* (FLAGS)"} {
		if _, err := c.command(command); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, c.idle()
}

// spread tells the distribution of times.
func spread(times []time.Duration) string {
	sorted := slices.Sorted(slices.Values(times))
	at := func(percent int) time.Duration {
		return sorted[(len(sorted)-1)*percent/100].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p99 %v, max %v", at(50), at(99), at(100))
}
