// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// unusedBinary is how long a built postern that no run has asked for is kept.
const unusedBinary = 24 * time.Hour

// BuildPostern returns the path of a `postern` binary built from the module as
// it is now, with the race detector when the test has it. A test process
// builds it once. It lies in the user's cache, named by a hash of its octets.
func BuildPostern(t testing.TB) string {
	t.Helper()
	bin, err := buildPostern(moduleRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// posternBuild is the build of this test process: every test of it uses one.
var posternBuild struct {
	sync.Mutex
	bin string
	err error
}

func buildPostern(root string) (string, error) {
	posternBuild.Lock()
	defer posternBuild.Unlock()
	if posternBuild.bin == "" && posternBuild.err == nil {
		posternBuild.bin, posternBuild.err = buildPosternOnce(root)
	}
	return posternBuild.bin, posternBuild.err
}

func buildPosternOnce(root string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "postern-test")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(cache, "postern.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	fresh := filepath.Join(cache, "postern.new")
	args := []string{"build", "-buildvcs=false", "-o", fresh}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/postern")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/postern: %w\n%s", err, out)
	}
	sum, err := hashFile(fresh)
	if err != nil {
		return "", err
	}
	bin := filepath.Join(cache, "postern-"+sum[:24])
	if err := os.Rename(fresh, bin); err != nil {
		return "", err
	}
	removeUnused(cache, bin)
	return bin, nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// removeUnused spares young binaries: another package's tests may start one.
func removeUnused(cache, keep string) {
	all, _ := filepath.Glob(filepath.Join(cache, "postern-*"))
	for _, path := range all {
		info, err := os.Stat(path)
		if err == nil && path != keep && time.Since(info.ModTime()) > unusedBinary {
			os.Remove(path)
		}
	}
}

// TempDir makes a folder with a short path, since Unix sockets below it have
// at most 107 octets, which other users can traverse.
func TempDir(t testing.TB) string {
	t.Helper()
	return tempDir(t)
}

// Child is a program that a test started.
type Child struct{ process *process }

// StartChild starts a program whose output goes to the file logPath, with
// these variables added to its environment. The caller ends it; the kernel
// does should the test process die.
func StartChild(logPath string, env []string, path string, args ...string) (*Child, error) {
	p, err := startProcessIn(logPath, surroundings{env: env}, path, args...)
	if err != nil {
		return nil, err
	}
	return &Child{p}, nil
}

// PID is the program's process id.
func (c *Child) PID() int { return c.process.pid }

// Ended reports whether the program is gone.
func (c *Child) Ended() bool { return c.process.ended() }

// Signal sends a signal to the program alone.
func (c *Child) Signal(s syscall.Signal) error { return syscall.Kill(c.process.pid, s) }

// Stop asks the program to end (SIGTERM), kills it when it does not in time,
// and returns how it ended: nil is exit code 0.
func (c *Child) Stop() error {
	if err := c.process.stop(); err != nil {
		return err
	}
	return c.process.err
}

// Kill ends the program and its children at once (SIGKILL).
func (c *Child) Kill() error { return c.process.kill() }
