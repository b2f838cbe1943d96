// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// sinkTimeout is for what was recorded to arrive, on a machine that stands still
// at times.
const sinkTimeout = 2 * time.Minute

// TestSinkOfAKilledServer: a file sink has every event of every log, in each log's
// order, however often the server is killed while it delivers.
func TestSinkOfAKilledServer(t *testing.T) {
	path := filepath.Join(servers.TempDir(t), "events.jsonl")
	p := StartPostern(t, Options{Config: fmt.Sprintf("sinks:\n  - name: archive\n    start: beginning\n    file: {path: %q}\n", path)})
	firms := []string{"Acme Pumps", "Blue Bakery"}
	for _, firm := range firms {
		p.CLI("firm", "create", firm, "--contact", "it@acme.example")
	}
	const rounds, changes = 4, 60
	for round := range rounds {
		for i := range changes {
			p.post("/v1/agents", fmt.Sprintf(`{"name":"agent-%d-%d"}`, round, i))
			p.patch("/v1/firms/"+strings.ReplaceAll(firms[i%2], " ", "%20"), fmt.Sprintf(`{"contact":"%d-%d@acme.example"}`, round, i))
			if i == changes/2 && len(lines(t, path)) == 0 && round == 0 {
				servers.WaitFor(t, sinkTimeout, func() bool { return len(lines(t, path)) > 0 }, "a first line")
			}
		}
		p.Kill()
		p.Restart()
	}
	if out := p.CLI("sink", "test", "archive"); !strings.Contains(out, "has taken") {
		t.Errorf("sink test says %q", out)
	}
	for _, firm := range append(firms, "") {
		var want []broker.ID
		for _, e := range p.Events(firm) {
			want = append(want, e.ID)
		}
		of := p.Events(firm)[0].FirmID
		var got []broker.ID
		servers.WaitFor(t, sinkTimeout, func() bool {
			seen := make(map[broker.ID]bool)
			got = nil
			for _, e := range lines(t, path) {
				if e.FirmID == of && !seen[e.ID] && e.Type != "sink.test" {
					seen[e.ID] = true
					got = append(got, e.ID)
				}
			}
			return len(got) >= len(want)
		}, "all events of a log")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the log of %q (-want +got):\n%s", firm, diff)
		}
	}
	servers.WaitFor(t, sinkTimeout, func() bool {
		out := p.CLI("sink", "list")
		return strings.Contains(out, "good") && strings.Contains(out, "e2e")
	}, "a sink that is good")
}

// lines reads the whole lines of a sink's file.
func lines(t testing.TB, path string) (all []broker.Event) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	content = content[:bytes.LastIndexByte(content, '\n')+1]
	for line := range bytes.Lines(content) {
		var e broker.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("a line of the sink: %v\n%s", err, line)
		}
		all = append(all, e)
	}
	return all
}

func (p *Postern) post(path, body string) { p.request(http.MethodPost, path, body) }

func (p *Postern) patch(path, body string) { p.request(http.MethodPatch, path, body) }

// request asks the API on its socket, as root.
func (p *Postern) request(method, path, body string) {
	p.t.Helper()
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", p.Socket)
		},
	}}
	req, err := http.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		var answer bytes.Buffer
		_, _ = answer.ReadFrom(resp.Body)
		p.t.Fatalf("%s %s: %s %s", method, path, resp.Status, answer.String())
	}
}
