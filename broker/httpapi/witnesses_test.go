// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/translog"
)

func newWitness(t *testing.T, name string) *translog.WitnessSigner {
	t.Helper()
	s, err := translog.NewWitnessSigner(name, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// submission is the body that hands a checkpoint in.
func submission(t *testing.T, signed []byte) string {
	t.Helper()
	b, err := json.Marshal(httpapi.CosignatureInput{Checkpoint: string(signed)})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A firm registers its witness; what that has cosigned is published, and what
// anybody else has signed is not.
func TestWitnessOfAFirm(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	admin, auditor := firms.tokens["firm-admin"], firms.tokens["firm-auditor"]
	one, stranger := newWitness(t, "one.example/acme"), newWitness(t, "stranger.example")
	added := okAs[httpapi.LogWitness](c, admin, "POST", "/v1/log/witnesses", `{"key":"`+one.Key().String()+`","rule":"stop","silence_seconds":30}`)
	if added.Name != "one.example/acme" || added.Firm != "Acme Pumps" || added.Size != 0 || added.UnwitnessedEvents == 0 {
		t.Errorf("added: %+v", added)
	}
	at := func(path string) []byte {
		t.Helper()
		status, _, signed := c.as(auditor, "GET", path, "")
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, status, signed)
		}
		return signed
	}
	cosign := func(w *translog.WitnessSigner, signed []byte, at time.Time) []byte {
		t.Helper()
		b, err := w.Cosign(signed, at)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if status, _, answer := c.as(auditor, "GET", "/v1/log/checkpoint?witnessed=true", ""); status != http.StatusNotFound {
		t.Errorf("witnessed by nobody: %d %s", status, answer)
	}
	signed := at("/v1/log/checkpoint")
	now := time.Now()
	kept := okAs[httpapi.CosignatureKept](c, auditor, "POST", "/v1/log/cosignatures", submission(t, cosign(stranger, cosign(one, signed, now), now)))
	if kept.Witness != one.Key().Name() {
		t.Errorf("kept: %+v", kept)
	}
	for _, path := range []string{"/v1/log/checkpoint", "/v1/log/checkpoint?witnessed=true"} {
		published := at(path)
		if got, err := one.Key().Cosignature(published); err != nil || got.Unix() != now.Unix() {
			t.Errorf("%s: cosigned at %v: %v\n%s", path, got, err, published)
		}
		if strings.Contains(string(published), "stranger") {
			t.Errorf("a stranger's signature is published:\n%s", published)
		}
	}
	okAs[httpapi.PersonCreated](c, admin, "POST", "/v1/people", `{"name":"new","role":"firm-auditor","token":{}}`)
	larger := at("/v1/log/checkpoint")
	if _, err := one.Key().Cosignature(larger); err == nil {
		t.Error("a checkpoint bears a cosignature of another")
	}
	if _, err := one.Key().Cosignature(at("/v1/log/checkpoint?witness=" + url.QueryEscape(one.Key().Name()))); err != nil {
		t.Errorf("what the witness has cosigned: %v", err)
	}
	if status, _, answer := c.as(auditor, "GET", "/v1/log/checkpoint?witness=stranger.example", ""); status != http.StatusNotFound {
		t.Errorf("what a stranger has cosigned: %d %s", status, answer)
	}
	listed := okAs[httpapi.List[httpapi.LogWitness]](c, auditor, "GET", "/v1/log/witnesses", "").Items
	if len(listed) != 1 || listed[0].Size != kept.Size || listed[0].UnwitnessedEvents < 1 || listed[0].Silent {
		t.Errorf("listed: %+v", listed)
	}

	okAs[httpapi.CosignatureKept](c, auditor, "POST", "/v1/log/cosignatures", submission(t, cosign(one, larger, now)))

	own := ok[httpapi.LogKeys](c, "GET", "/v1/log/keys", "")
	_, _, ownSigned := c.do("GET", "/v1/log/checkpoint", "")
	for name, test := range map[string]struct {
		body   string
		status int
	}{
		"a stranger's":           {submission(t, cosign(stranger, larger, now)), http.StatusNotFound},
		"nobody's":               {submission(t, larger), http.StatusNotFound},
		"an older":               {submission(t, cosign(one, signed, now.Add(time.Second))), http.StatusConflict},
		"a slow clock":           {submission(t, cosign(one, larger, now.Add(-time.Hour))), http.StatusConflict},
		"another log's":          {submission(t, cosign(one, ownSigned, now)), http.StatusConflict},
		"one that nobody signed": {submission(t, cosign(one, []byte(strings.Replace(string(larger), "\n", "\n1", 1)), now)), http.StatusUnprocessableEntity},
		"none":                   {`{"checkpoint":"x"}`, http.StatusUnprocessableEntity},
	} {
		if status, _, answer := c.as(auditor, "POST", "/v1/log/cosignatures", test.body); status != test.status {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	// A log does not witness itself.
	name, rest, _ := strings.Cut(own.Keys[0], "+")
	for _, key := range []string{own.Keys[0], "x+" + rest, name} {
		if status, _, answer := c.as(admin, "POST", "/v1/log/witnesses", `{"key":"`+key+`"}`); status != http.StatusUnprocessableEntity {
			t.Errorf("the key %q: %d %s", key, status, answer)
		}
	}

	removed := okAs[httpapi.LogWitness](c, admin, "DELETE", "/v1/log/witnesses/"+url.PathEscape(one.Key().Name()), "")
	if removed.ID != added.ID {
		t.Errorf("removed: %+v", removed)
	}
	if status, _, _ := c.as(auditor, "POST", "/v1/log/cosignatures", submission(t, cosign(one, larger, now.Add(2*time.Second)))); status != http.StatusNotFound {
		t.Errorf("a witness that was removed is heard: %d", status)
	}
	if _, err := one.Key().Cosignature(at("/v1/log/checkpoint")); err == nil {
		t.Error("its cosignatures are published")
	}
}

// TestNever5WitnessesApart: a firm can neither see, add, remove nor speak for the
// witnesses of another's log, and learns nothing of it by trying; the BPO cannot
// for a firm that was claimed.
func TestNever5WitnessesApart(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	w := newWitness(t, "one.example")
	admin := firms.tokens["firm-admin"]
	for _, test := range []struct{ method, path, body string }{
		{"GET", "/v1/log/witnesses?firm=FIRM", ""},
		{"POST", "/v1/log/witnesses", `{"firm":"FIRM","key":"` + w.Key().String() + `"}`},
		{"DELETE", "/v1/log/witnesses/one.example?firm=FIRM", ""},
		{"POST", "/v1/log/cosignatures", `{"firm":"FIRM","checkpoint":"x"}`},
		{"POST", "/v1/log/restore-confirmation", `{"firm":"FIRM"}`},
		{"GET", "/v1/log/checkpoint?witnessed=true&firm=FIRM", ""},
	} {
		ask := func(firm string) (int, string) {
			status, _, answer := c.as(admin, test.method, strings.ReplaceAll(test.path, "FIRM", firm), strings.ReplaceAll(test.body, "FIRM", firm))
			return status, strings.ReplaceAll(string(answer), firm, "X")
		}
		theirs, said := ask(firms.theirs["firm"])
		nobodys, unknown := ask(firms.unknown["firm"])
		if theirs != nobodys || said != unknown || theirs < 400 {
			t.Errorf("%s %s: %d %s, and of nobody: %d %s", test.method, test.path, theirs, said, nobodys, unknown)
		}
	}
	firm := firms.own["firm"]
	okAs[httpapi.LogWitness](c, admin, "POST", "/v1/log/witnesses", `{"key":"`+w.Key().String()+`"}`)
	for _, test := range []struct{ method, path, body string }{
		{"POST", "/v1/log/witnesses", `{"firm":"` + firm + `","key":"` + newWitness(t, "two.example").Key().String() + `"}`},
		{"DELETE", "/v1/log/witnesses/one.example?firm=" + firm, ""},
		{"POST", "/v1/log/restore-confirmation", `{"firm":"` + firm + `"}`},
	} {
		if p := c.refused(test.method, test.path, test.body, http.StatusForbidden, broker.Refused); !strings.Contains(p.Detail, "claimed") {
			t.Errorf("%s %s by the BPO: %s", test.method, test.path, p.Detail)
		}
	}
	// Its own it has, as any log.
	ok[httpapi.LogWitness](c, "POST", "/v1/log/witnesses", `{"key":"`+w.Key().String()+`"}`)
}
