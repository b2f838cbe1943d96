// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/servers"
)

// TestNever6TwoNodes: of two nodes on one database one delivers to a sink. It is
// killed in the middle of a delivery, and the other goes on: no event is lost, and
// none comes twice but those that were under way. A witness cosigns at either node,
// over the kill, and what it has cosigned verifies.
func TestNever6TwoNodes(t *testing.T) {
	const firm = "Acme Pumps"
	home := servers.TempDir(t)
	h := newHook(t)
	secret := filepath.Join(home, "secret")
	if err := os.WriteFile(secret, []byte("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := servers.StartPostgreSQL(t)
	database := server.NewDatabase()
	a := StartPostern(t, Options{Node: "node-a", Database: database, Config: fmt.Sprintf(
		"sinks:\n  - name: hook\n    start: beginning\n    webhook: {url: %q, secret_file: %q}\n", h.server.URL, secret)})
	b := a.Beside(t, "node-b")
	conn := server.Connect(database.Name)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	a.CLI("firm", "create", firm, "--contact", "it@acme.example")
	changes := 0
	change := func(n int, nodes ...*Postern) {
		t.Helper()
		for range n {
			changes++
			p := nodes[changes%len(nodes)]
			p.post("/v1/agents", fmt.Sprintf(`{"name":"agent-%d"}`, changes))
			p.patch("/v1/firms/Acme%20Pumps", fmt.Sprintf(`{"contact":"%d@acme.example"}`, changes))
		}
	}
	change(10, a, b)

	// A witness, at one node and at the other.
	keys := filepath.Join(home, "keys")
	a.write(keys, a.CLI("log", "key", "--firm", firm))
	w := &witnessed{p: a, t: t, dir: filepath.Join(home, "witness"), log: filepath.Join(home, "witness.log"), args: []string{"--firm", firm}}
	w.key = strings.TrimSpace(a.CLI("log", "witness-key", "new", w.dir, "--name", "witness.acme.example"))
	a.CLI("log", "witness-key", "add", w.key, "--firm", firm)
	caughtUp := func(x *httpapi.LogWitness) bool { return x.Size > 0 && x.UnwitnessedEvents == 0 }
	w.start(keys)
	w.await("the events of both nodes to be cosigned at one", caughtUp)
	if err := w.child.Kill(); err != nil {
		t.Fatal(err)
	}
	change(2, a)

	// One delivers.
	h.await("all events to be delivered", func() bool { return awaited(t, conn) })
	holder, other := a, b
	if _, held := metric(t, b, "postern_sink_lag_events"); held {
		holder, other = b, a
	}
	if _, held := metric(t, holder, "postern_sink_lag_events"); !held {
		t.Error("no node tells of the sink's lag")
	}
	if _, held := metric(t, other, "postern_sink_lag_events"); held {
		t.Error("both nodes tell of the sink's lag")
	}
	w.p = holder
	w.start(keys)
	w.await("the events to be cosigned at the node that delivers", caughtUp)

	// It dies with events in its hands.
	h.await("all events to be delivered", func() bool { return awaited(t, conn) })
	h.hold(true)
	change(10, a, b)
	h.await("a delivery to be under way", func() bool { return len(h.held()) > 0 })
	servers.WaitFor(t, sinkTimeout, func() bool {
		events, _ := metric(t, holder, "postern_sink_lag_events")
		seconds, _ := metric(t, holder, "postern_sink_lag_seconds")
		return events > 0 && seconds > 0
	}, "the lag to show")
	holder.Kill()
	h.hold(false)
	change(10, other)
	h.await("the other node to deliver", func() bool { return awaited(t, conn) })
	servers.WaitFor(t, sinkTimeout, func() bool {
		events, held := metric(t, other, "postern_sink_lag_events")
		seconds, _ := metric(t, other, "postern_sink_lag_seconds")
		return held && events == 0 && seconds == 0
	}, "the other node to tell that the sink is not behind")
	holder.Restart()
	change(5, a, b)
	h.await("the events of both to be delivered", func() bool { return awaited(t, conn) })
	if _, held := metric(t, holder, "postern_sink_lag_events"); held {
		t.Error("the node that was killed tells of a lag that is the other's")
	}
	for _, of := range []string{firm, ""} {
		h.check(other.Events(of))
	}

	// The witness has waited for its node.
	w.await("the events after the kill to be cosigned", caughtUp)
	if w.child.Ended() {
		t.Errorf("the witness has ended: %s", w.said())
	}
	for _, p := range []*Postern{a, b} {
		copied := filepath.Join(p.Dir, "copy")
		for _, command := range [][]string{{"pull", copied, "--firm", firm}, {"verify", copied}} {
			if said := p.CLI(append(append([]string{"log"}, command...), "--keys", keys, "--witness", w.key)...); !strings.Contains(said, "witness.acme.example has cosigned ") {
				t.Errorf("log %s says %s", command[0], said)
			}
		}
	}
}

// awaited reports whether the sink's stored positions are the ends of all logs.
func awaited(t testing.TB, conn *pgx.Conn) bool {
	t.Helper()
	var behind int
	if err := conn.QueryRow(context.Background(), `SELECT count(*) FROM logs l LEFT JOIN sink_positions s ON s.log = l.number
		WHERE l.next_seq > coalesce(s.next, 0)`).Scan(&behind); err != nil {
		t.Fatal(err)
	}
	return behind == 0
}

// metric reads a number of a server's, without labels.
func metric(t testing.TB, p *Postern, name string) (value float64, told bool) {
	t.Helper()
	resp, err := http.Get(p.MetricsURL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	for in.Scan() {
		if text, ok := strings.CutPrefix(in.Text(), name+"{"); ok {
			if value, err = strconv.ParseFloat(text[strings.LastIndexByte(text, ' ')+1:], 64); err != nil {
				t.Fatal(err)
			}
			told = true
		}
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	return value, told
}

// hook takes events as a web service does.
type hook struct {
	t      testing.TB
	server *httptest.Server

	mu      sync.Mutex
	holding chan struct{} // closed when requests are answered again; nil: they are
	// took are the events' ids in the order in which they came, inHand those of
	// requests that were held.
	took, inHand []broker.ID
}

func newHook(t testing.TB) *hook {
	h := &hook{t: t}
	h.server = httptest.NewServer(h)
	t.Cleanup(h.server.Close)
	t.Cleanup(func() { h.hold(false) })
	return h
}

// ServeHTTP takes a request: what it has read it has, whoever hears its answer.
func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var events []struct {
		ID broker.ID `json:"id"`
	}
	if err := json.NewDecoder(r.Body).Decode(&events); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.mu.Lock()
	holding := h.holding
	for _, e := range events {
		h.took = append(h.took, e.ID)
		if holding != nil {
			h.inHand = append(h.inHand, e.ID)
		}
	}
	h.mu.Unlock()
	if holding != nil {
		select {
		case <-holding:
		case <-r.Context().Done():
		}
	}
	w.WriteHeader(http.StatusAccepted)
}

// hold has requests be answered no more, or again.
func (h *hook) hold(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case on && h.holding == nil:
		h.holding = make(chan struct{})
	case !on && h.holding != nil:
		close(h.holding)
		h.holding = nil
	}
}

func (h *hook) held() []broker.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.inHand)
}

func (h *hook) await(what string, there func() bool) {
	h.t.Helper()
	servers.WaitFor(h.t, sinkTimeout, there, what)
}

// check finds that each event of a log has come, in the log's order, and none twice
// but those that were in hand.
func (h *hook) check(events []Event) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	times := make(map[broker.ID]int)
	var order []broker.ID
	for _, id := range h.took {
		if times[id]++; times[id] == 1 {
			order = append(order, id)
		}
	}
	last := -1
	for _, e := range events {
		if times[e.ID] == 0 {
			h.t.Errorf("event %d of the log %q was lost", e.Seq, e.FirmID)
			continue
		}
		if times[e.ID] > 1 && !slices.Contains(h.inHand, e.ID) {
			h.t.Errorf("event %d of the log %q came %d times", e.Seq, e.FirmID, times[e.ID])
		}
		place := slices.Index(order, e.ID)
		if place < last {
			h.t.Errorf("event %d of the log %q came before one that is before it", e.Seq, e.FirmID)
		}
		last = place
	}
}
