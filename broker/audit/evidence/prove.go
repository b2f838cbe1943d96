// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker/audit/logcopy"
	"github.com/postern-mail/postern/broker/translog"
)

// row is the entries of a bundle as they pass: they must be a row without a gap,
// and lead to the checkpoint's root.
type row struct {
	to    *translog.Checkpoint
	proof translog.RangeProof
	tree  translog.Tree
	// due are further checkpoints within the row, by size upwards, which the
	// entries must agree with.
	due []*translog.Checkpoint
}

func newRow(to *translog.Checkpoint, first int64, p *proof) (*row, error) {
	r := &row{to: to, proof: translog.RangeProof{Before: p.Before, After: p.After}}
	var err error
	r.tree, err = r.proof.Start(first)
	return r, err
}

// add takes the next entry.
func (r *row) add(e *logcopy.Entry) error {
	leaf, err := e.LeafOf(r.tree.Size())
	if err != nil {
		return err
	}
	r.tree.Add(leaf, nil)
	for len(r.due) > 0 && r.due[0].Size == r.tree.Size() {
		if r.due[0].Root != r.tree.Root() {
			return fmt.Errorf("the log was forked: its first %d events are not those of the checkpoint that was given", r.due[0].Size)
		}
		r.due = r.due[1:]
	}
	return nil
}

// end finds that all of the entries were the log's.
func (r *row) end() error {
	if err := r.proof.Finish(&r.tree, r.to.Size); err != nil {
		return err
	}
	if r.tree.Root() != r.to.Root {
		return fmt.Errorf("the events are not those of the log's checkpoint of %d events: some were changed, removed, put in between or reordered", r.to.Size)
	}
	return nil
}

// proveGrown makes the proof that the log grew from an older checkpoint.
func proveGrown(to, older *translog.Checkpoint, reader tlog.HashReader) (grown, error) {
	hashes, err := tlog.ProveTree(to.Size, older.Size, reader)
	return grown{older.Size, hashes}, err
}

// checkGrown finds that the log grew from an older checkpoint.
func checkGrown(to, older *translog.Checkpoint, g grown) error {
	if older.Origin != to.Origin {
		return fmt.Errorf("the checkpoint of %d events is of another log, %s", older.Size, older.Origin)
	}
	if older.Size > to.Size {
		return fmt.Errorf("the older checkpoint has %d events, and the newer one %d", older.Size, to.Size)
	}
	if tlog.CheckTree(g.Hashes, to.Size, to.Root, older.Size, older.Root) != nil {
		return fmt.Errorf("the log was forked: the checkpoint of %d events does not follow from that of %d", to.Size, older.Size)
	}
	return nil
}
