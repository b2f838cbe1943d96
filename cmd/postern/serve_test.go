// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// lines gathers what a process writes, and tells when a text has come.
type lines struct {
	mu      sync.Mutex
	all     bytes.Buffer
	changed chan struct{}
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.all.Write(b)
}

func (l *lines) await(t *testing.T, text string, times int) {
	t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		all, changed := l.all.String(), l.changed
		l.mu.Unlock()
		if strings.Count(all, text) >= times {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("no %q in:\n%s", text, all)
		}
	}
}

// serveProcess runs `postern serve` as a process of its own.
func serveProcess(t *testing.T, dir string) (*exec.Cmd, *lines) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := &lines{changed: make(chan struct{})}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Args = []string{"postern", "serve", "--config", filepath.Join(dir, configFile)} // TestMain goes by the name
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	out.await(t, `"msg":"serving"`, 1)
	return cmd, out
}

func TestServeSignals(t *testing.T) {
	dir := initialised(t)
	cmd, out := serveProcess(t, dir)
	if limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid)); err != nil {
		t.Error(err)
	} else if !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0") {
		t.Errorf("core files are not off:\n%s", limits)
	}
	// Touching the directory would reload as well; an unchanged file tells
	// nothing, so the signal is seen by a pair that cannot be used.
	key := filepath.Join(dir, tlsDir, certificateKey)
	good, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	out.await(t, "certificates not reloaded", 1) // the watch's
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	out.await(t, "certificates not reloaded", 2)
	if err := os.WriteFile(key, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if strings.Contains(out.all.String(), "panic") {
		t.Error(out.all.String())
	}
}

// TestServeTellsTheServiceManager: systemd starts what depends on Postern, and
// judges a reload, by these words (sd_notify(3)).
func TestServeTellsTheServiceManager(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	want := func(state string) {
		t.Helper()
		b := make([]byte, 1024)
		if err := l.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		n, err := l.Read(b)
		if err != nil || string(b[:n]) != state {
			t.Fatalf("%q, %v, want %q", b[:n], err, state)
		}
	}
	cmd, _ := serveProcess(t, initialised(t))
	want("READY=1")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	want("RELOADING=1")
	want("READY=1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	want("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// A request that never ends would hold the stop up; a second signal does not
// wait for it.
func TestSecondSignalStopsAtOnce(t *testing.T) {
	dir := initialised(t)
	cmd, out := serveProcess(t, dir)
	c, err := net.Dial("unix", filepath.Join(dir, socketFile))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST /v1/firms HTTP/1.1\r\nHost: postern\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	out.await(t, "once more to stop at once", 1)
	start := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // whether in order or not is not the point
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %s", d)
	}
}

func TestServeRefusesABadConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "postern.yaml")
	if err := os.WriteFile(file, []byte("hostnam: x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := postern(t, "serve", "--config", file)
	if code != exitUsage || !strings.Contains(stderr, "hostnam: there is no such key") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code, _, stderr = postern(t, "serve"); code != exitUsage || !strings.Contains(stderr, "--config is missing") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
