// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"slices"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// opened records that messages of a session were downloaded.
func (c *client) opened(s *broker.Session, at time.Time, folder string, messages ...broker.OpenedMessage) {
	c.t.Helper()
	agent, err := c.world.Store.Agent(c.t.Context(), s.AgentID)
	if err != nil {
		c.t.Fatal(err)
	}
	err = c.world.Store.AppendEvents(c.t.Context(), []*broker.Event{{
		Type: broker.EventMessageOpen, Time: at, FirmID: s.FirmID, Actor: broker.Actor{Kind: "agent", Name: agent.Name, ID: s.AgentID},
		SessionID: s.ID, AgentID: s.AgentID, WorkstationID: s.WorkstationID, MailboxID: s.MailboxID,
		Data: broker.MessageOpen{Folder: folder, UIDValidity: 7, Messages: messages},
	}})
	if err != nil {
		c.t.Fatal(err)
	}
}

// TestOffBoardingAnAgent: everything of his ends, nothing of others', and the
// report says what he reached and what lies where.
func TestOffBoardingAnAgent(t *testing.T) {
	c := start(t)
	_, a, p := c.fill()
	s := c.open(&a, &p)
	ok[broker.Agent](c, "POST", "/v1/agents", `{"name":"other"}`)
	other := ok[httpapi.Assignment](c, "POST", "/v1/assignments", `{"agent":"other","mailbox":"sales@acme.example"}`)
	now := time.Now()
	c.opened(s, now.AddDate(0, 0, -40), "INBOX", broker.OpenedMessage{UID: 1, Section: "BODY[]", Octets: 1000})
	for i := range 40 { // enough for the search of the day to have halves
		c.opened(s, now.Add(-time.Duration(40-i)*time.Hour), "INBOX", broker.OpenedMessage{UID: uint32(10 + i%4), Section: "BODY[HEADER]", Octets: 10})
	}
	c.opened(s, now.Add(-time.Minute), "INBOX",
		broker.OpenedMessage{UID: 10, Section: "BODY[]", Octets: 5000}, broker.OpenedMessage{UID: 11, Section: "BODY[]<0>", Octets: 100},
		broker.OpenedMessage{UID: 0, Seq: 9, Section: "BODY[]", Octets: 7}, broker.OpenedMessage{UID: 20, Seq: 9, Section: "BODY[]", Continues: true})
	theirs := *s
	theirs.AgentID = other.AgentID
	c.opened(&theirs, now, "INBOX", broker.OpenedMessage{UID: 99, Section: "BODY[]", Octets: 1})

	before := ok[httpapi.Downloads](c, "GET", "/v1/downloads?agent=asha", "")
	out := ok[httpapi.OffBoarded](c, "POST", "/v1/agents/asha/off-board", `{"workstations":["pune-07"]}`)
	if !slices.Equal(out.EndedSessions, []broker.ID{s.ID}) || len(out.OpenSessions) > 0 ||
		!slices.Equal(out.AppPasswords, []broker.ID{p.AppPassword.ID}) || !slices.Equal(out.Assignments, []broker.ID{a.ID}) ||
		!slices.Equal(out.Workstations, []string{"pune-07"}) {
		t.Errorf("ended %+v", out)
	}
	if len(out.Reach) != 1 || out.Reach[0].Mailbox != "sales@acme.example" || out.Reach[0].Firm != "Acme Pumps" {
		t.Errorf("reach %+v", out.Reach)
	}
	if len(out.Downloads.Downloads) != 1 || !out.Complete {
		t.Fatalf("downloads %+v", out.Downloads)
	}
	// Messages 10 to 13 and 20; 10 and 20 whole. What is older than 30 days is
	// not in it.
	if d := out.Downloads.Downloads[0]; d.Messages != 5 || d.Whole != 2 || d.Parts != 1 || d.Octets != 40*10+5000+100+7 || d.Mailbox != "sales@acme.example" {
		t.Errorf("download %+v", d)
	}
	// What is removed is named in the report all the same.
	for when, d := range map[string]httpapi.Download{"before": before.Downloads[0], "after": out.Downloads.Downloads[0]} {
		if d.Workstation != "pune-07" || d.Agent != "asha" || d.Whole != 2 {
			t.Errorf("%s: %+v", when, d)
		}
	}
	longer := ok[httpapi.Downloads](c, "GET", "/v1/downloads?days=60&agent="+string(s.AgentID), "")
	if len(longer.Downloads) != 1 || longer.Downloads[0].Agent != "asha" || longer.Downloads[0].Messages != 6 || longer.Downloads[0].Whole != 3 {
		t.Errorf("in 60 days, by id: %+v", longer)
	}
	for path, want := range map[string]int{"/v1/agents/asha": 404, "/v1/workstations/pune-07": 404, "/v1/agents/other": 200} {
		if status, _, answer := c.do("GET", path, ""); status != want {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	if got := ok[httpapi.Assignment](c, "GET", "/v1/assignments/"+string(other.ID), ""); got.State != httpapi.GrantActive {
		t.Errorf("another's assignment is %s", got.State)
	}
	if got := ok[httpapi.AppPassword](c, "GET", "/v1/app-passwords/"+string(p.AppPassword.ID), ""); got.State != httpapi.GrantRevoked {
		t.Errorf("the app password is %s", got.State)
	}
}

// TestOffBoardingAWorkstation: what was used on it ends everywhere, since its
// mail client has stored it; the agents stay.
func TestOffBoardingAWorkstation(t *testing.T) {
	c := start(t)
	_, a, p := c.fill()
	unused := ok[httpapi.AppPasswordCreated](c, "POST", "/v1/app-passwords", `{"agent":"asha"}`)
	s := c.open(&a, &p)
	c.opened(s, time.Now(), "INBOX", broker.OpenedMessage{UID: 1, Section: "BODY[]", Octets: 1000})
	out := ok[httpapi.OffBoarded](c, "POST", "/v1/workstations/pune-07/off-board", `{}`)
	if !slices.Equal(out.EndedSessions, []broker.ID{s.ID}) || !slices.Equal(out.AppPasswords, []broker.ID{p.AppPassword.ID}) ||
		!slices.Equal(out.Workstations, []string{"pune-07"}) || len(out.Assignments) > 0 || out.Agent != nil {
		t.Errorf("ended %+v", out)
	}
	if len(out.Reach) != 1 || out.Reach[0].Agent != "asha" || len(out.Downloads.Downloads) != 1 || out.Downloads.Downloads[0].Whole != 1 {
		t.Errorf("report %+v", out)
	}
	for id, want := range map[broker.ID]httpapi.GrantState{p.AppPassword.ID: httpapi.GrantRevoked, unused.AppPassword.ID: httpapi.GrantActive} {
		if got := ok[httpapi.AppPassword](c, "GET", "/v1/app-passwords/"+string(id), ""); got.State != want {
			t.Errorf("an app password is %s, want %s", got.State, want)
		}
	}
	if got := ok[httpapi.Assignment](c, "GET", "/v1/assignments/"+string(a.ID), ""); got.State != httpapi.GrantActive {
		t.Errorf("the assignment is %s", got.State)
	}
}
