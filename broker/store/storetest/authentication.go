// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"testing"

	"github.com/postern-mail/postern/broker"
)

// testAgentsOfTheDirectory: whose password the directory has, has no app
// password.
func testAgentsOfTheDirectory(t *testing.T, w *World) {
	s := w.Store
	moved := w.Agent
	moved.Authentication, moved.DirectoryAccount = broker.AuthLDAP, "rkumar"
	must(t, s.UpdateAgent(ctx, Admin, &moved))
	read, err := s.Agent(ctx, w.Agent.ID)
	same(t, "Agent", read, err, &moved)
	if read.Account() != "rkumar" || w.Agent.Account() != "Ravi" {
		t.Errorf("accounts %q, %q", read.Account(), w.Agent.Account())
	}
	if p, err := s.AppPassword(ctx, w.AppPassword.ID); err != nil || p.RevokedAt.IsZero() {
		t.Errorf("the app password that he had: %+v, %v", p, err)
	}
	another := broker.AppPassword{AgentID: w.Agent.ID, Hash: Hash()}
	if err := s.CreateAppPassword(ctx, Admin, &another); broker.CodeOf(err) != broker.Conflict {
		t.Errorf("another app password: %v", err)
	}
	back := moved
	back.Authentication, back.DirectoryAccount = broker.AuthAppPassword, ""
	must(t, s.UpdateAgent(ctx, Admin, &back))
	if back.Authentication != "" {
		t.Errorf("stored as %q", back.Authentication)
	}
	must(t, s.CreateAppPassword(ctx, Admin, &another))
	for field, wrong := range map[string]broker.Agent{
		"authentication":    {ID: w.Agent.ID, Authentication: broker.AuthCertificate},
		"directory_account": {ID: w.Agent.ID, DirectoryAccount: "rkumar"},
	} {
		if err := s.UpdateAgent(ctx, Admin, &wrong); broker.CodeOf(err) != broker.Invalid {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// testWorkstationsOfAgents: a workstation can be one agent's, and is nobody's
// when he is gone.
func testWorkstationsOfAgents(t *testing.T, w *World) {
	s := w.Store
	own := w.Workstation
	own.AgentID = broker.NewID()
	if err := s.UpdateWorkstation(ctx, Admin, &own); broker.CodeOf(err) != broker.Invalid {
		t.Errorf("nobody's: %v", err)
	}
	own.AgentID = w.Agent.ID
	must(t, s.UpdateWorkstation(ctx, Admin, &own))
	read, err := s.Workstation(ctx, own.ID)
	same(t, "Workstation", read, err, &own)
	must(t, s.DeleteAgent(ctx, Admin, w.Agent.ID))
	own.AgentID = ""
	read, err = s.Workstation(ctx, own.ID)
	same(t, "the workstation of who is gone", read, err, &own)
}
