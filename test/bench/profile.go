// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/postern-mail/postern/test/servers"
)

const (
	profileTimeout = 20 * time.Second
	// profileWork multiplies a run's work: a profile has 100 samples a second.
	profileWork = 3
)

// profile runs each figure's work once on a Postern that profiles itself, and
// leaves in dir a CPU and a heap profile of each, for `go tool pprof`.
func (b *bench) profile(dir string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.h.Fatal(err)
	}
	b.scale = b.longer(profileWork)
	b.provider = startProvider(b.h)
	scratch := b.h.TempDir()
	p := startPostern(b.h, posternOptions{
		bin: buildInstrumented(b.h), env: []string{"POSTERN_BENCH_PROFILES=" + scratch},
		kinds: b.provider.kind("plain"), passwords: b.provider.passwords, agents: firstAgents,
	})
	written := 0
	b.working = func(over bool) {
		p.Signal(syscall.SIGUSR1)
		if over {
			written++
			servers.WaitFor(b.h, profileTimeout, func() bool {
				_, err := os.Stat(filepath.Join(scratch, fmt.Sprintf("%d.cpu", written)))
				return err == nil
			}, "Postern to write its profile")
		}
	}
	target := p.proxy("Postern", "plain")
	for _, f := range b.figures() {
		if f.key == "idle" {
			b.profileIdle(p, target, scratch, dir)
			continue
		}
		b.runProfiled(f, target)
		for _, kind := range []string{"cpu", "heap"} {
			b.keep(filepath.Join(scratch, fmt.Sprintf("%d.%s", written, kind)), filepath.Join(dir, f.key+"."+kind))
		}
	}
	b.h.Logf("see: go tool pprof -top %s", filepath.Join(dir, "FIGURE.cpu"))
}

func (b *bench) runProfiled(f figure, p *proxy) {
	value, err := f.measure(b, p)
	if err != nil {
		b.h.Fatalf("%s: %v", f.name, err)
	}
	b.h.Logf("%s, profiled: %s %s", f.name, digits(value*f.times), f.unit)
}

// profileIdle leaves a heap profile of a Postern with idle sessions.
func (b *bench) profileIdle(p *postern, target *proxy, scratch, dir string) {
	p.Restart()
	clients, err := openIMAP(target.imap(), b.idle)
	if err != nil {
		b.h.Fatal(err)
	}
	defer closeAll(clients)
	for _, c := range clients {
		if err := c.idle(); err != nil {
			b.h.Fatal(err)
		}
	}
	path := filepath.Join(scratch, "1.heap") // the new process counts anew
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.h.Fatal(err)
	}
	p.Signal(syscall.SIGUSR1)
	if err := rest(target); err != nil {
		b.h.Fatal(err)
	}
	p.Signal(syscall.SIGUSR1)
	servers.WaitFor(b.h, profileTimeout, func() bool { _, err := os.Stat(path); return err == nil }, "Postern to write its profile")
	b.keep(path, filepath.Join(dir, "idle.heap"))
}

func (b *bench) keep(from, to string) {
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o644)
	}
	if err != nil {
		b.h.Fatal(err)
	}
}
