// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"cmp"
	"slices"
	"strings"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// held is a checkpoint with its signatures.
type held struct {
	*translog.Checkpoint
	note []byte
}

// newest takes the newest checkpoint, or the newest that one of the witnesses has
// cosigned.
func (m *making) newest() error {
	text := strings.Join(m.KeyLines, "\n") + "\n"
	var err error
	if m.keys, err = translog.ParseKeys(text); err != nil {
		return err
	}
	if err := m.write(keysFile, []byte(text)); err != nil {
		return err
	}
	// These before the newest, which is the largest then.
	if m.cosigned, err = m.Source.Witnessed(m.ctx); err != nil {
		return err
	}
	if m.note, err = m.Source.Checkpoint(m.ctx); err != nil {
		return err
	}
	if m.to, err = m.keys.Open(m.note); err != nil {
		return err
	}
	if len(m.Witnesses) > 0 {
		if err := m.newestWitnessed(); err != nil {
			return err
		}
	}
	m.manifest.Origin, m.manifest.Size = m.to.Origin.String(), m.to.Size
	return nil
}

// newestWitnessed goes back to what witnesses have cosigned.
func (m *making) newestWitnessed() error {
	var largest *held
	for _, w := range m.Witnesses {
		c, err := m.reach(w)
		if err != nil {
			return err
		}
		if c == nil {
			return broker.Errorf(broker.Conflict, "the witness %s has cosigned nothing of the log", w.Name())
		}
		if c.Origin != m.to.Origin || c.Size > m.to.Size {
			return fault("the log was rolled back, or is another: it has %d events, and %s has cosigned %d", m.to.Size, w.Name(), c.Size)
		}
		if largest == nil || largest.Size < c.Size {
			largest = c
		}
	}
	// Those that are larger belong to no bundle that ends here.
	m.cosigned = slices.DeleteFunc(m.cosigned, func(note []byte) bool {
		c, err := m.keys.Open(note)
		return err == nil && c.Size > largest.Size
	})
	m.to, m.note = largest.Checkpoint, largest.note
	return nil
}

// witnessed finds that each of the witnesses has cosigned all entries.
func (m *making) witnessed() error {
	for _, w := range m.Witnesses {
		c, err := m.reach(w)
		if err != nil {
			return err
		}
		if c.Size <= m.manifest.Last {
			return broker.Errorf(broker.Conflict, "the witness %s has cosigned %d events alone, and the period has those up to %d: choose one that ended a minute ago", w.Name(), c.Size, m.manifest.Last)
		}
	}
	return nil
}

// reach returns the newest checkpoint that a witness has cosigned; nil: there is none.
func (m *making) reach(w *translog.WitnessKey) (newest *held, err error) {
	for _, note := range append(slices.Clone(m.cosigned), m.note) {
		if _, err := w.Cosignature(note); err != nil {
			continue
		}
		c, err := m.keys.Open(note)
		if err != nil {
			return nil, err
		}
		if newest == nil || newest.Size < c.Size {
			newest = &held{c, note}
		}
	}
	return newest, nil
}

// checkpoints writes the checkpoint, and the older ones.
func (m *making) checkpoints() error {
	for _, note := range slices.Concat(m.Older, m.cosigned) {
		if err := m.hold(note); err != nil {
			return err
		}
	}
	if len(m.older) > maxOlder {
		return broker.Errorf(broker.Invalid, "there are too many older checkpoints: %d at most", maxOlder)
	}
	slices.SortFunc(m.older, func(a, b *held) int { return cmp.Compare(a.Size, b.Size) })
	for _, o := range m.older {
		if err := m.write(olderFile(o.Size), o.note); err != nil {
			return err
		}
	}
	return m.write(checkpointFile, m.note)
}

// hold takes an older checkpoint, or more signatures of one that is there.
func (m *making) hold(note []byte) error {
	c, err := m.keys.Open(note)
	if err != nil {
		return err
	}
	if c.Origin != m.to.Origin {
		return broker.Errorf(broker.Invalid, "an older checkpoint is of another log, %s", c.Origin)
	}
	if c.Size > m.to.Size {
		return fault("the log was rolled back: it has %d events, and had %d", m.to.Size, c.Size)
	}
	same, into := m.to, &m.note
	if c.Size < m.to.Size {
		i := slices.IndexFunc(m.older, func(o *held) bool { return o.Size == c.Size })
		if i < 0 {
			m.older = append(m.older, &held{c, note})
			return nil
		}
		same, into = m.older[i].Checkpoint, &m.older[i].note
	}
	if same.Root != c.Root {
		return fault("the log was forked: there are two logs of %d events", c.Size)
	}
	merged, err := translog.Merge(*into, note)
	if err != nil {
		return err
	}
	if len(merged) > translog.MaxCheckpoint {
		return broker.Errorf(broker.Invalid, "the checkpoint of %d events has too many signatures", c.Size)
	}
	*into = merged
	return nil
}
