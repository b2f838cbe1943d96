// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// TestNever6CosignedCopy: a copy tells up to where a witness has cosigned it; and
// two readers who were shown two logs find it by the witness that saw only one.
func TestNever6CosignedCopy(t *testing.T) {
	w, err := translog.NewWitnessSigner("witness.example", rand.Reader)
	must(t, err)
	s := serve(t, 300)
	dir := t.TempDir()
	pull := func() {
		t.Helper()
		_, err := Pull(ctx, dir, s.keys(), s)
		must(t, err)
	}
	pull()
	if _, _, err := Cosigned(dir, s.keys(), w.Key()); broker.CodeOf(err) != broker.Conflict {
		t.Errorf("cosigned by nobody: %v", err)
	}
	at := time.Unix(1_800_000_000, 0).UTC()
	cosign := func(at time.Time) []byte {
		t.Helper()
		signed, err := s.Checkpoint(ctx)
		must(t, err)
		cosigned, err := w.Cosign(signed, at)
		must(t, err)
		return cosigned
	}
	s.append(30)
	first := cosign(at)
	must(t, Keep(dir, s.keys(), first)) // more than is held
	if _, _, err := Cosigned(dir, s.keys(), w.Key()); broker.CodeOf(err) != broker.Conflict {
		t.Errorf("more than is held was kept: %v", err)
	}
	s.append(30)
	pull()
	second := cosign(at.Add(time.Minute))
	for i, note := range [][]byte{first, second} {
		must(t, Keep(dir, s.keys(), note))
		c, when, err := Cosigned(dir, s.keys(), w.Key())
		want, _ := s.keys().Open(note)
		if err != nil || *c != *want || !when.Equal(at.Add(time.Duration(i)*time.Minute)) {
			t.Errorf("cosigned: %v at %v: %v", c, when, err)
		}
		_, err = Verify(dir, s.keys())
		must(t, err)
	}

	// The other reader's log, which the same key signs.
	s.stop()
	other := s.fork(t)
	other.rebuild(200)
	other.append(300)
	theirs := t.TempDir()
	_, err = Pull(ctx, theirs, other.keys(), other)
	must(t, err)
	var wrong *TamperedError
	for _, note := range [][]byte{first, second} {
		if err := Keep(theirs, other.keys(), note); !errors.As(err, &wrong) {
			t.Errorf("a cosigned checkpoint of the other log: %v", err)
		}
	}
}
