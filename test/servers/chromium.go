// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// chromiumTimeout is for one page. A browser starts slowly on a busy machine.
const chromiumTimeout = 4 * time.Minute

// Chromium is a browser without a window, which reaches nothing but files.
type Chromium struct {
	t       testing.TB
	program string
}

// FindChromium returns the browser.
func FindChromium(t testing.TB) *Chromium {
	t.Helper()
	NeedPrograms(t, map[string]string{"chromium-headless-shell": "chromium-headless-shell"})
	program, err := findProgram("chromium-headless-shell")
	if err != nil {
		t.Fatal(err)
	}
	return &Chromium{t, program}
}

// Screenshot returns what of a file a window of this size shows. Where
// POSTERN_SCREENSHOTS names a directory, it is kept there under a name.
func (c *Chromium) Screenshot(name, file string, width, height int) image.Image {
	c.t.Helper()
	b := c.run(name+".png", file, "--hide-scrollbars", fmt.Sprintf("--window-size=%d,%d", width, height), "--screenshot=%s")
	shot, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		c.t.Fatalf("the screenshot of %s: %v", file, err)
	}
	return shot
}

var pdfPage = regexp.MustCompile(`/MediaBox \[0 0 ([0-9.]+) ([0-9.]+)\]`)

// Print returns how many pages a file has when it is printed, and the first
// one's measures in points as the PDF has them.
func (c *Chromium) Print(name, file string) (pages int, width, height string) {
	c.t.Helper()
	b := c.run(name+".pdf", file, "--no-pdf-header-footer", "--print-to-pdf=%s")
	if !bytes.HasPrefix(b, []byte("%PDF-")) {
		c.t.Fatalf("%s was not printed to a PDF", file)
	}
	found := pdfPage.FindAllSubmatch(b, -1)
	if len(found) == 0 {
		return 0, "", ""
	}
	return len(found), string(found[0][1]), string(found[0][2])
}

// run has the browser write one file, whose path takes the place of %s in the
// last of the arguments.
func (c *Chromium) run(name, file string, args ...string) []byte {
	c.t.Helper()
	dir := TempDir(c.t)
	out := filepath.Join(dir, name)
	last := len(args) - 1
	args[last] = fmt.Sprintf(args[last], out)
	args = append([]string{
		"--user-data-dir=" + filepath.Join(dir, "profile"), "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND",
	}, args...)
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // which root has no use of
	}
	ctx, cancel := context.WithTimeout(context.Background(), chromiumTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, append(args, (&url.URL{Scheme: "file", Path: file}).String())...)
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.WaitDelay = time.Second
	said, err := cmd.CombinedOutput()
	b, missing := os.ReadFile(out)
	if err != nil || missing != nil {
		c.t.Fatalf("chromium: %v %v\n%s", err, missing, said)
	}
	if keep := os.Getenv("POSTERN_SCREENSHOTS"); keep != "" {
		if err := os.WriteFile(filepath.Join(keep, name), b, 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
	return b
}
