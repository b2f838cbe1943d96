// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	quick := flag.Bool("quick", false, "do less work: the figures are rougher")
	profiles := flag.String("profile", "", "write Postern's CPU and heap profiles for each figure to this `directory`, and measure nothing else")
	only := flag.String("only", strings.Join(allParts(), ","), "the `parts` to measure")
	chosen := flag.String("figures", "", "the first table's `figures` to measure, of session,fetch,noop,message,idle (default all)")
	auth := flag.String(authServerFlag, "", "be nginx's auth server (for this program's own use)")
	flag.Parse()
	if *auth != "" {
		fmt.Fprintln(os.Stderr, serveAuth(*auth))
		os.Exit(1)
	}
	parts := strings.Split(*only, ",")
	for _, part := range parts {
		if !slices.Contains(allParts(), part) {
			fmt.Fprintf(os.Stderr, "-only: there is no part %q\n", part)
			os.Exit(2)
		}
	}
	b := &bench{scale: fullScale}
	if *chosen != "" {
		b.chosen = strings.Split(*chosen, ",")
		if len(b.figures()) != len(b.chosen) {
			fmt.Fprintf(os.Stderr, "-figures: %q is not a list of session,fetch,noop,message,idle\n", *chosen)
			os.Exit(2)
		}
	}
	if *quick {
		b.scale = quickScale
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	if !guard(os.Stderr, interrupts, func(h *harness) {
		b.h = h
		if *profiles != "" {
			b.profile(*profiles)
			return
		}
		b.tables(parts)
	}) {
		os.Exit(1)
	}
}
