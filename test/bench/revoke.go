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
	"github.com/postern-mail/postern/test/servers"
)

const (
	// revokeTimeout is for all sessions to end; the design allows a second.
	revokeTimeout = 10 * time.Second
	// spareDescriptors are what a process needs beside its sessions.
	spareDescriptors = 1000
	// revokeTries are made with each number of nodes.
	revokeTries = 2
	// Of stuckOf sessions one is in the middle of a FETCH to a client that does
	// not read: so many that they show in the 99th percentile.
	stuckOf = 50
	// stuckOctets are what the client does not read; its buffer is small, so
	// that the octets wait at Postern.
	stuckOctets = 64 << 20
	stuckBuffer = 8 << 10
)

// revokeRows end so many live sessions by one lock on the firm, at one node and
// at two that share a PostgreSQL, and measure from sending the request to each
// client's socket being closed. Their provider is a minimal one: thousands of
// Dovecot's processes would take the memory that is being worked in, and are
// none of Postern's doing.
func (b *bench) revokeRows() [][]string {
	n := b.revoke
	if most := b.mostSessions(); n > most {
		b.h.Logf("revoke: %d sessions instead of %d: no more descriptors (ulimit -Hn)", most, n)
		n = most
	}
	imap := startLightIMAP(b.h)
	options := posternOptions{
		kinds:     map[string]endpoints{"plain": {imap.endpoint(), b.provider.submission(broker.TLSNone)}},
		passwords: b.provider.passwords, agents: firstAgents,
	}
	one := startPostern(b.h, options)
	rows := [][]string{b.revokeRow([]*postern{one}, n, "one node", "p99 ≤ 100 ms")}
	one.Stop()
	options.database = servers.StartPostgreSQL(b.h).NewDatabase()
	first := startPostern(b.h, options)
	return append(rows, b.revokeRow([]*postern{first, first.beside("second")}, n, "half of them at each of two nodes on one PostgreSQL", "p99 ≤ 500 ms"))
}

func (b *bench) revokeRow(nodes []*postern, n int, where, reach string) []string {
	b.h.Logf("revoke: %d sessions, %s", n, where)
	var closed, answered, after []time.Duration
	var cpu time.Duration
	before := inServers(b.h, nodes)
	for range revokeTries {
		o, err := b.revokeOnce(nodes, n)
		if err != nil {
			b.h.Fatalf("revoke: %v", err)
		}
		closed, answered, cpu = append(closed, o.closed...), append(answered, o.answered), cpu+o.cpu
		for _, d := range o.closed {
			after = append(after, max(0, d-o.answered))
		}
	}
	return []string{
		fmt.Sprintf("revoke to closed sockets, %d live sessions, %s; one in %d in the middle of a FETCH to a client that does not read, the others in IDLE", n, where, stuckOf),
		spread(closed),
		fmt.Sprintf("%s after the call's return, which waits for this node's: %s; the figure beside it is from sending the request; in the servers, from the commit to the sessions' ends: p99 ≤ %v; the API's answer: %s; CPU per session ended: %v",
			reach, spread(after), inServers(b.h, nodes).since(before).quantile(.99), spread(answered),
			(cpu / time.Duration(len(closed))).Round(time.Microsecond)),
	}
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

// revoked is what came of one lock: when each socket was closed and the API had
// answered, since the request, and what that cost the nodes.
type revoked struct {
	closed        []time.Duration
	answered, cpu time.Duration
}

// cpuOf is what the nodes have used.
func cpuOf(nodes []*postern) (sum time.Duration, err error) {
	for _, p := range nodes {
		used, err := p.proxy("revoke", "plain").cpu()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// revokeOnce opens n sessions, shared out among the nodes, ends them all with
// one lock at the first, and removes it.
func (b *bench) revokeOnce(nodes []*postern, n int) (out revoked, err error) {
	var clients, stuck []*mailClient
	defer func() { closeAll(clients); closeAll(stuck) }()
	for i, p := range nodes {
		opened, err := openIMAP(p.proxy("revoke", "plain").imap(), share(n, i, len(nodes)))
		if err != nil {
			return out, err
		}
		for j, c := range opened {
			if j%stuckOf == 0 {
				stuck = append(stuck, c)
				err = errors.Join(err, c.stick())
			} else {
				clients = append(clients, c)
				err = errors.Join(err, c.idle())
			}
		}
		if err != nil {
			return out, err
		}
	}
	for _, p := range nodes {
		if err := rest(p.proxy("revoke", "plain")); err != nil {
			return out, err
		}
	}
	ends := make([]time.Time, len(clients), n)
	errs := make([]error, len(clients), n)
	var all sync.WaitGroup
	for i, c := range clients {
		all.Go(func() { ends[i], errs[i] = c.untilClosed() })
	}
	var stuckEnds []time.Time
	var stuckErr error
	all.Go(func() { stuckEnds, stuckErr = untilReset(stuck) })
	before, err := cpuOf(nodes)
	if err != nil {
		return out, err
	}
	p := nodes[0]
	var lock httpapi.LockAdded
	began := time.Now()
	err = p.request(http.MethodPost, "locks", httpapi.LockInput{Target: broker.LockFirm, Name: benchFirm, Message: "the contract is suspended"}, &lock)
	out.answered = time.Since(began)
	if err != nil {
		return out, err
	}
	for _, c := range clients {
		_ = c.raw.SetReadDeadline(began.Add(revokeTimeout)) // a closed one needs none
	}
	all.Wait()
	for _, end := range append(ends, stuckEnds...) {
		out.closed = append(out.closed, end.Sub(began))
	}
	if err := errors.Join(append(errs, stuckErr)...); err != nil {
		return out, err
	}
	for _, p := range nodes { // what they have left to do is part of the cost
		if err := rest(p.proxy("revoke", "plain")); err != nil {
			return out, err
		}
	}
	after, err := cpuOf(nodes)
	if err != nil {
		return out, err
	}
	out.cpu = after - before
	var ended httpapi.Ended
	return out, p.request(http.MethodDelete, "locks/"+string(lock.Lock.ID), nil, &ended)
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

// stick asks for a message and does not read it.
func (c *mailClient) stick() error {
	if err := c.raw.(*net.TCPConn).SetReadBuffer(stuckBuffer); err != nil {
		return err
	}
	return errors.Join(c.raw.SetDeadline(time.Time{}), c.ask("t UID FETCH 1 (UID BODY.PEEK[])"))
}

// untilReset waits for the server to reset each socket, without reading any,
// and returns when it did. An error or an end shows without asking for it
// (poll(2)).
func untilReset(clients []*mailClient) ([]time.Time, error) {
	ends := make([]time.Time, len(clients))
	fds := make([]unix.PollFd, len(clients))
	for i, c := range clients {
		raw, err := c.raw.(*net.TCPConn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP} })
		}
		if err != nil {
			return nil, err
		}
	}
	deadline := time.Now().Add(revokeTimeout)
	for left := len(fds); left > 0; {
		n, err := unix.Poll(fds, int(time.Until(deadline).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return nil, errors.Join(err, errors.New("a session in the middle of a FETCH outlived its revoke"))
		}
		now := time.Now()
		for i := range fds {
			if fds[i].Fd >= 0 && fds[i].Revents != 0 {
				ends[i], fds[i].Fd = now, -1 // which poll leaves out
				left--
			}
		}
	}
	return ends, nil
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
			tell("* FLAGS (\\Seen \\Deleted)\r\n* 1 EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY 1] v\r\n* OK [UIDNEXT 2] n")
			tell("%s OK [READ-WRITE] selected", tag)
			continue
		case "UID": // FETCH
			tell("* 1 FETCH (UID 1 BODY[] {%d}", stuckOctets)
			if _, err := c.Write(make([]byte, stuckOctets)); err != nil {
				return
			}
			tell(")")
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
