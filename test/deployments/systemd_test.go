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
	exposure := exposureOf(t, "postern.service", "serve ")
	handbook := read(t, deployed("README.md"))
	if !strings.Contains(handbook, "`systemd-analyze security postern`: "+exposure) {
		t.Errorf("the handbook does not say %s", exposure)
	}
}

// TestRotatorUnit: the same of the rotator's.
func TestRotatorUnit(t *testing.T) { exposureOf(t, "postern-rotator.service", "rotator ") }

// TestWitnessUnit: the same of the witness's, which a person starts again after a
// refusal.
func TestWitnessUnit(t *testing.T) {
	exposureOf(t, "postern-witness.service", "log witness ")
	if unit := read(t, deployed("systemd", "postern-witness.service")); !strings.Contains(unit, "\nRestartPreventExitStatus=3\n") {
		t.Error("a witness that has refused is started again")
	}
}

// exposureOf returns systemd's score of a unit, which it must understand.
func exposureOf(t *testing.T, name, command string) string {
	t.Helper()
	path := verifyUnit(t, name, command)
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	score := regexp.MustCompile(`exposure level for ` + regexp.QuoteMeta(name) + `: ([0-9.]+)`).FindSubmatch(out)
	if score == nil {
		t.Fatalf("no score:\n%s", out)
	}
	if exposure, err := strconv.ParseFloat(string(score[1]), 64); err != nil || exposure > maxExposure {
		t.Errorf("exposure %s, want at most %v:\n%s", score[1], maxExposure, out)
	}
	return string(score[1])
}

// TestWorkstationUnit: systemd understands every line of the workstation's.
func TestWorkstationUnit(t *testing.T) {
	verifyUnit(t, "postern-workstation.service", "workstation connect", "--user")
}

// verifyUnit has systemd read a unit that runs a command of Postern's, and
// returns its path.
func verifyUnit(t *testing.T, name, command string, flags ...string) string {
	t.Helper()
	unit := read(t, deployed("systemd", name))
	const program = "/usr/local/bin/postern"
	if !strings.Contains(unit, "ExecStart="+program+" "+command) {
		t.Fatalf("the unit does not start %s %s", program, command)
	}
	// The program need not be installed here.
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(strings.Replace(unit, program, "/bin/true", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	verify := exec.Command("systemd-analyze", append(flags, "verify", "--man=no", path)...)
	verify.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir()) // a user's units have one
	out, err := verify.CombinedOutput()
	if err != nil {
		t.Fatalf("%v (package systemd)\n%s", err, out)
	}
	// Other units' faults are not Postern's.
	if strings.Contains(string(out), path) || strings.Contains(string(out), name) {
		t.Errorf("systemd does not understand the unit:\n%s", out)
	}
	return path
}
