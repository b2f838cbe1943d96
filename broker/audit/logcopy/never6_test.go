// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker/audit/witness"
	"github.com/postern-mail/postern/broker/translog"
	"github.com/postern-mail/postern/test/servers"
)

// everyPlace has each fault tried at every row, and not at every third.
const everyPlace = "POSTERN_LOG_FAULTS"

// serving makes a log of some events, in a store.
type serving func(t testing.TB, events int) *served

// Rows and hashes of a log's database are tampered with, older databases put in
// place and forks shown: whoever pulls with an older checkpoint finds each, and a
// witness does not cosign it, in either store.
func TestNever6SQLite(t *testing.T) { never6(t, serve) }

func TestNever6PostgreSQL(t *testing.T) {
	server := servers.StartPostgreSQL(t)
	never6(t, func(t testing.TB, events int) *served {
		t.Helper()
		return begin(&served{t: t, database: server.NewDatabase()}, events)
	})
}

func never6(t *testing.T, serve serving) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, serving)
	}{
		{"each row", eachRow},
		{"each hash", eachHash},
		{"at random", atRandom},
		{"older database", olderDatabase},
		{"older database at a witness", olderDatabaseAtAWitness},
		{"fork", fork},
		{"fork with a witness", forkWithAWitness},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, serve) })
	}
}

const firmLog = ` log = (SELECT number FROM logs WHERE firm_id = $1)`

// rowFaults are what can be done to a row of a log of so many events.
func rowFaults(events int) map[string]func(s *served, at int) {
	const where = ` WHERE` + firmLog + ` AND seq = $2`
	// pair is a row and its neighbour.
	pair := func(at int) (int, int) { return min(at, events-2), min(at, events-2) + 1 }
	return map[string]func(s *served, at int){
		"a record changed": func(s *served, at int) {
			s.tamper(`UPDATE events SET record = $3`+where, s.firm, at, bytes.Replace(s.entry(at).Record, []byte(`"version":1`), []byte(`"version":2`), 1))
		},
		"a salt changed": func(s *served, at int) {
			s.tamper(`UPDATE events SET salt = $3`+where, s.firm, at, bytes.Repeat([]byte{7}, translog.SaltSize))
		},
		"a leaf hash changed": func(s *served, at int) {
			s.tamper(`UPDATE events SET leaf_hash = $3`+where, s.firm, at, bytes.Repeat([]byte{7}, tlog.HashSize))
		},
		"a record changed with its leaf hash": func(s *served, at int) {
			e := s.entry(at)
			record := slices.Clone(e.Record)
			record[len(record)-2] = ' '
			leaf := tlog.RecordHash(append(slices.Clone(e.Salt), record...))
			s.tamper(`UPDATE events SET record = $3, leaf_hash = $4`+where, s.firm, at, record, leaf[:])
		},
		"a row deleted": func(s *served, at int) { s.tamper(`DELETE FROM events`+where, s.firm, at) },
		"a row put in the place of the next": func(s *served, at int) {
			one, next := pair(at)
			e := s.entry(one)
			s.tamper(`UPDATE events SET record = $3, salt = $4, leaf_hash = $5`+where, s.firm, next, e.Record, e.Salt, e.LeafHash[:])
		},
		"two rows swapped": func(s *served, at int) {
			one, next := pair(at)
			for _, step := range [][2]int{{one, 9999}, {next, one}, {9999, next}} {
				s.tamper(`UPDATE events SET seq = $3`+where, s.firm, step[0], step[1])
			}
		},
		"a row pruned by nobody's leave": func(s *served, at int) {
			s.tamper(`UPDATE events SET record = $3`+where, s.firm, at, []byte("{}"))
		},
		"the log cut": func(s *served, at int) { s.tamper(`DELETE FROM events WHERE`+firmLog+` AND seq >= $2`, s.firm, at) },
		// Whoever knows how makes a whole tree of what he left.
		"the log cut, and a tree made of it": func(s *served, at int) { s.rebuild(min(at+1, events-1)) },
		"a log made of other events":         func(s *served, at int) { s.forge(at) },
	}
}

// Each row of a small log is changed, deleted, swapped, duplicated and cut, in the
// database: whoever pulls it with an older checkpoint finds each, and the copy that
// he made before stays good. The faults take turns, so that there is no row that none
// was tried at.
func eachRow(t *testing.T, serve serving) {
	const events = 20
	s := serve(t, events)
	held, dir := s.now(), t.TempDir()
	_, err := Pull(ctx, dir, s.keys(), s)
	must(t, err)
	keys := s.keys()
	s.append(3)
	s.stop()
	faults := rowFaults(events)
	for turn, name := range slices.Sorted(maps.Keys(faults)) {
		for at := range events {
			if at%3 != turn%3 && os.Getenv(everyPlace) == "" {
				continue
			}
			t.Run(fmt.Sprint(name, " ", at), func(t *testing.T) {
				f := s.trial(t)
				faults[name](f, at)
				f.found(held)
				_, err := Verify(dir, keys, held)
				must(t, err)
			})
		}
	}
}

// found is that whoever pulls with an older checkpoint finds that the log was
// tampered with.
func (s *served) found(held *translog.Checkpoint) {
	s.t.Helper()
	var wrong *TamperedError
	if _, err := Pull(ctx, s.t.TempDir(), s.keys(), s, held); !errors.As(err, &wrong) {
		s.t.Errorf("a pull: %v", err)
	}
}

// hashFaults are what can be done to the hashes that the tiles above the lowest are
// made of, of which there are three.
func hashFaults() map[string]func(s *served, at int) {
	const where = ` WHERE` + firmLog + ` AND level = 1 AND number `
	return map[string]func(s *served, at int){
		"a hash changed": func(s *served, at int) {
			s.tamper(`UPDATE log_hashes SET hash = $3`+where+`= $2`, s.firm, at, bytes.Repeat([]byte{7}, tlog.HashSize))
		},
		"a hash made shorter": func(s *served, at int) {
			s.tamper(`UPDATE log_hashes SET hash = substr(hash, 1, 31)`+where+`= $2`, s.firm, at)
		},
		"a hash deleted": func(s *served, at int) { s.tamper(`DELETE FROM log_hashes`+where+`= $2`, s.firm, at) },
		"hashes cut":     func(s *served, at int) { s.tamper(`DELETE FROM log_hashes`+where+`>= $2`, s.firm, at) },
		"a hash put in another's place": func(s *served, at int) {
			s.tamper(`UPDATE log_hashes SET hash = (SELECT hash FROM log_hashes`+where+`= $3)`+where+`= $2`, s.firm, at, (at+1)%3)
		},
		"two hashes swapped": func(s *served, at int) {
			for _, step := range [][2]int{{at, 99}, {(at + 1) % 3, at}, {99, (at + 1) % 3}} {
				s.tamper(`UPDATE log_hashes SET number = $3`+where+`= $2`, s.firm, step[0], step[1])
			}
		},
	}
}

// Each hash that the tiles above the lowest are made of is changed, deleted,
// swapped, put in another's place and cut: whoever pulls with an older checkpoint
// finds each, and so does a witness that must prove its way by it.
func eachHash(t *testing.T, serve serving) {
	s := serve(t, 300)
	held := s.now()
	cosign, _ := newWitness(t)
	must(t, cosign(s))
	s.append(600)
	s.now() // signed before: the server signs nothing more
	s.stop()
	for name, fault := range hashFaults() {
		for at := range 3 {
			t.Run(fmt.Sprint(name, " ", at), func(t *testing.T) {
				f := s.trial(t)
				fault(f, at)
				f.found(held)
				// From 300 events on, a proof needs the root of the first 256, and
				// all that is beside it.
				var no *witness.RefusedError
				if err := cosign(f); !errors.As(err, &no) {
					t.Errorf("a witness: %v", err)
				}
			})
		}
	}
}

// Any fault at any place of a larger log.
func atRandom(t *testing.T, serve serving) {
	const events = 900
	times := 12
	if os.Getenv(everyPlace) != "" {
		times = 120
	}
	s := serve(t, events)
	held := s.now()
	s.append(30)
	s.now()
	s.stop()
	faults := rowFaults(events)
	names := slices.Sorted(maps.Keys(faults))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 6))
	for range times {
		name, at := names[random.IntN(len(names))], random.IntN(events)
		t.Run(fmt.Sprint(name, " ", at), func(t *testing.T) {
			f := s.trial(t)
			faults[name](f, at)
			f.found(held)
		})
	}
}
