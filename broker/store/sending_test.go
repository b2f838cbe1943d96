// SPDX-License-Identifier: Apache-2.0

package store

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// TestSendingHourSlidesAndSurvives: what was counted counts for an hour, on
// another node and after a restart too; a clock that was set back forgets
// nothing.
func TestSendingHourSlidesAndSurvives(t *testing.T) {
	path, database := filepath.Join(t.TempDir(), "postern.db"), servers.StartPostgreSQL(t).NewDatabase()
	now := time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)
	for name, open := range map[string]func() *Store{
		"SQLite":     func() *Store { return open(t, Config{Path: path, Now: func() time.Time { return now }}) },
		"PostgreSQL": func() *Store { return openDatabase(t, database, Config{Now: func() time.Time { return now }}) },
	} {
		t.Run(name, func(t *testing.T) {
			assignment, start := broker.NewID(), now
			defer func() { now = start }()
			reserve := func(s *Store) broker.Code {
				return broker.CodeOf(s.ReserveSending(t.Context(), &broker.SendingReservation{
					AssignmentID: assignment, Intent: broker.NewID(), Recipients: 1, MaxMessages: 2,
				}))
			}
			first := open()
			for i, step := range []struct {
				at   time.Duration
				want broker.Code
			}{
				{0, ""},
				{30 * time.Minute, ""},
				{59 * time.Minute, broker.Limit},
				{-time.Hour, broker.Limit},
				{time.Hour, ""}, // the first is an hour old
				{89 * time.Minute, broker.Limit},
				{90 * time.Minute, ""},
			} {
				now = start.Add(step.at)
				s := first
				if i%2 == 1 {
					s = open()
				}
				if got := reserve(s); got != step.want {
					t.Errorf("after %v: code %q, want %q", step.at, got, step.want)
				}
			}
		})
	}
}
