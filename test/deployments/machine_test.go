// SPDX-License-Identifier: Apache-2.0

package deployments

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/test/servers"
)

// bootTimeout is for systemd to start, with nothing to do.
const bootTimeout = 30 * time.Second

// machine is a systemd in namespaces of its own: this machine's programs and
// network, and an operator's /etc, /run and /var/lib.
type machine struct {
	t   testing.TB
	pid int
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("namespaces take root")
	}
	script, err := filepath.Abs(filepath.Join("testdata", "machine.sh"))
	if err != nil {
		t.Fatal(err)
	}
	dir := servers.TempDir(t)
	log := filepath.Join(servers.TempDir(t), "systemd.log")
	child, err := servers.StartChild(log, nil, "unshare", "--fork", "--pid", "--kill-child", "--mount", "--cgroup", "--ipc", "--uts", script, dir)
	if err != nil {
		t.Fatalf("%v (package util-linux)", err)
	}
	t.Cleanup(func() {
		if err := child.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			b, _ := os.ReadFile(log)
			t.Logf("systemd's log:\n%s", b)
		}
	})
	m := &machine{t: t}
	servers.WaitFor(t, bootTimeout, func() bool {
		if child.Ended() {
			t.Fatalf("the machine did not start:\n%s", read(t, log))
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", child.PID()))
		if m.pid, _ = strconv.Atoi(strings.TrimSpace(string(children))); err != nil || m.pid == 0 {
			return false
		}
		_, _, err = m.try("systemctl is-active machine.target")
		return err == nil
	}, "systemd to be up")
	return m
}

// try runs shell commands on the machine.
func (m *machine) try(script string) (stdout, stderr string, err error) {
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(m.pid), "--mount", "--pid", "--cgroup", "--ipc", "--uts", "/bin/sh", "-eu")
	var out, problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(script), &out, &problems
	err = cmd.Run()
	return out.String(), problems.String(), err
}

// run is try for what must work.
func (m *machine) run(script string) string {
	m.t.Helper()
	stdout, stderr, err := m.try(script)
	if err != nil {
		m.t.Fatalf("%v:\n%s\n%s%s", err, script, stdout, stderr)
	}
	return stdout
}
