// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// inParallel runs f on so many goroutines, each with its number, and returns
// when all have ended. After the first error no more work is begun: f asks
// failed.
func inParallel(n int, f func(worker int, failed func() bool) error) error {
	var all sync.WaitGroup
	var broken atomic.Bool
	errs := make([]error, n)
	for i := range n {
		all.Go(func() {
			if errs[i] = f(i, broken.Load); errs[i] != nil {
				broken.Store(true)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// share is the part of n that falls to a worker.
func share(n, worker, workers int) int { return n*(worker+1)/workers - n*worker/workers }

// wholeSessions runs n sessions of the first figure: TLS handshake, LOGIN,
// SELECT, LOGOUT. It returns what the handshakes negotiated.
func wholeSessions(p *proxy, n, workers int) (negotiated string, err error) {
	var once sync.Once
	err = inParallel(workers, func(worker int, failed func() bool) error {
		for i := 0; i < share(n, worker, workers) && !failed(); i++ {
			c, err := p.imap().loginIMAP(p.accounts[(i*workers+worker)%len(p.accounts)])
			if err != nil {
				return err
			}
			once.Do(func() { negotiated = c.negotiated() })
			if _, err := c.command("SELECT INBOX"); err != nil {
				return err
			}
			if err := c.logout(); err != nil {
				return err
			}
		}
		return nil
	})
	return negotiated, err
}

// openIMAP opens sessions that have selected INBOX, some at a time.
func openIMAP(d dialer, n int) ([]*mailClient, error) {
	const atOnce = 8
	clients := make([]*mailClient, n)
	err := inParallel(atOnce, func(worker int, failed func() bool) error {
		for i := worker; i < n && !failed(); i += atOnce {
			c, err := d.loginIMAP(d.proxy.accounts[i%len(d.proxy.accounts)])
			if err != nil {
				return err
			}
			clients[i] = c
			if _, err := c.command("SELECT INBOX"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		closeAll(clients)
		return nil, err
	}
	return clients, nil
}

// openSMTP opens submission sessions.
func openSMTP(d dialer, n int) ([]*mailClient, error) {
	clients := make([]*mailClient, n)
	for i := range clients {
		c, err := d.loginSMTP(d.proxy.accounts[i%len(d.proxy.accounts)])
		if err != nil {
			closeAll(clients)
			return nil, err
		}
		clients[i] = c
	}
	return clients, nil
}

func closeAll(clients []*mailClient) {
	for _, c := range clients {
		if c != nil {
			c.close()
		}
	}
}

// fetchAll lets every client fetch all of INBOX so many times.
func fetchAll(clients []*mailClient, times int) error {
	return inParallel(len(clients), func(worker int, failed func() bool) error {
		c := clients[worker]
		for i := 0; i < times && !failed(); i++ {
			if err := c.patience(); err != nil {
				return err
			}
			octets, err := c.command("UID FETCH 1:* (UID FLAGS BODY.PEEK[])")
			if err != nil {
				return err
			}
			if octets != messagesPerMailbox*messageOctets {
				return fmt.Errorf("fetched %d octets of %d", octets, messagesPerMailbox*messageOctets)
			}
		}
		return nil
	})
}

// noops lets the clients send n NOOPs together, each one after the other.
func noops(clients []*mailClient, n int) error {
	return inParallel(len(clients), func(worker int, failed func() bool) error {
		c := clients[worker]
		if err := c.patience(); err != nil {
			return err
		}
		for i := 0; i < share(n, worker, len(clients)) && !failed(); i++ {
			if _, err := c.command("NOOP"); err != nil {
				return err
			}
		}
		return nil
	})
}

// submitAll lets the clients submit n messages together, numbered from first.
func submitAll(clients []*mailClient, accounts []account, n, first int) error {
	return inParallel(len(clients), func(worker int, failed func() bool) error {
		c, from := clients[worker], accounts[worker%len(accounts)].mailbox
		const to = "buyer@market.example"
		for i := 0; i < share(n, worker, len(clients)) && !failed(); i++ {
			if err := c.patience(); err != nil {
				return err
			}
			if err := c.submit(from, to, message(from, to, first+i*len(clients)+worker, messageOctets)); err != nil {
				return err
			}
		}
		return nil
	})
}
