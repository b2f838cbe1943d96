// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// histogram is one of Prometheus': how many were at most so many seconds.
type histogram map[float64]float64

// inServers is from the commit of a change to the end of each session that it
// ended, as the servers measured it.
func inServers(h *harness, nodes []*postern) histogram {
	h.Helper()
	const prefix = `postern_revoke_seconds_bucket{le="`
	sum := histogram{}
	for _, p := range nodes {
		resp, err := http.Get(p.MetricsURL + "/metrics")
		if err != nil {
			h.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			bound, ok := strings.CutPrefix(lines.Text(), prefix)
			if !ok {
				continue
			}
			bound, value, _ := strings.Cut(bound, `"} `)
			most, err := strconv.ParseFloat(bound, 64)
			if err != nil {
				h.Fatal(err)
			}
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				h.Fatal(err)
			}
			sum[most] += n
		}
		if err := lines.Err(); err != nil {
			h.Fatal(err)
		}
		resp.Body.Close()
	}
	return sum
}

// since is what came in after before.
func (x histogram) since(before histogram) histogram {
	more := histogram{}
	for bound, n := range x {
		more[bound] = n - before[bound]
	}
	return more
}

// quantile is the least bound that holds this share.
func (x histogram) quantile(share float64) time.Duration {
	all := x[math.Inf(1)]
	var bounds []float64
	for bound := range x {
		bounds = append(bounds, bound)
	}
	slices.Sort(bounds)
	for _, bound := range bounds {
		if x[bound] >= share*all && !math.IsInf(bound, 1) {
			return time.Duration(bound * float64(time.Second))
		}
	}
	return math.MaxInt64
}
