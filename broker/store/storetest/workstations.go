// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

// testCertificateNames: a name under an authority is one workstation's, to the
// octet, and free when that has it no more.
func testCertificateNames(t *testing.T, w *World) {
	s := w.Store
	name := broker.CertificateName{Authority: "head-office", Name: "pune-17.corp.example"}
	w.Workstation.CertificateName = &name
	must(t, s.UpdateWorkstation(ctx, Admin, &w.Workstation))
	got, err := s.WorkstationByCertificateName(ctx, name)
	same(t, "by its name", got, err, &w.Workstation)
	for _, other := range []broker.CertificateName{
		{},
		{Name: name.Name},
		{Authority: "branch", Name: name.Name},
		{Authority: "Head-Office", Name: name.Name},
		{Authority: name.Authority, Name: "PUNE-17.corp.example"},
		{Authority: name.Authority, Name: name.Name + "."},
		{Authority: name.Authority, Name: "%"},
	} {
		wantCode(t, second(s.WorkstationByCertificateName(ctx, other)), broker.NotFound)
	}
	add := func(n broker.CertificateName) error {
		return s.CreateWorkstation(ctx, Admin, &broker.Workstation{Name: "twin", Class: broker.ClassSoftware, CertificateName: &n})
	}
	wantCode(t, add(name), broker.Conflict)
	for field, n := range map[string]broker.CertificateName{
		"certificate_name.authority": {Name: "a"},
		"certificate_name.name":      {Authority: "a"},
	} {
		wantField(t, add(n), field)
	}
	for _, wrong := range []string{"a\x00b", " a", "a\n", "é", strings.Repeat("a", 256)} {
		wantField(t, add(broker.CertificateName{Authority: "a", Name: wrong}), "certificate_name.name")
	}
	// Twice the same change is none.
	must(t, s.UpdateWorkstation(ctx, Admin, &w.Workstation))
	w.Workstation.CertificateName = nil
	must(t, s.UpdateWorkstation(ctx, Admin, &w.Workstation))
	wantCode(t, second(s.WorkstationByCertificateName(ctx, name)), broker.NotFound)
	must(t, add(name))
	twin, err := s.WorkstationByCertificateName(ctx, name)
	must(t, err)
	must(t, s.DeleteWorkstation(ctx, Admin, twin.ID))
	wantCode(t, second(s.WorkstationByCertificateName(ctx, name)), broker.NotFound)
	must(t, add(name))
}

// testCodeForAnAgent: a code says whose machine it makes.
func testCodeForAnAgent(t *testing.T, w *World) {
	s := w.Store
	c := broker.EnrolmentCode{Name: "laptop", Class: broker.ClassHardware, AgentID: w.Agent.ID, Hash: Hash(), ExpiresAt: time.Now().Add(time.Hour)}
	must(t, s.CreateEnrolmentCode(ctx, Admin, &c))
	made := broker.Workstation{KeyPins: []string{Pin()}}
	must(t, s.RedeemEnrolmentCode(ctx, c.Hash, &made))
	got, err := s.Workstation(ctx, made.ID)
	must(t, err)
	if got.AgentID != w.Agent.ID {
		t.Errorf("it is %q's, want %q's", got.AgentID, w.Agent.ID)
	}
	c = broker.EnrolmentCode{Name: "nobody's", Class: broker.ClassHardware, AgentID: broker.NewID(), Hash: Hash(), ExpiresAt: time.Now().Add(time.Hour)}
	wantField(t, s.CreateEnrolmentCode(ctx, Admin, &c), "agent_id")
}
