// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

func enrolmentCode(name string) broker.EnrolmentCode {
	return broker.EnrolmentCode{
		Name: name, Class: broker.ClassHardware, Groups: []string{"night"}, Hash: Hash(), ExpiresAt: time.Now().Add(time.Hour),
	}
}

// testEnrolment: a code makes the workstation that it describes, once, until
// it expires or another takes its place.
func testEnrolment(t *testing.T, w *World) {
	s := w.Store
	code := func(change func(*broker.EnrolmentCode)) broker.EnrolmentCode {
		c := enrolmentCode("goa-01")
		change(&c)
		return c
	}
	for field, c := range map[string]broker.EnrolmentCode{
		"hash":       code(func(c *broker.EnrolmentCode) { c.Hash = c.Hash[1:] }),
		"name":       code(func(c *broker.EnrolmentCode) { c.Name = "" }),
		"class":      code(func(c *broker.EnrolmentCode) { c.Class = "paper" }),
		"site_id":    code(func(c *broker.EnrolmentCode) { c.SiteID = broker.NewID() }),
		"expires_at": code(func(c *broker.EnrolmentCode) { c.ExpiresAt = time.Now().Add(-time.Minute) }),
	} {
		wantCode(t, s.CreateEnrolmentCode(ctx, Admin, &c), broker.Invalid)
		if field == "" {
			t.Fatal("no field")
		}
	}
	taken := enrolmentCode(w.Workstation.Name)
	wantCode(t, s.CreateEnrolmentCode(ctx, Admin, &taken), broker.Conflict)

	lost, c := enrolmentCode("goa-01"), enrolmentCode("GOA-01")
	must(t, s.CreateEnrolmentCode(ctx, Admin, &lost))
	must(t, s.CreateEnrolmentCode(ctx, Admin, &c))
	for name, hash := range map[string][]byte{"replaced": lost.Hash, "unknown": Hash()} {
		if _, err := s.EnrolmentCode(ctx, hash, time.Now()); broker.CodeOf(err) != broker.NotFound {
			t.Errorf("a code that is %s: %v", name, err)
		}
		wantCode(t, s.RedeemEnrolmentCode(ctx, hash, &broker.Workstation{}), broker.NotFound)
	}
	if _, err := s.EnrolmentCode(ctx, c.Hash, c.ExpiresAt); broker.CodeOf(err) != broker.NotFound {
		t.Errorf("a code at its end: %v", err)
	}
	if got, err := s.EnrolmentCode(ctx, c.Hash, time.Now()); err != nil || got.ID != c.ID || got.Name != "GOA-01" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.EnrolmentCodeFor(ctx, "goa-01", time.Now()); err != nil || got.ID != c.ID {
		t.Errorf("by name: %+v, %v", got, err)
	}
	if _, err := s.EnrolmentCodeFor(ctx, "goa-01", c.ExpiresAt); broker.CodeOf(err) != broker.NotFound {
		t.Errorf("by name, at its end: %v", err)
	}
	// Nothing but id and keys is the machine's own word.
	pin := strings.Repeat("ab", 32)
	made := broker.Workstation{ID: broker.NewID(), Name: "boss", Class: broker.ClassSoftware, SiteID: broker.NewID(), KeyPins: []string{pin}}
	id := made.ID
	must(t, s.RedeemEnrolmentCode(ctx, c.Hash, &made))
	if _, err := s.EnrolmentCodeFor(ctx, "goa-01", time.Now()); broker.CodeOf(err) != broker.NotFound {
		t.Errorf("by name, redeemed: %v", err)
	}
	got, err := s.WorkstationByKeyPin(ctx, pin)
	if err != nil || got.ID != id || got.Name != "GOA-01" || got.Class != broker.ClassHardware || got.SiteID != "" || len(got.Groups) != 1 {
		t.Errorf("enrolled as %+v, %v", got, err)
	}
	wantCode(t, s.RedeemEnrolmentCode(ctx, c.Hash, &broker.Workstation{KeyPins: []string{strings.Repeat("cd", 32)}}), broker.NotFound)
	last := All(t, s, "")
	if e := last[len(last)-1]; e.Type != "enrolment-code.redeemed" || e.Actor.Kind != "workstation" || e.Actor.ID != id {
		t.Errorf("on record: %s by %+v", e.Type, e.Actor)
	}

	// A key that another workstation has leaves the code as it was.
	again := enrolmentCode("goa-02")
	must(t, s.CreateEnrolmentCode(ctx, Admin, &again))
	wantCode(t, s.RedeemEnrolmentCode(ctx, again.Hash, &broker.Workstation{KeyPins: []string{pin}}), broker.Conflict)
	must(t, s.RedeemEnrolmentCode(ctx, again.Hash, &broker.Workstation{KeyPins: []string{strings.Repeat("ef", 32)}}))
}

// testEnrolmentRace: of many who redeem a code together, one does.
func testEnrolmentRace(t *testing.T, w *World) {
	c := enrolmentCode("goa-03")
	must(t, w.Store.CreateEnrolmentCode(ctx, Admin, &c))
	const racers = 8
	errs := make([]error, racers)
	var racing sync.WaitGroup
	for i := range racers {
		racing.Go(func() {
			pin := strings.Repeat(string("0123456789abcdef"[i]), 64)
			errs[i] = w.Store.RedeemEnrolmentCode(ctx, c.Hash, &broker.Workstation{KeyPins: []string{pin}})
		})
	}
	racing.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		wantCode(t, err, broker.NotFound)
	}
	if won != 1 {
		t.Errorf("%d redeemed one code", won)
	}
	n := 0
	all, err := w.Store.Workstations(ctx)
	must(t, err)
	for _, x := range all {
		if x.Name == "goa-03" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d workstations", n)
	}
}
