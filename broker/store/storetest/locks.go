// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

func testLocks(t *testing.T, w *World) {
	s := w.Store
	targets := map[broker.LockTarget]broker.ID{
		broker.LockAgent: w.Agent.ID, broker.LockWorkstation: w.Workstation.ID, broker.LockMailbox: w.Mailbox.ID,
		broker.LockFirm: w.Firm.ID, broker.LockSite: w.Site.ID,
	}
	for target, id := range targets {
		l := broker.Lock{Target: target, TargetID: id, Message: "ask Meera", Until: time.Now().Add(time.Hour)}
		must(t, s.CreateLock(ctx, Admin, &l))
		locks, err := s.Locks(ctx)
		same(t, "locks", locks, err, []*broker.Lock{&l})
		must(t, s.RemoveLock(ctx, Admin, l.ID))
		must(t, s.RemoveLock(ctx, Admin, l.ID))
		locks, err = s.Locks(ctx)
		same(t, "locks", locks, err, nil)

		log := broker.ID("")
		if target == broker.LockFirm || target == broker.LockMailbox {
			log = w.Firm.ID
		}
		events, err := s.Events(ctx, broker.EventQuery{FirmID: log, After: -1, Type: "lock.removed"})
		must(t, err)
		if len(events) == 0 {
			t.Errorf("a lock on a %s is not in its log", target)
		}
	}
}
