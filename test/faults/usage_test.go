// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/test/e2e"
)

// metrics are the samples of a server, by name and labels as they are written:
// `postern_proxy_connections_pending{class="stranger"}`.
type metrics map[string]float64

func readMetrics(t testing.TB, p *e2e.Postern) metrics {
	t.Helper()
	resp, err := http.Get(p.MetricsURL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all := make(metrics)
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		i := strings.LastIndexByte(in.Text(), ' ')
		if i < 0 || in.Text()[0] == '#' {
			continue
		}
		if all[in.Text()[:i]], err = strconv.ParseFloat(in.Text()[i+1:], 64); err != nil {
			t.Fatal(err)
		}
	}
	if all["go_goroutines"] == 0 {
		t.Fatal("the metrics tell nothing")
	}
	return all
}

// sum adds up a family's samples whose labels hold a text.
func (m metrics) sum(family, labels string) float64 {
	sum := 0.0
	for name, v := range m {
		if (name == family || strings.HasPrefix(name, family+"{")) && strings.Contains(name, labels) {
			sum += v
		}
	}
	return sum
}

// evicted is how many connections of a class were pushed out.
func (m metrics) evicted(class string) float64 {
	return m.sum("postern_proxy_connections_evicted_total", `class="`+class+`"`)
}

// usage is what a server holds.
type usage struct {
	descriptors, goroutines, threads int
	// heap is what lives, and garbage that was not collected yet; resident is
	// the process's, in octets.
	heap, resident int
}

func (u usage) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines, %d threads, heap %.1f MB, resident %.1f MB",
		u.descriptors, u.goroutines, u.threads, float64(u.heap)/1e6, float64(u.resident)/1e6)
}

// measure asks the kernel for what the kernel knows.
func measure(t testing.TB, p *e2e.Postern) usage {
	t.Helper()
	m := readMetrics(t, p)
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	status := readStatus(t, p)
	return usage{
		descriptors: len(fds), goroutines: int(m["go_goroutines"]), heap: int(m["go_memstats_heap_alloc_bytes"]),
		resident: statusField(t, status, "VmRSS") << 10, threads: statusField(t, status, "Threads"),
	}
}

// peak is the most memory that a server's process ever had resident, in octets.
func peak(t testing.TB, p *e2e.Postern) int { return statusField(t, readStatus(t, p), "VmHWM") << 10 }

func readStatus(t testing.TB, p *e2e.Postern) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	return string(status)
}

// statusField is a number of proc(5)'s status.
func statusField(t testing.TB, status, name string) int {
	t.Helper()
	for text := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(text, name+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("the kernel tells no %s", name)
	return 0
}
