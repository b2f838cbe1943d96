// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// StartTPM starts a software TPM 2.0, an empty one, and returns its socket. It
// ends with the test.
func StartTPM(t testing.TB) string {
	t.Helper()
	NeedPrograms(t, map[string]string{"swtpm": "swtpm"})
	dir := TempDir(t)
	state, socket, log := filepath.Join(dir, "state"), filepath.Join(dir, "tpm.sock"), filepath.Join(dir, "tpm.log")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := startProcess(log, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state,
		"--server", "type=unixio,path="+socket+",disconnect", "--flags", "not-need-init,startup-clear")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Errorf("swtpm: %v", err)
		}
		if b, _ := os.ReadFile(log); t.Failed() {
			t.Logf("swtpm's log:\n%s", b)
		}
	})
	WaitFor(t, startTimeout, func() bool {
		if p.ended() {
			b, _ := os.ReadFile(log)
			t.Fatalf("swtpm ended: %v\n%s", p.err, b)
		}
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, "swtpm to listen")
	return socket
}
