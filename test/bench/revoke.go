// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

const (
	// revokeTimeout is for all sessions to end; the design allows a second.
	revokeTimeout = 10 * time.Second
	// spareDescriptors are what a process needs beside its sessions.
	spareDescriptors = 1000
	// revokeTries are made with each number of sessions.
	revokeTries = 3
)

// revokeRows end so many live sessions by one lock on the firm, and measure
// from sending the request to each client's socket being closed. Their
// provider is a minimal one: thousands of Dovecot's processes would take the
// memory that is being worked in, and are none of Postern's doing.
func (b *bench) revokeRows() [][]string {
	most := b.mostSessions()
	imap := startLightIMAP(b.h)
	light := endpoints{imap.endpoint(), b.provider.submission(broker.TLSNone)}
	p := startPostern(b.h, posternOptions{
		kinds: map[string]endpoints{"plain": light}, passwords: b.provider.passwords, agents: firstAgents,
	})
	var rows [][]string
	for _, n := range b.revoke {
		if n > most {
			b.h.Logf("revoke: %d sessions instead of %d: no more descriptors (ulimit -Hn)", most, n)
			n = most
		}
		var closed []time.Duration
		var answered []time.Duration
		for range revokeTries {
			c, a, err := b.revokeOnce(p, n)
			if err != nil {
				b.h.Fatalf("revoke: %v", err)
			}
			closed, answered = append(closed, c...), append(answered, a)
		}
		rows = append(rows, []string{
			fmt.Sprintf("revoke to closed sockets, %d live sessions in IDLE", n),
			spread(closed), "p99 ≤ 100 ms at 5000; the API's answer: " + spread(answered),
		})
	}
	return rows
}

// mostSessions is how many sessions the descriptors allow: this process has
// both ends of each, and so has Postern.
func (b *bench) mostSessions() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		b.h.Fatal(err)
	}
	return (int(limit.Cur) - spareDescriptors) / 2
}

// revokeOnce opens n sessions, ends them all with one lock, and removes it. It
// returns when each socket was closed and the API had answered, since the
// request.
func (b *bench) revokeOnce(p *postern, n int) (closed []time.Duration, answered time.Duration, err error) {
	clients, err := openIMAP(p.proxy("revoke", "plain").imap(), n)
	if err != nil {
		return nil, 0, err
	}
	defer closeAll(clients)
	for _, c := range clients {
		if err := c.idle(); err != nil {
			return nil, 0, err
		}
	}
	ends := make([]time.Time, n)
	errs := make([]error, n)
	var all sync.WaitGroup
	for i, c := range clients {
		all.Go(func() { ends[i], errs[i] = c.untilClosed() })
	}
	if err := rest(p.proxy("revoke", "plain")); err != nil {
		return nil, 0, err
	}
	var lock httpapi.LockAdded
	began := time.Now()
	err = p.request(http.MethodPost, "locks", httpapi.LockInput{Target: broker.LockFirm, Name: benchFirm, Message: "the contract is suspended"}, &lock)
	answered = time.Since(began)
	if err != nil {
		return nil, 0, err
	}
	for _, c := range clients {
		_ = c.raw.SetReadDeadline(began.Add(revokeTimeout)) // a closed one needs none
	}
	all.Wait()
	for _, end := range ends {
		closed = append(closed, end.Sub(began))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, 0, err
	}
	var ended httpapi.Ended
	return closed, answered, p.request(http.MethodDelete, "locks/"+string(lock.Lock.ID), nil, &ended)
}

// untilClosed waits for the server to close the socket and returns when it
// did. It reads below TLS: what the server says last is not of interest, and
// thousands of clients that decipher it would take the processor from it.
func (c *mailClient) untilClosed() (time.Time, error) {
	var b [512]byte
	for {
		_, err := c.raw.Read(b[:])
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			return time.Now(), errors.New("a session outlived its revoke")
		}
		if err != nil {
			return time.Now(), nil
		}
	}
}

// lightIMAP is a provider that lets everybody in and knows one empty folder.
type lightIMAP struct{ port uint16 }

func startLightIMAP(h *harness) *lightIMAP {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.Fatal(err)
	}
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Go(func() { serveLightIMAP(c) })
		}
	})
	// Postern, which is stopped first, closes the connections.
	h.Cleanup(func() {
		listener.Close()
		connections.Wait()
	})
	return &lightIMAP{uint16(listener.Addr().(*net.TCPAddr).Port)}
}

func (l *lightIMAP) endpoint() broker.Endpoint {
	return broker.Endpoint{Host: "127.0.0.1", Port: l.port, TLS: broker.TLSNone}
}

// serveLightIMAP answers until the client closes.
func serveLightIMAP(c net.Conn) {
	defer c.Close()
	const capabilities = "CAPABILITY IMAP4rev1 IDLE AUTH=PLAIN SASL-IR LITERAL+ NAMESPACE UIDPLUS UNSELECT"
	in := bufio.NewReaderSize(c, 512)
	tell := func(format string, args ...any) { fmt.Fprintf(c, format+"\r\n", args...) }
	tell("* OK [%s] ready", capabilities)
	var idling string // the tag of the IDLE under way
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		tag, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		verb, _, _ := strings.Cut(strings.ToUpper(command), " ")
		switch verb {
		case "": // DONE
			tell("%s OK done", idling)
			continue
		case "CAPABILITY":
			tell("* %s", capabilities)
		case "SELECT":
			tell("* FLAGS (\\Seen \\Deleted)\r\n* 0 EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY 1] v\r\n* OK [UIDNEXT 1] n")
			tell("%s OK [READ-WRITE] selected", tag)
			continue
		case "IDLE":
			tell("+ idling")
			idling = tag
			continue
		case "LOGOUT":
			tell("* BYE bye")
		}
		tell("%s OK done", tag)
	}
}
