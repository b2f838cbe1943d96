// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/logcopy"
	"github.com/postern-mail/postern/broker/translog"
)

// made makes a bundle in a directory, and returns its files.
func made(t testing.TB, r *Request) (dir string, files map[string][]byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "bundle")
	if _, err := Make(context.Background(), dir, r); err != nil {
		t.Fatal(err)
	}
	return dir, readFiles(t, dir)
}

func readFiles(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	all, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range all {
		files[f.Name()], err = os.ReadFile(filepath.Join(dir, f.Name()))
		must(t, err)
	}
	return files
}

func writeFiles(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	return dir
}

// remade is a bundle with changed files, whose manifest was made to fit them, as
// somebody does who means to deceive.
func remade(t testing.TB, files map[string][]byte, change func(*Manifest)) map[string][]byte {
	t.Helper()
	m := new(Manifest)
	must(t, json.Unmarshal(files[manifestFile], m))
	m.Files = nil
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != manifestFile {
			m.Files = append(m.Files, File{name, int64(len(files[name])), sum(files[name])})
		}
	}
	if change != nil {
		change(m)
	}
	b, err := m.octets()
	must(t, err)
	files[manifestFile] = b
	return files
}

// lines are those of events.jsonl, changed by a function.
func changedLines(files map[string][]byte, change func([][]byte) [][]byte) {
	lines := bytes.SplitAfter(files[eventsFile], []byte("\n"))
	files[eventsFile] = bytes.Join(change(lines[:len(lines)-1]), nil)
}

// refused checks that a bundle is refused, and why.
func refused(t *testing.T, path string, trust *Trust, because string) {
	t.Helper()
	_, err := Verify(path, trust)
	var fault *Fault
	if !errors.As(err, &fault) || !strings.Contains(err.Error(), because) {
		t.Errorf("%v; it should be because of %q", err, because)
	}
}

// bundle is one with everything in it: a period in the middle of the log, older
// checkpoints, a record that was pruned.
func bundle(t *testing.T) (l *fakeLog, c *cast, r *Request) {
	t.Helper()
	l, c = story(t, 4)
	pruned := l.entries[200]
	event, err := parseEvent(pruned)
	must(t, err)
	l.entries[200] = &logcopy.Entry{Seq: pruned.Seq, Leaf: pruned.Leaf}
	later := begin.AddDate(0, 2, 0)
	l.append(broker.Event{Type: broker.EventLogPruned, Time: later, Actor: broker.Actor{Kind: "system", Name: "node-a"}, Data: broker.LogPruned{
		Days: 30, Before: later.AddDate(0, 0, -30), Count: 1, Spans: []broker.PrunedSpan{{First: 200, Last: 200, Since: event.Time, Until: event.Time}},
	}})
	for range 12 {
		l.append(broker.Event{Type: broker.EventAuthFailed, Time: later, Actor: broker.Actor{Kind: "stranger"}, Data: broker.AuthFailed{Protocol: broker.ProtocolIMAP}})
	}
	r = l.request()
	r.Names = c.names
	r.From, r.Until = begin.AddDate(0, 0, 1), begin.AddDate(0, 0, 3)
	r.Older = [][]byte{l.sign(l.at(3)), l.sign(l.at(150))}
	return l, c, r
}

func TestBundle(t *testing.T) {
	l, c, r := bundle(t)
	dir, files := made(t, r)
	v, err := Verify(dir, &Trust{Keys: l.trusted(), Postern: r.Postern, Checkpoints: []*translog.Checkpoint{l.at(3), l.at(160), l.at(int64(len(l.entries)))}})
	if err != nil {
		t.Fatal(err)
	}
	m := v.Manifest
	if !v.Trusted || v.Unrendered != "" || len(v.Older) != 3 || m.First == 0 || m.Last == m.Size-1 || m.Pruned != 1 || m.Withheld != 0 || m.Disclosed != m.Last-m.First {
		t.Errorf("found %+v of %+v", v, m)
	}
	// One entry before the margin and one after it show that the period is whole.
	for seq, outside := range map[int64]bool{m.First: true, m.First + 1: false, m.Last - 1: false, m.Last: true} {
		event, err := parseEvent(l.entries[seq])
		must(t, err)
		if is := event.Time.Before(r.From.Add(-Margin)) || !event.Time.Before(r.Until.Add(Margin)); is != outside {
			t.Errorf("event %d of %v: outside is %v", seq, event.Time, is)
		}
	}
	// The proof of a thousand events in a row is small.
	if n := len(files[proofFile]); n > 6000 {
		t.Errorf("proof.json has %d octets", n)
	}
	if v, err = Verify(dir, &Trust{Postern: r.Postern, Manifest: strings.ToUpper(sum(files[manifestFile]))}); err != nil || v.Trusted || !slices.Equal(v.KeyLines, l.keys) {
		t.Errorf("without a key: %+v %v", v, err)
	}
	// Another version's report is not compared, and that is said.
	changed := maps.Clone(files)
	changed[reportFile] = []byte("<p>another version's words</p>")
	if v, err = Verify(writeFiles(t, remade(t, changed, nil)), &Trust{Postern: "v9"}); err != nil || !strings.Contains(v.Unrendered, "v1.2.3") {
		t.Errorf("another version's: %+v %v", v, err)
	}

	r.Narrowed = &Narrowing{AgentID: c.agents[2]}
	narrow := filepath.Join(t.TempDir(), "narrow.zip")
	told, err := Make(context.Background(), narrow, r)
	must(t, err)
	v, err = Verify(narrow, &Trust{Keys: l.trusted(), Postern: r.Postern})
	must(t, err)
	if v.ManifestSHA256 != told.ManifestSHA256 || v.Manifest.Withheld == 0 || v.Manifest.Disclosed == 0 ||
		v.Manifest.Withheld+v.Manifest.Disclosed+v.Manifest.Pruned != v.Manifest.Last-v.Manifest.First+1 {
		t.Errorf("narrowed: %+v", v.Manifest)
	}
	archive, err := zip.OpenReader(narrow)
	must(t, err)
	defer archive.Close()
	for _, file := range archive.File {
		f, err := file.Open()
		must(t, err)
		content, err := io.ReadAll(f)
		must(t, err)
		// Of others nothing is there but hashes.
		for _, id := range []broker.ID{c.agents[0], c.agents[1], c.machines[3]} {
			if bytes.Contains(content, []byte(id)) || file.Name != keysFile && bytes.Contains(content, []byte(`"`+c.names[id]+`"`)) {
				t.Errorf("%s tells of %s", file.Name, c.names[id])
			}
		}
	}
}

// Whoever changes anything of a bundle, and makes the manifest fit, is found, and
// each for his own reason.
func TestNever6BundleThatWasChanged(t *testing.T) {
	l, c, r := bundle(t)
	_, files := made(t, r)
	trust := &Trust{Keys: l.trusted(), Postern: r.Postern}
	other := newFakeLog(t)
	other.origin = l.origin
	other.signers, other.keys = nil, nil
	other.addKey() // a thief's key of the same name
	for name, x := range map[string]struct {
		change  func(files map[string][]byte)
		fit     func(*Manifest)
		because string
	}{
		"an event edited": {change: func(f map[string][]byte) {
			f[eventsFile] = bytes.Replace(f[eventsFile], []byte(`"outcome":"accepted"`), []byte(`"outcome":"refused!"`), 1)
		}, because: "is not what its leaf hash covers"},
		"an event made up, with its hash": {change: func(f map[string][]byte) {
			changedLines(f, func(lines [][]byte) [][]byte {
				e := new(logcopy.Entry)
				must(t, json.Unmarshal(lines[7], e))
				e.Record = bytes.Replace(e.Record, []byte("asha"), []byte("ravi"), 1)
				e.Record = bytes.Replace(e.Record, []byte("meera"), []byte("ravi"), 1)
				salt, err := hex.DecodeString(e.Salt)
				must(t, err)
				leaf := tlog.RecordHash(append(salt, e.Record...))
				e.Leaf = hex.EncodeToString(leaf[:])
				lines[7] = e.AppendLine(nil)
				return lines
			})
		}, because: "are not those of the log's checkpoint"},
		"an event dropped": {change: func(f map[string][]byte) {
			changedLines(f, func(lines [][]byte) [][]byte { return slices.Delete(lines, 5, 6) })
		}, because: "stands in the place of event"},
		"the last event dropped": {change: func(f map[string][]byte) {
			changedLines(f, func(lines [][]byte) [][]byte { return lines[:len(lines)-1] })
		}, because: "are missing"},
		"the last event dropped, and the manifest shortened": {change: func(f map[string][]byte) {
			changedLines(f, func(lines [][]byte) [][]byte { return lines[:len(lines)-1] })
		}, fit: func(m *Manifest) { m.Last--; m.Disclosed-- }, because: "does not fit its place"},
		"the first event dropped, and the manifest shortened": {change: func(f map[string][]byte) {
			changedLines(f, func(lines [][]byte) [][]byte { return lines[1:] })
		}, fit: func(m *Manifest) { m.First++; m.Disclosed-- }, because: "the proof is not of leaves that begin there"},
		"events reordered": {change: func(f map[string][]byte) {
			changedLines(f, func(lines [][]byte) [][]byte { lines[3], lines[4] = lines[4], lines[3]; return lines })
		}, because: "stands in the place of event"},
		"an event twice": {change: func(f map[string][]byte) {
			changedLines(f, func(lines [][]byte) [][]byte { return slices.Insert(lines, 3, lines[3]) })
		}, because: "stands in the place of event"},
		"an event after the last": {change: func(f map[string][]byte) {
			next := l.entries[int64(bytes.Count(f[eventsFile], []byte("\n")))+firstOf(t, f)]
			f[eventsFile] = next.AppendLine(f[eventsFile])
		}, because: "more events than the manifest tells of"},
		"words beside an event": {change: func(f map[string][]byte) {
			changedLines(f, func(lines [][]byte) [][]byte {
				lines[2] = bytes.Replace(lines[2], []byte(`{"seq"`), []byte(`{"note":"proved by Postern","seq"`), 1)
				return lines
			})
		}, because: "is not in the form in which Postern writes it"},
		"a record before the proved one": {change: func(f map[string][]byte) {
			changedLines(f, func(lines [][]byte) [][]byte {
				lines[2] = bytes.Replace(lines[2], []byte(`"record":`), []byte(`"record":{"type":"send.result"},"record":`), 1)
				return lines
			})
		}, because: "is not in the form in which Postern writes it"},
		"an event hidden behind its hash": {change: func(f map[string][]byte) {
			changedLines(f, func(lines [][]byte) [][]byte {
				e := new(logcopy.Entry)
				must(t, json.Unmarshal(lines[9], e))
				lines[9] = (&logcopy.Entry{Seq: e.Seq, Leaf: e.Leaf}).AppendLine(nil)
				return lines
			})
		}, because: "the manifest tells of"},
		"an event hidden, and said to be pruned": {change: func(f map[string][]byte) {
			changedLines(f, func(lines [][]byte) [][]byte {
				e := new(logcopy.Entry)
				must(t, json.Unmarshal(lines[9], e))
				lines[9] = (&logcopy.Entry{Seq: e.Seq, Leaf: e.Leaf}).AppendLine(nil)
				return lines
			})
		}, fit: func(m *Manifest) { m.Pruned++; m.Disclosed-- }, because: "does not say what the events say"},
		"events moved to other places": {fit: func(m *Manifest) { m.First++; m.Last++ }, because: ""},
		"narrowed by the manifest alone": {
			fit: func(m *Manifest) { m.Narrowed = &Narrowing{MailboxID: c.mailboxes[1]} }, because: "is not among those to which the bundle was narrowed",
		},
		"a report that says more": {change: func(f map[string][]byte) {
			f[reportFile] = bytes.Replace(f[reportFile], []byte("asha"), []byte("ravi"), 1)
		}, because: "report.html does not say what the events say"},
		"a certificate that says more": {change: func(f map[string][]byte) {
			f[certificateFile] = bytes.Replace(f[certificateFile], []byte("☐ owned"), []byte("☒ owned"), 1)
		}, because: "certificate.html does not say what the events say"},
		"a name changed":                  {fit: func(m *Manifest) { m.Names[c.mailboxes[0]] = "innocent@acme.example" }, because: "does not say what the events say"},
		"the period stretched":            {fit: func(m *Manifest) { m.From = m.From.AddDate(0, 0, -1) }, because: "there may be more events of the period"},
		"the period stretched at its end": {fit: func(m *Manifest) { m.Until = m.Until.AddDate(0, 0, 1) }, because: "there may be more events of the period"},
		"a period without a beginning":    {fit: func(m *Manifest) { m.From = time.Time{} }, because: "the period has no beginning or no end"},
		"a period without an end":         {fit: func(m *Manifest) { m.Until = time.Time{} }, because: "the period has no beginning or no end"},
		"another maker":                   {fit: func(m *Manifest) { m.Maker = "judge" }, because: "does not say what the events say"},
		"a checkpoint with a thief's signature": {change: func(f map[string][]byte) {
			f[checkpointFile] = other.sign(l.at(int64(len(l.entries))))
			f[keysFile] = []byte(other.keys[0] + "\n")
		}, because: "signed by none of the keys"},
		"a forked checkpoint that the key signed": {change: func(f map[string][]byte) {
			fork := l.at(int64(len(l.entries)))
			fork.Root[3] ^= 1
			f[checkpointFile] = l.sign(fork)
		}, because: "the log was forked"},
		"a forked older checkpoint that the key signed": {change: func(f map[string][]byte) {
			fork := l.at(150)
			fork.Root[3] ^= 1
			f[olderFile(150)] = l.sign(fork)
		}, because: "does not follow from that of 150"},
		"an older checkpoint in the place of the newer": {change: func(f map[string][]byte) {
			f[checkpointFile] = l.sign(l.at(150))
		}, because: "checkpoint.txt is of 150 events"},
		"an older checkpoint removed":             {change: func(f map[string][]byte) { delete(f, olderFile(3)) }, because: "proof.json is about checkpoint-3.txt"},
		"an older checkpoint that nothing proves": {change: func(f map[string][]byte) { f[olderFile(7)] = l.sign(l.at(7)) }, because: "proof.json proves nothing of checkpoint-7.txt"},
		"an older checkpoint of another size":     {change: func(f map[string][]byte) { f[olderFile(3)] = l.sign(l.at(4)) }, because: "checkpoint-3.txt is not the checkpoint that belongs there"},
		"a hash of the proof":                     {change: func(f map[string][]byte) { changeProof(t, f, func(p *proof) { p.After[0][0] ^= 1 }) }, because: "are not those of the log's checkpoint"},
		"a hash before":                           {change: func(f map[string][]byte) { changeProof(t, f, func(p *proof) { p.Before[0][0] ^= 1 }) }, because: "are not those of the log's checkpoint"},
		"one hash more": {change: func(f map[string][]byte) {
			changeProof(t, f, func(p *proof) { p.Before = append(p.Before, tlog.Hash{}) })
		}, because: "begin there"},
		"words in the proof":                     {change: func(f map[string][]byte) { f[proofFile] = append(f[proofFile], "{}"...) }, because: "proof.json cannot be read"},
		"no keys":                                {change: func(f map[string][]byte) { f[keysFile] = nil }, because: "keys.txt"},
		"no report":                              {change: func(f map[string][]byte) { delete(f, reportFile) }, because: "does not name report.html"},
		"another format":                         {fit: func(m *Manifest) { m.Format++ }, because: "the bundle's format is 2"},
		"counts that cannot be":                  {fit: func(m *Manifest) { m.Withheld = 3 }, because: "counts cannot be true"},
		"entries without an end":                 {fit: func(m *Manifest) { m.Last, m.Size = 1<<60, 1<<60+1 }, because: "the manifest tells of entries"},
		"a path out of the bundle":               {fit: func(m *Manifest) { m.Files[0].Name = "../../etc/passwd" }, because: `names "../../etc/passwd"`},
		"a file named twice":                     {fit: func(m *Manifest) { m.Files = append(m.Files, m.Files[0]) }, because: "which does not belong there"},
		"a file that the manifest does not know": {fit: func(m *Manifest) { m.Files = m.Files[1:] }, because: "the manifest does not name certificate.html"},
		"a file that is not there":               {fit: func(m *Manifest) { m.Files = append(m.Files, File{olderFile(9), 1, sum(nil)}) }, because: "checkpoint-9.txt is missing"},
		"another log's name":                     {fit: func(m *Manifest) { m.Origin = other.origin.String() + "0" }, because: "checkpoint.txt is of"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := maps.Clone(files)
			for name, content := range changed {
				changed[name] = slices.Clone(content)
			}
			if x.change != nil {
				x.change(changed)
			}
			refused(t, writeFiles(t, remade(t, changed, x.fit)), trust, x.because)
		})
	}
	dir := writeFiles(t, files)
	if _, err := Verify(dir, trust); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	wrong := *trust
	wrong.Keys = other.trusted()
	refused(t, dir, &wrong, "signed by none of the keys")
	wrong = *trust
	wrong.Manifest = sum([]byte("another"))
	refused(t, dir, &wrong, "another than that of which the SHA-256 was given")
	fork := l.at(160)
	fork.Root[0] ^= 1
	for because, held := range map[string]*translog.Checkpoint{
		"its first 160 events are not those of the checkpoint that was given": fork,
		"cannot be held against the checkpoint of 20 events":                  l.at(20),
		"is of another log": other.foreign(),
	} {
		wrong = *trust
		wrong.Checkpoints = []*translog.Checkpoint{held}
		refused(t, dir, &wrong, because)
	}
}

func (l *fakeLog) foreign() *translog.Checkpoint {
	return &translog.Checkpoint{Origin: translog.Origin{FirmID: broker.NewID(), Epoch: broker.NewID()}, Size: 3}
}

func firstOf(t testing.TB, files map[string][]byte) int64 {
	t.Helper()
	m := new(Manifest)
	must(t, json.Unmarshal(files[manifestFile], m))
	return m.First
}

func changeProof(t testing.TB, files map[string][]byte, change func(*proof)) {
	t.Helper()
	p := new(proof)
	must(t, json.Unmarshal(files[proofFile], p))
	change(p)
	b, err := json.Marshal(p)
	must(t, err)
	files[proofFile] = b
}

// Each octet of each file counts: of small files every one is tried, of the
// others many.
func TestNever6EachOctetOfABundle(t *testing.T) {
	l := newFakeLog(t)
	c := newCast(1, 1)
	c.session(l, 0, 0, begin)
	l.settle()
	r := l.request()
	r.Names, r.Zone, r.Narrowed = c.names, "Asia/Kolkata", &Narrowing{MailboxID: c.mailboxes[0]}
	r.From, r.Until = begin.Add(-time.Hour), begin.Add(time.Hour)
	r.Incident = &Incident{AlertID: broker.NewID(), Kind: broker.AlertDrift, Severity: broker.SeverityCritical, FirstSeen: begin, LastSeen: begin}
	dir, files := made(t, r)
	trust := &Trust{Keys: l.trusted(), Postern: r.Postern}
	for name, content := range files {
		path := filepath.Join(dir, name)
		step := max(1, len(content)/150)
		for i := 0; i < len(content); i += step {
			changed := slices.Clone(content)
			changed[i] ^= 1 << (i % 8)
			must(t, os.WriteFile(path, changed, 0o600))
			var fault *Fault
			v, err := Verify(dir, trust)
			if err == nil && v.Unrendered != "" && v.Manifest.Postern != r.Postern {
				continue // the version that made it: it is said that the report was not compared
			}
			if !errors.As(err, &fault) {
				t.Fatalf("octet %d of %s (%q): %v", i, name, changed[max(0, i-30):min(len(changed), i+20)], err)
			}
		}
		must(t, os.WriteFile(path, content[:len(content)-1], 0o600))
		if _, err := Verify(dir, trust); err == nil {
			t.Fatalf("%s was cut", name)
		}
		must(t, os.WriteFile(path, content, 0o600))
	}
	if _, err := Verify(dir, trust); err != nil {
		t.Error(err)
	}
}

// A bundle comes from somebody who may mean harm to who opens it.
func TestHostileFolders(t *testing.T) {
	l, _, r := bundle(t)
	dir, files := made(t, r)
	trust := &Trust{Keys: l.trusted(), Postern: r.Postern}
	beside := func(name string, put func(path string)) {
		t.Helper()
		put(filepath.Join(dir, name))
		refused(t, dir, trust, name)
		must(t, os.RemoveAll(filepath.Join(dir, name)))
	}
	beside("notes.txt", func(path string) { must(t, os.WriteFile(path, nil, 0o600)) })
	beside("checkpoint-0.txt", func(path string) { must(t, os.WriteFile(path, nil, 0o600)) })
	beside("checkpoint-5.txt", func(path string) { must(t, os.Mkdir(path, 0o700)) })
	beside("checkpoint-6.txt", func(path string) { must(t, os.Symlink("/etc/passwd", path)) })
	target := filepath.Join(t.TempDir(), "report.html")
	must(t, os.Rename(filepath.Join(dir, reportFile), target))
	must(t, os.Symlink(target, filepath.Join(dir, reportFile)))
	refused(t, dir, trust, `"report.html" is no plain file`)

	archive := func(write func(*zip.Writer)) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "bundle.zip")
		f, err := os.Create(path)
		must(t, err)
		w := zip.NewWriter(f)
		write(w)
		must(t, errors.Join(w.Close(), f.Close()))
		return path
	}
	add := func(w *zip.Writer, header *zip.FileHeader, content []byte) {
		t.Helper()
		out, err := w.CreateHeader(header)
		must(t, err)
		_, err = out.Write(content)
		must(t, err)
	}
	all := func(w *zip.Writer) {
		for name, content := range files {
			add(w, &zip.FileHeader{Name: name, Method: zip.Deflate}, content)
		}
	}
	if _, err := Verify(archive(all), trust); err != nil {
		t.Errorf("as it is: %v", err)
	}
	link := &zip.FileHeader{Name: olderFile(9)}
	link.SetMode(os.ModeSymlink | 0o777)
	zeros := make([]byte, 12<<20)
	for because, path := range map[string]string{
		`"../report.html"`:           archive(func(w *zip.Writer) { all(w); add(w, &zip.FileHeader{Name: "../report.html"}, nil) }),
		`"/report.html"`:             archive(func(w *zip.Writer) { add(w, &zip.FileHeader{Name: "/report.html"}, nil) }),
		`"sub/report.html"`:          archive(func(w *zip.Writer) { add(w, &zip.FileHeader{Name: "sub/report.html"}, nil) }),
		"report.html is there twice": archive(func(w *zip.Writer) { all(w); add(w, &zip.FileHeader{Name: reportFile}, nil) }),
		"is no plain file":           archive(func(w *zip.Writer) { all(w); add(w, link, []byte("/etc/passwd")) }),
		"would unpack to":            archive(func(w *zip.Writer) { add(w, &zip.FileHeader{Name: eventsFile, Method: zip.Deflate}, zeros) }),
		"octets, and 8388608 at most make sense": archive(func(w *zip.Writer) {
			add(w, &zip.FileHeader{Name: manifestFile, Method: zip.Deflate}, zeros)
		}),
		"manifest.json is missing": archive(func(*zip.Writer) {}),
		"neither a directory nor":  writeFile(t, []byte("nonsense")),
	} {
		refused(t, path, trust, because)
	}
	// An archive that breaks off, at any length.
	whole, err := os.ReadFile(archive(all))
	must(t, err)
	for _, n := range []int{1, len(whole) / 3, len(whole) - 30, len(whole) - 1} {
		refused(t, writeFile(t, whole[:n]), trust, "")
	}
}

func writeFile(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle.zip")
	must(t, os.WriteFile(path, content, 0o600))
	return path
}

// liar is a server that does not have what its checkpoint says.
type liar struct {
	*fakeLog
	entry func(*logcopy.Entry) *logcopy.Entry
}

func (l *liar) Entries(ctx context.Context, first int64) ([]*logcopy.Entry, error) {
	some, err := l.fakeLog.Entries(ctx, first)
	some = slices.Clone(some)
	for i := range some {
		some[i] = l.entry(some[i])
	}
	return some, err
}

func (l *liar) Entry(ctx context.Context, seq int64) (*logcopy.Entry, error) {
	e, err := l.fakeLog.Entry(ctx, seq)
	return l.entry(e), err
}

// The maker believes no server: what is not its log's is no evidence, and nothing
// is left behind.
func TestMakingFromALiar(t *testing.T) {
	honest, _, r := bundle(t)
	// changed has the time of some events be another, with a hash that fits.
	changed := func(which func(seq int64) bool, by time.Duration) func(*logcopy.Entry) *logcopy.Entry {
		return func(e *logcopy.Entry) *logcopy.Entry {
			if e.Pruned() || !which(e.Seq) {
				return e
			}
			var fields map[string]any
			must(t, json.Unmarshal(e.Record, &fields))
			at, err := time.Parse(time.RFC3339Nano, fields["time"].(string))
			must(t, err)
			fields["time"] = at.Add(by)
			record, err := json.Marshal(fields)
			must(t, err)
			salt, err := hex.DecodeString(e.Salt)
			must(t, err)
			leaf := tlog.RecordHash(append(salt, record...))
			return &logcopy.Entry{Seq: e.Seq, Record: record, Salt: e.Salt, Leaf: hex.EncodeToString(leaf[:])}
		}
	}
	for because, source := range map[string]Source{
		"are not those of the log's checkpoint": &liar{honest, changed(func(seq int64) bool { return seq == 140 }, time.Second)},
		"does not fit its place":                &twoFaced{honest},
		"is not what its leaf hash covers": &liar{honest, func(e *logcopy.Entry) *logcopy.Entry {
			other := *e
			other.Leaf = strings.Repeat("00", 32)
			return &other
		}},
	} {
		dir := t.TempDir()
		request := *r
		request.Source = source
		_, err := Make(context.Background(), filepath.Join(dir, "bundle"), &request)
		var fault *Fault
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), because) {
			t.Errorf("%v; it should be because of %q", err, because)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
	request := *r
	fork := honest.at(150)
	fork.Root[0] ^= 1
	request.Older = [][]byte{honest.sign(fork)}
	if _, err := Make(context.Background(), filepath.Join(t.TempDir(), "bundle"), &request); err == nil || !strings.Contains(err.Error(), "the log was forked") {
		t.Errorf("an older checkpoint of a fork: %v", err)
	}
	honest.size = 100
	request.Older = [][]byte{honest.sign(honest.at(150))}
	if _, err := Make(context.Background(), filepath.Join(t.TempDir(), "bundle"), &request); err == nil || !strings.Contains(err.Error(), "rolled back") {
		t.Errorf("an older checkpoint that is newer: %v", err)
	}
	honest.size = 0
	request = *r
	thief := newFakeLog(t)
	request.KeyLines = thief.keys
	var unknown *translog.UnknownKeyError
	if _, err := Make(context.Background(), filepath.Join(t.TempDir(), "bundle"), &request); !errors.As(err, &unknown) {
		t.Errorf("another's key: %v", err)
	}
}

// twoFaced tells whoever looks for a period of later events, so as to have the
// first of it left out.
type twoFaced struct{ *fakeLog }

func (l *twoFaced) Entry(ctx context.Context, seq int64) (*logcopy.Entry, error) {
	e, err := l.fakeLog.Entry(ctx, max(0, seq-30))
	if err != nil {
		return nil, err
	}
	if e.Pruned() {
		e = l.entries[e.Seq+1]
	}
	record := bytes.Replace(e.Record, fmt.Appendf(nil, `"seq":%d,`, e.Seq), fmt.Appendf(nil, `"seq":%d,`, seq), 1)
	leaf := tlog.RecordHash(append(make([]byte, translog.SaltSize), record...))
	return &logcopy.Entry{Seq: seq, Record: record, Salt: strings.Repeat("00", translog.SaltSize), Leaf: hex.EncodeToString(leaf[:])}, err
}

// TestNever6RetentionOfABundle: a bundle that reaches the log's end holds what the
// log says was pruned, and takes for pruned nothing else.
func TestNever6RetentionOfABundle(t *testing.T) {
	l, _, r := bundle(t)
	r.From, r.Until = time.Time{}, time.Time{}
	dir, files := made(t, r)
	v, err := Verify(dir, &Trust{Keys: l.trusted(), Postern: r.Postern})
	must(t, err)
	if v.Manifest.Pruned != 1 || !bytes.Contains(files[reportFile], []byte("Of 1 event the record was pruned")) {
		t.Errorf("%d are pruned", v.Manifest.Pruned)
	}
	taken := l.entries[300]
	l.entries[300] = &logcopy.Entry{Seq: taken.Seq, Leaf: taken.Leaf}
	_, err = Make(context.Background(), filepath.Join(t.TempDir(), "x"), r)
	var fault *Fault
	if !errors.As(err, &fault) || !strings.Contains(err.Error(), "event 300") {
		t.Errorf("a record that was taken away: %v", err)
	}
}
