// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
)

// Pruned is a run of entries of which only the hashes are there, as the log's
// pruning events tell of it.
type Pruned struct {
	First, Last  int64
	Since, Until time.Time
}

func (p Pruned) String() string {
	if p.First == p.Last {
		return fmt.Sprintf("event %d", p.First)
	}
	return fmt.Sprintf("events %d to %d", p.First, p.Last)
}

// takenAway says that nothing tells why the records are gone.
func (p Pruned) takenAway() string {
	return fmt.Sprintf("of %s there is no record, and no pruning event names it: it was taken away", p)
}

// missing is a run of entries without a record.
type missing struct {
	first, last int64
	// after and before are when the records next to it were recorded; zero: there
	// is none.
	after, before time.Time
	afterSeq      int64
	// settled is what the records before it agree on: see days.
	settled time.Time
}

// pruning is a pruning event.
type pruning struct {
	seq  int64
	time time.Time
	broker.LogPruned
}

// record is what of an event counts here.
type record struct {
	Type broker.EventType `json:"type"`
	Time time.Time        `json:"time"`
	Data json.RawMessage  `json:"data"`
}

// Prunings gathers, of the entries of a log in their order, which have no record,
// and what the others say of that.
type Prunings struct {
	// Now is the reader's clock; nil: time.Now.
	Now func() time.Time

	epoch   broker.ID
	missing []missing
	events  []pruning
	holds   []*held
	// last and lastSeq are of the record before.
	last    time.Time
	lastSeq int64
	// newest are the newest days that there were records of; lastOf is the last
	// entry of each day.
	newest   days
	lastOf   map[int64]int64
	mistaken error // the first event that cannot be
}

// Add takes the next entry. Its leaf hash is proved.
func (p *Prunings) Add(e *Entry) {
	n := len(p.missing)
	beside := n > 0 && p.missing[n-1].last+1 == e.Seq
	switch at, err := timeOf(e.Record); {
	case e.Pruned() && beside:
		p.missing[n-1].last = e.Seq
		return
	case e.Pruned():
		p.missing = append(p.missing, missing{first: e.Seq, last: e.Seq, after: p.last, afterSeq: p.lastSeq, settled: p.newest.settled()})
		return
	case err == nil:
		if beside {
			p.missing[n-1].before = at
		}
		p.recorded(e.Seq, at)
	}
	var r record
	if !tells(e.Record) || json.Unmarshal(e.Record, &r) != nil {
		return
	}
	var err error
	switch r.Type {
	case broker.EventLogPruned:
		err = p.addPruning(e.Seq, &r)
	case "hold.created", "hold.released":
		err = p.addHold(e.Seq, &r)
	}
	if err != nil && p.mistaken == nil {
		p.mistaken = fmt.Errorf("event %d: %w", e.Seq, err)
	}
}

// tells reports whether a record can be of a type that matters here: most are not
// read again. It has the form in which Postern writes it, or is none of Postern's.
func tells(record []byte) bool {
	return bytes.Contains(record, []byte(`"type":"log.pruned"`)) || bytes.Contains(record, []byte(`"type":"hold.`))
}

// addPruning notes a pruning event, if it can be one: of entries before it.
func (p *Prunings) addPruning(seq int64, r *record) error {
	x := pruning{seq: seq, time: r.Time}
	if err := json.Unmarshal(r.Data, &x.LogPruned); err != nil {
		return err
	}
	count, after := int64(0), int64(-1)
	for _, s := range x.Spans {
		if s.First <= after || s.Last < s.First || s.Last >= seq || s.Until.Before(s.Since) {
			return fmt.Errorf("it says that %s were pruned, which cannot be", Pruned{First: s.First, Last: s.Last})
		}
		after = s.Last
		count += s.Last - s.First + 1
	}
	if count != x.Count {
		return fmt.Errorf("it says that %d events were pruned, and names %d", x.Count, count)
	}
	p.events = append(p.events, x)
	return nil
}

// join adds what others say of entries that are gone.
func (p *Prunings) join(other *Prunings) {
	p.missing = append(p.missing, other.missing...)
	p.events = append(p.events, other.events...)
}

// spans are what the pruning events name, in the log's order; those that follow on
// each other are one.
func (p *Prunings) spans() []Pruned {
	var all []Pruned
	for _, e := range p.events {
		for _, s := range e.Spans {
			all = append(all, Pruned{s.First, s.Last, s.Since, s.Until})
		}
	}
	slices.SortFunc(all, func(a, b Pruned) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last)) })
	var joined []Pruned
	for _, s := range all {
		n := len(joined)
		if n == 0 || joined[n-1].Last+1 < s.First {
			joined = append(joined, s)
			continue
		}
		l := &joined[n-1]
		l.Last = max(l.Last, s.Last)
		if s.Since.Before(l.Since) {
			l.Since = s.Since
		}
		if s.Until.After(l.Until) {
			l.Until = s.Until
		}
	}
	return joined
}

// lost returns the first run of entries that have no record, and that no pruning
// event names; nil: there is none.
func (p *Prunings) lost() *Pruned {
	named := p.spans()
	for _, m := range p.missing {
		for at := m.first; at <= m.last; {
			i, _ := slices.BinarySearchFunc(named, at, func(s Pruned, at int64) int { return cmp.Compare(s.Last, at) })
			switch {
			case i == len(named):
				return &Pruned{First: at, Last: m.last}
			case named[i].First > at:
				return &Pruned{First: at, Last: min(m.last, named[i].First-1)}
			}
			at = named[i].Last + 1
		}
	}
	return nil
}

// promised reports whether what seems lost is named by events that the log has
// beyond its checkpoint of size entries. They are not proved yet.
func (p *Prunings) promised(ctx context.Context, source Source, size int64) (bool, error) {
	ahead := Prunings{missing: p.missing, events: slices.Clone(p.events)}
	for next := size; next < size+maxUnsigned; {
		some, err := source.Entries(ctx, next)
		if err != nil || len(some) == 0 {
			return false, err
		}
		for _, e := range some {
			if !e.Pruned() {
				ahead.Add(e)
			}
		}
		if ahead.lost() == nil {
			return true, nil
		}
		next += int64(len(some))
	}
	return false, nil
}

// Fault finds what of the prunings could not have been.
func (p *Prunings) Fault() error {
	if p.mistaken != nil {
		return p.mistaken
	}
	if lost := p.lost(); lost != nil {
		return fmt.Errorf("%s. Where the last pull said nothing of it, pull again and verify: it may have been pruned meanwhile", lost.takenAway())
	}
	return p.tooEarly()
}

// keptWhole puts in the place of entries that were pruned since what the copy has of
// them: it is the reader's to keep.
func (p *pull) keptWhole(number int64, bundle []*Entry) error {
	if !slices.ContainsFunc(bundle, (*Entry).Pruned) {
		return nil
	}
	content, err := p.epoch.readEntries(number)
	if err != nil {
		return err
	}
	held, _ := parseLines(content)
	for i, e := range bundle {
		if !e.Pruned() || i >= len(held) || held[i].Pruned() {
			continue
		}
		if _, err := held[i].LeafOf(e.Seq); err == nil && held[i].Leaf == e.Leaf {
			bundle[i] = held[i]
		}
	}
	return nil
}
