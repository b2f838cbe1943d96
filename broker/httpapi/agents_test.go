// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"slices"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// TestAgentOfTheDirectory: he has no app password; who is off-boarded has one
// there that Postern cannot end, and the report says so.
func TestAgentOfTheDirectory(t *testing.T) {
	c := start(t)
	_, a, p := c.fill()
	g := ok[httpapi.AgentUpdated](c, "PATCH", "/v1/agents/asha", `{"authentication":"ldap","directory_account":"arao"}`)
	if g.Authentication != broker.AuthLDAP || g.DirectoryAccount != "arao" {
		t.Errorf("%+v", g)
	}
	if got := ok[httpapi.AppPassword](c, "GET", "/v1/app-passwords/"+string(p.AppPassword.ID), ""); got.State != httpapi.GrantRevoked {
		t.Errorf("his app password is %s", got.State)
	}
	c.refused("POST", "/v1/app-passwords", `{"agent":"asha"}`, 409, broker.Conflict)
	c.refused("PATCH", "/v1/agents/asha", `{"authentication":"certificate"}`, 422, broker.Invalid)
	c.refused("POST", "/v1/agents", `{"name":"ravi","directory_account":"ravi"}`, 422, broker.Invalid)

	s := *c.open(&a, &p)
	s.ID, s.AppPasswordID, s.Authentication = broker.NewID(), "", broker.AuthLDAP
	if err := c.world.Sessions.Open(t.Context(), &s); err != nil {
		t.Fatal(err)
	}
	c.opened(&s, time.Now(), "INBOX", broker.OpenedMessage{UID: 1, Section: "BODY[]", Octets: 1000})
	out := ok[httpapi.OffBoarded](c, "POST", "/v1/workstations/pune-07/off-board", `{}`)
	if !slices.Equal(out.DirectoryAccounts, []string{"arao"}) {
		t.Errorf("the workstation's report has %v", out.DirectoryAccounts)
	}
	out = ok[httpapi.OffBoarded](c, "POST", "/v1/agents/asha/off-board", `{}`)
	if !slices.Equal(out.DirectoryAccounts, []string{"arao"}) {
		t.Errorf("the agent's report has %v", out.DirectoryAccounts)
	}
}

// TestWorkstationOfAnAgent: of a class whose certificate may be all, and of
// nobody else.
func TestWorkstationOfAnAgent(t *testing.T) {
	c := start(t)
	c.fill()
	w := ok[httpapi.WorkstationCreated](c, "POST", "/v1/workstations",
		`{"name":"own","class":"hardware","agent":"asha","key_pins":["1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]}`).Workstation
	if w.Agent != "asha" || w.AgentID == "" {
		t.Errorf("%+v", w)
	}
	if got := ok[httpapi.Workstation](c, "GET", "/v1/workstations/own", ""); got.Agent != "asha" {
		t.Errorf("%+v", got)
	}
	ok[httpapi.WorkstationUpdated](c, "PATCH", "/v1/workstations/own", `{"agent":""}`)
	if got := ok[httpapi.Workstation](c, "GET", "/v1/workstations/own", ""); got.AgentID != "" {
		t.Errorf("%+v", got)
	}
	c.refused("PATCH", "/v1/workstations/own", `{"agent":"nobody"}`, 404, broker.NotFound)
	c.refused("POST", "/v1/workstations",
		`{"name":"soft","class":"software","agent":"asha","key_pins":["2123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]}`, 422, broker.Invalid)
}
