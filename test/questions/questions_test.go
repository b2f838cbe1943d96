// SPDX-License-Identifier: Apache-2.0

package questions

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/httpapi/httpapitest"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/test/servers"
)

var (
	events = flag.Int("events", 6000, "how many events the questions are asked of")
	stores = flag.String("stores", "sqlite,postgresql", "the `stores` that are asked")
	within = flag.Duration("within", 0, "what no answer may take longer than; 0: that is not tested")
)

// TestQuestions asks the five questions of generated events on both stores, over
// the API, and compares the answers with what reading the whole logs finds, where
// that is not too long.
func TestQuestions(t *testing.T) {
	for name := range strings.SplitSeq(*stores, ",") {
		t.Run(name, func(t *testing.T) {
			var cfg store.Config
			if name == "postgresql" {
				d := servers.StartPostgreSQL(t, "shared_buffers = 128MB").NewDatabase() // its default
				cfg.PostgreSQL = &store.PostgreSQL{DSN: d.DSN(0), PasswordFile: d.PasswordFile}
			} else {
				cfg.Path = filepath.Join(t.TempDir(), "postern.db")
			}
			w := fill(t, cfg)
			api, err := httpapitest.StartOn(servers.TempDir(t), w.Store)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := api.Close(); err != nil {
					t.Error(err)
				}
			})
			a := &asker{t: t, w: w, socket: api.Socket}
			if *events <= 100000 {
				a.read()
			}
			a.message()
			a.agent()
			a.workstation()
			a.alert()
			a.mailbox()
		})
	}
}

// fill fills a store, and waits until its index holds all.
func fill(t *testing.T, cfg store.Config) *World {
	t.Helper()
	ctx := context.Background()
	began := time.Now()
	w, err := Fill(ctx, *events, func(now func() time.Time) (*store.Store, error) {
		cfg.Now, cfg.Logger, cfg.WriteTimeout = now, zap.NewNop(), 10*time.Minute
		return store.Open(ctx, cfg)
	})
	if err != nil {
		if w != nil && w.Store != nil {
			_ = w.Store.Close()
		}
		t.Fatal(err)
	}
	stored := time.Since(began)
	servers.WaitFor(t, 6*time.Hour, func() bool {
		n, err := w.Store.Unindexed(ctx)
		return err == nil && n == 0
	}, "the index")
	t.Logf("by tenths: %.0f/s", w.Rates)
	t.Logf("%d events: %.0f/s stored, all in the index %v later", w.stored, float64(w.stored)/stored.Seconds(), (time.Since(began) - stored).Round(time.Second))
	return w
}

// asker asks questions.
type asker struct {
	t      *testing.T
	w      *World
	socket string
	// all are the events of all logs, where they were read.
	all []*broker.StoredEvent
}

// read reads all logs.
func (a *asker) read() {
	for _, f := range a.w.Firms {
		for after := int64(-1); ; {
			page, err := a.w.Store.Events(context.Background(), broker.EventQuery{FirmID: f.ID, After: after, Limit: 10000})
			if err != nil {
				a.t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			a.all = append(a.all, page...)
			after = page[len(page)-1].Seq
		}
	}
}

// count counts events in the old way; -1: they were not read.
func (a *asker) count(is func(e *broker.StoredEvent) int) int {
	if a.all == nil {
		return -1
	}
	n := 0
	for _, e := range a.all {
		n += is(e)
	}
	return n
}

// ask asks a question, and prints how long its answer took.
func ask[T any](a *asker, what, path string, query url.Values) *T {
	a.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", a.socket)
	}}}
	defer client.CloseIdleConnections()
	began := time.Now()
	resp, err := client.Get("http://postern/v1/questions/" + path + "?" + query.Encode())
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	took := time.Since(began)
	if resp.StatusCode != http.StatusOK {
		a.t.Fatalf("%s: %s", what, body)
	}
	out := new(T)
	if err := json.Unmarshal(body, out); err != nil {
		a.t.Fatal(err)
	}
	a.t.Logf("%-60s %7.0f ms, %7d octets", what, float64(took.Microseconds())/1000, len(body))
	if *within > 0 && took > *within {
		a.t.Errorf("%s: %v", what, took)
	}
	return out
}

// same compares what the API counts with what reading counts.
func (a *asker) same(what string, got int64, want int) {
	a.t.Helper()
	if want >= 0 && got != int64(want) || want < 0 && got == 0 {
		a.t.Errorf("%s: %d, and by reading %d", what, got, want)
	}
}

func total(days []httpapi.DayCount, activities ...broker.Activity) (events, messages int64) {
	for _, d := range days {
		for _, x := range activities {
			if d.Activity == x {
				events, messages = events+d.Events, messages+d.Messages
			}
		}
	}
	return events, messages
}

func (a *asker) message() {
	// The most opened of a mailbox are those that were new in the middle.
	x := a.w.seats[3]
	var id string
	for uid := uint32(1000); id == "" && uid > 900; uid-- {
		id = MessageID(x.mailbox, uid)
		got := ask[httpapi.MessageAnswer](a, "who opened this message (by Message-ID)", "messages", url.Values{"message_id": {id}})
		n, _ := total(got.Days, broker.ActivityRead, broker.ActivitySync)
		if n == 0 {
			id = ""
			continue
		}
		is := func(e *broker.StoredEvent) int {
			opened, ok := e.Data.(broker.MessageOpen)
			if ok && e.MailboxID == a.w.Mailboxes[x.mailbox].ID {
				for _, m := range opened.Messages {
					if m.UID == uid {
						return 1
					}
				}
			}
			return 0
		}
		a.same("openings", n, a.count(is))
		got = ask[httpapi.MessageAnswer](a, "who opened this message (by mailbox, folder, UIDVALIDITY, UID)", "messages", url.Values{
			"mailbox": {a.w.Mailboxes[x.mailbox].Address}, "folder": {"INBOX"}, "uid_validity": {"1700000000"}, "uid": {fmt.Sprint(uid)},
		})
		n, _ = total(got.Days, broker.ActivityRead, broker.ActivitySync)
		a.same("openings by place", n, a.count(is))
	}
	if id == "" {
		a.t.Error("no message was opened")
	}
}

// spans are a day and a month in the middle, and all.
func (a *asker) spans() map[string]url.Values {
	middle := begin.Add(a.w.End.Sub(begin) / 2).Truncate(24 * time.Hour)
	between := func(from, until time.Time) url.Values {
		return url.Values{"since": {from.Format(time.RFC3339)}, "until": {until.Format(time.RFC3339)}}
	}
	return map[string]url.Values{
		"a day": between(middle, middle.AddDate(0, 0, 1)), "a month": between(middle.AddDate(0, 0, -15), middle.AddDate(0, 0, 15)), "all": between(begin, a.w.End.Add(time.Second)),
	}
}

func in(e *broker.StoredEvent, span url.Values) bool {
	from, _ := time.Parse(time.RFC3339, span.Get("since"))
	until, _ := time.Parse(time.RFC3339, span.Get("until"))
	return !e.Time.Before(from) && e.Time.Before(until)
}

func (a *asker) agent() {
	g := a.w.Agents[a.w.seats[3].agent]
	for name, span := range a.spans() {
		got := ask[httpapi.AgentAnswer](a, "what did this agent open, send and export: "+name, "agents/"+g.Name, span)
		_, read := total(got.Days, broker.ActivityRead, broker.ActivitySync)
		want := a.count(func(e *broker.StoredEvent) int {
			if opened, ok := e.Data.(broker.MessageOpen); ok && e.AgentID == g.ID && in(e, span) {
				return len(opened.Messages)
			}
			return 0
		})
		if name == "all" || want > 0 {
			a.same("messages opened: "+name, read, want)
		}
	}
}

func (a *asker) workstation() {
	x := a.w.Workstations[a.w.seats[3].workstation]
	for name, span := range a.spans() {
		got := ask[httpapi.WorkstationAnswer](a, "which mailboxes was this workstation in: "+name, "workstations/"+x.Name, span)
		began, _ := total(got.Days, broker.ActivitySession)
		want := a.count(func(e *broker.StoredEvent) int {
			if e.Type == broker.EventSessionOpen && e.WorkstationID == x.ID && in(e, span) {
				return 1
			}
			return 0
		})
		if name == "all" || want > 0 {
			a.same("sessions: "+name, began, want)
		}
		if name == "all" && want > 0 && got.Next == "" && len(got.Items) != want {
			a.t.Errorf("%d sessions are listed of %d", len(got.Items), want)
		}
	}
}

func (a *asker) alert() {
	got := ask[httpapi.BeforeAlert](a, "what happened in the hour before this alert", "alerts/"+string(a.w.Alert), nil)
	want := a.count(func(e *broker.StoredEvent) int {
		x := got.Alert
		about := e.MailboxID == x.MailboxID || e.AgentID == x.AgentID || e.WorkstationID == x.WorkstationID
		if about && !e.Time.Before(got.Since) && e.Time.Before(got.Until) {
			return 1
		}
		return 0
	})
	if got.Next == "" {
		a.same("events before the alert", int64(len(got.Items)), want)
	}
}

func (a *asker) mailbox() {
	m := a.w.Mailboxes[a.w.seats[3].mailbox]
	got := ask[httpapi.MailboxAnswer](a, "who could have read this mailbox on that day", "mailboxes/"+m.Address, a.spans()["a day"])
	want := 0
	for _, x := range a.w.seats {
		if a.w.Mailboxes[x.mailbox].ID == m.ID {
			want++
		}
	}
	a.same("readers", int64(len(got.Items)), want)
	for _, r := range got.Items {
		// Before nine in the morning, where he was there by then, during the day, and
		// after nine in the evening.
		if n := len(r.Stretches); !r.CouldRead || n < 2 || n > 3 || r.Stretches[n-2].Decision == nil || r.Stretches[n-1].Refused != "hours" {
			a.t.Errorf("%+v", r)
		}
	}
}
