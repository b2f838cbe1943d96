// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// TestNever6OldCheckpointUnderALaterPeriod: a log as it was some time ago is not
// passed off as all of a period that ended since.
func TestNever6OldCheckpointUnderALaterPeriod(t *testing.T) {
	l, _, r := bundle(t)
	w := newWitness(t, "one.example")
	l.size, r.Older, r.From = 150, nil, time.Time{}
	trust := &Trust{Keys: l.trusted(), Postern: r.Postern, Witnesses: []*translog.WitnessKey{w.Key()}}
	const doubt = "The bundle ends where its checkpoint does"

	l.cosigned = [][]byte{cosign(t, w, l.sign(l.at(150)), r.Until.Add(-time.Hour))}
	dir, files := made(t, r)
	if !bytes.Contains(files[reportFile], []byte(doubt)) {
		t.Error("the report does not say that its end is not known")
	}
	refused(t, dir, trust, "may not be here")
	l.cosigned = [][]byte{cosign(t, w, l.sign(l.at(150)), r.Until)}
	dir, _ = made(t, r)
	_, err := Verify(dir, trust)
	must(t, err)

	l.size, l.cosigned = 0, nil
	_, files = made(t, r)
	if bytes.Contains(files[reportFile], []byte(doubt)) {
		t.Error("the report doubts an end that is proved")
	}
	r.Until = r.Now().AddDate(0, 1, 0)
	_, files = made(t, r)
	m := new(Manifest)
	must(t, json.Unmarshal(files[manifestFile], m))
	if !m.Until.Equal(r.Now()) {
		t.Errorf("made at %s of a period until %s", m.Made, m.Until)
	}
}

// TestNever6NarrowedToNothing: what leaves events out says whose it has.
func TestNever6NarrowedToNothing(t *testing.T) {
	l, _, r := bundle(t)
	for _, n := range []Narrowing{{}, {AgentID: "nobody"}} {
		_, files := made(t, r)
		refused(t, writeFiles(t, remade(t, files, func(m *Manifest) { m.Narrowed = &n })), &Trust{Keys: l.trusted(), Postern: r.Postern}, "to what the bundle was narrowed")
	}
}

// TestHostileTypes: whatever an event's type is, something is said of it.
func TestHostileTypes(t *testing.T) {
	for _, typ := range []broker.EventType{"", ".", ".x", "é.created", "x\u202e.created"} {
		s := stateChange(typ, &broker.StateChange{After: json.RawMessage(`{}`)})
		if s == "" || strings.ContainsRune(s, '\u202e') {
			t.Errorf("of %q: %q", typ, s)
		}
	}
}
