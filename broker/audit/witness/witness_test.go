// SPDX-License-Identifier: Apache-2.0

package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fakeLog is a log in memory, and a Source of it.
type fakeLog struct {
	t      testing.TB
	origin translog.Origin
	signer note.Signer
	key    string
	hashes []tlog.Hash
	size   int64
	// submitted are the cosigned checkpoints that came; down is answered instead.
	submitted [][]byte
	down      error
	// lost says that tiles are gone.
	lost bool
}

func newLog(t testing.TB, events int) *fakeLog {
	l := &fakeLog{t: t}
	l.begin(broker.NewID())
	l.append(events, "")
	return l
}

// begin makes an epoch, with the key that signs it.
func (l *fakeLog) begin(firm broker.ID) {
	l.origin = translog.Origin{FirmID: firm, Epoch: broker.NewID()}
	private, public, err := note.GenerateKey(nil, l.origin.String())
	must(l.t, err)
	l.signer, err = note.NewSigner(private)
	must(l.t, err)
	l.key = public
}

// copy is the same log, which may go on in another way.
func (l *fakeLog) copy() *fakeLog {
	c := *l
	c.hashes = append([]tlog.Hash(nil), l.hashes...)
	return &c
}

func (l *fakeLog) read(indexes []int64) ([]tlog.Hash, error) {
	all := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x >= int64(len(l.hashes)) {
			return nil, errors.New("no such hash")
		}
		all[i] = l.hashes[x]
	}
	return all, nil
}

func (l *fakeLog) append(n int, what string) {
	for range n {
		hashes, err := tlog.StoredHashes(l.size, fmt.Appendf(nil, "%s%d", what, l.size), tlog.HashReaderFunc(l.read))
		must(l.t, err)
		l.hashes = append(l.hashes, hashes...)
		l.size++
	}
}

func (l *fakeLog) checkpoint() *translog.Checkpoint {
	root, err := tlog.TreeHash(l.size, tlog.HashReaderFunc(l.read))
	must(l.t, err)
	return &translog.Checkpoint{Origin: l.origin, Size: l.size, Root: root}
}

func (l *fakeLog) Checkpoint(context.Context) ([]byte, error) {
	return note.Sign(&note.Note{Text: l.checkpoint().Text()}, l.signer)
}

func (l *fakeLog) Tile(_ context.Context, level int, number int64, width int) ([]byte, error) {
	if l.down != nil {
		return nil, l.down
	}
	if l.lost {
		return nil, broker.Errorf(broker.NotFound, "no such tile")
	}
	return tlog.ReadTileData(tlog.Tile{H: translog.TileHeight, L: level, N: number, W: width}, tlog.HashReaderFunc(l.read))
}

func (l *fakeLog) Submit(_ context.Context, signed []byte) error {
	if l.down != nil {
		return l.down
	}
	l.submitted = append(l.submitted, signed)
	return nil
}

// keys are those that somebody has of these logs.
func keys(t testing.TB, logs ...*fakeLog) *translog.Keys {
	t.Helper()
	var text string
	for _, l := range logs {
		text += l.key + "\n"
	}
	k, err := translog.ParseKeys(text)
	must(t, err)
	return k
}

// round is what one process does that starts, cosigns once, and ends.
func round(t testing.TB, dir string, l *fakeLog, k *translog.Keys, known ...*translog.Checkpoint) error {
	t.Helper()
	w, err := Open(Config{Dir: dir, Keys: k, Known: known, Source: l})
	must(t, err)
	defer w.Close()
	_, err = w.Round(ctx)
	return err
}

func made(t testing.TB) (string, *translog.WitnessKey) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "witness")
	key, err := Create(dir, "witness.example")
	must(t, err)
	return dir, key
}

func wantRefused(t testing.TB, what string, err error) {
	t.Helper()
	var no *RefusedError
	if !errors.As(err, &no) {
		t.Errorf("%s: %v", what, err)
	}
}

// A witness cosigns a log as it grows, over restarts.
func TestWitness(t *testing.T) {
	dir, key := made(t)
	l := newLog(t, 1)
	for i, more := range []int{0, 0, 1, 2, 253, 1, 600, 0, 3000} {
		l.append(more, "")
		must(t, round(t, dir, l, keys(t, l)))
		last := l.submitted[len(l.submitted)-1]
		if len(l.submitted) != i+1 {
			t.Fatalf("%d cosignatures after %d rounds", len(l.submitted), i+1)
		}
		if at, err := key.Cosignature(last); err != nil || time.Since(at) > time.Minute {
			t.Fatalf("cosigned at %v: %v", at, err)
		}
		if c, err := keys(t, l).Open(last); err != nil || c.Size != l.size {
			t.Fatalf("cosigned %v: %v", c, err)
		}
	}
	if _, err := Create(dir, "witness.example"); err == nil {
		t.Error("a key was replaced, and what was cosigned forgotten")
	}
	w, err := Open(Config{Dir: dir, Keys: keys(t, l), Source: l})
	must(t, err)
	defer w.Close()
	if _, err := Open(Config{Dir: dir, Keys: keys(t, l), Source: l}); err == nil {
		t.Error("two processes are one witness")
	}
}

// TestNever6WitnessCosignsNoFork: whatever a server shows it, a witness cosigns
// nothing that does not follow from what it cosigned before, and keeps the proof.
func TestNever6WitnessCosignsNoFork(t *testing.T) {
	for name, other := range map[string]func(l *fakeLog) *fakeLog{
		"rolled back": func(l *fakeLog) *fakeLog { o := newLog(t, 299); o.origin, o.signer = l.origin, l.signer; return o },
		"as large": func(l *fakeLog) *fakeLog {
			o := newLog(t, 299)
			o.origin, o.signer = l.origin, l.signer
			o.append(1, "x")
			return o
		},
		"an early event changed": func(l *fakeLog) *fakeLog {
			o := newLog(t, 0)
			o.origin, o.signer = l.origin, l.signer
			o.append(1, "x")
			o.append(400, "")
			return o
		},
		"the last event changed": func(l *fakeLog) *fakeLog {
			o := newLog(t, 299)
			o.origin, o.signer = l.origin, l.signer
			o.append(300, "x")
			return o
		},
		"hashes gone": func(l *fakeLog) *fakeLog { o := l.copy(); o.append(300, ""); o.lost = true; return o },
		"hashes of another log": func(l *fakeLog) *fakeLog {
			o := l.copy()
			o.append(300, "")
			for i := range o.hashes[:len(o.hashes)-1] {
				o.hashes[i][0] ^= 1
			}
			return o
		},
		"another firm's": func(*fakeLog) *fakeLog { return newLog(t, 400) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := made(t)
			honest := newLog(t, 300)
			must(t, round(t, dir, honest, keys(t, honest)))
			before, err := os.ReadFile(filepath.Join(dir, memoryFile))
			must(t, err)
			forked := other(honest)
			k := keys(t, honest)
			if name == "another firm's" {
				k = keys(t, honest, forked)
			}
			for range 2 { // whenever it is started again
				err := round(t, dir, forked, k)
				wantRefused(t, name, err)
				var no *RefusedError
				if errors.As(err, &no) {
					proof, err := os.ReadFile(no.Evidence)
					must(t, err)
					shown, err := forked.Checkpoint(ctx)
					must(t, err)
					if !bytes.Contains(proof, []byte(honest.checkpoint().Text())) || !bytes.Contains(proof, shown) {
						t.Errorf("the evidence is %s", proof)
					}
				}
			}
			if len(forked.submitted) > len(honest.submitted) {
				t.Error("it was cosigned")
			}
			if after, err := os.ReadFile(filepath.Join(dir, memoryFile)); err != nil || !bytes.Equal(before, after) {
				t.Errorf("what is remembered changed: %v", err)
			}
			honest.append(5, "")
			must(t, round(t, dir, honest, keys(t, honest)))
		})
	}
}

// TestNever6WitnessAfterACrash: wherever a round is cut off, what was or may have
// been cosigned is remembered, and the other branch of a fork is not cosigned.
func TestNever6WitnessAfterACrash(t *testing.T) {
	crashes := map[string]func(dir string, old, now []byte){
		"before anything is written":     func(dir string, old, _ []byte) { must(t, os.WriteFile(filepath.Join(dir, memoryFile), old, 0o600)) },
		"a new file was begun":           func(dir string, old, now []byte) { partly(t, dir, old, nil) },
		"half of it was written":         func(dir string, old, now []byte) { partly(t, dir, old, now[:len(now)/2]) },
		"all of it, and not in place":    func(dir string, old, now []byte) { partly(t, dir, old, now) },
		"in place, nothing was cosigned": func(string, []byte, []byte) {},
	}
	for name, crash := range crashes {
		t.Run(name, func(t *testing.T) {
			dir, _ := made(t)
			one := newLog(t, 300)
			must(t, round(t, dir, one, keys(t, one)))
			old, err := os.ReadFile(filepath.Join(dir, memoryFile))
			must(t, err)
			two := one.copy()
			one.append(10, "one")
			two.append(20, "two")
			// The cosignature of the first branch may have left, or not.
			cut := &cutOff{fakeLog: one, dir: dir}
			w, err := Open(Config{Dir: dir, Keys: keys(t, one), Source: cut})
			must(t, err)
			if _, err := w.Round(ctx); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			w.Close()
			now, err := os.ReadFile(filepath.Join(dir, memoryFile))
			must(t, err)
			if cut.held != string(now) {
				t.Error("a cosignature left before it was remembered")
			}
			crash(dir, old, now)
			if name == "in place, nothing was cosigned" {
				wantRefused(t, "the other branch", round(t, dir, two, keys(t, two)))
			} else {
				// Nothing was cosigned: either branch may be, and then that alone.
				must(t, round(t, dir, two, keys(t, two)))
				one.append(30, "one")
				wantRefused(t, "the other branch", round(t, dir, one, keys(t, one)))
			}
		})
	}
	// A memory that is damaged is no memory that is empty.
	dir, _ := made(t)
	l := newLog(t, 3)
	must(t, round(t, dir, l, keys(t, l)))
	whole, err := os.ReadFile(filepath.Join(dir, memoryFile))
	must(t, err)
	for _, content := range [][]byte{nil, whole[:len(whole)/2], []byte("{}")} {
		must(t, os.WriteFile(filepath.Join(dir, memoryFile), content, 0o600))
		if _, err := Open(Config{Dir: dir, Keys: keys(t, l), Source: l}); err == nil {
			t.Errorf("%q is a memory", content)
		}
	}
	must(t, os.Remove(filepath.Join(dir, memoryFile)))
	if _, err := Open(Config{Dir: dir, Keys: keys(t, l), Source: l}); broker.CodeOf(err) != broker.NotFound {
		t.Errorf("without a memory: %v", err)
	}
}

var errCut = errors.New("cut")

// cutOff is a log at which a witness dies while it submits. held is what it
// remembered then.
type cutOff struct {
	*fakeLog
	dir, held string
}

func (c *cutOff) Submit(_ context.Context, signed []byte) error {
	n, err := translog.Read(signed)
	must(c.t, err)
	if n.Size != c.size {
		c.t.Errorf("cosigned %d events of %d", n.Size, c.size)
	}
	b, err := os.ReadFile(filepath.Join(c.dir, memoryFile))
	must(c.t, err)
	c.held = string(b)
	return errCut
}

// partly puts an old memory into place, and beside it what there is of the new.
func partly(t testing.TB, dir string, old, now []byte) {
	must(t, os.WriteFile(filepath.Join(dir, memoryFile), old, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, memoryFile+temporary), now, 0o600))
}

// With a restore a log is another, which needs another key; and it does not go
// back to the one before.
func TestNever6WitnessOfAnEpoch(t *testing.T) {
	dir, _ := made(t)
	old := newLog(t, 300)
	must(t, round(t, dir, old, keys(t, old)))
	restored := old.copy()
	restored.begin(old.origin.FirmID)
	restored.append(1, "restored")
	var unknown *translog.UnknownKeyError
	if err := round(t, dir, restored, keys(t, old)); !errors.As(err, &unknown) || !unknown.OtherEpoch {
		t.Errorf("a new epoch without its key: %v", err)
	}
	both := keys(t, old, restored)
	must(t, round(t, dir, restored, both))
	old.append(10, "")
	wantRefused(t, "the epoch before", round(t, dir, old, both))
	restored.append(1, "")
	must(t, round(t, dir, restored, both))
}

// The first of a log that is cosigned agrees with what is known of it.
func TestNever6WitnessBeginsWithAKnownCheckpoint(t *testing.T) {
	l := newLog(t, 300)
	known := l.checkpoint()
	other := newLog(t, 10)
	other.origin, other.signer, other.key = l.origin, l.signer, l.key
	other.append(300, "x")
	dir, _ := made(t)
	wantRefused(t, "a log that does not agree", round(t, dir, other, keys(t, l), known))
	l.append(7, "")
	must(t, round(t, dir, l, keys(t, l), known))
}

// TestNever6WitnessHeedsAKnownCheckpointLater: nor does a witness go on that is given
// one, by somebody who was shown another log, when it has cosigned more.
func TestNever6WitnessHeedsAKnownCheckpointLater(t *testing.T) {
	l := newLog(t, 300)
	dir, _ := made(t)
	must(t, round(t, dir, l, keys(t, l)))
	other := newLog(t, 10)
	other.origin = l.origin
	other.append(100, "x")
	wantRefused(t, "a log that does not agree", round(t, dir, l, keys(t, l), other.checkpoint()))
	other.append(300, "x")
	wantRefused(t, "a log that is smaller", round(t, dir, l, keys(t, l), other.checkpoint()))
	known := l.checkpoint()
	l.append(7, "")
	must(t, round(t, dir, l, keys(t, l), known))
}

// An outage is none of the log's faults, and nothing is cosigned meanwhile.
func TestWitnessWaitsForOutages(t *testing.T) {
	dir, _ := made(t)
	l := newLog(t, 300)
	must(t, round(t, dir, l, keys(t, l)))
	l.append(3, "")
	l.down = broker.Errorf(broker.Unavailable, "down")
	err := round(t, dir, l, keys(t, l))
	var no *RefusedError
	if errors.As(err, &no) || broker.CodeOf(err) != broker.Unavailable {
		t.Errorf("an outage: %v", err)
	}
	l.down = nil
	must(t, round(t, dir, l, keys(t, l)))
}
