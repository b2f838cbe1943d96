// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is the unit of /proc/PID/stat on every Linux of today
// (sysconf(_SC_CLK_TCK)).
const ticksPerSecond = 100

// cpuTime is the CPU time, user and system, that processes have used, with
// that of their children that are gone. The kernel's clock of a process
// (clock_getcpuclockid(3)) is what /proc/PID/stat rounds to 10 ms.
func cpuTime(pids []int) (time.Duration, error) {
	var total time.Duration
	for _, pid := range pids {
		const perProcess = 2 // CPUCLOCK_SCHED
		var ts unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|perProcess), &ts); err != nil {
			return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
		}
		total += time.Duration(ts.Nano())
		stat, err := readStat(pid)
		if err != nil {
			return 0, err
		}
		total += time.Duration(stat.childTicks) * time.Second / ticksPerSecond
	}
	return total, nil
}

// stat is what is read of /proc/PID/stat.
type stat struct {
	parent     int
	childTicks int64 // of children that ended and were waited for
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The program's name, in brackets, may hold anything (proc(5)).
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const parent, childUser, childSystem = 1, 13, 14 // counted from the state
	if len(fields) <= childSystem {
		return stat{}, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	var numbers [3]int64
	for i, field := range []int{parent, childUser, childSystem} {
		if numbers[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
	}
	return stat{int(numbers[0]), numbers[1] + numbers[2]}, nil
}

// processTree is a process and all that descends from it.
func processTree(root int) ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil { // else it has ended meanwhile
			children[s.parent] = append(children[s.parent], pid)
		}
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// memory is the proportional set size of processes, in octets: what is theirs
// alone, and their shares of what they share.
func memory(pids []int) (int64, error) {
	var total int64
	for _, pid := range pids {
		pss, err := readPss(pid)
		if err != nil {
			return 0, err
		}
		total += pss
	}
	return total, nil
}

func readPss(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 && fields[0] == "Pss:" {
			kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/smaps_rollup holds no Pss (%v)", pid, lines.Err())
}
