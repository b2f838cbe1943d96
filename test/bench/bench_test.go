// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCPUTimeOfAProcess(t *testing.T) {
	read := func() time.Duration {
		used, err := cpuTime([]int{os.Getpid()})
		if err != nil {
			t.Fatal(err)
		}
		return used
	}
	before, begin := read(), time.Now()
	for time.Since(begin) < 100*time.Millisecond {
		// work
	}
	// Others may have had the processor for most of that time.
	if used := read() - before; used < 5*time.Millisecond || used > time.Duration(runtime.NumCPU())*time.Since(begin) {
		t.Errorf("%v of CPU time within %v", used, time.Since(begin))
	}
	if _, err := cpuTime([]int{1 << 29}); err == nil {
		t.Error("a process that is not there used CPU time")
	}
}

func TestCPUTimeCountsChildrenThatEnded(t *testing.T) {
	before, err := cpuTime([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").Run(); err != nil {
		t.Fatal(err)
	}
	after, err := cpuTime([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if after-before < 20*time.Millisecond {
		t.Errorf("a busy child used %v", after-before)
	}
}

func TestProcessTree(t *testing.T) {
	// The shell waits for a child of its own.
	child := exec.Command("sh", "-c", "sleep 60 & echo ready; wait")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	tree, err := processTree(child.Process.Pid)
	if err != nil || len(tree) != 2 || tree[0] != child.Process.Pid {
		t.Errorf("the tree is %v, %v", tree, err)
	}
	for _, pid := range slices.Backward(tree) {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
	_ = child.Wait()
	if whole, err := processTree(os.Getpid()); err != nil || slices.Contains(whole, child.Process.Pid) {
		t.Errorf("the tree still holds what has ended: %v, %v", whole, err)
	}
}

func TestMemory(t *testing.T) {
	const size = 64 << 20
	before, err := memory([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, size)
	for i := 0; i < len(block); i += 4096 {
		block[i] = 1
	}
	after, err := memory([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	// The race detector shadows it several times over.
	if grown := after - before; grown < size*9/10 || grown > size*10 {
		t.Errorf("%d octets of memory more after using %d", grown, size)
	}
	runtime.KeepAlive(block)
}

func TestMessageHasItsSize(t *testing.T) {
	for _, octets := range []int{messageOctets, messageOctets + 1, messageOctets + 71} {
		m := message("a@client.example", "b@market.example", 17, octets)
		if len(m) != octets {
			t.Errorf("%d octets instead of %d", len(m), octets)
		}
		for line := range strings.Lines(string(m)) {
			if !strings.HasSuffix(line, "\r\n") || len(line) > 1000 || line[0] == '.' {
				t.Errorf("not a line of SMTP: %q", line)
			}
		}
	}
}

func TestLiteral(t *testing.T) {
	for line, want := range map[string]int{
		"* 1 FETCH (UID 1 BODY[] {12000}": 12000,
		"* 1 FETCH (BODY[] {0}":           0,
		"t OK done":                       0,
		"* OK {x}":                        0,
	} {
		if got := literal([]byte(line)); got != want {
			t.Errorf("%q: %d, want %d", line, got, want)
		}
	}
}

func TestSharesMakeTheWhole(t *testing.T) {
	for _, n := range []int{1, 7, 300, 1000} {
		sum := 0
		for worker := range 16 {
			sum += share(n, worker, 16)
		}
		if sum != n {
			t.Errorf("the shares of %d are %d together", n, sum)
		}
	}
}

func TestMedianAndSpread(t *testing.T) {
	if got := (samples{5, 1, 9}).median(); got != 5 {
		t.Errorf("median of three: %v", got)
	}
	if got := (samples{4, 1, 9, 2}).median(); got != 3 {
		t.Errorf("median of four: %v", got)
	}
	var times []time.Duration
	for i := range 101 {
		times = append(times, time.Duration(100-i)*time.Millisecond)
	}
	if got := spread(times); got != "p50 50ms, p99 99ms, max 100ms" {
		t.Error(got)
	}
}

func TestGoBenchmarkOutput(t *testing.T) {
	g := goBenchmarks()[2]
	const out = `BenchmarkAppendEvents/batch=500-2   200	 13000000 ns/op	 38168 events/s	 100 B/op	  7 allocs/op
BenchmarkAppendEvents/batch=500-2   200	 13000000 ns/op	 40000.5 events/s	 100 B/op	  9 allocs/op
`
	if got := g.column(out, g.unit); !slices.Equal(got, samples{38168, 40000.5}) {
		t.Errorf("events: %v", got)
	}
	if got := g.column(out, "allocs/op"); !slices.Equal(got, samples{7, 9}) {
		t.Errorf("allocations: %v", got)
	}
}

// TestInstrumentedPosternBuilds fails when Postern's source has lost the line
// that the bench replaces.
func TestInstrumentedPosternBuilds(t *testing.T) {
	t.Chdir("../..")
	if !guard(testWriter{t}, nil, func(h *harness) {
		out, err := exec.Command(buildInstrumented(h), "--version").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "postern") {
			h.Errorf("%v: %s", err, out)
		}
	}) {
		t.Fail()
	}
}

func TestHarnessRunsCleanupsLastFirst(t *testing.T) {
	var order []int
	ok := guard(io.Discard, nil, func(h *harness) {
		h.Cleanup(func() { order = append(order, 1) })
		h.Cleanup(func() { h.Fatal("a cleanup that fails") })
		h.Cleanup(func() { order = append(order, 2) })
		h.Fatal("over")
	})
	if ok || !slices.Equal(order, []int{2, 1}) {
		t.Errorf("ok %v, order %v", ok, order)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// TestGoBenchmarksExist: a figure's benchmark may be renamed elsewhere.
func TestGoBenchmarksExist(t *testing.T) {
	for _, g := range goBenchmarks() {
		name, _, _ := strings.Cut(g.pattern, "/")
		out, err := exec.Command("go", "test", "-list", "^"+name+"$", "../../"+g.pkg).CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), name+"\n") {
			t.Errorf("%s has no %s: %v\n%s", g.pkg, name, err, out)
		}
	}
}
