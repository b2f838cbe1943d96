// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"os"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// Keep adds to a copy a checkpoint that a witness has cosigned, once it is proved to
// be of the same log. One that is larger than what is held is left out: the next pull
// takes it. So is one that the witness has not cosigned, whatever it says.
func Keep(dir string, keys *translog.Keys, w *translog.WitnessKey, note []byte) error {
	release, err := lock(dir)
	if err != nil {
		return err
	}
	defer release()
	c, err := keys.Open(note)
	if err != nil {
		return err
	}
	if _, err := w.Cosignature(note); err != nil {
		return nil
	}
	if note, err = keys.Only(note, w); err != nil {
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
	if note, err = e.withKept(keys, c, note, true); err != nil {
		return err
	}
	return e.write(e.kept(c), note)
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
			note, err := os.ReadFile(e.kept(c))
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
