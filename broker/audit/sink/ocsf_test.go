// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/broker"
)

// TestOCSF: of every type of event comes an event whose class has all attributes
// that schema 1.3.0 requires of it, with numbers that agree, and nothing is lost.
func TestOCSF(t *testing.T) {
	required := map[float64][]string{
		classBase: nil, classFinding: {"finding_info"}, classAccountChange: {"user"},
		classAuthentication: {"user", "service"}, classEmail: {"email", "direction_id"},
	}
	// What there may be, beside what all classes have.
	others := map[float64][]string{
		classFinding: {"actor"}, classAccountChange: {"actor", "src_endpoint"},
		classAuthentication: {"actor", "src_endpoint", "session", "is_remote"}, classEmail: {"actor", "src_endpoint"},
	}
	activities := map[float64][]float64{
		classBase: {99}, classFinding: {1, 2, 3}, classAccountChange: {1, 2, 3, 4, 6, 7, 8, 9, 99},
		classAuthentication: {1, 2}, classEmail: {1, 99},
	}
	seen := make(map[float64]bool)
	for _, spec := range broker.Catalogue() {
		t.Run(string(spec.Type), func(t *testing.T) {
			for _, full := range []bool{false, true} {
				e := broker.Event{
					ID: broker.NewID(), Time: time.Date(2026, 3, 2, 9, 0, 0, 5e6, time.UTC), Seq: 7, Type: spec.Type, Version: 1,
					Actor: broker.Actor{Kind: "admin", Name: "root"}, Data: spec.Data,
				}
				if full {
					e.FirmID, e.AgentID, e.MailboxID, e.SessionID, e.WorkstationID = broker.NewID(), broker.NewID(), broker.NewID(), broker.NewID(), broker.NewID()
				}
				record, err := json.Marshal(e)
				must(t, err)
				parsed, err := parse(&broker.LogEntry{Seq: 7, Record: record})
				must(t, err)
				made, err := OCSF(parsed)
				must(t, err)
				var x map[string]any
				must(t, json.Unmarshal(made, &x))
				class, _ := x["class_uid"].(float64)
				activity, _ := x["activity_id"].(float64)
				attributes, known := required[class]
				seen[class] = true
				if !known || x["category_uid"] != float64(int(class)/1000) || x["type_uid"] != class*100+activity || !slices.Contains(activities[class], activity) {
					t.Errorf("the numbers: %s", made)
				}
				for _, name := range append(slices.Clip(attributes), "severity_id", "time", "metadata", "category_uid", "type_uid", "activity_id") {
					if x[name] == nil {
						t.Errorf("%s is missing: %s", name, made)
					}
				}
				of := slices.Concat(attributes, others[class], []string{
					"activity_id", "activity_name", "category_uid", "class_uid", "type_uid", "time", "message", "metadata", "severity_id",
					"status_id", "status_detail", "unmapped",
				})
				for name := range x {
					if !slices.Contains(of, name) {
						t.Errorf("the class has no %s: %s", name, made)
					}
				}
				if _, actor := x["actor"]; actor && (class == classFinding || class == classEmail) && at(t, made, "metadata.profiles") != "[host]" {
					t.Errorf("an actor without its profile: %s", made)
				}
				metadata, _ := x["metadata"].(map[string]any)
				product, _ := metadata["product"].(map[string]any)
				if metadata["version"] != "1.3.0" || metadata["uid"] != string(e.ID) || product["vendor_name"] != "Postern" || x["time"] != float64(e.Time.UnixMilli()) {
					t.Errorf("the metadata: %s", made)
				}
				if user, ok := x["user"].(map[string]any); ok && user["name"] == nil && user["uid"] == nil {
					t.Errorf("a user needs a name or a uid: %s", made)
				}
				if email, ok := x["email"].(map[string]any); ok && (email["from"] == "" || reflect.ValueOf(email["to"]).Len() == 0) {
					t.Errorf("an email needs from and to: %s", made)
				}
				if info, ok := x["finding_info"].(map[string]any); ok && info["uid"] == nil {
					t.Errorf("a finding needs a uid: %s", made)
				}
				var want any
				must(t, json.Unmarshal(record, &want))
				if diff := cmp.Diff(want, x["unmapped"]); diff != "" {
					t.Errorf("unmapped (-want +got):\n%s", diff)
				}
			}
		})
	}
	for class := range required {
		if !seen[class] {
			t.Errorf("nothing is of class %v", class)
		}
	}
}

// TestOCSFAttributes: what stands where.
func TestOCSFAttributes(t *testing.T) {
	agent, mailbox := broker.NewID(), broker.NewID()
	for name, test := range map[string]struct {
		typ  broker.EventType
		data any
		want map[string]string
	}{
		"a good sign-in": {
			broker.EventSessionOpen,
			broker.SessionOpen{Session: broker.Session{Protocol: broker.ProtocolIMAP, RemoteAddr: "[2001:db8::7]:4711"}},
			map[string]string{"type_uid": "300201", "status_id": "1", "src_endpoint.ip": "2001:db8::7", "service.name": "imap", "user.uid": string(agent)},
		},
		"a bad one": {
			broker.EventAuthFailed,
			broker.AuthFailed{Username: "asha", Cause: "unknown-token", RemoteAddr: "192.0.2.7:4711"},
			map[string]string{"type_uid": "300201", "status_id": "2", "severity_id": "2", "status_detail": "unknown-token", "user.name": "asha", "src_endpoint.ip": "192.0.2.7"},
		},
		"its end": {broker.EventSessionEnd, broker.SessionEnd{Reason: "client"}, map[string]string{"type_uid": "300202", "status_detail": "client"}},
		"sent": {
			broker.EventSendIntent,
			broker.SendIntent{MailFrom: "a@acme.example", HeaderFrom: "b@acme.example", Recipients: []string{"c@d.example"}, MessageID: "<m@x>", Octets: 12},
			map[string]string{"type_uid": "400901", "email.from": "b@acme.example", "email.smtp_from": "a@acme.example", "email.to": "[c@d.example]", "email.message_uid": "<m@x>", "email.size": "12", "direction_id": "2"},
		},
		"taken":   {broker.EventSendResult, broker.SendResult{Outcome: "accepted", Answer: "250 ok"}, map[string]string{"type_uid": "400901", "status_id": "1", "status_detail": "250 ok"}},
		"refused": {broker.EventSendRefused, broker.SendRefused{Address: "x@y.example", Text: "no"}, map[string]string{"status_id": "2", "email.to": "[x@y.example]"}},
		"opened": {
			broker.EventMessageOpen,
			broker.MessageOpen{Messages: []broker.OpenedMessage{{MessageID: "<1@x>", Octets: 5}, {MessageID: "<2@x>"}}},
			map[string]string{"type_uid": "400999", "activity_name": "message.open", "email.message_uid": "<1@x>", "email.size": "5", "direction_id": "0"},
		},
		"password": {broker.EventCredentialSet, broker.CredentialSetData{Version: 2}, map[string]string{"type_uid": "300103", "user.uid": string(agent)}},
		"alert": {
			broker.EventAlertResolved,
			broker.AlertAnswered{AlertID: mailbox, Kind: broker.AlertDrift, Severity: broker.SeverityCritical},
			map[string]string{"type_uid": "200403", "severity_id": "5", "finding_info.uid": string(mailbox), "finding_info.title": "drift", "status_id": "4"},
		},
		"a new person": {
			"person.created",
			broker.StateChange{After: json.RawMessage(`{"id":"0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d","name":"priya"}`)},
			map[string]string{"type_uid": "300101", "user.name": "<nil>", "user.uid": string(agent)},
		},
		"a restore": {broker.EventStateRestored, broker.StateRestored{}, map[string]string{"type_uid": "99", "class_uid": "0"}},
	} {
		t.Run(name, func(t *testing.T) {
			record, err := json.Marshal(broker.Event{ID: broker.NewID(), Type: test.typ, AgentID: agent, MailboxID: mailbox, Data: test.data})
			must(t, err)
			e, err := parse(&broker.LogEntry{Record: record})
			must(t, err)
			made, err := OCSF(e)
			must(t, err)
			for path, want := range test.want {
				if got := at(t, made, path); got != want {
					t.Errorf("%s is %s, not %s: %s", path, got, want, made)
				}
			}
		})
	}
}

// at is the value at a path of names.
func at(t testing.TB, document []byte, path string) string {
	t.Helper()
	var x map[string]any
	must(t, json.Unmarshal(document, &x))
	for {
		name, rest, more := strings.Cut(path, ".")
		if !more {
			if n, ok := x[name].(float64); ok {
				return fmt.Sprintf("%.0f", n)
			}
			return fmt.Sprint(x[name])
		}
		x, _ = x[name].(map[string]any)
		path = rest
	}
}
