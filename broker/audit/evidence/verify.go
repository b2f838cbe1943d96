// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/postern-mail/postern/broker/audit/logcopy"
	"github.com/postern-mail/postern/broker/translog"
)

// Fault says what is wrong with a bundle: it is never an outage.
type Fault struct{ error }

func (f *Fault) Unwrap() error { return f.error }

func fault(format string, args ...any) error { return &Fault{fmt.Errorf(format, args...)} }

// Trust is what a check of a bundle rests on.
type Trust struct {
	// Keys are the log's, from elsewhere than the bundle. Nil: what is found is
	// no more than that the bundle agrees with itself.
	Keys *translog.Keys
	// Checkpoints are of the log, from elsewhere: it must agree with them.
	Checkpoints []*translog.Checkpoint
	// Witnesses are those that must have cosigned all of the bundle's events, by their
	// keys from elsewhere. They need Keys.
	Witnesses []*translog.WitnessKey
	// Manifest is the SHA-256 of manifest.json, from elsewhere; empty: none is
	// known.
	Manifest string
	// Postern is the version of the program that checks.
	Postern string
}

// Verified is what is proved of a bundle.
type Verified struct {
	Manifest *Manifest
	// ManifestSHA256 is what a certificate, or whoever hands the bundle over,
	// names it by.
	ManifestSHA256 string
	// Checkpoint is what the events are proved to, Older the older ones that it
	// grew from, with those that were given.
	Checkpoint *translog.Checkpoint
	Older      []*translog.Checkpoint
	// Cosigned are the bundle's checkpoints that witnesses have cosigned.
	Cosigned []Cosigned
	// Trusted says that the checkpoint is signed by a key that was given; KeyLines
	// are those of the bundle.
	Trusted  bool
	KeyLines []string
	// Unrendered says why report and certificate were not made anew and compared;
	// empty: they were, and are what the events make.
	Unrendered string
}

// Verify checks the bundle at path: a directory, or a ZIP archive. Whatever is
// wrong with it is a *Fault.
func Verify(path string, trust *Trust) (*Verified, error) {
	f, err := openFolder(path)
	if err != nil {
		return nil, err
	}
	v := &verification{folder: f, trust: trust}
	err = v.run()
	if err := errors.Join(err, f.close()); err != nil {
		return nil, err
	}
	return &v.Verified, nil
}

// verification is of one bundle.
type verification struct {
	Verified
	folder *folder
	trust  *Trust
	// small are all files but events.jsonl.
	small map[string][]byte
	keys  *translog.Keys
	proof *proof
	// held are the bundle's checkpoints.
	held []*held
	// later are checkpoints that were given, within the row.
	later []*translog.Checkpoint
	tally *tally
}

func (v *verification) run() error {
	for _, step := range []func() error{v.files, v.checkpoints, v.events, v.rendered} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// files finds that the files are those of the manifest.
func (v *verification) files() error {
	if _, ok := v.folder.sizes[manifestFile]; !ok {
		return fault("manifest.json is missing: this is no bundle")
	}
	head, err := v.folder.octets(manifestFile)
	if err != nil {
		return err
	}
	v.ManifestSHA256 = sum(head)
	if want := v.trust.Manifest; want != "" && !strings.EqualFold(want, v.ManifestSHA256) {
		return fault("manifest.json is another than that of which the SHA-256 was given: it has %s", v.ManifestSHA256)
	}
	if v.Manifest, err = readManifest(head); err != nil {
		return &Fault{err}
	}
	named := map[string]bool{manifestFile: true}
	v.small = make(map[string][]byte)
	for _, file := range v.Manifest.Files {
		size, there := v.folder.sizes[file.Name]
		switch {
		case named[file.Name] || mostOctets(file.Name) == 0:
			return fault("the manifest names %q, which does not belong there", file.Name)
		case !there:
			return fault("%s is missing", file.Name)
		case size != file.Size:
			return v.differs(file.Name)
		}
		named[file.Name] = true
		if file.Name == eventsFile {
			continue // it is read once, with its events
		}
		b, err := v.folder.octets(file.Name)
		if err != nil {
			return err
		}
		if sum(b) != file.SHA256 {
			return v.differs(file.Name)
		}
		v.small[file.Name] = b
	}
	for name := range v.folder.sizes {
		if !named[name] {
			return fault("the manifest does not name %s", name)
		}
	}
	for _, name := range []string{eventsFile, proofFile, checkpointFile, keysFile, reportFile, certificateFile} {
		if !named[name] {
			return fault("the manifest does not name %s, without which it is no bundle", name)
		}
	}
	return nil
}

func (*verification) differs(name string) error {
	return fault("%s is not the file that the manifest has the SHA-256 of", name)
}

// checkpoints finds that the checkpoints are the log's, and that it grew from
// the older ones.
func (v *verification) checkpoints() error {
	m := v.Manifest
	own, err := translog.ParseKeys(string(v.small[keysFile]))
	if err != nil {
		return fault("keys.txt: %w", err)
	}
	v.KeyLines = keyLines(v.small[keysFile])
	v.keys, v.Trusted = own, v.trust.Keys != nil
	if v.Trusted {
		v.keys = v.trust.Keys
	}
	if v.Checkpoint, err = v.keys.Open(v.small[checkpointFile]); err != nil {
		return fault("checkpoint.txt: %w", err)
	}
	if v.Checkpoint.Origin.String() != m.Origin || v.Checkpoint.Size != m.Size {
		return fault("checkpoint.txt is of %d events of %s, and the manifest tells of %d of %s", v.Checkpoint.Size, v.Checkpoint.Origin, m.Size, m.Origin)
	}
	v.held = []*held{{v.Checkpoint, v.small[checkpointFile]}}
	v.proof = new(proof)
	if err := strictly(v.small[proofFile], v.proof); err != nil {
		return fault("proof.json cannot be read: %w", err)
	}
	for _, g := range v.proof.Grown {
		name := olderFile(g.Size)
		note, there := v.small[name]
		if !there || slices.ContainsFunc(v.Older, func(c *translog.Checkpoint) bool { return c.Size == g.Size }) {
			return fault("proof.json is about %s, which is not there", name)
		}
		c, err := v.keys.Open(note)
		if err != nil {
			return fault("%s: %w", name, err)
		}
		if c.Size != g.Size {
			return fault("%s is not the checkpoint that belongs there", name)
		}
		if err := checkGrown(v.Checkpoint, c, g); err != nil {
			return &Fault{err}
		}
		v.Older = append(v.Older, c)
		v.held = append(v.held, &held{c, note})
	}
	for name := range v.small {
		if olderName.MatchString(name) && !slices.ContainsFunc(v.Older, func(c *translog.Checkpoint) bool { return olderFile(c.Size) == name }) {
			return fault("proof.json proves nothing of %s", name)
		}
	}
	if err := v.witnesses(); err != nil {
		return err
	}
	return v.given()
}

// given finds what can be said of the checkpoints that were given.
func (v *verification) given() error {
	for _, c := range v.trust.Checkpoints {
		if c.Origin != v.Checkpoint.Origin {
			return fault("the checkpoint that was given is of another log, %s", c.Origin)
		}
		known := slices.IndexFunc(v.Older, func(o *translog.Checkpoint) bool { return o.Size == c.Size })
		switch {
		case c.Size == v.Checkpoint.Size && c.Root != v.Checkpoint.Root, known >= 0 && v.Older[known].Root != c.Root:
			return fault("the log was forked: the bundle's checkpoint of %d events is another than that which was given", c.Size)
		case c.Size == v.Checkpoint.Size || known >= 0:
		case c.Size > v.Manifest.First && c.Size <= v.Manifest.Last+1:
			v.later = append(v.later, c)
		default:
			return fault("the bundle cannot be held against the checkpoint of %d events that was given: have one made with it (--checkpoint)", c.Size)
		}
	}
	slices.SortFunc(v.later, func(a, b *translog.Checkpoint) int { return int(a.Size - b.Size) })
	return nil
}

// events finds that the events are the log's.
func (v *verification) events() error {
	m := v.Manifest
	file := m.Files[slices.IndexFunc(m.Files, func(f File) bool { return f.Name == eventsFile })]
	r, err := v.folder.open(eventsFile)
	if err != nil {
		return err
	}
	content := newHashing(io.LimitReader(r, file.Size+1))
	found := v.proved(content)
	same, err := content.rest(file)
	if err := errors.Join(err, r.Close()); err != nil && found == nil {
		return fault("events.jsonl cannot be read: %w", err)
	}
	switch {
	case !same && found != nil:
		return fault("events.jsonl is not the file that the manifest has the SHA-256 of: %w", found)
	case !same:
		return v.differs(eventsFile)
	case found != nil:
		return &Fault{found}
	}
	return nil
}

// proved reads the events, and holds them against proof and checkpoint.
func (v *verification) proved(content io.Reader) error {
	m := v.Manifest
	row, err := newRow(v.Checkpoint, m.First, v.proof)
	if err != nil {
		return err
	}
	row.due = v.later
	if v.tally, err = newTally(m); err != nil {
		return err
	}
	var disclosed, hidden int64
	var prunings logcopy.Prunings
	err = readEntries(content, func(e *logcopy.Entry) error {
		if row.tree.Size() > m.Last {
			return fmt.Errorf("there are more events than the manifest tells of")
		}
		if err := row.add(e); err != nil {
			return err
		}
		prunings.Add(e)
		if e.Pruned() {
			hidden++
			return nil
		}
		disclosed++
		event, err := parseEvent(e)
		if err != nil {
			return err
		}
		if !m.Narrowed.matches(event) {
			return fmt.Errorf("event %d is not among those to which the bundle was narrowed", e.Seq)
		}
		if err := m.ends(event); err != nil {
			return err
		}
		v.tally.add(event)
		return nil
	})
	if err != nil {
		return err
	}
	if row.tree.Size() != m.Last+1 {
		return fmt.Errorf("events from %d on are missing", row.tree.Size())
	}
	if err := row.end(); err != nil {
		return err
	}
	if disclosed != m.Disclosed || hidden != m.Withheld+m.Pruned {
		return fmt.Errorf("the manifest tells of %d events and %d hashes, and there are %d and %d", m.Disclosed, m.Withheld+m.Pruned, disclosed, hidden)
	}
	v.Older = append(v.Older, v.later...)
	return m.explained(&prunings)
}

// rendered makes report and certificate anew, and finds that they say what the
// events say.
func (v *verification) rendered() error {
	report, certificate, err := render(v.Manifest, v.tally, evidenceFiles(v.Manifest.Files), v.held, v.KeyLines)
	if err != nil {
		return err
	}
	if len(v.tally.used) != len(v.Manifest.Names) {
		return fault("the manifest has names that the report has no use for")
	}
	for name, made := range map[string][]byte{reportFile: report, certificateFile: certificate} {
		switch {
		case bytes.Equal(made, v.small[name]):
		case v.Manifest.Postern == v.trust.Postern:
			return fault("%s does not say what the events say", name)
		default:
			v.Unrendered = fmt.Sprintf("they were made by Postern %s, and this is %s", shown(v.Manifest.Postern), v.trust.Postern)
		}
	}
	return nil
}

// keyLines returns the keys of a file, without what says nothing.
func keyLines(text []byte) []string {
	var all []string
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			all = append(all, string(line))
		}
	}
	return all
}
