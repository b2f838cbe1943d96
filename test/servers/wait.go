// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"
)

// Ports are taken from below Linux's default range for outgoing connections
// (32768 up), so that none can take a server's port between two starts.
const (
	lowestPort  = 16000
	highestPort = 32000
)

const pollInterval = 10 * time.Millisecond

// WaitFor polls cond until it holds; what names it when it does not in time.
func WaitFor(t testing.TB, timeout time.Duration, cond func() bool, what string) {
	t.Helper()
	if !waitFor(timeout, cond) {
		t.Fatalf("waited %v in vain for %s", timeout, what)
	}
}

func waitFor(timeout time.Duration, cond func() bool) bool {
	if cond() {
		return true
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for end := time.Now().Add(timeout); time.Now().Before(end); {
		<-tick.C
		if cond() {
			return true
		}
	}
	return false
}

// NeedPrograms fails the test unless every program is in the path or among
// the system's; the map's values are the Debian packages to install.
func NeedPrograms(t testing.TB, packages map[string]string) {
	t.Helper()
	var missing []string
	for program, pkg := range packages {
		if _, err := findProgram(program); err != nil && !slices.Contains(missing, pkg) {
			missing = append(missing, pkg)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		t.Fatalf("programs are missing: install %v", missing)
	}
}

// findProgram looks in sbin folders as well, which are not in everybody's path.
func findProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if info, err := os.Stat(dir + name); err == nil && info.Mode()&0o111 != 0 {
			return dir + name, nil
		}
	}
	return "", fmt.Errorf("no program %q", name)
}

// FreePort returns a port of 127.0.0.1 that nobody listened on a moment ago.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	for range 100 {
		var b [2]byte
		if _, err := rand.Read(b[:]); err != nil {
			t.Fatalf("random port: %v", err)
		}
		port := lowestPort + binary.BigEndian.Uint16(b[:])%(highestPort-lowestPort)
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		l.Close()
		// Nobody listens yet on a port that was given out a moment ago.
		if _, taken := givenOut.LoadOrStore(port, true); taken {
			continue
		}
		return port
	}
	t.Fatal("no free port found")
	return 0
}

// givenOut are the ports that this process was given: each is given once.
var givenOut sync.Map

func address(port uint16) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// answers reports whether somebody accepts connections on port.
func answers(port uint16) bool {
	c, err := net.DialTimeout("tcp", address(port), time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// tempDir makes a folder with a short path, since Unix sockets below it have
// at most 107 octets, which other users can traverse.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("cannot remove %s: %v", dir, err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeFile(t testing.TB, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}
