// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // a machine without zones must not turn shifts away
)

// MaxShifts is how many shifts a week has.
const MaxShifts = 50

// Hours are a week's shifts by the clocks of a time zone; the zero value is
// any time.
//
// A shift begins at the first instant at which a clock there has reached its
// From, and ends at the first at which one has reached its To. So where clocks
// are put forward over its beginning it begins with the leap, where they are
// put back over its end it ends the first time, and in between it is an hour
// shorter or longer than written.
type Hours struct {
	// Zone is a name of the IANA time zone database, such as Asia/Kolkata.
	Zone string `json:"zone"`
	// Shifts of every week.
	Shifts []Shift `json:"shifts"`
}

// Shift is a time of day on some days of the week.
type Shift struct {
	// Days on which it begins: mon, tue, wed, thu, fri, sat, sun.
	Days []string `json:"days"`
	// From and To are times of day, 00:00 to 24:00. A To that is not later
	// than From is one of the next day.
	From string `json:"from"`
	To   string `json:"to"`
}

// IsZero reports whether the hours are any time.
func (h Hours) IsZero() bool { return h.Zone == "" && len(h.Shifts) == 0 }

// Zones keeps the time zones that were read. Its zero value is ready, and a
// nil *Zones reads them every time. It may be used from any goroutine.
type Zones struct{ known sync.Map }

// Load returns a zone by its name. The database is the machine's, or else the
// one that is built in.
func (z *Zones) Load(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("not the name of a time zone")
	}
	if z != nil {
		if zone, ok := z.known.Load(name); ok {
			return zone.(*time.Location), nil
		}
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("there is no time zone %q", name)
	}
	if z != nil {
		z.known.Store(name, zone)
	}
	return zone, nil
}

const (
	dayMinutes  = 24 * 60
	weekMinutes = 7 * dayMinutes
)

// span is a shift on one day, in minutes since Monday began; its end may lie
// in the next week.
type span struct{ from, to int }

// Validate returns the field that is wrong, and why; "" when none is.
func (h Hours) Validate() (field, reason string) { return h.validate() }

// validate returns the field that is wrong, and why.
func (h Hours) validate() (field, reason string) {
	switch {
	case h.IsZero():
		return "", ""
	case h.Zone == "":
		return "zone", "hours need a time zone, such as Asia/Kolkata"
	case len(h.Shifts) == 0:
		return "shifts", "hours without a shift allow nothing"
	case len(h.Shifts) > MaxShifts:
		return "shifts", fmt.Sprintf("more than %d", MaxShifts)
	}
	if _, err := (*Zones)(nil).Load(h.Zone); err != nil {
		return "zone", err.Error()
	}
	for i := range h.Shifts {
		if field, reason := h.Shifts[i].validate(); reason != "" {
			return fmt.Sprintf("shifts[%d].%s", i, field), reason
		}
	}
	return "", ""
}

func (s *Shift) validate() (field, reason string) {
	if len(s.Days) == 0 {
		return "days", "a shift without a day is never"
	}
	for i, day := range s.Days {
		switch {
		case weekday(day) < 0:
			return "days", fmt.Sprintf("%q is none of mon, tue, wed, thu, fri, sat, sun", day)
		case slices.Contains(s.Days[:i], day):
			return "days", day + " is there twice"
		}
	}
	from, to := minuteOf(s.From), minuteOf(s.To)
	switch {
	case from < 0 || from == dayMinutes:
		return "from", "write a time of day from 00:00 to 23:59"
	case to < 0:
		return "to", "write a time of day from 00:00 to 24:00"
	case from == to:
		return "to", "is equal to from: a whole day is written 00:00 to 24:00"
	}
	return "", ""
}

// weekday counts from Monday; -1: there is no such day.
func weekday(day string) int {
	return slices.Index([]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}, day)
}

// minuteOf reads hh:mm; -1: it is none.
func minuteOf(s string) int {
	if len(s) != 5 || s[2] != ':' || strings.Trim(s[:2]+s[3:], "0123456789") != "" {
		return -1
	}
	minute := (int(s[0]-'0')*10+int(s[1]-'0'))*60 + int(s[3]-'0')*10 + int(s[4]-'0')
	if s[3] > '5' || minute > dayMinutes {
		return -1
	}
	return minute
}

// spans returns the shifts of a week, those that meet as one, by beginning.
// They are of terms that are valid.
func (h Hours) spans() []span {
	var all []span
	for i := range h.Shifts {
		s := &h.Shifts[i]
		from, to := minuteOf(s.From), minuteOf(s.To)
		if to <= from {
			to += dayMinutes
		}
		for _, day := range s.Days {
			at := weekday(day) * dayMinutes
			all = append(all, span{at + from, at + to})
		}
	}
	slices.SortFunc(all, func(a, b span) int { return a.from - b.from })
	merged := all[:0]
	for _, s := range all {
		if n := len(merged); n > 0 && s.from <= merged[n-1].to {
			merged[n-1].to = max(merged[n-1].to, s.to)
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// wholeWeek reports whether the spans leave out nothing.
func wholeWeek(spans []span) bool {
	week := weekly(spans)
	return len(week) == 1 && week[0] == span{0, weekMinutes}
}

// Open reports whether now lies within the hours, and until when it goes on;
// zero: for ever. It fails when the hours are not valid.
func (h Hours) Open(now time.Time, zones *Zones) (until time.Time, open bool, err error) {
	if h.IsZero() {
		return time.Time{}, true, nil
	}
	if field, reason := h.malformed(); reason != "" {
		return time.Time{}, false, fmt.Errorf("hours.%s: %s", field, reason)
	}
	zone, err := zones.Load(h.Zone)
	if err != nil {
		return time.Time{}, false, err
	}
	spans := h.spans()
	if wholeWeek(spans) {
		return time.Time{}, true, nil
	}
	local := now.In(zone)
	weekday := (int(local.Weekday()) + 6) % 7
	monday := local.Day() - weekday
	minute := weekday*dayMinutes + local.Hour()*60 + local.Minute()
	// A span of the week before may not be over; one that is open may go on
	// into the next week's first.
	for week := -1; week <= 1; week++ {
		for _, s := range spans {
			from, to := s.from+week*weekMinutes, s.to+week*weekMinutes
			// Clocks leap by a day at most.
			if !open && (to < minute-2*dayMinutes || from > minute+2*dayMinutes) {
				continue
			}
			start := instantOf(local, monday, from, zone)
			if open && start.After(until) {
				return until, true, nil
			}
			if !open && now.Before(start) {
				continue
			}
			if end := instantOf(local, monday, to, zone); open || now.Before(end) {
				open = true
				if end.After(until) {
					until = end
				}
			}
		}
	}
	return until, open, nil
}

// malformed is validate without reading the zone.
func (h Hours) malformed() (field, reason string) {
	if h.Zone == "" || len(h.Shifts) == 0 {
		return "zone", "missing"
	}
	for i := range h.Shifts {
		if field, reason := h.Shifts[i].validate(); reason != "" {
			return field, reason
		}
	}
	return "", ""
}

// instantOf returns the first instant at which a clock of the zone shows the
// minute, counted from the beginning of the day of near's month, or a later
// time.
func instantOf(near time.Time, day, minute int, zone *time.Location) time.Time {
	// What the clock shows, as if it were UTC.
	wall := time.Date(near.Year(), near.Month(), day, 0, minute, 0, 0, time.UTC)
	// No clock is 26 hours off UTC: a day before it has not shown it yet.
	t := wall.Add(-26 * time.Hour).In(zone)
	for {
		_, offset := t.Zone()
		start, end := t.ZoneBounds()
		at := wall.Add(-time.Duration(offset) * time.Second)
		switch {
		case !end.IsZero() && !at.Before(end):
			t = end
		case !start.IsZero() && at.Before(start):
			return start
		default:
			return at
		}
	}
}

// within reports that inner is open at no time at which h is not. It says no
// for hours of another zone.
func (h Hours) within(inner Hours) bool {
	if h.IsZero() {
		return true
	}
	if inner.Zone != h.Zone || len(inner.Shifts) == 0 {
		return false
	}
	both, ok := h.and(inner)
	return ok && slices.Equal(both, weekly(inner.spans()))
}

// weekly cuts spans at the end of the week, so that sets can be compared.
func weekly(spans []span) []span {
	var cut []span
	for _, s := range spans {
		if s.to > weekMinutes {
			cut = append(cut, span{0, s.to - weekMinutes})
			s.to = weekMinutes
		}
		cut = append(cut, s)
	}
	slices.SortFunc(cut, func(a, b span) int { return a.from - b.from })
	merged := cut[:0]
	for _, s := range cut {
		if n := len(merged); n > 0 && s.from <= merged[n-1].to {
			merged[n-1].to = max(merged[n-1].to, s.to)
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// and returns what two hours of one zone have in common, cut at the week's
// end.
func (h Hours) and(inner Hours) (both []span, ok bool) {
	for _, a := range weekly(h.spans()) {
		for _, b := range weekly(inner.spans()) {
			if s := (span{max(a.from, b.from), min(a.to, b.to)}); s.from < s.to {
				both = append(both, s)
			}
		}
	}
	return both, len(both) > 0
}

// narrow returns hours in which both are open. Those of two zones have none
// that could be written down: ok is false then, as when they never meet.
func (h Hours) narrow(inner Hours) (both Hours, ok bool) {
	switch {
	case h.IsZero():
		return inner.clone(), true
	case inner.IsZero() || (inner.Zone == h.Zone && inner.within(h)):
		return h.clone(), true
	case inner.Zone != h.Zone:
		return h.clone(), false
	case h.within(inner):
		return inner.clone(), true
	}
	common, ok := h.and(inner)
	both.Zone = h.Zone
	for _, s := range common {
		for from := s.from; from < s.to; {
			// Each day by itself: simple to read.
			day := from / dayMinutes
			to := min(s.to, (day+1)*dayMinutes)
			both.Shifts = append(both.Shifts, Shift{
				Days: []string{time.Weekday((day + 1) % 7).String()[:3]},
				From: clock(from - day*dayMinutes), To: clock(to - day*dayMinutes),
			})
			from = to
		}
	}
	for i := range both.Shifts {
		both.Shifts[i].Days[0] = strings.ToLower(both.Shifts[i].Days[0])
	}
	return both, ok
}

func clock(minute int) string { return fmt.Sprintf("%02d:%02d", minute/60, minute%60) }

func (h Hours) clone() Hours {
	h.Shifts = slices.Clone(h.Shifts)
	for i := range h.Shifts {
		h.Shifts[i].Days = slices.Clone(h.Shifts[i].Days)
	}
	return h
}
