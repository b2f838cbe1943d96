// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/postern-mail/postern/broker/audit/witness"
)

// Submit keeps what a witness hands over: served is a witness's Source.
func (s *served) Submit(_ context.Context, signed []byte) error {
	s.cosigned = append(s.cosigned, signed)
	return nil
}

// fork is the same log with a server of its own, from where it may go on in
// another way.
func (s *served) fork(name string) *served {
	s.t.Helper()
	f := &served{t: s.t, path: s.path + "." + name, world: s.world, firm: s.firm}
	f.copyOf(s.path)
	f.open()
	return f
}

// newWitness makes one, and returns what it does when it is started at a server.
func newWitness(t *testing.T) func(at *served) error {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "witness")
	_, err := witness.Create(dir, "witness.example")
	must(t, err)
	return func(at *served) error {
		t.Helper()
		w, err := witness.Open(witness.Config{Dir: dir, Keys: at.keys(), Source: at})
		must(t, err)
		defer w.Close()
		_, err = w.Round(ctx)
		return err
	}
}

// Each hash that the tiles above the lowest are made of is changed, deleted,
// swapped, put in another's place and cut: whoever pulls with an older checkpoint
// finds each, and so does a witness that must prove its way by it.
func TestNever6HashesAreTamperedWith(t *testing.T) {
	const where = ` WHERE log = (SELECT number FROM logs WHERE firm_id = $1) AND level = 1 AND number `
	faults := map[string]func(s *served, at int){
		"changed": func(s *served, at int) {
			s.tamper(`UPDATE log_hashes SET hash = randomblob(32)`+where+`= $2`, s.firm, at)
		},
		"shorter": func(s *served, at int) {
			s.tamper(`UPDATE log_hashes SET hash = substr(hash, 1, 31)`+where+`= $2`, s.firm, at)
		},
		"deleted": func(s *served, at int) { s.tamper(`DELETE FROM log_hashes`+where+`= $2`, s.firm, at) },
		"cut":     func(s *served, at int) { s.tamper(`DELETE FROM log_hashes`+where+`>= $2`, s.firm, at) },
		"another's": func(s *served, at int) {
			s.tamper(`UPDATE log_hashes SET hash = (SELECT hash FROM log_hashes`+where+`= $3)`+where+`= $2`, s.firm, at, (at+1)%3)
		},
		"swapped": func(s *served, at int) {
			for _, step := range [][2]int{{at, 99}, {(at + 1) % 3, at}, {99, (at + 1) % 3}} {
				s.tamper(`UPDATE log_hashes SET number = $3`+where+`= $2`, s.firm, step[0], step[1])
			}
		},
	}
	s := serve(t, 300)
	held := s.now()
	cosign := newWitness(t)
	must(t, cosign(s))
	s.append(600)
	s.now() // signed before: the server signs nothing more
	must(t, s.store.Close())
	forks := 0
	for name, fault := range faults {
		for at := range 3 {
			t.Run(fmt.Sprint(name, " ", at), func(t *testing.T) {
				forks++
				f := s.fork(fmt.Sprint(forks))
				f.t = t
				fault(f, at)
				var wrong *TamperedError
				if _, err := Pull(ctx, t.TempDir(), f.keys(), f, held); !errors.As(err, &wrong) {
					t.Errorf("a pull: %v", err)
				}
				// From 300 events on, a proof needs the root of the first 256, and
				// all that is beside it.
				var no *witness.RefusedError
				if err := cosign(f); !errors.As(err, &no) {
					t.Errorf("a witness: %v", err)
				}
				must(t, f.store.Close())
			})
		}
	}
}

// Two readers are shown two logs, with a witness between them: it cosigns one
// alone, whatever it is shown, and the other reader's has no cosignature.
func TestNever6ForkWithAWitness(t *testing.T) {
	one := serve(t, 300)
	other := one.fork("other")
	cosign := newWitness(t)
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
	must(t, Keep(first, one.keys(), newest))
	var wrong *TamperedError
	if err := Keep(second, other.keys(), newest); !errors.As(err, &wrong) {
		t.Errorf("the second reader, with what the witness has cosigned: %v", err)
	}
}

// An older database under a server that runs on, and is then asked by a witness.
func TestNever6OlderDatabaseAtAWitness(t *testing.T) {
	s := serve(t, 300)
	older := s.fork("older")
	cosign := newWitness(t)
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
