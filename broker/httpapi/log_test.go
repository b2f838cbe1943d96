// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/translog"
)

// TestNever5LogsApart: nothing of a log's tree, checkpoint, keys or entries
// tells a firm of another's log, nor of the BPO's: whoever asks for one is told
// what he is told of a firm that nobody has.
func TestNever5LogsApart(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	of := func(bearer, what, firm, query string) (int, string) {
		status, _, answer := c.as(bearer, http.MethodGet, "/v1/log/"+what+"?firm="+firm+query, "")
		return status, string(answer)
	}
	for _, role := range []string{"firm-admin", "firm-auditor"} {
		bearer := firms.tokens[role]
		for what, query := range map[string]string{
			"checkpoint": "", "keys": "", "entries": "&first=0", "tile": "&level=0&number=0&width=1",
		} {
			own, answer := of(bearer, what, firms.own["firm"], query)
			if own != http.StatusOK {
				t.Errorf("%s of the own log by %s: %d %s", what, role, own, answer)
			}
			if status, _, answer := c.as(bearer, http.MethodGet, "/v1/log/"+what+"?"+strings.TrimPrefix(query, "&"), ""); status != http.StatusOK {
				t.Errorf("%s without a firm by %s: %d %s", what, role, status, answer)
			}
			for _, further := range []string{query, strings.Replace(query, "=0", "=7", 1), strings.Replace(query, "=1", "=200", 1)} {
				theirs, said := of(bearer, what, firms.theirs["firm"], further)
				nobodys, unknown := of(bearer, what, firms.unknown["firm"], further)
				said = strings.ReplaceAll(said, firms.theirs["firm"], "X")
				unknown = strings.ReplaceAll(unknown, firms.unknown["firm"], "X")
				if theirs != nobodys || said != unknown || theirs == http.StatusOK {
					t.Errorf("%s%s of another firm by %s: %d %s, and of nobody: %d %s", what, further, role, theirs, said, nobodys, unknown)
				}
			}
		}
		status, _, signed := c.as(bearer, http.MethodGet, "/v1/log/checkpoint", "")
		if status != http.StatusOK || !bytes.HasPrefix(signed, []byte("postern/"+firms.own["firm"]+"/")) {
			t.Errorf("the checkpoint that %s gets: %s", role, signed)
		}
	}
}

// What the API says of a log fits together, and its key verifies it.
func TestLogFitsTogether(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	where := "firm=" + firms.own["firm"]
	_, _, signed := c.do(http.MethodGet, "/v1/log/checkpoint?"+where, "")
	told := ok[httpapi.LogKeys](c, http.MethodGet, "/v1/log/keys?"+where, "")
	keys, err := translog.ParseKeys(strings.Join(told.Keys, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	checkpoint, err := keys.Open(signed)
	if err != nil || checkpoint.Origin.String() != told.Origin {
		t.Fatalf("%v: %s", err, signed)
	}
	status, _, answer := c.do(http.MethodGet, "/v1/log/entries?first=0&"+where, "")
	var entries httpapi.LogEntries
	if err := json.Unmarshal(answer, &entries); err != nil || status != http.StatusOK || int64(len(entries.Items)) != checkpoint.Size {
		t.Fatalf("%d entries, the checkpoint has %d: %v %s", len(entries.Items), checkpoint.Size, err, answer)
	}
}

// Who has seen a message opened and then asks for the record is told of it: what
// was submitted before he asked is waited for.
func TestTheRecordHoldsWhatWasSubmitted(t *testing.T) {
	c := start(t)
	for _, where := range []string{
		"/v1/events?type=command.refused", "/v1/questions/messages?message_id=x", "/v1/questions/agents/asha",
		"/v1/questions/workstations/pune-07", "/v1/questions/alerts/1", "/v1/questions/mailboxes/sales@acme.example", "/v1/downloads",
	} {
		e := &broker.Event{
			ID: broker.NewID(), Time: time.Now().Truncate(time.Microsecond), Type: broker.EventCommandRefused,
			Actor: broker.Actor{Kind: "agent", Name: "asha"}, Data: broker.CommandRefused{Command: "CREATE"},
		}
		c.world.Submitted.Store(e)
		_, _, answer := c.do(http.MethodGet, where, "")
		if c.world.Submitted.Load() != nil {
			t.Errorf("%s did not wait for the log: %s", where, answer)
		}
		if strings.HasPrefix(where, "/v1/events") && !strings.Contains(string(answer), string(e.ID)) {
			t.Errorf("%s does not hold the event: %s", where, answer)
		}
	}
}
