// SPDX-License-Identifier: Apache-2.0

package witness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// Source is a server that has a log, and publishes cosignatures. It is not
// believed.
type Source interface {
	// Checkpoint returns the newest checkpoint, with its signatures.
	Checkpoint(ctx context.Context) ([]byte, error)
	// Tile returns the first width hashes of a tile.
	Tile(ctx context.Context, level int, number int64, width int) ([]byte, error)
	// Submit hands over a checkpoint with the witness's cosignature.
	Submit(ctx context.Context, signed []byte) error
}

// RefusedError says why a checkpoint was not cosigned, and never will be: the log
// is not what it was. It is never an outage.
type RefusedError struct {
	error
	// Evidence is the file that holds both checkpoints.
	Evidence string
}

func (e *RefusedError) Unwrap() error { return e.error }

func refused(format string, args ...any) error {
	return &RefusedError{error: fmt.Errorf(format, args...)}
}

// Config is what Open needs.
type Config struct {
	// Dir is the witness's directory, of Create.
	Dir string
	// Keys are those of the log, got by another way than from its server.
	Keys *translog.Keys
	// Known are checkpoints from elsewhere, which the log must agree with before
	// anything of it is cosigned.
	Known []*translog.Checkpoint
	// Source is required.
	Source Source
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Witness cosigns the checkpoints of one log. It is one goroutine's.
type Witness struct {
	cfg     Config
	signer  *translog.WitnessSigner
	memory  *memory
	release func()
	// agreed is the log of which this process has cosigned what follows from all that
	// are known.
	agreed translog.Origin
}

// Open reads a witness's directory, and keeps other processes out of it.
func Open(cfg Config) (*Witness, error) {
	if cfg.Keys == nil || cfg.Source == nil {
		return nil, errors.New("witness: the log's keys and a source are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	release, err := lock(cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(cfg.Dir)
	}
	if err != nil {
		return nil, err
	}
	w := &Witness{cfg: cfg, release: release}
	if w.memory, w.signer, err = load(cfg.Dir); err != nil {
		release()
		if errors.Is(err, fs.ErrNotExist) {
			err = missing(cfg.Dir)
		}
		return nil, err
	}
	return w, nil
}

func missing(dir string) error {
	return broker.Errorf(broker.NotFound, "%s holds no witness: 'postern log witness-key new' makes one", dir)
}

// Close lets go of the directory.
func (w *Witness) Close() { w.release() }

// Key is the witness's public key.
func (w *Witness) Key() *translog.WitnessKey { return w.signer.Key() }

// Round cosigns the newest checkpoint and hands it over. It returns what was
// cosigned. The error is *RefusedError when the log is not what it was, and
// *translog.UnknownKeyError when none of the keys signed it; both end the
// witness. Any other is an outage, or the server's refusal.
func (w *Witness) Round(ctx context.Context) (*translog.Checkpoint, error) {
	signed, err := w.cfg.Source.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	c, err := w.cfg.Keys.Open(signed)
	if err != nil {
		return nil, err
	}
	held, err := w.memory.held()
	if err != nil {
		return nil, err
	}
	if err := w.follows(ctx, held, c); err != nil {
		return nil, w.keepEvidence(err, signed)
	}
	if err := w.agrees(ctx, c); err != nil {
		return nil, w.keepEvidence(err, signed)
	}
	// First it is known, whatever comes after, then it is cosigned.
	if held == nil || *held != *c {
		next := *w.memory
		next.hold(held, c, signed)
		if err := next.save(w.cfg.Dir); err != nil {
			return nil, fmt.Errorf("nothing is cosigned while it cannot be remembered: %w", err)
		}
		*w.memory = next
	}
	w.agreed = c.Origin
	cosigned, err := w.signer.Cosign(signed, w.cfg.Now())
	if err != nil {
		return nil, err
	}
	return c, w.cfg.Source.Submit(ctx, cosigned)
}

// agrees finds that a checkpoint follows from those that are known: once, since what
// is cosigned later follows from it.
func (w *Witness) agrees(ctx context.Context, c *translog.Checkpoint) error {
	if w.agreed == c.Origin {
		return nil
	}
	for _, k := range w.cfg.Known {
		if k.Origin == c.Origin {
			if err := w.prove(ctx, k, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// follows finds that a checkpoint follows from the one held.
func (w *Witness) follows(ctx context.Context, held, c *translog.Checkpoint) error {
	if held == nil {
		return nil
	}
	switch {
	case held.Origin.FirmID != c.Origin.FirmID:
		return refused("this is the log %s: this witness watches %s, and one key is for one log", c.Origin, held.Origin)
	case slices.Contains(w.memory.Left, c.Origin.Epoch):
		return refused("the log went back to the epoch %s, which it had left: an older database was put into place", c.Origin.Epoch)
	case held.Origin.Epoch != c.Origin.Epoch:
		return nil // its key was given, and so was the word that it was restored
	}
	return w.prove(ctx, held, c)
}

// prove finds by the log's tiles that to follows from an older checkpoint.
func (w *Witness) prove(ctx context.Context, older, to *translog.Checkpoint) error {
	switch {
	case older.Size > to.Size:
		return refused("the log was rolled back: it has %d events, and had %d", to.Size, older.Size)
	case older.Size == to.Size && older.Root != to.Root:
		return refused("the log was forked: there are two logs of %d events", older.Size)
	case older.Size == to.Size:
		return nil
	}
	var outage error
	reader := translog.TileReader(tlog.Tree{N: to.Size, Hash: to.Root}, func(level int, number int64, width int) ([]byte, error) {
		hashes, err := w.cfg.Source.Tile(ctx, level, number, width)
		if err != nil {
			outage = err
		}
		return hashes, err
	})
	proof, err := tlog.ProveTree(to.Size, older.Size, reader)
	switch {
	case broker.CodeOf(outage) == broker.NotFound:
		return refused("the log of %d events has lost hashes that it should have: %w", to.Size, outage)
	case outage != nil:
		return outage
	}
	if err == nil {
		err = tlog.CheckTree(proof, to.Size, to.Root, older.Size, older.Root)
	}
	if err != nil {
		return refused("the log of %d events does not follow from the one of %d that is known: it was rewritten", to.Size, older.Size)
	}
	return nil
}

// keepEvidence writes down what a refusal rests on.
func (w *Witness) keepEvidence(err error, signed []byte) error {
	var no *RefusedError
	if !errors.As(err, &no) || w.memory.Checkpoint == "" {
		return err
	}
	path, failed := evidence(w.cfg.Dir, w.cfg.Now(), []byte(w.memory.Checkpoint), signed)
	if failed != nil {
		return errors.Join(err, failed)
	}
	no.Evidence = path
	return err
}
