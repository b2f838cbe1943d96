// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// TestCanaries: a firm's admin marks messages and unmarks them, its auditor reads
// which they are; what cannot be one is refused.
func TestCanaries(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	admin, auditor := firms.tokens["firm-admin"], firms.tokens["firm-auditor"]
	path := "/v1/mailboxes/" + firms.own["mailbox"] + "/canaries"
	list := func() []*broker.Canary {
		t.Helper()
		return okAs[httpapi.List[*broker.Canary]](c, auditor, "GET", path, "").Items
	}
	before := len(list())
	made := okAs[broker.Canary](c, admin, "POST", path, `{"folder":"inbox","uid":17,"uid_validity":7,"message_id":" <m@acme.example> ","note":"the board's"}`)
	if made.Folder != "INBOX" || made.MessageID != "<m@acme.example>" || string(made.FirmID) != firms.own["firm"] || made.UIDValidity != 7 {
		t.Errorf("made %+v", made)
	}
	if all := list(); len(all) != before+1 || *all[before] != made {
		t.Errorf("listed %+v", all)
	}

	// A UID alone goes by the UIDVALIDITY that the sentinel has read.
	if status, _, answer := c.as(admin, "POST", path, `{"folder":"Board","uid":4}`); status != http.StatusUnprocessableEntity || !bytes.Contains(answer, []byte("UIDVALIDITY")) {
		t.Errorf("in a folder that nobody has read: %d %s", status, answer)
	}
	claim := broker.WatchClaim{Node: "node", Holder: broker.NewID(), Lasts: time.Minute}
	store := c.world.Store
	if err := store.PrepareWatches(t.Context(), -time.Hour); err != nil {
		t.Fatal(err)
	}
	for {
		w, err := store.ClaimWatch(t.Context(), claim)
		if err != nil {
			t.Fatal(err)
		}
		if w == nil {
			break
		}
		result := broker.WatchResult{Watch: *w}
		result.Watch.Folders = []broker.WatchedFolder{{Name: "Board", UIDValidity: 99}}
		result.Watch.NextAt = time.Now().Add(time.Hour)
		if err := store.FinishWatch(t.Context(), claim, &result); err != nil {
			t.Fatal(err)
		}
	}
	if made := okAs[broker.Canary](c, admin, "POST", path, `{"folder":"Board","uid":4}`); made.UIDValidity != 99 {
		t.Errorf("by the sentinel's reading: %+v", made)
	}
	for _, bad := range []string{`{}`, `{"folder":"Board"}`, `{"uid":4,"uid_validity":7}`, `{"message_id":"<a>\u0000"}`} {
		if status, _, answer := c.as(admin, "POST", path, bad); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", bad, status, answer)
		}
	}

	removed := okAs[broker.Canary](c, admin, "DELETE", "/v1/canaries/"+string(made.ID), "")
	if removed.RemovedAt.IsZero() {
		t.Errorf("removed %+v", removed)
	}
	if status, _, answer := c.as(admin, "DELETE", "/v1/canaries/"+string(made.ID), ""); status != http.StatusNotFound {
		t.Errorf("removed again: %d %s", status, answer)
	}
	if all := list(); len(all) != before+1 {
		t.Errorf("left %+v", all)
	}
}

// TestNever5BPOIsToldOfNoCanary: whatever the BPO's people can read, it does not
// tell which messages are canaries; of an opening it sees whose it was, and the
// firm's people see which message it was as well.
func TestNever5BPOIsToldOfNoCanary(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	firm := firms.tokens["firm-admin"]
	mark := okAs[broker.Canary](c, firm, "POST", "/v1/mailboxes/"+firms.own["mailbox"]+"/canaries",
		`{"folder":"Hush-folder","uid":17,"uid_validity":7,"message_id":"<hush@acme.example>","note":"hush"}`)
	read := func(what string) {
		t.Helper()
		for _, role := range []string{"admin", "auditor"} {
			for _, o := range c.operations() {
				if o.method != "GET" || !strings.Contains(mayCall[o.id], role) {
					continue
				}
				for _, path := range []string{o.at(firms.own), o.path + "?firm=" + firms.own["firm"]} {
					if strings.Contains(path, "{") {
						continue
					}
					_, _, answer := c.as(firms.tokens[role], "GET", path, "")
					if bytes.Contains(bytes.ToLower(answer), []byte("hush")) {
						t.Errorf("%s, GET %s tells %s: %s", what, path, role, answer)
					}
				}
			}
		}
	}
	read("before it is opened")
	c.append(&broker.Event{
		Type: broker.EventMessageIdentify, FirmID: mark.FirmID, MailboxID: mark.MailboxID, AgentID: broker.ID(firms.own["agent"]),
		Actor: broker.Actor{Kind: "agent", Name: "asha"},
		Data:  broker.MessageIdentify{Folder: "INBOX", UIDValidity: 1, UID: 2, MessageID: "<HUSH@acme.example>"},
	})
	alerts := func(token string) []httpapi.Alert {
		t.Helper()
		return okAs[httpapi.List[httpapi.Alert]](c, token, "GET", "/v1/alerts?kind=canary-opened", "").Items
	}
	for _, role := range []string{"admin", "auditor", "firm-admin", "firm-auditor"} {
		all := alerts(firms.tokens[role])
		if len(all) != 1 || all[0].Agent != "asha" || all[0].Mailbox != "sales@acme.example" || all[0].Severity != broker.SeverityCritical {
			t.Fatalf("%s sees %+v", role, all)
		}
		one := okAs[httpapi.Alert](c, firms.tokens[role], "GET", "/v1/alerts/"+string(all[0].ID), "")
		for _, x := range []*broker.Canary{all[0].Canary, one.Canary} {
			if strings.HasPrefix(role, "firm-") != (x != nil) || x != nil && x.MessageID != mark.MessageID {
				t.Errorf("%s sees %+v", role, x)
			}
		}
	}
	answered := okAs[httpapi.Alert](c, firm, "POST", "/v1/alerts/"+string(alerts(firm)[0].ID)+"/acknowledge", "")
	if answered.Canary == nil || answered.State != broker.AlertAcknowledged {
		t.Errorf("answered %+v", answered)
	}
	// The log says what was opened; the alert does not say which of it was marked.
	for _, x := range alerts(firms.tokens["admin"]) {
		if strings.Contains(strings.ToLower(x.Detail+x.Subject), "hush") {
			t.Errorf("the alert tells: %+v", x)
		}
	}
}
