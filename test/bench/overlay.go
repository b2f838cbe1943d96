// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// overlaySource is added to package main of cmd/postern in binaries of the
// bench alone, and never lies among Postern's sources.
//
//go:embed overlay/bench.go.txt
var overlaySource []byte

// The one line of cmd/postern that is changed in them: sessions record in
// what benchLog returns.
const (
	overlaidFile = "cmd/postern/server_open.go"
	recordsLine  = "		Log:         s.log,\n"
	benchLine    = "		Log:         benchLog(s.log),\n"
)

// buildInstrumented builds a postern that can be profiled, and can be told to
// record nothing.
func buildInstrumented(h *harness) string {
	h.Helper()
	dir := h.TempDir()
	added, changed := filepath.Join(dir, "bench.go"), filepath.Join(dir, "changed.go")
	source, err := os.ReadFile(overlaidFile)
	if err != nil {
		h.Fatalf("run this from the module's root: %v", err)
	}
	if strings.Count(string(source), recordsLine) != 1 {
		h.Fatalf("%s no longer has the line that the bench replaces: %q", overlaidFile, recordsLine)
	}
	root, err := os.Getwd()
	if err != nil {
		h.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(root, "cmd/postern/bench_overlay.go"): added,
		filepath.Join(root, overlaidFile):                   changed,
	}})
	if err != nil {
		h.Fatal(err)
	}
	for path, content := range map[string][]byte{
		added:                              overlaySource,
		changed:                            []byte(strings.Replace(string(source), recordsLine, benchLine, 1)),
		filepath.Join(dir, "overlay.json"): overlay,
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			h.Fatal(err)
		}
	}
	bin := filepath.Join(dir, "postern")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-overlay", filepath.Join(dir, "overlay.json"), "-o", bin, "./cmd/postern")
	if out, err := cmd.CombinedOutput(); err != nil {
		h.Fatalf("go build -overlay: %v\n%s", err, out)
	}
	return bin
}
