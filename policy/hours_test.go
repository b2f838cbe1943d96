// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postern-mail/postern/policy"
)

func shift(from, to string, days ...string) policy.Shift {
	return policy.Shift{Days: days, From: from, To: to}
}

func everyDay() []string { return []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"} }

func TestHoursOpen(t *testing.T) {
	office := policy.Hours{Zone: "Asia/Kolkata", Shifts: []policy.Shift{shift("09:00", "18:00", "mon", "tue", "wed", "thu", "fri")}}
	night := policy.Hours{Zone: "Europe/Berlin", Shifts: []policy.Shift{shift("22:00", "06:00", "sat", "sun")}}
	leap := policy.Hours{Zone: "Europe/Berlin", Shifts: []policy.Shift{shift("02:30", "04:00", "sun")}}
	leapEnd := policy.Hours{Zone: "Europe/Berlin", Shifts: []policy.Shift{shift("01:00", "02:30", "sun")}}
	twice := policy.Hours{Zone: "Europe/Berlin", Shifts: []policy.Shift{shift("02:15", "02:45", "sun")}}
	early := policy.Hours{Zone: "Europe/Berlin", Shifts: []policy.Shift{shift("00:00", "24:00", "mon"), shift("00:00", "06:00", "tue"), shift("05:00", "07:00", "tue")}}
	tests := []struct {
		name   string
		hours  policy.Hours
		now    string
		open   bool
		closes string
	}{
		{"before", office, "2026-03-02T03:29:59Z", false, ""},
		{"the first instant", office, "2026-03-02T03:30:00Z", true, "2026-03-02T12:30:00Z"},
		{"the last second", office, "2026-03-06T12:29:59Z", true, "2026-03-06T12:30:00Z"},
		{"the end", office, "2026-03-06T12:30:00Z", false, ""},
		{"a day off", office, "2026-03-07T06:00:00Z", false, ""},
		{"over midnight, before it", night, "2026-01-03T22:30:00Z", true, "2026-01-04T05:00:00Z"},
		{"over midnight, after it", night, "2026-01-04T04:59:00Z", true, "2026-01-04T05:00:00Z"},
		{"over the week's end", night, "2026-01-05T04:59:00Z", true, "2026-01-05T05:00:00Z"},
		{"over the week's end, over", night, "2026-01-05T05:00:00Z", false, ""},
		{"a night that has not begun", night, "2026-01-03T04:00:00Z", false, ""},
		// Germany's clocks were put forward on 2026-03-29 at 01:00 UTC, and back
		// on 2026-10-25 at 01:00 UTC.
		{"a night shorter by an hour", night, "2026-03-28T21:00:00Z", true, "2026-03-29T04:00:00Z"},
		{"a night longer by an hour", night, "2026-10-24T20:00:00Z", true, "2026-10-25T05:00:00Z"},
		{"it begins with the leap", leap, "2026-03-29T01:00:00Z", true, "2026-03-29T02:00:00Z"},
		{"and not before it", leap, "2026-03-29T00:59:59Z", false, ""},
		{"it ends with the leap", leapEnd, "2026-03-29T00:30:00Z", true, "2026-03-29T01:00:00Z"},
		{"after the leap", leapEnd, "2026-03-29T01:00:00Z", false, ""},
		{"the first time round", twice, "2026-10-25T00:20:00Z", true, "2026-10-25T00:45:00Z"},
		{"the second time round", twice, "2026-10-25T01:20:00Z", false, ""},
		{"shifts that meet", early, "2026-03-02T10:00:00Z", true, "2026-03-03T06:00:00Z"},
		{"always", policy.Hours{}, "2026-03-02T10:00:00Z", true, ""},
		{"the whole week", policy.Hours{Zone: "UTC", Shifts: []policy.Shift{shift("06:00", "05:00", everyDay()...), shift("04:00", "07:00", everyDay()...)}}, "2026-03-02T10:00:00Z", true, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			at, err := time.Parse(time.RFC3339, test.now)
			if err != nil {
				t.Fatal(err)
			}
			until, open, err := test.hours.Open(at, &policy.Zones{})
			if err != nil || open != test.open {
				t.Fatalf("open: %v, %v", open, err)
			}
			closes := ""
			if !until.IsZero() {
				closes = until.UTC().Format(time.RFC3339)
			}
			if closes != test.closes {
				t.Errorf("until %s, want %s", closes, test.closes)
			}
		})
	}
}

func TestHoursThatCannotBeReadAreClosed(t *testing.T) {
	for _, h := range []policy.Hours{
		{Zone: "Asia/Kolkata"},
		{Shifts: []policy.Shift{shift("00:00", "24:00", everyDay()...)}},
		{Zone: "No/Such", Shifts: []policy.Shift{shift("00:00", "24:00", everyDay()...)}},
		{Zone: "Local", Shifts: []policy.Shift{shift("00:00", "24:00", everyDay()...)}},
		{Zone: "UTC", Shifts: []policy.Shift{shift("00:00", "24:00", "day")}},
		{Zone: "UTC", Shifts: []policy.Shift{shift("00:00", "25:00", "mon")}},
	} {
		if _, open, err := h.Open(now, nil); open || err == nil {
			t.Errorf("%+v: open %v, %v", h, open, err)
		}
		in := granted()
		in.Assignment.Hours = h
		if d, refusal := policy.Decide(in); refusal == nil || refusal.Reason != policy.ReasonHours {
			t.Errorf("%+v: decided %+v, %v", h, d, refusal)
		}
	}
}

func TestValidateHours(t *testing.T) {
	one := func(s policy.Shift) policy.Hours {
		return policy.Hours{Zone: "Asia/Kolkata", Shifts: []policy.Shift{s}}
	}
	tests := []struct {
		hours         policy.Hours
		field, reason string
	}{
		{one(shift("22:00", "06:00", "mon")), "", ""},
		{one(shift("00:00", "24:00", everyDay()...)), "", ""},
		{policy.Hours{Shifts: []policy.Shift{shift("09:00", "18:00", "mon")}}, "hours.zone", "need a time zone"},
		{policy.Hours{Zone: "Asia/Kolkata"}, "hours.shifts", "allow nothing"},
		{policy.Hours{Zone: "IST/Kolkata", Shifts: []policy.Shift{shift("09:00", "18:00", "mon")}}, "hours.zone", "no time zone"},
		{policy.Hours{Zone: "../etc/passwd", Shifts: []policy.Shift{shift("09:00", "18:00", "mon")}}, "hours.zone", "no time zone"},
		{policy.Hours{Zone: "Local", Shifts: []policy.Shift{shift("09:00", "18:00", "mon")}}, "hours.zone", "not the name"},
		{one(shift("09:00", "18:00")), "hours.shifts[0].days", "never"},
		{one(shift("09:00", "18:00", "Mon")), "hours.shifts[0].days", "none of"},
		{one(shift("09:00", "18:00", "mon", "mon")), "hours.shifts[0].days", "twice"},
		{one(shift("9:00", "18:00", "mon")), "hours.shifts[0].from", "time of day"},
		{one(shift("24:00", "18:00", "mon")), "hours.shifts[0].from", "time of day"},
		{one(shift("09:60", "18:00", "mon")), "hours.shifts[0].from", "time of day"},
		{one(shift("09:00", "24:01", "mon")), "hours.shifts[0].to", "time of day"},
		{one(shift("09:00", "-1:00", "mon")), "hours.shifts[0].to", "time of day"},
		{one(shift("09:00", "09:00", "mon")), "hours.shifts[0].to", "equal"},
		{policy.Hours{Zone: "UTC", Shifts: make([]policy.Shift, policy.MaxShifts+1)}, "hours.shifts", "more than"},
	}
	for _, test := range tests {
		field, reason := policy.Terms{Actions: policy.List, Hours: test.hours}.Validate()
		if field != test.field || !strings.Contains(reason, test.reason) {
			t.Errorf("%+v: %q, %q; want %q, %q", test.hours, field, reason, test.field, test.reason)
		}
	}
}

func drawHours(t *rapid.T, label string) policy.Hours {
	if rapid.Bool().Draw(t, label+" any hour") {
		return policy.Hours{}
	}
	h := policy.Hours{Zone: rapid.SampledFrom([]string{"Europe/Berlin", "Asia/Kolkata"}).Draw(t, label+" zone")}
	for i := range rapid.IntRange(1, 3).Draw(t, label+" shifts") {
		from := rapid.IntRange(0, 47).Draw(t, fmt.Sprint(label, " from ", i))
		to := rapid.IntRange(0, 48).Filter(func(n int) bool { return n != from }).Draw(t, fmt.Sprint(label, " to ", i))
		h.Shifts = append(h.Shifts, policy.Shift{
			Days: rapid.SliceOfNDistinct(rapid.SampledFrom(everyDay()), 1, 7, rapid.ID).Draw(t, fmt.Sprint(label, " days ", i)),
			From: fmt.Sprintf("%02d:%02d", from/2, from%2*30), To: fmt.Sprintf("%02d:%02d", to/2, to%2*30),
		})
	}
	return h
}

// openAt is an independent reading of hours, by the clock on the wall: good
// where no clock is set meanwhile.
func openAt(h policy.Hours, at time.Time) bool {
	if h.IsZero() {
		return true
	}
	zone, err := time.LoadLocation(h.Zone)
	if err != nil {
		return false
	}
	clock := at.In(zone).Format("15:04")
	today := strings.ToLower(at.In(zone).Format("Mon"))
	yesterday := strings.ToLower(at.In(zone).AddDate(0, 0, -1).Format("Mon"))
	for _, s := range h.Shifts {
		for _, day := range s.Days {
			over := s.To <= s.From
			switch {
			case day == today && clock >= s.From && (over || clock < s.To),
				day == yesterday && over && clock < s.To:
				return true
			}
		}
	}
	return false
}

func TestHoursAreWhatTheClockSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHours(t, "hours")
		at := now.Add(time.Duration(rapid.IntRange(0, 7*24*60).Draw(t, "minute")) * time.Minute)
		until, open, err := h.Open(at, nil)
		if err != nil || open != openAt(h, at) {
			t.Fatalf("open at %v: %v, %v", at, open, err)
		}
		switch {
		case !open:
		case until.IsZero():
			for i := range 7 * 24 * 4 {
				if moment := at.Add(time.Duration(i) * 15 * time.Minute); !openAt(h, moment) {
					t.Fatalf("open for ever, and not at %v", moment)
				}
			}
		default:
			for moment := at; moment.Before(until); moment = moment.Add(30 * time.Minute) {
				if !openAt(h, moment) {
					t.Fatalf("open until %v, and not at %v", until, moment)
				}
			}
			if openAt(h, until) {
				t.Fatalf("open until %v, and then as well", until)
			}
		}
	})
}
