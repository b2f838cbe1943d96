// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/evidence"
	"github.com/postern-mail/postern/test/servers"
)

// TestEvidenceOfRealSessions: agents read, copy a folder in bulk, send, are
// refused and set off an alert, through Dovecot and Postfix. The firm makes a
// bundle of it over the API; when the server is gone, the binary alone verifies
// it in another directory.
func TestEvidenceOfRealSessions(t *testing.T) {
	w := NewWorld(t, WorldOptions{Mailboxes: []string{sales, support}, Sealed: true, Postern: Options{Config: "sentinel:\n  off: true\n"}})
	s := w.Seat(sales, "list", "headers", "read", "flag", "file", "send")
	const hostile = "ignore-this\u202Etxt.<script>alert(1)</script>"
	for i := range 14 {
		w.Dovecot.Deliver(sales, "", []byte(message("buyer@market.example", sales, fmt.Sprintf("order %d", i), "twelve pumps")))
	}
	w.Dovecot.Deliver(sales, "", []byte(message("buyer@market.example", sales, hostile, "pumps")))

	imap := s.IMAP(t)
	imap.OK("SELECT INBOX")
	imap.OK("FETCH 1 (BODY[])")
	imap.OK(`STORE 1 +FLAGS (\Flagged)`)
	if _, answer := imap.Cmd("CREATE Elsewhere"); !strings.HasPrefix(answer, "NO [NOPERM]") {
		t.Fatalf("a command that was not granted: %s", answer)
	}
	imap.OK("LOGOUT")
	bulk := s.IMAP(t)
	bulk.OK("SELECT INBOX")
	bulk.OK("FETCH 1:* (BODY[])")
	bulk.OK("LOGOUT")
	smtp := s.Submission(t)
	smtp.Ask(250, "MAIL FROM:<%s>", sales)
	smtp.Ask(250, "RCPT TO:<%s>", support)
	smtp.Ask(354, "DATA")
	smtp.Send(message(sales, support, "an answer", "by courier") + ".\r\n")
	smtp.Want(250)
	smtp.Ask(221, "QUIT")
	w.Dovecot.SetPassword(sales, "changed-behind-their-backs")
	late := s.DialIMAP(t)
	if _, answer := late.Cmd("LOGIN %s %s", sales, s.Token); !strings.HasPrefix(answer, "NO ") {
		t.Fatalf("a login with the old password: %s", answer)
	}
	late.Close()
	s.AwaitEvents(1, broker.EventDrift)
	s.AwaitEvents(3, broker.EventSessionEnd)
	alert := w.Postern.Events(FirmName, "--type", string(broker.EventAlertRaised))
	if len(alert) != 1 {
		t.Fatalf("%d alerts", len(alert))
	}

	p := w.Postern
	dir := t.TempDir()
	keys := filepath.Join(dir, "acme.keys")
	p.write(keys, p.CLI("log", "key", "--firm", FirmName))
	size := int64(len(p.Events(FirmName)))
	whole, incident, other := filepath.Join(dir, "whole.zip"), filepath.Join(dir, "incident"), filepath.Join(dir, "nobody.zip")
	// The checkpoint follows the events within a second.
	servers.WaitFor(t, eventTimeout, func() bool {
		made := decodeEvidence(t, p.CLI("--json", "evidence", "make", "--firm", FirmName, "--keys", keys, "-o", whole))
		if made.Manifest.Size < size {
			check(t, os.Remove(whole))
			return false
		}
		return true
	}, "a checkpoint of all events")
	p.CLI("evidence", "make", "--alert", string(Decode[broker.AlertRaised](t, alert[0]).AlertID), "--keys", keys, "--zone", "Asia/Kolkata", "-o", incident)
	second := w.Seat(support)
	p.CLI("evidence", "make", "--firm", FirmName, "--agent", second.Agent, "--keys", keys, "-o", other)
	recorded := p.Events(FirmName, "--type", string(broker.EventEvidenceMade))
	if len(recorded) < 3 {
		t.Errorf("%d bundles on record", len(recorded))
	}
	p.Stop()

	elsewhere := t.TempDir()
	verify := func(args ...string) (string, error) {
		cmd := exec.Command(p.Bin, append([]string{"evidence", "verify"}, args...)...)
		cmd.Dir, cmd.Env = elsewhere, []string{"HOME=" + elsewhere}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, bundle := range []string{whole, incident, other} {
		out, err := verify(bundle, "--keys", keys)
		if err != nil || !strings.HasPrefix(out, "GOOD: ") || !strings.Contains(out, "what the events make") {
			t.Errorf("%s: %v\n%s", bundle, err, out)
		}
	}
	if out, err := verify(incident); err != nil || strings.Contains(out, "GOOD") || !strings.Contains(out, "THAT IS NO PROOF") {
		t.Errorf("without a key: %v\n%s", err, out)
	}
	// Every file matters, whichever octet of it is changed.
	files, err := filepath.Glob(filepath.Join(incident, "*"))
	if err != nil || len(files) < 7 {
		t.Fatalf("%v: %q", err, files)
	}
	for _, path := range files {
		content := readFile(t, path)
		content[len(content)/2] ^= 1
		check(t, os.WriteFile(path, content, 0o600))
		if out, err := verify(incident, "--keys", keys); err == nil || !strings.Contains(out, "NOT GOOD") {
			t.Errorf("a changed %s: %v\n%s", filepath.Base(path), err, out)
		}
		content[len(content)/2] ^= 1
		check(t, os.WriteFile(path, content, 0o600))
	}
	if out, err := verify(incident, "--keys", keys); err != nil {
		t.Errorf("the bundle as it was: %v\n%s", err, out)
	}

	report := string(readFile(t, filepath.Join(incident, "report.html")))
	for _, wanted := range []string{s.Agent, sales, "in bulk", "the mail server refused the mailbox", "Refused the command CREATE", "Asia/Kolkata", "⟨U+202E⟩"} {
		if !strings.Contains(report, wanted) {
			t.Errorf("the report does not tell of %q", wanted)
		}
	}
	if strings.Contains(report, "<script") || strings.Contains(report, "\u202E") {
		t.Error("what a stranger wrote is in the report as it is")
	}
	out, err := verify(other, "--keys", keys, "--json")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	checkPages(t, incident)
	narrowed := decodeEvidence(t, out)
	if m := narrowed.Manifest; m.Withheld == 0 || m.Narrowed == nil || m.Narrowed.AgentID != second.AgentID {
		t.Errorf("narrowed: %+v", m)
	}
	w.CheckNothingLeaked()
}

// evidenceMade is what the command line says of a bundle in JSON.
type evidenceMade struct {
	Manifest       evidence.Manifest `json:"manifest"`
	ManifestSHA256 string            `json:"manifest_sha256"`
}

func decodeEvidence(t testing.TB, text string) *evidenceMade {
	t.Helper()
	made := new(evidenceMade)
	check(t, json.Unmarshal([]byte(text), made))
	return made
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// checkPages has a browser show and print what people are given of a bundle: the
// pages are there, nothing runs out over their edges, and they fit A4.
func checkPages(t *testing.T, bundle string) {
	t.Helper()
	c := servers.FindChromium(t)
	for page, least := range map[string]int{"report": 3, "certificate": 4} {
		const width, height = 1000, 2400
		file := filepath.Join(bundle, page+".html")
		shot := c.Screenshot(page, file, width, height)
		if b := shot.Bounds(); b.Dx() != width || b.Dy() != height {
			t.Fatalf("%s is shown as %v", page, b)
		}
		dark, outside := 0, 0
		for y := range height {
			for x := range width {
				r, g, b, _ := shot.At(x, y).RGBA()
				if r+g+b > 3*0xA000 {
					continue
				}
				dark++
				if x < 100 || x >= width-100 {
					outside++
				}
			}
		}
		// A page of text is some percent dark; what is 190 mm wide leaves the
		// window's sides white.
		if dark < width*height/200 || outside > 0 {
			t.Errorf("%s: %d dark points, %d of them beside the page", page, dark, outside)
		}
		pages, w, h := c.Print(page, file)
		if pages < least || !strings.HasPrefix(w, "594.9") || !strings.HasPrefix(h, "841.9") {
			t.Errorf("%s is printed on %d pages of %s × %s points", page, pages, w, h)
		}
	}
}
