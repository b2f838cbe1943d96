// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker/httpapi"
)

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := httpapi.ListenUnix(path, httpapi.SocketMode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestSocketIsItsOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "postern.sock")
	listen(t, path)
	for name, want := range map[string]os.FileMode{path: os.ModeSocket | 0o600, filepath.Dir(path): os.ModeDir | 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, want %v (%v)", name, info.Mode(), want, err)
		}
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	l := listen(t, path)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if served, err := l.Accept(); err != nil {
		t.Error(err)
	} else {
		_ = served.Close()
	}
}

func TestLiveSocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listen(t, path)
	if l, err := httpapi.ListenUnix(path, httpapi.SocketMode); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Fatalf("listener %v, error %v", l, err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first server's socket is gone: %v", err)
	} else {
		_ = c.Close()
	}
}

func TestUnfitSocketPaths(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "s"), filepath.Join(open, "s")} {
		if l, err := httpapi.ListenUnix(path, httpapi.SocketMode); err == nil {
			_ = l.Close()
			t.Errorf("listens on %s", path)
		}
	}
	if content, err := os.ReadFile(file); err != nil || string(content) != "precious" {
		t.Errorf("file is now %q, %v", content, err)
	}
}

// TestServeStopsAfterRunningRequests: a request that is under way when the
// server is told to stop gets its answer.
func TestServeStopsAfterRunningRequests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := listen(t, path)
	begun, finish := make(chan struct{}), make(chan struct{})
	server, err := httpapi.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-finish
		w.WriteHeader(http.StatusTeapot)
	}), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	status := make(chan int, 1)
	go func() {
		transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}
		resp, err := (&http.Client{Transport: transport}).Get("http://postern/")
		if err != nil {
			t.Error(err)
			status <- 0
			return
		}
		_ = resp.Body.Close()
		status <- resp.StatusCode
	}()
	<-begun
	stop()
	// The socket goes away at once, the request does not.
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		_ = c.Close()
		if time.Now().After(deadline) {
			t.Fatal("the server still takes connections")
		}
	}
	close(finish)
	if got := <-status; got != http.StatusTeapot {
		t.Errorf("status %d", got)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
