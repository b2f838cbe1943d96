// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/test/servers"
)

// account is what an agent's mail client is set up with.
type account struct {
	mailbox, password string
	// certificate is the workstation's; nil: it has none.
	certificate *tls.Certificate
	// from is the address to connect from; empty: any.
	from string
	// postQuantum offers X25519MLKEM768 first, as browsers' TLS does.
	postQuantum bool
}

// proxy is a server under measurement.
type proxy struct {
	name string
	// imaps and submissions are its ports on 127.0.0.1, with implicit TLS.
	imaps, submissions uint16
	roots              *x509.CertPool
	accounts           []account
	// pids are the processes that hold sessions, helpers those that only do
	// work for them.
	pids, helpers func() ([]int, error)
	// restart starts all of it anew.
	restart func()
}

func (p *proxy) cpu() (time.Duration, error) {
	all, err := p.pids()
	if err != nil {
		return 0, err
	}
	if p.helpers != nil {
		more, err := p.helpers()
		if err != nil {
			return 0, err
		}
		all = append(all, more...)
	}
	return cpuTime(all)
}

func (p *proxy) memory() (int64, error) {
	pids, err := p.pids()
	if err != nil {
		return 0, err
	}
	return memory(pids)
}

// agentPassword is what the agents log in with at the peers.
const agentPassword = "agent-password"

// peerAccounts are those of agents at a peer, which has the plain mailboxes.
func peerAccounts(agents int) []account {
	all := make([]account, agents)
	for i := range all {
		all[i] = account{mailbox: mailbox("plain", i), password: agentPassword}
	}
	return all
}

// peer is a proxy from a Debian package: a program in the foreground with a
// configuration of the bench's.
type peer struct {
	h       *harness
	dir     string
	program string
	args    []string
	config  string // the file's path
	// text returns the file's content for these ports.
	text  func(imaps, submissions uint16) string
	child *servers.Child
	proxy proxy
}

const peerStartTimeout = 20 * time.Second

// start starts the peer on the ports it had, or on free ones.
func (p *peer) start() {
	p.h.Helper()
	if p.proxy.imaps == 0 {
		p.proxy.imaps, p.proxy.submissions = servers.FreePort(p.h), servers.FreePort(p.h)
		if err := os.WriteFile(p.config, []byte(p.text(p.proxy.imaps, p.proxy.submissions)), 0o644); err != nil {
			p.h.Fatal(err)
		}
		p.h.Cleanup(p.stop)
	}
	child, err := servers.StartChild(p.log(), nil, p.program, p.args...)
	if err != nil {
		p.h.Fatal(err)
	}
	p.child = child
	servers.WaitFor(p.h, peerStartTimeout, func() bool {
		return child.Ended() || listens(p.proxy.imaps) && listens(p.proxy.submissions)
	}, p.proxy.name+" to answer")
	if child.Ended() {
		b, _ := os.ReadFile(p.log())
		p.h.Fatalf("%s does not start:\n%s", p.proxy.name, b)
	}
}

func (p *peer) log() string { return filepath.Join(p.dir, "log") }

func (p *peer) stop() {
	if p.child == nil {
		return
	}
	if err := p.child.Stop(); err != nil {
		p.h.Logf("%s: %v", p.proxy.name, err)
	}
	p.child = nil
	servers.WaitFor(p.h, peerStartTimeout, func() bool { return !listens(p.proxy.imaps) && !listens(p.proxy.submissions) }, p.proxy.name+" to stop")
}

func (p *peer) pids() ([]int, error) {
	if p.child == nil {
		return nil, errors.New("it does not run")
	}
	return processTree(p.child.PID())
}

// newPeer makes a peer that is not started yet.
func newPeer(h *harness, name, program string, agents int, roots *x509.CertPool) *peer {
	p := &peer{h: h, program: program, dir: servers.TempDir(h)}
	p.config = filepath.Join(p.dir, "conf")
	p.proxy = proxy{
		name: name, roots: roots, accounts: peerAccounts(agents), pids: p.pids,
		restart: func() { p.stop(); p.start() },
	}
	return p
}

func listens(port uint16) bool {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
