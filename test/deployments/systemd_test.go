// SPDX-License-Identifier: Apache-2.0

package deployments

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// maxExposure is systemd's score of what a service could still do, 0 to 10.
// What is left is the network, of which a proxy is made.
const maxExposure = 1.5

// TestUnit: systemd understands every line of the unit, and finds it tight.
func TestUnit(t *testing.T) {
	unit := read(t, deployed("systemd", "postern.service"))
	const program = "/usr/local/bin/postern"
	if !strings.Contains(unit, "ExecStart="+program+" serve ") {
		t.Fatal("the unit does not start " + program)
	}
	// The program need not be installed here.
	path := filepath.Join(t.TempDir(), "postern.service")
	if err := os.WriteFile(path, []byte(strings.Replace(unit, program, "/bin/true", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v (package systemd)\n%s", err, out)
	}
	// Other units' faults are not Postern's.
	if strings.Contains(string(out), path) || strings.Contains(string(out), "postern.service") {
		t.Errorf("systemd does not understand the unit:\n%s", out)
	}
	out, err = exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	score := regexp.MustCompile(`exposure level for postern.service: ([0-9.]+)`).FindSubmatch(out)
	if score == nil {
		t.Fatalf("no score:\n%s", out)
	}
	if exposure, err := strconv.ParseFloat(string(score[1]), 64); err != nil || exposure > maxExposure {
		t.Errorf("exposure %s, want at most %v:\n%s", score[1], maxExposure, out)
	}
	handbook := read(t, deployed("README.md"))
	if !strings.Contains(handbook, "`systemd-analyze security postern`: "+string(score[1])) {
		t.Errorf("the handbook does not say %s", score[1])
	}
}
