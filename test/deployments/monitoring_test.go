// SPDX-License-Identifier: Apache-2.0

package deployments

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/postern-mail/postern/broker/companyca/companycatest"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// TestRules: Prometheus understands the alerts, and they sound when they are
// to.
func TestRules(t *testing.T) {
	for _, args := range [][]string{
		{"check", "rules", deployed("prometheus", "postern.rules.yml")},
		{"test", "rules", deployed("prometheus", "postern.rules.test.yml")},
	} {
		if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v (package prometheus)\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// query is a PromQL expression, and the text that shows its result.
type query struct{ where, expr, text string }

func ruleQueries(t *testing.T) []query {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, deployed("prometheus", "postern.rules.yml"))), &file); err != nil {
		t.Fatal(err)
	}
	var all []query
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			all = append(all, query{r.Alert, r.Expr, r.Annotations["summary"]})
		}
	}
	return all
}

func dashboardQueries(t *testing.T) []query {
	t.Helper()
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, deployed("grafana", "postern.json"))), &board); err != nil {
		t.Fatal(err)
	}
	var all []query
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			all = append(all, query{p.Title, target.Expr, target.LegendFormat})
		}
	}
	return all
}

// TestMonitoringNamesWhatIsThere: each metric and label that an alert or the
// dashboard names is exported. Those of alerts are there from the start, but
// for sign-ins denied: Prometheus does not see the first increase of a counter
// that was not there.
func TestMonitoringNamesWhatIsThere(t *testing.T) {
	const sales = "sales@client.example"
	ca, list := companycatest.New(t, "Issuing CA"), filepath.Join(t.TempDir(), "ca.crl")
	companycatest.Replace(t, list, ca.SignList(companycatest.List(1)))
	w := e2e.NewWorld(t, e2e.WorldOptions{Mailboxes: []string{sales}, Postern: e2e.Options{Workstations: fmt.Sprintf(`  authorities:
    - {name: head-office, ca_file: %q, name_from: dns, revocation: {files: [%q]}}
`, ca.File(), list), Config: fmt.Sprintf("sinks:\n  - {name: archive, file: {path: %q}}\n", filepath.Join(t.TempDir(), "events.jsonl"))}})
	exported := scrape(t, w.Postern)
	for _, q := range ruleQueries(t) {
		if !strings.Contains(q.expr, "postern_auth_failures_total") {
			exported.know(t, q)
		}
	}

	seat := w.Seat(sales)
	_ = seat.DialIMAP(t) // is never signed in
	denied := seat.DialIMAP(t)
	denied.Cmd("LOGIN %s wrong", sales)
	if stranger, err := w.Postern.TryDialTLS(t, w.Postern.IMAPSPort); err == nil {
		stranger.ExpectClosed(bootTimeout) // no certificate
	}
	reader := seat.IMAP(t)
	reader.OK("SELECT INBOX")
	sender := seat.Submission(t)
	sender.Ask(250, "MAIL FROM:<%s>", sales)
	sender.Ask(250, "RCPT TO:<%s>", sales)
	sender.Ask(354, "DATA")
	sender.Send("From: <%s>\r\nSubject: measured\r\n\r\nx\r\n.\r\n", sales)
	sender.Want(250)
	sender.Send("MAIL FROM:<somebody@else.example>\r\n")
	sender.Reply()
	w.Postern.CLI("assignment", "revoke", string(seat.Assignment))
	reader.ExpectClosed(bootTimeout)

	servers.WaitFor(t, bootTimeout, func() bool {
		exported = scrape(t, w.Postern)
		return exported["postern_session_ends_total"] != nil && exported["postern_submission_refused_total"] != nil
	}, "sessions to end")
	queries := append(ruleQueries(t), dashboardQueries(t)...)
	if len(queries) < 40 {
		t.Fatalf("only %d queries were found", len(queries))
	}
	for _, q := range queries {
		exported.know(t, q)
	}
}

// metrics are the samples' names, each with its labels.
type metrics map[string]map[string]bool

func scrape(t *testing.T, p *e2e.Postern) metrics {
	t.Helper()
	resp, err := http.Get(p.MetricsURL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	all := make(metrics)
	for _, sample := range regexp.MustCompile(`(?m)^([a-z_:]+)(?:\{(.*)\})? \S+$`).FindAllStringSubmatch(string(b), -1) {
		labels := all[sample[1]]
		if labels == nil {
			labels = make(map[string]bool)
			all[sample[1]] = labels
		}
		for _, label := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(sample[2], -1) {
			labels[label[1]] = true
		}
	}
	return all
}

// know fails the test for a query that names what is not exported.
func (m metrics) know(t *testing.T, q query) {
	t.Helper()
	// Prometheus adds these itself.
	labels := map[string]bool{"instance": true, "job": true}
	for _, name := range regexp.MustCompile(`\b(?:postern|process|go)_[a-z_]+\b`).FindAllString(q.expr, -1) {
		if m[name] == nil {
			t.Errorf("%s: %s is not exported", q.where, name)
		}
		for label := range m[name] {
			labels[label] = true
		}
	}
	var named []string
	for _, by := range regexp.MustCompile(`by \(([a-z_, ]+)\)`).FindAllStringSubmatch(q.expr, -1) {
		named = append(named, strings.Split(by[1], ", ")...)
	}
	for _, match := range regexp.MustCompile(`[{,] ?([a-z_]+)(?:=~|!~|!=|=)"`).FindAllStringSubmatch(q.expr, -1) {
		named = append(named, match[1])
	}
	for _, match := range regexp.MustCompile(`\{\{ ?(?:\$labels\.)?([a-z_]+) ?\}\}`).FindAllStringSubmatch(q.text, -1) {
		named = append(named, match[1])
	}
	for _, label := range named {
		if !labels[label] {
			t.Errorf("%s: no metric of %s has the label %s", q.where, q.expr, label)
		}
	}
}
