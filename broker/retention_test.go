// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"testing"
	"time"
)

// TestNever6NoNoticeIsPassedBy: a firm that gives up its own time just when a shorter
// default is about to count keeps its records for the week all the same.
func TestNever6NoNoticeIsPassedBy(t *testing.T) {
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	shorter := 30
	rules := RetentionRules{Minimum: RetentionDays{Days: 30}, Default: RetentionDays{Days: 365}}.With(RetentionWish{Default: &shorter}, begin)
	own := FirmRetention{Chosen: true, RetentionDays: RetentionDays{Days: 365}}
	now := begin.Add(RetentionNotice - time.Hour)
	after := own.With(rules, nil, now)
	for _, test := range []struct {
		at   time.Time
		want int
	}{{now, 365}, {begin.Add(RetentionNotice), 365}, {now.Add(RetentionNotice - time.Second), 365}, {now.Add(RetentionNotice), 30}} {
		if got := after.Effective(rules, test.at); got != test.want {
			t.Errorf("at %s records are kept for %d days, want %d", test.at, got, test.want)
		}
	}
	longer := 730
	rules = rules.With(RetentionWish{Default: &longer}, now)
	if after = own.With(rules, nil, now); after.Effective(rules, now) != 730 || !after.From.IsZero() {
		t.Errorf("a longer default: %+v", after)
	}
}
