// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// goBenchmark is a figure that a Go benchmark of Postern's packages measures.
type goBenchmark struct {
	name, pkg, pattern string
	// unit is the benchmark's own, such as "ns/op"; shown is how the figure is
	// written, of value and allocations.
	unit  string
	shown func(value, allocations float64) string
	goal  string
}

func goBenchmarks() []goBenchmark {
	return []goBenchmark{
		{
			"decision at session start, under 100 guardrails", "./policy", "BenchmarkDecideUnderGuardrails", "ns/op",
			func(v, a float64) string { return fmt.Sprintf("%s µs, %.0f allocations", digits(v/1000), a) }, "≤ 10 µs",
		},
		{
			"check per command, of a folder by patterns", "./policy", "BenchmarkCommandCheck/folder", "ns/op",
			func(v, a float64) string { return fmt.Sprintf("%s ns, %.0f allocations", digits(v), a) }, "≤ 200 ns, no allocation",
		},
		{
			"durable events, in batches of 500", "./broker/store", "BenchmarkAppendEvents/batch=500", "events/s",
			func(v, _ float64) string { return fmt.Sprintf("%.0f / s", v) }, "≥ 20,000 / s",
		},
		{
			"the same, with PostgreSQL on the same cores", "./broker/store", "BenchmarkPostgreSQLAppendEvents/batch=500", "events/s",
			func(v, _ float64) string { return fmt.Sprintf("%.0f / s", v) }, "≥ 20,000 / s",
		},
	}
}

// goRows runs the benchmarks.
func (b *bench) goRows() [][]string {
	var rows [][]string
	for _, g := range goBenchmarks() {
		out, err := exec.Command("go", "test", "-run", "^$", "-bench", "^"+strings.ReplaceAll(g.pattern, "/", "$/^")+"$",
			"-benchmem", "-benchtime", b.benchTime, "-count", strconv.Itoa(b.runs), g.pkg).CombinedOutput()
		if err != nil {
			b.h.Fatalf("go test %s: %v\n%s", g.pkg, err, out)
		}
		values, allocations := g.column(string(out), g.unit), g.column(string(out), "allocs/op")
		if len(values) != b.runs || len(allocations) != b.runs {
			b.h.Fatalf("go test -bench %s %s printed %d figures:\n%s", g.pattern, g.pkg, len(values), out)
		}
		rows = append(rows, []string{g.name, g.shown(values.median(), allocations.median()), g.goal})
	}
	return rows
}

// column returns a unit's values in the output of `go test -bench`.
func (g *goBenchmark) column(output, unit string) samples {
	var all samples
	for _, m := range regexp.MustCompile(`(?m)([0-9.]+) `+regexp.QuoteMeta(unit)+`(?:\s|$)`).FindAllStringSubmatch(output, -1) {
		if v, err := strconv.ParseFloat(m[1], 64); err == nil {
			all = append(all, v)
		}
	}
	return all
}
