// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// shortLease is the lease of nodes whose database is about to go.
const shortLease = 6 * time.Second

// nodes are two nodes of Postern on one database, a and b.
type nodes struct {
	*rig
	database *servers.PostgreSQL
	a, b     *e2e.Postern
}

// TestNever4TwoNodes: what one node is told, the other obeys; without the
// database none goes on beyond its lease.
func TestNever4TwoNodes(t *testing.T) {
	database := servers.StartPostgreSQL(t)
	r := newRig(t, e2e.WorldOptions{Sealed: true, Postern: e2e.Options{
		Node: "node-a", Database: database.NewDatabase(), Lease: shortLease, Config: roomy,
	}})
	r.Dovecot.Fill(sales, "", 24, func(i int) []byte { return bulk("bulk-"+string(rune('a'+i)), 512<<10) })
	n := &nodes{rig: r, database: database, a: r.Postern, b: r.Postern.Beside(t, "node-b")}
	for _, test := range []struct {
		name string
		run  func(*nodes)
	}{
		{"revoked at the other", (*nodes).revokedAtTheOther},
		{"locked here, and the other way round", (*nodes).lockedBoth},
		{"stopped and continued", (*nodes).stopped},
		{"killed", (*nodes).killed},
		{"the database is killed", (*nodes).databaseKilled},
		{"another process has the name", (*nodes).sameName},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(&nodes{rig: n.rig.For(t), database: database, a: n.a.For(t), b: n.b.For(t)})
		})
	}
}

// idle opens a session in IDLE at a node.
func idle(t testing.TB, s *e2e.Seat) *e2e.Conn {
	t.Helper()
	c := s.IMAP(t)
	c.OK("SELECT INBOX")
	c.Send("i IDLE\r\n")
	c.Expect(`\+ .*`)
	return c
}

// revokedAtTheOther ends sessions of b, in each of the states in which that is
// hardest, by a command to a.
func (n *nodes) revokedAtTheOther() {
	s := n.Seat(sales)
	busy := open(n.rig, s.At(n.b))
	defer func() {
		for _, release := range busy.release {
			release()
		}
	}()
	watch := servers.StartStopwatch(n.t)
	asked := time.Now()
	n.a.CLI("assignment", "revoke", string(s.Assignment))
	checkClosed(n.t, watch, "revoked at the other node", asked, time.Now(), busy.legs)
	busy.checkWords(ending{})
	for _, at := range []*e2e.Postern{n.a, n.b} {
		_, answer := tryLogin(n.t, s.At(at))
		wantPrefix(n.t, "the next login", answer, "NO [AUTHORIZATIONFAILED] You are no longer assigned to this mailbox."+ask)
	}
}

// lockedBoth: one lock ends sessions at both nodes, wherever it is made.
func (n *nodes) lockedBoth() {
	s := n.Seat(sales)
	for _, at := range []*e2e.Postern{n.b, n.a} {
		here, there := idle(n.t, s.At(n.a)), idle(n.t, s.At(n.b))
		legs := map[string]leg{"at a": clientLeg(n.t, here), "at b": clientLeg(n.t, there)}
		watch := servers.StartStopwatch(n.t)
		asked := time.Now()
		at.CLI("lock", "add", "agent", s.Agent)
		checkClosed(n.t, watch, "locked", asked, time.Now(), legs)
		unlock(n.rig, s)
	}
}

// stopped: a node that stands still is taken for dead, and its sessions are
// over when it goes on, before a revoke that it slept through matters.
func (n *nodes) stopped() {
	s := n.Seat(sales)
	c := idle(n.t, s.At(n.b))
	live := n.sessionsAt("node-b")
	if len(live) != 1 {
		n.t.Fatalf("%d sessions are live at node-b", len(live))
	}
	n.b.Signal(syscall.SIGSTOP)
	n.awaitStale(live)
	n.a.CLI("assignment", "revoke", string(s.Assignment))
	watch := servers.StartStopwatch(n.t)
	n.b.Signal(syscall.SIGCONT)
	went := time.Now()
	checkClosed(n.t, watch, "continued", went, went, map[string]leg{"at b": clientLeg(n.t, c)})
	n.serves(n.b)
}

// killed: a node that died starts again under its name at once, before anybody
// took it for dead, and ends in the record what it had left open.
func (n *nodes) killed() {
	idle(n.t, n.Seat(sales).At(n.b))
	live := n.sessionsAt("node-b")
	n.b.Kill()
	n.b.Restart()
	n.serves(n.b)
	n.awaitStale(live)
}

// databaseKilled: sessions end with the lease at both nodes and none begins;
// all is well again when the database is.
func (n *nodes) databaseKilled() {
	s := n.Seat(sales)
	legs := make(map[string]leg)
	for name, at := range map[string]*e2e.Postern{"a": n.a, "b": n.b} {
		legs["IDLE at "+name] = clientLeg(n.t, idle(n.t, s.At(at)))
		legs["submission at "+name] = clientLeg(n.t, s.At(at).Submission(n.t))
	}
	watch := servers.StartStopwatch(n.t)
	n.database.Kill()
	killed := time.Now()
	for _, at := range []*e2e.Postern{n.a, n.b} {
		_, answer := tryLogin(n.t, s.At(at))
		wantPrefix(n.t, "a login without the database", answer, "NO [UNAVAILABLE] Postern cannot ")
		if _, stderr, code := at.TryCLI("", "lock", "add", "agent", s.Agent); code != 5 {
			n.t.Errorf("a change without the database: exit code %d, %s", code, stderr)
		}
		if ready, _ := at.Ready(); ready {
			n.t.Error("a node without the database calls itself ready")
		}
	}
	var last time.Time
	for _, when := range closedAt(n.t, shortLease+patience, legs) {
		if when.After(last) {
			last = when
		}
	}
	took := last.Sub(killed)
	watch.Took(n.t, "from the database's end until that of the last session", took, shortLease+second)
	n.t.Logf("the last session ended %v after the database, with a lease of %v", took.Round(time.Millisecond), shortLease)
	for _, at := range []*e2e.Postern{n.a, n.b} {
		_, reply := tryAuth(n.t, s.At(at))
		wantPrefix(n.t, "a submission without the database", reply, "454 ")
	}
	n.database.Start()
	for _, at := range []*e2e.Postern{n.a, n.b} {
		servers.WaitFor(n.t, patience, func() bool { ok, _ := at.Ready(); return ok }, "the node to be ready again")
		n.serves(at)
	}
	servers.WaitFor(n.t, patience, func() bool { return len(n.sessionsAt("")) == 0 }, "the sessions to be over in the record")
	checkSequence(n.t, n.a.Events(e2e.FirmName))
}

// sameName: of two processes with one name the one that came last serves.
func (n *nodes) sameName() {
	s := n.Seat(sales)
	c := idle(n.t, s.At(n.b))
	twin := n.b.Beside(n.t, "node-b")
	began := time.Now()
	closedAt(n.t, shortLease+patience, map[string]leg{"at b": clientLeg(n.t, c)})
	n.t.Logf("ended %v after the other was ready", time.Since(began).Round(time.Millisecond))
	_, answer := tryLogin(n.t, s.At(n.b))
	wantPrefix(n.t, "a login at the one whose name was taken", answer, "NO [UNAVAILABLE] ")
	n.serves(twin)
	twin.Stop()
	n.serves(n.b)
}

// serves waits until a node lets a new agent in.
func (n *nodes) serves(at *e2e.Postern) {
	n.t.Helper()
	s := n.Seat(sales).At(at)
	var answer string
	if !waitLogin(n.t, s, &answer) {
		n.t.Fatalf("a new agent is answered %q", answer)
	}
}

func waitLogin(t testing.TB, s *e2e.Seat, answer *string) bool {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		var c *e2e.Conn
		if c, *answer = tryLogin(t, s); strings.HasPrefix(*answer, "OK ") {
			c.OK("LOGOUT")
			return true
		}
		c.Close()
	}
	return false
}

// sessionsAt are the sessions that the record has as live at a node; "": at
// any.
func (n *nodes) sessionsAt(node string) (ids []broker.ID) {
	n.t.Helper()
	open := make(map[broker.ID]string)
	for _, e := range n.a.Events(e2e.FirmName) {
		switch e.Type {
		case broker.EventSessionOpen:
			open[e.SessionID] = e2e.Decode[broker.SessionOpen](n.t, e).Session.Node
		case broker.EventSessionEnd:
			delete(open, e.SessionID)
		}
	}
	for id, at := range open {
		if node == "" || at == node {
			ids = append(ids, id)
		}
	}
	return ids
}

// awaitStale waits until sessions are recorded as those of a dead node.
func (n *nodes) awaitStale(ids []broker.ID) {
	n.t.Helper()
	servers.WaitFor(n.t, shortLease+patience, func() bool {
		left := len(ids)
		for _, e := range n.a.Events(e2e.FirmName, "--type", string(broker.EventSessionEnd)) {
			for _, id := range ids {
				if e.SessionID == id && e2e.Decode[broker.SessionEnd](n.t, e).Reason == broker.EndStale {
					left--
				}
			}
		}
		return left == 0
	}, "the sessions of a dead node to end in the record")
}
