// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
)

// Who has the server writes what times he likes into the events that he adds. When
// something was pruned is judged by what he cannot choose: the reader's clock, and
// the times of the records before and after. Of these some may be wrong in an honest
// log, when a clock was.
const (
	// clockSlack is by how much the times of a log's events may contradict their
	// order: nodes have clocks of their own.
	clockSlack = 24 * time.Hour
	// wrongDays is how many days may be the dates of records of which none was
	// recorded on them: a clock was wrong.
	wrongDays = 4
)

const secondsOfDay = 24 * 60 * 60

// days are dates, as days since 1970, the oldest first.
type days []int64

func (d days) with(n int64) days {
	i, found := slices.BinarySearch(d, n)
	if found {
		return d
	}
	return slices.Insert(d, i, n)
}

// settled is a time that has come for certain where all of d have: wrongDays of them
// may be false. Zero: they are too few.
func (d days) settled() time.Time {
	if len(d) <= wrongDays {
		return time.Time{}
	}
	return time.Unix(d[len(d)-1-wrongDays]*secondsOfDay, 0)
}

// held is a hold, from the event on that tells of it.
type held struct {
	*broker.Hold
	seq int64
	// released is when it was released at the earliest, by the event releaseSeq; 0: it
	// was not.
	released   time.Time
	releaseSeq int64
}

// standsAt reports whether the hold keeps records when a pruning is made.
func (h *held) standsAt(e *pruning, at time.Time) bool {
	if e.seq < h.seq {
		return false
	}
	return h.releaseSeq == 0 || e.seq < h.releaseSeq || at.Before(h.released.Add(broker.RetentionNotice-clockSlack))
}

// coversAll reports whether the hold covers whatever was recorded between two times.
func (h *held) coversAll(since, until time.Time) bool {
	return !since.IsZero() && !until.IsZero() && h.coversWell(since) && h.coversWell(until)
}

func (h *held) coversWell(t time.Time) bool {
	return h.Covers(t.Add(clockSlack)) && h.Covers(t.Add(-clockSlack))
}

// timeOf reads a record's time where Postern writes it: in no text of JSON does
// this stand.
func timeOf(record []byte) (time.Time, error) {
	_, rest, _ := bytes.Cut(record, []byte(`"time":"`))
	text, _, _ := bytes.Cut(rest, []byte(`"`))
	return time.Parse(time.RFC3339, string(text))
}

// recorded notes the time of a record.
func (p *Prunings) recorded(seq int64, at time.Time) {
	p.last, p.lastSeq = at, seq
	of := at.Unix() / secondsOfDay
	if p.lastOf == nil {
		p.lastOf = make(map[int64]int64)
	}
	p.lastOf[of] = seq
	if p.newest = p.newest.with(of); len(p.newest) > wrongDays+1 {
		p.newest = p.newest[1:]
	}
}

// addHold notes a hold, or that it was released.
func (p *Prunings) addHold(seq int64, r *record) error {
	var change broker.StateChange
	x := new(broker.Hold)
	if err := json.Unmarshal(r.Data, &change); err != nil {
		return err
	}
	if err := json.Unmarshal(change.After, x); err != nil {
		return err
	}
	i := slices.IndexFunc(p.holds, func(h *held) bool { return h.ID == x.ID })
	if i < 0 {
		i = len(p.holds)
		p.holds = append(p.holds, &held{Hold: x, seq: seq})
	}
	h := p.holds[i]
	if !h.Since.Equal(x.Since) || !h.Until.Equal(x.Until) {
		return fmt.Errorf("it changes what a hold covers (%s)", h.Reason)
	}
	if r.Type == "hold.released" && h.releaseSeq == 0 {
		h.releaseSeq, h.released = seq, slices.MaxFunc([]time.Time{x.ReleasedAt, r.Time, p.newest.settled()}, time.Time.Compare)
	}
	return nil
}

// following tells, asked of smaller and smaller numbers, the oldest days of which
// records follow an entry: wrongDays+1 at most.
func (p *Prunings) following() func(seq int64) days {
	type ended struct{ day, last int64 }
	var left []ended
	for d, last := range p.lastOf {
		left = append(left, ended{d, last})
	}
	slices.SortFunc(left, func(a, b ended) int { return cmp.Compare(b.last, a.last) })
	var oldest days
	return func(seq int64) days {
		for ; len(left) > 0 && left[0].last > seq; left = left[1:] {
			oldest = oldest.with(left[0].day)
			oldest = oldest[:min(len(oldest), wrongDays+1)]
		}
		return oldest
	}
}

// endOf is when a day ends.
func endOf(day int64) time.Time { return time.Unix((day+1)*secondsOfDay, 0) }

// latest returns of each pruning event when it was recorded at the latest: what
// follows it was recorded later.
func (p *Prunings) latest() []time.Time {
	now := time.Now
	if p.Now != nil {
		now = p.Now
	}
	following, at := p.following(), make([]time.Time, len(p.events))
	for i, e := range slices.Backward(p.events) {
		all := []time.Time{e.time, now()}
		if oldest := following(e.seq); len(oldest) > wrongDays {
			all = append(all, endOf(oldest[wrongDays]))
		}
		at[i] = slices.MinFunc(all, time.Time.Compare)
	}
	return at
}

// contradicted has the time of the record before a run count no more where a later one
// is older: a clock was set right.
func (p *Prunings) contradicted() {
	following := p.following()
	for i, m := range slices.Backward(p.missing) {
		if oldest := following(m.afterSeq); len(oldest) > 0 && endOf(oldest[0]).Before(m.after.Add(-clockSlack)) {
			p.missing[i].after = time.Time{}
		}
	}
}

// earliest is when the run was recorded at the earliest.
func (m *missing) earliest() time.Time {
	if m.after.Before(m.settled) {
		return m.settled
	}
	return m.after
}

// tooEarly finds records that were pruned before their own time to be kept was over,
// or though they were held.
func (p *Prunings) tooEarly() error {
	p.contradicted()
	latest := p.latest()
	for i := range p.events {
		for _, s := range p.events[i].Spans {
			if err := p.early(&p.events[i], s, latest[i]); err != nil {
				return fmt.Errorf("event %d: %w", p.events[i].seq, err)
			}
		}
	}
	return nil
}

// early judges a span of a pruning event, which was recorded at the latest at at.
func (p *Prunings) early(e *pruning, s broker.PrunedSpan, at time.Time) error {
	named, young := Pruned{First: s.First, Last: s.Last}, at.AddDate(0, 0, -broker.MinRetentionDays).Add(clockSlack)
	if s.Until.After(young) {
		return fmt.Errorf("%s were pruned on %s at the latest, though they are of %s", named, date(at), date(s.Until))
	}
	var holds []*held
	for _, h := range p.holds {
		if h.standsAt(e, at) {
			holds = append(holds, h)
		}
	}
	onThem := func(h *held) error {
		return fmt.Errorf("%s were pruned on %s, though a hold was on them (%s)", named, date(at), h.Reason)
	}
	for _, h := range holds {
		if !s.Until.Before(h.Since) && (h.Until.IsZero() || s.Since.Before(h.Until)) {
			return onThem(h)
		}
	}
	first, _ := slices.BinarySearchFunc(p.missing, s.First, func(m missing, at int64) int { return cmp.Compare(m.last, at) })
	for _, m := range p.missing[first:] {
		if m.first > s.Last {
			break // the copy has the records of the rest
		}
		if m.earliest().After(young) {
			return fmt.Errorf("%s were pruned on %s at the latest, though what is before them, up to event %d, is of %s",
				Pruned{First: max(m.first, s.First), Last: min(m.last, s.Last)}, date(at), m.afterSeq, date(m.earliest()))
		}
		for _, h := range holds {
			if h.coversAll(m.after, m.before) {
				return onThem(h)
			}
		}
	}
	return nil
}

func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }
