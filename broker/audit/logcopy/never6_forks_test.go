// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/postern-mail/postern/broker/audit/witness"
	"github.com/postern-mail/postern/broker/translog"
)

// Submit keeps what a witness hands over: served is a witness's Source.
func (s *served) Submit(_ context.Context, signed []byte) error {
	s.cosigned = append(s.cosigned, signed)
	return nil
}

// newWitness makes one, and returns what it does when it is started at a server.
func newWitness(t *testing.T) (cosign func(at *served) error, key *translog.WitnessKey) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "witness")
	key, err := witness.Create(dir, "witness.example")
	must(t, err)
	return func(at *served) error {
		t.Helper()
		w, err := witness.Open(witness.Config{Dir: dir, Keys: at.keys(), Source: at})
		must(t, err)
		defer w.Close()
		_, err = w.Round(ctx)
		return err
	}, key
}

// An older database that is put under a running server is not signed, and whoever
// pulls it finds it.
func olderDatabase(t *testing.T, serve serving) {
	s := serve(t, 30)
	s.now()
	s.stop()
	for _, then := range []int{0, 5, 30, 300} {
		t.Run(fmt.Sprint(then, " events later"), func(t *testing.T) {
			older := s.trial(t)
			running := older.publisher
			older.append(20)
			held := older.now()
			_, err := Pull(ctx, t.TempDir(), older.keys(), older, held)
			must(t, err)
			older.rebuild(30)
			older.append(then)
			running.Round(ctx)
			if then > 0 && running.Healthy() == nil {
				t.Error("nobody has noticed")
			}
			older.publish() // even of a server that remembers nothing
			older.found(held)
		})
	}
}

// An older database under a server that runs on, and is then asked by a witness.
func olderDatabaseAtAWitness(t *testing.T, serve serving) {
	s := serve(t, 300)
	s.stop()
	older := s.fork(t)
	cosign, _ := newWitness(t)
	s.restart()
	s.append(30)
	must(t, cosign(s))
	for _, then := range []int{0, 30, 400} {
		older.append(then)
		var no *witness.RefusedError
		if err := cosign(older); !errors.As(err, &no) {
			t.Errorf("%d events later: %v", then, err)
		}
	}
}

// Two readers who were shown two logs find it when they compare.
func fork(t *testing.T, serve serving) {
	one := serve(t, 300)
	one.stop()
	other := one.fork(t)
	one.restart()
	first, second := t.TempDir(), t.TempDir()
	for range 3 {
		one.append(7)
		other.append(9)
		for s, dir := range map[*served]string{one: first, other: second} {
			_, err := Pull(ctx, dir, s.keys(), s)
			must(t, err)
			_, err = Verify(dir, s.keys())
			must(t, err)
		}
		var wrong *TamperedError
		if _, err := Verify(second, other.keys(), one.now()); !errors.As(err, &wrong) {
			t.Errorf("the second reader, with the first's checkpoint: %v", err)
		}
	}
	var wrong *TamperedError
	if _, err := Pull(ctx, first, other.keys(), other); !errors.As(err, &wrong) {
		t.Errorf("the first reader at the second's server: %v", err)
	}
}

// Two readers are shown two logs, with a witness between them: it cosigns one
// alone, whatever it is shown, and the other reader's has no cosignature.
func forkWithAWitness(t *testing.T, serve serving) {
	one := serve(t, 300)
	one.stop()
	other := one.fork(t)
	one.restart()
	cosign, key := newWitness(t)
	one.append(7)
	must(t, cosign(one))
	for range 3 {
		one.append(5)
		other.append(9)
		var no *witness.RefusedError
		if err := cosign(other); !errors.As(err, &no) {
			t.Errorf("the other log: %v", err)
		}
		must(t, cosign(one))
	}
	if len(other.cosigned) > 0 {
		t.Error("both were cosigned")
	}
	first, second := t.TempDir(), t.TempDir()
	_, err := Pull(ctx, first, one.keys(), one)
	must(t, err)
	_, err = Pull(ctx, second, other.keys(), other)
	must(t, err)
	newest := one.cosigned[len(one.cosigned)-1]
	must(t, Keep(first, one.keys(), key, newest))
	var wrong *TamperedError
	if err := Keep(second, other.keys(), key, newest); !errors.As(err, &wrong) {
		t.Errorf("the second reader, with what the witness has cosigned: %v", err)
	}
}
