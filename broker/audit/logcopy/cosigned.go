// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// Keep adds a checkpoint to a copy that holds its log up to there, such as one that
// witnesses have cosigned, once it is proved to be of the same log. One that is
// larger than what is held is left out: the next pull takes it.
func Keep(dir string, keys *translog.Keys, note []byte) error {
	release, err := lock(dir)
	if err != nil {
		return err
	}
	defer release()
	c, err := keys.Open(note)
	if err != nil {
		return err
	}
	e := openEpoch(dir, string(c.Origin.Epoch))
	held, err := e.checkpoint(keys)
	if err != nil || held == nil || held.Size < c.Size {
		return err
	}
	p := &pull{epoch: e, held: held}
	if c.Size == held.Size && c.Root != held.Root {
		return tampered("the log was forked: there are two logs of %d events", c.Size)
	}
	if c.Size < held.Size {
		if err := p.proveOlder(c); err != nil {
			return err
		}
	}
	return e.write(filepath.Join(e.dir, checkpointsDir, strconv.FormatInt(c.Size, 10)), note)
}

// Cosigned returns the newest checkpoint of a copy that a witness has cosigned, and
// when. Conflict: it has cosigned none. Verify has found that the copy is what its
// checkpoints say.
func Cosigned(dir string, keys *translog.Keys, w *translog.WitnessKey) (newest *translog.Checkpoint, at time.Time, err error) {
	epochs, err := os.ReadDir(dir)
	if err != nil {
		return nil, at, err
	}
	for _, epoch := range epochs {
		if _, err := broker.ParseID(epoch.Name()); err != nil || !epoch.IsDir() {
			continue
		}
		e := openEpoch(dir, epoch.Name())
		all, err := e.checkpoints(keys)
		if err != nil {
			return nil, at, &TamperedError{err}
		}
		for _, c := range all {
			note, err := os.ReadFile(filepath.Join(e.dir, checkpointsDir, strconv.FormatInt(c.Size, 10)))
			if err != nil {
				return nil, at, err
			}
			if cosigned, err := w.Cosignature(note); err == nil && !cosigned.Before(at) && (newest == nil || newest.Origin != c.Origin || newest.Size < c.Size) {
				newest, at = c, cosigned
			}
		}
	}
	if newest == nil {
		return nil, at, broker.Errorf(broker.Conflict, "%s has cosigned nothing of %s: 'postern log pull --witness' asks for what it has", w.Name(), dir)
	}
	return newest, at, nil
}
