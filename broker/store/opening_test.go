// SPDX-License-Identifier: Apache-2.0

package store

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/test/servers"
)

// TestOpeningPeriodsSlideAndSurvive: what was opened counts for an hour and for
// a day, on another node and after a restart too; a clock that was set back
// forgets nothing.
func TestOpeningPeriodsSlideAndSurvive(t *testing.T) {
	path, database := filepath.Join(t.TempDir(), "postern.db"), servers.StartPostgreSQL(t).NewDatabase()
	now := time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)
	for name, open := range map[string]func() *Store{
		"SQLite":     func() *Store { return open(t, Config{Path: path, Now: func() time.Time { return now }}) },
		"PostgreSQL": func() *Store { return openDatabase(t, database, Config{Now: func() time.Time { return now }}) },
	} {
		t.Run(name, func(t *testing.T) {
			assignment, start := broker.NewID(), now
			defer func() { now = start }()
			first := open()
			for i, step := range []struct {
				at   time.Duration
				want string
			}{
				{0, ""},
				{30 * time.Minute, ""},
				{59 * time.Minute, "messages.hour"},
				{-time.Hour, "messages.hour"},
				{time.Hour, ""}, // the first is an hour old
				{89 * time.Minute, "messages.hour"},
				{2 * time.Hour, "octets.day"},
				{23*time.Hour + 59*time.Minute, "octets.day"},
				{24 * time.Hour, ""},
			} {
				now = start.Add(step.at)
				s := first
				if i%2 == 1 {
					s = open()
				}
				err := s.ReserveOpening(t.Context(), &broker.OpeningReservation{
					AssignmentID: assignment, Messages: 1, Octets: 10,
					Quotas: policy.Quotas{Messages: policy.Rate{Hour: 2}, Octets: policy.Rate{Day: 30}},
				})
				got := ""
				if e, ok := err.(*broker.Error); ok && e.Code == broker.Limit {
					got = e.Reason
				} else if err != nil {
					t.Fatal(err)
				}
				if got != step.want {
					t.Errorf("after %v: %q, want %q", step.at, got, step.want)
				}
			}
		})
	}
}
