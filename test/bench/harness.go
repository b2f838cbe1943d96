// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// harness is the testing.TB of a run that is no test: packages servers and
// e2e start and end the servers under it. What it does not define of a
// testing.TB they do not use, and would panic.
type harness struct {
	testing.TB
	out   io.Writer // for progress
	start time.Time

	mu       sync.Mutex
	cleanups []func()
	failed   bool
}

// guard runs f with a harness, then what was registered with Cleanup, and
// reports whether all went well. A stop before the end of f, by a signal on
// interrupts, runs the cleanups too.
func guard(out io.Writer, interrupts <-chan os.Signal, f func(*harness)) bool {
	h := &harness{out: out, start: time.Now()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer h.close()
		f(h)
	}()
	select {
	case <-done:
	case <-interrupts:
		h.Errorf("interrupted")
		// The load under way loses its servers; its errors are of no interest.
		h.close()
	}
	return !h.Failed()
}

// close runs the cleanups, last first.
func (h *harness) close() {
	for {
		h.mu.Lock()
		n := len(h.cleanups)
		if n == 0 {
			h.mu.Unlock()
			return
		}
		f := h.cleanups[n-1]
		h.cleanups = slices.Delete(h.cleanups, n-1, n)
		h.mu.Unlock()
		func() {
			// FailNow in a cleanup ends that cleanup alone.
			ended := make(chan struct{})
			go func() { defer close(ended); f() }()
			<-ended
		}()
	}
}

func (h *harness) Helper() {}

func (h *harness) Cleanup(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cleanups = append(h.cleanups, f)
}

func (h *harness) Failed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

func (h *harness) Fail() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = true
}

// FailNow ends the calling goroutine, as a test's does.
func (h *harness) FailNow() {
	h.Fail()
	runtime.Goexit()
}

func (h *harness) Log(args ...any) { h.Logf("%s", fmt.Sprintln(args...)) }

// maxProgress cuts what is said at once, in octets: after a failure the servers
// show their logs, which thousands of sessions have filled.
const maxProgress = 4000

// Logf says on the progress output what is done, and how far the run is.
func (h *harness) Logf(format string, args ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	if len(text) > maxProgress {
		text = text[:maxProgress/2] + "\n…\n" + text[len(text)-maxProgress/2:]
	}
	fmt.Fprintf(h.out, "%6.1fs %s\n", time.Since(h.start).Seconds(), text)
}

func (h *harness) Error(args ...any) {
	h.Log(args...)
	h.Fail()
}

func (h *harness) Errorf(format string, args ...any) {
	h.Logf(format, args...)
	h.Fail()
}

func (h *harness) Fatal(args ...any) {
	h.Log(args...)
	h.FailNow()
}

func (h *harness) Fatalf(format string, args ...any) {
	h.Logf(format, args...)
	h.FailNow()
}

func (h *harness) TempDir() string {
	dir, err := os.MkdirTemp("", "postern-bench")
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
