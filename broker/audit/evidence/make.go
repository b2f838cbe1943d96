// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/logcopy"
	"github.com/postern-mail/postern/broker/translog"
)

// Request says of what a bundle is to be.
type Request struct {
	// Source has the log.
	Source Source
	// KeyLines are the log's keys, which sign its checkpoints; KeysGiven says that
	// they came from elsewhere than from Source.
	KeyLines  []string
	KeysGiven bool
	// Older are older checkpoints, with their signatures, of which the bundle is to
	// prove that the log grew from them.
	Older [][]byte
	// Witnesses are to have cosigned all of the bundle's entries: the log counts up to
	// what they have.
	Witnesses []*translog.WitnessKey

	// What the manifest's fields of these names say.
	Maker, Postern, Firm, Zone string
	From, Until                time.Time
	Incident                   *Incident
	Narrowed                   *Narrowing
	// Names are those that a directory has; the bundle has those of them that its
	// events need.
	Names map[broker.ID]string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Made is a bundle that was made.
type Made struct {
	Manifest       *Manifest
	ManifestSHA256 string
}

// Make makes a bundle at path, where nothing may be yet: a ZIP archive if it ends
// in .zip, else a directory. It is there as a whole, or not at all. What the
// source has is proved before it counts: an error is a *Fault if it is not what
// its checkpoint says, and a *translog.UnknownKeyError if none of the keys signed
// that.
func Make(ctx context.Context, path string, r *Request) (_ *Made, err error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, broker.Errorf(broker.Conflict, "%s is there already", path)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	m := &making{Request: r, ctx: ctx, writer: writer{dir: dir}, manifest: &Manifest{
		Format: format, Maker: r.Maker, Postern: r.Postern, Firm: r.Firm, Zone: r.Zone,
		From: r.From.UTC().Truncate(time.Second), Incident: r.Incident, Narrowed: r.Narrowed, KeysGiven: r.KeysGiven,
	}}
	if !r.Until.IsZero() {
		m.manifest.Until = r.Until.UTC().Add(time.Second - 1).Truncate(time.Second)
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	m.manifest.Made = r.Now().UTC().Truncate(time.Second)
	if m.manifest.Until.After(m.manifest.Made) {
		m.manifest.Until = m.manifest.Made // of what is yet to come there is nothing
	}
	for _, step := range []func() error{m.newest, m.find, m.witnessed, m.checkpoints, m.prove, m.events, m.render} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	made := &Made{Manifest: m.manifest}
	if made.ManifestSHA256, err = m.finish(); err != nil {
		return nil, err
	}
	if filepath.Ext(path) != archived {
		return made, os.Rename(dir, path)
	}
	// Within the directory, so that nothing is left beside it.
	whole := filepath.Join(dir, archived)
	if err := pack(whole, dir, m.names(), m.manifest.Made); err != nil {
		return nil, err
	}
	if err := os.Rename(whole, path); err != nil {
		return nil, err
	}
	return made, os.RemoveAll(dir)
}

// making is a bundle under way.
type making struct {
	*Request
	writer
	ctx      context.Context
	manifest *Manifest
	keys     *translog.Keys
	// note is the checkpoint to of the log; cosigned are what witnesses have cosigned.
	note     []byte
	to       *translog.Checkpoint
	cosigned [][]byte
	// older are the others, by size upwards.
	older    []*held
	proof    *proof
	tally    *tally
	prunings logcopy.Prunings
}

// find finds the entries that the period needs: from a margin and one entry
// before it to a margin and one entry after it, so that what is outside shows.
func (m *making) find() error {
	first, end := int64(0), m.to.Size
	var err error
	if !m.manifest.From.IsZero() {
		if first, err = firstAt(m.ctx, m.Source, m.to.Size, m.manifest.From.Add(-Margin)); err != nil {
			return err
		}
		first = max(0, first-1)
	}
	if !m.manifest.Until.IsZero() {
		if end, err = firstAt(m.ctx, m.Source, m.to.Size, m.manifest.Until.Add(Margin)); err != nil {
			return err
		}
		end = min(m.to.Size, end+1)
	}
	if end-first > MaxEvents {
		return broker.Errorf(broker.Invalid, "the period has %d events, and a bundle holds %d at most: choose a shorter one", end-first, MaxEvents)
	}
	m.manifest.First, m.manifest.Last = first, end-1
	return nil
}

// prove makes the proofs.
func (m *making) prove() error {
	reader := translog.TileReader(tlog.Tree{N: m.to.Size, Hash: m.to.Root}, func(level int, number int64, width int) ([]byte, error) {
		return m.Source.Tile(m.ctx, level, number, width)
	})
	ranged, err := translog.ProveRange(m.to.Size, m.manifest.First, m.manifest.Last+1, reader)
	if err != nil {
		return fault("the log's tree is not what its checkpoint says, or cannot be had: %w", err)
	}
	m.proof = &proof{Before: ranged.Before, After: ranged.After, Grown: []grown{}}
	for _, c := range m.older {
		g, err := proveGrown(m.to, c.Checkpoint, reader)
		if err != nil {
			return fault("the log's tree is not what its checkpoint says, or cannot be had: %w", err)
		}
		if err := checkGrown(m.to, c.Checkpoint, g); err != nil {
			return &Fault{err}
		}
		m.proof.Grown = append(m.proof.Grown, g)
	}
	b, err := json.MarshalIndent(m.proof, "", "  ")
	if err != nil {
		return err
	}
	return m.write(proofFile, append(b, '\n'))
}

// events copies the entries, proves them and counts what is in them.
func (m *making) events() (err error) {
	file, err := m.create(eventsFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	out := bufio.NewWriterSize(file, 256<<10)
	row, err := newRow(m.to, m.manifest.First, m.proof)
	if err != nil {
		return err
	}
	if m.tally, err = newTally(m.manifest); err != nil {
		return err
	}
	for row.tree.Size() <= m.manifest.Last {
		some, err := m.Source.Entries(m.ctx, row.tree.Size())
		if err != nil {
			return err
		}
		if len(some) == 0 {
			return fault("the log's events from %d on are missing", row.tree.Size())
		}
		for _, e := range some[:min(int64(len(some)), m.manifest.Last+1-row.tree.Size())] {
			if err := m.entry(row, e, out); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(row.end(), m.manifest.explained(&m.prunings)); err != nil {
		return &Fault{err}
	}
	return out.Flush()
}

// entry takes one.
func (m *making) entry(row *row, e *logcopy.Entry, out io.Writer) error {
	if err := row.add(e); err != nil {
		return &Fault{err}
	}
	m.prunings.Add(e)
	if e.Pruned() {
		m.manifest.Pruned++
	} else {
		event, err := parseEvent(e)
		if err != nil {
			return err
		}
		if err := m.manifest.ends(event); err != nil {
			return &Fault{err}
		}
		if m.Narrowed.matches(event) {
			m.manifest.Disclosed++
			m.tally.add(event)
		} else {
			m.manifest.Withheld++
			e = &logcopy.Entry{Seq: e.Seq, Leaf: e.Leaf}
		}
	}
	_, err := out.Write(e.AppendLine(nil))
	return err
}

// render writes report and certificate.
func (m *making) render() error {
	m.manifest.Names = m.Names
	slices.SortFunc(m.files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	report, certificate, err := render(m.manifest, m.tally, evidenceFiles(m.files), append([]*held{{m.to, m.note}}, m.older...), m.KeyLines)
	if err != nil {
		return err
	}
	m.manifest.Names = m.tally.used
	if err := m.write(reportFile, report); err != nil {
		return err
	}
	return m.write(certificateFile, certificate)
}

// finish writes the manifest.
func (m *making) finish() (string, error) {
	slices.SortFunc(m.files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	m.manifest.Files = slices.Clone(m.files)
	b, err := m.manifest.octets()
	if err != nil {
		return "", err
	}
	if len(b) > maxManifest {
		return "", fmt.Errorf("the manifest has %d octets, and %d at most are read", len(b), maxManifest)
	}
	// What is written is what Verify will read.
	if _, err := readManifest(b); err != nil {
		return "", err
	}
	return sum(b), m.write(manifestFile, b)
}

// evidenceFiles are those that report and certificate are made from.
func evidenceFiles(files []File) map[string]File {
	all := make(map[string]File)
	for _, f := range files {
		all[f.Name] = f
	}
	for _, name := range []string{reportFile, certificateFile, manifestFile} {
		delete(all, name)
	}
	return maps.Clone(all)
}
