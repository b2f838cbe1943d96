// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"context"
	"crypto/rand"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

func newWitness(t testing.TB, name string) *translog.WitnessSigner {
	t.Helper()
	w, err := translog.NewWitnessSigner(name, rand.Reader)
	must(t, err)
	return w
}

func cosign(t testing.TB, w *translog.WitnessSigner, signed []byte, at time.Time) []byte {
	t.Helper()
	cosigned, err := w.Cosign(signed, at)
	must(t, err)
	return cosigned
}

// TestWitnessedBundle: a bundle bears what witnesses have cosigned of the log, and
// whose key was given must have cosigned all of it.
func TestWitnessedBundle(t *testing.T) {
	l, c, r := bundle(t)
	one, two, stranger := newWitness(t, "one.example"), newWitness(t, "two.example"), newWitness(t, "stranger.example")
	at := begin.AddDate(0, 1, 0)
	size := int64(len(l.entries))
	l.cosigned = [][]byte{cosign(t, one, l.sign(l.at(size-10)), at), cosign(t, two, l.sign(l.at(150)), at.Add(time.Minute))}
	trust := func(all ...*translog.WitnessSigner) *Trust {
		x := &Trust{Keys: l.trusted(), Postern: r.Postern}
		for _, w := range all {
			x.Witnesses = append(x.Witnesses, w.Key())
		}
		return x
	}
	dir, files := made(t, r)
	v, err := Verify(dir, trust(one))
	must(t, err)
	want := []Cosigned{{"one.example", size - 10, at, true}, {"two.example", 150, at.Add(time.Minute), false}}
	if !slices.Equal(v.Cosigned, want) || len(v.Older) != 3 {
		t.Errorf("cosigned %+v, and %d older checkpoints", v.Cosigned, len(v.Older))
	}
	for _, words := range []string{"by <bdi><b>one.example</b></bdi>", "by <bdi><b>two.example</b></bdi>", "--witness"} {
		if !bytes.Contains(files[reportFile], []byte(words)) {
			t.Errorf("the report does not say %q", words)
		}
	}
	refused(t, dir, trust(stranger), "stranger.example, whose key was given, has cosigned none")
	refused(t, dir, trust(one, two), "two.example has cosigned 150 events of the log")

	// Of the whole log: the last events were cosigned by nobody yet.
	r.From, r.Until = time.Time{}, time.Time{}
	dir, files = made(t, r)
	refused(t, dir, trust(one), "has cosigned")
	if !bytes.Contains(files[reportFile], []byte("No witness had cosigned the log beyond")) {
		t.Error("the report does not say that the end is not witnessed")
	}
	r.Witnesses = []*translog.WitnessKey{one.Key()}
	dir, files = made(t, r)
	v, err = Verify(dir, trust(one))
	must(t, err)
	if v.Manifest.Size != size-10 || v.Manifest.Last != size-11 || bytes.Contains(files[reportFile], []byte("No witness had cosigned the log beyond")) {
		t.Errorf("up to what was cosigned: %+v", v.Manifest)
	}
	for because, w := range map[string]*translog.WitnessSigner{"two.example has cosigned 150 events alone": two, "has cosigned nothing": stranger} {
		again := *r
		again.Witnesses = []*translog.WitnessKey{one.Key(), w.Key()}
		if _, err := Make(context.Background(), filepath.Join(t.TempDir(), "x"), &again); broker.CodeOf(err) != broker.Conflict || !strings.Contains(err.Error(), because) {
			t.Errorf("%v; it should be because of %q", err, because)
		}
	}

	// One checkpoint, cosigned by both, and given besides: one file with all of it.
	r.Names = c.names
	l.cosigned = [][]byte{cosign(t, one, l.sign(l.at(size)), at), cosign(t, two, l.sign(l.at(size)), at)}
	r.Witnesses = nil
	r.Older = [][]byte{l.sign(l.at(150)), cosign(t, stranger, l.sign(l.at(150)), at), l.sign(l.at(size))}
	dir, files = made(t, r)
	v, err = Verify(dir, trust(two, one))
	must(t, err)
	if len(v.Cosigned) != 3 || v.Cosigned[2] != (Cosigned{"stranger.example", 150, at, false}) || len(v.Older) != 1 {
		t.Errorf("cosigned %+v, and %d older checkpoints", v.Cosigned, len(v.Older))
	}

	// Whoever makes cosignatures up, in a bundle that fits.
	for because, note := range map[string][]byte{
		"bears a false cosignature of one.example": bytes.Replace(files[checkpointFile], signatureOf(t, files[checkpointFile], "one.example"), signatureOf(t, cosign(t, one, l.sign(l.at(150)), at), "one.example"), 1),
		"one.example, whose key was given, has":    cosign(t, newWitness(t, "one.example"), l.sign(l.at(size)), at),
		"does not say what the events say":         cosign(t, stranger, files[checkpointFile], at),
	} {
		changed := make(map[string][]byte)
		for name, content := range files {
			changed[name] = content
		}
		changed[checkpointFile] = note
		refused(t, writeFiles(t, remade(t, changed, nil)), trust(one), because)
	}
}

// signatureOf is the line of a note that somebody has signed it with.
func signatureOf(t testing.TB, note []byte, name string) []byte {
	t.Helper()
	for line := range bytes.Lines(note) {
		if bytes.HasPrefix(line, []byte("— "+name+" ")) {
			return line
		}
	}
	t.Fatalf("%s has not signed", name)
	return nil
}

// A server that shows witnesses another log than the maker is found.
func TestNever6BundleOfAnotherLogThanWitnessed(t *testing.T) {
	l, _, r := bundle(t)
	w := newWitness(t, "one.example")
	size := int64(len(l.entries))
	fork := func(at *translog.Checkpoint) []byte {
		at.Root[0] ^= 1
		return cosign(t, w, l.sign(at), begin)
	}
	for name, notes := range map[string][][]byte{
		"of as many events": {fork(l.at(size))},
		"of fewer events":   {fork(l.at(size - 20))},
		"two of one size":   {cosign(t, w, l.sign(l.at(size-20)), begin), fork(l.at(size - 20))},
	} {
		l.cosigned = notes
		for _, keys := range [][]*translog.WitnessKey{nil, {w.Key()}} {
			r.Witnesses = keys
			_, err := Make(context.Background(), filepath.Join(t.TempDir(), "x"), r)
			if err == nil || !strings.Contains(err.Error(), "not what its checkpoint says") && !strings.Contains(err.Error(), "forked") {
				t.Errorf("%s, with %d witnesses: %v", name, len(keys), err)
			}
		}
	}
	l.size = size - 30
	l.cosigned = [][]byte{cosign(t, w, l.sign(l.at(size-20)), begin)}
	for _, keys := range [][]*translog.WitnessKey{nil, {w.Key()}} {
		r.Witnesses = keys
		if _, err := Make(context.Background(), filepath.Join(t.TempDir(), "x"), r); err == nil || !strings.Contains(err.Error(), "rolled back") {
			t.Errorf("rolled back behind a witness, with %d: %v", len(keys), err)
		}
	}
}
