// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
)

// The parts of a run.
const (
	partBeside   = "beside"
	partDeployed = "deployed"
	partStorm    = "storm"
	partRevoke   = "revoke"
	partGo       = "go"
)

func allParts() []string {
	return []string{partBeside, partDeployed, partStorm, partRevoke, partGo}
}

// tables measures and prints these parts.
func (b *bench) tables(parts []string) {
	wanted := func(any ...string) bool {
		return slices.ContainsFunc(any, func(part string) bool { return slices.Contains(parts, part) })
	}
	fmt.Print(machine())
	b.provider = startProvider(b.h)
	var sealed *postern
	if wanted(partBeside, partDeployed) {
		sealed = b.startSealed()
	}
	if wanted(partBeside) {
		b.besideOthers(sealed)
	}
	var rows [][]string
	if wanted(partDeployed, partStorm) {
		d := b.startDeployed()
		if wanted(partDeployed) {
			b.asDeployed(d, sealed)
		}
		if wanted(partStorm) {
			rows = append(rows, b.stormRow(d))
		}
	}
	if wanted(partRevoke) {
		rows = append(rows, b.revokeRows()...)
	}
	if wanted(partGo) {
		rows = append(rows, b.goRows()...)
	}
	if len(rows) > 0 {
		fmt.Printf("\n## What the others cannot do\n\n%s", markdown([]string{"figure", "Postern", "to reach, and notes"}, rows))
	}
}

// firstAgents are enough for the figures where agents differ in nothing.
const firstAgents = 20

// samples are a figure's values of the runs.
type samples []float64

func (s samples) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// text is the median with the range of the runs.
func (f *figure) text(s samples) string {
	return fmt.Sprintf("%s %s (%s–%s)", digits(s.median()*f.times), f.unit,
		digits(slices.Min(s)*f.times), digits(slices.Max(s)*f.times))
}

// digits writes a number with three significant digits.
func digits(x float64) string {
	switch {
	case x < 10:
		return fmt.Sprintf("%.2f", x)
	case x < 100:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

// startSealed starts the first table's Postern, which has the mailboxes of both
// kinds and the sealed file.
func (b *bench) startSealed() *postern {
	return startPostern(b.h, posternOptions{
		kinds: b.provider.endpoints(), passwords: b.provider.passwords, agents: firstAgents,
	})
}

// besideOthers prints the first table: Postern beside its peers.
func (b *bench) besideOthers(p *postern) {
	proxies := []*proxy{
		startNginx(b.h, b.provider, firstAgents), startDovecotProxy(b.h, b.provider, firstAgents), p.proxy("Postern", "plain"),
	}
	begin := b.usage()
	var rows [][]string
	for _, f := range b.figures() {
		got := b.alternate(f, proxies)
		nginx, dovecot, postern := got[0].median(), got[1].median(), got[2].median()
		verdict := "reached"
		if postern > nginx*f.limit {
			verdict = fmt.Sprintf("NOT DONE: above %.1f", f.limit)
		} else if postern > nginx {
			verdict = fmt.Sprintf("within %.1f", f.limit)
		}
		rows = append(rows, []string{
			f.name, f.text(got[0]), f.text(got[1]), f.text(got[2]),
			fmt.Sprintf("%.2f", postern/nginx), fmt.Sprintf("%.2f", postern/dovecot), verdict,
		})
	}
	fmt.Printf("\n## Beside other proxies\n\nMedian of %d alternating runs, and their range. TLS of all: %s. %s\n\n", b.runs, b.negotiated, b.othersSince(begin))
	fmt.Print(markdown([]string{"figure", "nginx", "Dovecot", "Postern", "× nginx", "× Dovecot", "≤ 1.0 × nginx"}, rows))
	for _, how := range []string{nginxHow, dovecotHow, posternHow} {
		fmt.Printf("\n%s\n", how)
	}
}

// alternate measures a figure of each proxy in turn, so many times; each
// round begins with another one.
func (b *bench) alternate(f figure, proxies []*proxy) []samples {
	got := make([]samples, len(proxies))
	for run := range b.runs {
		for i := range proxies {
			at := (run + i) % len(proxies)
			value, err := f.measure(b, proxies[at])
			if err != nil {
				b.h.Fatalf("%s: %s: %v", proxies[at].name, f.name, err)
			}
			got[at] = append(got[at], value)
		}
	}
	for i, p := range proxies {
		b.h.Logf("%s: %s: %s", f.name, p.name, f.text(got[i]))
	}
	return got
}

// markdown lays out a table that reads well as text too.
func markdown(head []string, rows [][]string) string {
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	line := func(cells []string) {
		for i, cell := range cells {
			b.WriteString("| " + cell + strings.Repeat(" ", widths[i]-len([]rune(cell))+1))
		}
		b.WriteString("|\n")
	}
	rules := make([]string, len(head))
	for i, w := range widths {
		rules[i] = strings.Repeat("-", w)
	}
	line(head)
	line(rules)
	for _, row := range rows {
		line(row)
	}
	return b.String()
}
