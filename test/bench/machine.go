// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// machine says where the figures come from.
func machine() string {
	model := "a processor of unknown make"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, found := strings.Cut(string(info), "model name"); found {
			line, _, _ := strings.Cut(rest, "\n")
			model = strings.TrimLeft(line, " \t:")
		}
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("# Postern's figures\n\n%s, %d cores of %s, Linux %s, %s.\n",
		time.Now().UTC().Format("2006-01-02 15:04 MST"), runtime.NumCPU(), model, strings.TrimSpace(string(release)), runtime.Version())
}

// usage is how much CPU time was used since some moment.
type usage struct {
	at time.Time
	// all is the machine's; own is this program's and of all that it started.
	all, own time.Duration
}

func readUsage() (usage, error) {
	all, err := machineTime()
	if err != nil {
		return usage{}, err
	}
	tree, err := processTree(os.Getpid())
	if err != nil {
		return usage{}, err
	}
	own, err := cpuTime(tree)
	return usage{time.Now(), all, own}, err
}

func (b *bench) usage() usage {
	u, err := readUsage()
	if err != nil {
		b.h.Fatal(err)
	}
	return u
}

// othersSince says how much of the machine other programs had: figures of a
// machine that they kept busy are too high, for all proxies.
func (b *bench) othersSince(begin usage) string {
	now := b.usage()
	others := (now.all - begin.all) - (now.own - begin.own)
	share := 100 * others.Seconds() / (now.at.Sub(begin.at).Seconds() * float64(runtime.NumCPU()))
	return fmt.Sprintf("Other programs had %.0f %% of the machine's CPU time meanwhile.", max(share, 0))
}

// machineTime is the time that all processors were not idle (proc_stat(5)).
func machineTime() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	const idle, ioWait, steal = 4, 5, 8 // guests' time, behind them, is counted in others
	if len(fields) <= steal || fields[0] != "cpu" {
		return 0, errors.New("/proc/stat is not understood")
	}
	var ticks int64
	for i, field := range fields[1 : steal+1] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if i+1 != idle && i+1 != ioWait {
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}
