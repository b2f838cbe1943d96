// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/rotation"
	"github.com/postern-mail/postern/test/servers"
)

// TestRotationAtABadProvider: one that says to have set a password and has not,
// one whose rules refuse every password, and a mailbox whose rotation is under
// way already.
func TestRotationAtABadProvider(t *testing.T) {
	t.Parallel()
	r := newRotated(t, false)
	liar, strict, held := r.mailboxes[0], r.mailboxes[2], r.mailboxes[1]
	trigger := func(name, body string, m *rotatedMailbox) {
		r.postgres.Exec(r.accounts.Name,
			"CREATE FUNCTION "+name+"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "+body+" END $$",
			"CREATE TRIGGER "+name+" BEFORE UPDATE ON mailboxes FOR EACH ROW WHEN (OLD.username = '"+m.Address+"') EXECUTE FUNCTION "+name+"()")
	}
	trigger("liar", "RETURN OLD;", liar)
	const words = "not this one, it is in a dictionary"
	trigger("strict", "RAISE EXCEPTION '"+words+"' USING ERRCODE = 'check_violation';", strict)
	hold := held.provider.Hold(nil)
	r.begin()
	process := r.start()
	servers.WaitFor(t, roundTime, func() bool { return hold.Waiting() > 0 }, "a provider to be asked")
	begun := r.journal(held)
	err := r.state.RequestRotation(t.Context(), broker.Actor{Kind: "admin", Name: "another"}, &broker.Rotation{MailboxID: held.ID, Cause: broker.RotateOnDemand})
	want := fmt.Sprintf("the password of %s is being rotated, begun by admin test at %s", held.Address, begun.CreatedAt.UTC().Format(time.RFC3339))
	if broker.CodeOf(err) != broker.Conflict || !strings.Contains(err.Error(), want) {
		t.Errorf("a second rotation: %v, and not: %s", err, want)
	}
	hold.Release()
	r.ended(process)
	for _, m := range []*rotatedMailbox{liar, strict} {
		j := r.journal(m)
		if j.Outcome != broker.RotationKeptOld || !rotation.Alarming(j) {
			t.Errorf("%s: ended as %s, unproved %v", m.Address, j.Outcome, j.Unproved)
		}
		if now := r.stored(m); now != m.before {
			t.Errorf("%s: the credential is another, though nobody has set it", m.Address)
		}
		r.must(r.upstream.Probe(t.Context(), m.Mailbox, password(m.before)))
	}
	if j := r.journal(liar); j.Said != broker.SaidDone || len(j.Pending) != 1 || j.Asked < 2 || j.Asked > 10 {
		t.Errorf("the liar was asked %d times for %d passwords, and said %q", j.Asked, len(j.Pending), j.Said)
	}
	if j := r.journal(strict); j.Reason != broker.DriverPasswordPolicy || !strings.Contains(j.Words, words) || len(j.Pending) < 2 || len(j.Pending) > 10 {
		t.Errorf("the strict one refused %d passwords: %s, %q", len(j.Pending), j.Reason, j.Words)
	}
	for _, m := range []*rotatedMailbox{held, r.mailboxes[3]} {
		if j := r.journal(m); j.Outcome != broker.RotationDone || rotation.Alarming(j) {
			t.Errorf("%s: ended as %s, unproved %v", m.Address, j.Outcome, j.Unproved)
		}
	}
}

// ended waits until the round's rotations have ended, without the pauses between
// their steps, and stops the rotator.
func (r *rotated) ended(process *servers.Child) {
	r.t.Helper()
	servers.WaitFor(r.t, roundTime, func() bool {
		for _, m := range r.mailboxes {
			if j := r.journal(m); j.State != broker.RotationEnded && !j.NextAt.IsZero() {
				r.now(m)
			}
		}
		return !r.anyOpen()
	}, "the rotations to end")
	if err := process.Stop(); err != nil {
		r.t.Errorf("the rotator: %v", err)
	}
}

// TestRotationOverTwoNodes: two rotators share the work, each rotation is one's
// alone, and when that one is killed the other takes over once its lease has
// ended, and not before.
func TestRotationOverTwoNodes(t *testing.T) {
	t.Parallel()
	r := newRotated(t, true)
	r.concurrency = rotatedMailboxes / 2 // so that it takes both
	var holds []*servers.Hold
	for _, m := range r.mailboxes {
		holds = append(holds, m.provider.Hold(nil))
	}
	processes := map[string]*servers.Child{}
	for _, node := range []string{"node-a", "node-b"} {
		processes[node+"/rotator"] = r.startNode(node)
		servers.WaitFor(t, roundTime, r.rotating, "the rotator to start")
	}
	r.begin()
	servers.WaitFor(t, roundTime, func() bool {
		return !slices.ContainsFunc(holds, func(h *servers.Hold) bool { return h.Waiting() == 0 })
	}, "all providers to be asked")
	victim, _ := r.claim(r.mailboxes[0])
	r.must(processes[victim].Kill())
	delete(processes, victim)
	var orphans, others []*rotatedMailbox
	for i, m := range r.mailboxes {
		holder, left := r.claim(m)
		if holder == victim {
			orphans = append(orphans, m)
			holds[i].Drop()
		} else {
			others = append(others, m)
			holds[i].Release()
		}
		if left > claimTime {
			t.Errorf("%s: the claim runs for %v", m.Address, left)
		}
	}
	// The other looks for work each second: what it has done means that it has
	// looked.
	servers.WaitFor(t, roundTime, func() bool {
		return !slices.ContainsFunc(others, func(m *rotatedMailbox) bool { return r.journal(m).State != broker.RotationEnded })
	}, "the other's rotations to end")
	extra := &broker.Rotation{MailboxID: r.mailboxes[0].ID, Cause: broker.RotateOnDemand}
	if err := r.state.RequestRotation(t.Context(), rotatedBy, extra); broker.CodeOf(err) != broker.Conflict {
		t.Errorf("a rotation whose rotator is dead was begun again: %v", err)
	}
	for _, m := range orphans {
		holder, left := r.claim(m)
		if left > 0 && holder != victim {
			t.Errorf("%s was taken over by %s with %v of the lease to go", m.Address, holder, left)
		}
		// Two minutes are long: they are over now.
		r.postgres.Exec(r.database.Name, "UPDATE rotations SET held_until = 0 WHERE id = '"+string(m.journal)+"' AND node = '"+victim+"'")
	}
	servers.WaitFor(t, roundTime, func() bool { return !r.anyOpen() }, "the rotations to be taken over")
	for name, process := range processes {
		if err := process.Stop(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(orphans) != r.concurrency || len(others) != r.concurrency {
		t.Errorf("%s had %d rotations, the other %d", victim, len(orphans), len(others))
	}
	r.judged()
	for _, m := range r.mailboxes {
		by := r.workers(m)
		want := 1
		if slices.Contains(orphans, m) {
			want = 2
		}
		if len(by) != want {
			t.Errorf("%s was worked on by %v", m.Address, by)
		}
	}
}

// claimTime is for how long a rotation is a process's after an entry.
const claimTime = 2 * time.Minute

// claim returns who holds a rotation, and for how much longer by the database's
// clock.
func (r *rotated) claim(m *rotatedMailbox) (node string, left time.Duration) {
	r.t.Helper()
	c := r.postgres.Connect(r.database.Name)
	var until, now int64
	err := c.QueryRow(r.t.Context(), "SELECT node, held_until, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM rotations WHERE id = $1",
		string(m.journal)).Scan(&node, &until, &now)
	r.must(err)
	r.must(c.Close(r.t.Context()))
	return node, time.Duration(until-now) * time.Microsecond
}

// workers are the nodes that made a rotation's entries, one after another.
func (r *rotated) workers(m *rotatedMailbox) []string {
	r.t.Helper()
	events, err := r.state.Events(r.t.Context(), broker.EventQuery{FirmID: m.FirmID, After: -1, Limit: 10000})
	r.must(err)
	var by []string
	for _, e := range events {
		if e.Type != broker.EventRotationStep && e.Type != broker.EventRotationEnded || !strings.Contains(string(e.Record), string(m.journal)) {
			continue
		}
		var record struct {
			Actor broker.Actor `json:"actor"`
		}
		r.must(json.Unmarshal(e.Record, &record))
		if len(by) == 0 || by[len(by)-1] != record.Actor.Name {
			by = append(by, record.Actor.Name)
		}
	}
	return by
}
