// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// TestOneAlertForManyRefusals: a password is changed behind Postern's back, and
// the mailbox's agent tries ten times. The firm has one alert, which its admin
// acknowledges and which ends when he stores the new password. The BPO sees it,
// and cannot answer for the firm.
func TestOneAlertForManyRefusals(t *testing.T) {
	const refusals = 10
	w := NewWorld(t, WorldOptions{Mailboxes: []string{sales, support}, Sealed: true, Postern: Options{Config: "sentinel:\n  off: true\n"}})
	s := w.Seat(sales)
	firm := w.claimFirm(FirmName, "priya").runInput
	alerts := func(args ...string) []*httpapi.Alert {
		t.Helper()
		var list httpapi.List[*httpapi.Alert]
		if err := json.Unmarshal([]byte(firm("", append([]string{"--json", "alert", "list"}, args...)...)), &list); err != nil {
			t.Fatal(err)
		}
		return list.Items
	}
	if got := alerts(); len(got) > 0 {
		t.Fatalf("alerts before anything: %+v", got[0])
	}

	w.Dovecot.SetPassword(sales, "changed-behind-their-backs")
	for range refusals {
		c := s.DialIMAP(t)
		if _, answer := c.Cmd("LOGIN %s %s", sales, s.Token); !strings.HasPrefix(answer, "NO ") {
			t.Fatalf("a login with the old password: %s", answer)
		}
		c.Close()
	}
	s.AwaitEvents(refusals, broker.EventDrift)
	open := alerts()
	if len(open) != 1 {
		t.Fatalf("%d alerts: %+v", len(open), open)
	}
	x := open[0]
	if x.Kind != broker.AlertDrift || x.Severity != broker.SeverityCritical || x.State != broker.AlertOpen || x.Count != refusals ||
		x.Mailbox != sales || x.Agent != s.Agent || x.Workstation != s.Workstation || x.Firm != FirmName || len(x.Evidence) != refusals {
		t.Errorf("the alert: %+v", x)
	}
	if raised := w.Postern.Events(FirmName, "--type", string(broker.EventAlertRaised)); len(raised) != 1 ||
		Decode[broker.AlertRaised](t, raised[0]).Cause != x.Evidence[0].EventID {
		t.Errorf("raised: %+v", raised)
	}

	// The BPO sees it; the firm answers it.
	if got := decodeCLI[httpapi.Alert](w.Postern, "alert", "show", string(x.ID)); got.Count != refusals {
		t.Errorf("the BPO sees %+v", got)
	}
	if _, stderr, code := w.Postern.TryCLI("", "alert", "ack", string(x.ID)); code != 3 || !strings.Contains(stderr, "only its own admins") {
		t.Errorf("the BPO answers for the firm: exit code %d: %s", code, stderr)
	}
	firm("", "alert", "ack", string(x.ID), "--note", "calling the provider")
	c := s.DialIMAP(t)
	c.Cmd("LOGIN %s %s", sales, s.Token)
	s.AwaitEvents(refusals+1, broker.EventDrift)
	acknowledged := w.Postern.Events(FirmName, "--type", string(broker.EventAlertAcknowledged))
	if len(acknowledged) != 1 || acknowledged[0].Actor.Kind != string(broker.RoleFirmAdmin) || acknowledged[0].Actor.Name != "priya" ||
		Decode[broker.AlertAnswered](t, acknowledged[0]).Note != "calling the provider" {
		t.Errorf("acknowledged: %+v", acknowledged)
	}
	if got := alerts(); len(got) != 1 || got[0].State != broker.AlertAcknowledged || got[0].Count != refusals+1 {
		t.Errorf("after another refusal: %+v", got)
	}
	text := firm("", "alert", "show", string(x.ID))
	if !strings.Contains(text, "calling the provider") || !strings.Contains(text, "priya") || !strings.Contains(text, "set-credential") {
		t.Errorf("shown: %s", text)
	}

	firm("changed-behind-their-backs\n", "mailbox", "set-credential", sales)
	if got := alerts(); len(got) != 0 {
		t.Errorf("after the new password: %+v", got[0])
	}
	if got := alerts("--all"); len(got) != 1 || got[0].State != broker.AlertResolved || got[0].Resolved.By.Name != "priya" {
		t.Errorf("all: %+v", got)
	}
	s.IMAP(t).OK("SELECT INBOX")
	w.CheckNothingLeaked()
}
