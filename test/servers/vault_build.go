// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// buildVault returns the path of a vaultd built from test/vaultd as it is
// now. It is kept in the user's cache, named by a hash of its sources, and a
// file lock keeps packages that are tested at once from building it twice.
func buildVault(t testing.TB) (string, error) {
	t.Helper()
	source := filepath.Join(moduleRoot(t), "test", "vaultd")
	name, err := vaultName(source)
	if err != nil {
		return "", fmt.Errorf("test/vaultd: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "postern-test")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	bin := filepath.Join(cache, name)
	unlock, err := lockFile(filepath.Join(cache, "vaultd.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(bin); !errors.Is(err, fs.ErrNotExist) {
		return bin, err
	}
	t.Log("building test/vaultd: minutes from a cold cache")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin+".new", ".")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the Vault to test against does not build (go build in test/vaultd): %w\n%s", err, out)
	}
	if err := os.Rename(bin+".new", bin); err != nil {
		return "", err
	}
	removeOldVaults(cache, bin)
	return bin, nil
}

// removeOldVaults keeps the cache from growing by 100 MB with each change; a
// process that runs one of them is not disturbed.
func removeOldVaults(cache, keep string) {
	old, _ := filepath.Glob(filepath.Join(cache, "vaultd-*"))
	for _, path := range old {
		if path != keep {
			os.Remove(path)
		}
	}
}

// vaultName hashes what the binary is made of.
func vaultName(source string) (string, error) {
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, path := range append(files, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum")) {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(hash, "%s %x\n", filepath.Base(path), sha256.Sum256(b))
	}
	return "vaultd-" + hex.EncodeToString(hash.Sum(nil)[:12]), nil
}

// lockFile waits for an exclusive lock, which also ends with the process.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, err
		}
	}
}

// moduleRoot is the folder of Postern's go.mod, above the package under test.
func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = parent
	}
}
