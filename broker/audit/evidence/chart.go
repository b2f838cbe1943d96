// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"
	"html"
	"html/template"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

// The drawings' measures, in units of which their width has 720. Fonts are set
// so that text is as large as the page's when the drawing is as wide as it.
const (
	drawingWidth = 720
	leftEdge     = 128
	rightEdge    = 708
	panelHeight  = 78
	laneHeight   = 22
	maxBins      = 62
	maxLanes     = 25
)

// drawing is an SVG under way. Only numbers, and texts by way of text, are
// written into it.
type drawing struct{ strings.Builder }

func (d *drawing) put(format string, args ...any) { fmt.Fprintf(&d.Builder, format, args...) }

func (d *drawing) text(x, y float64, class, s string) {
	d.put(`<text x="%.1f" y="%.1f" class="%s">%s</text>`, x, y, class, html.EscapeString(s))
}

// done returns the drawing. What it shows is told in words too, for who cannot
// see it.
func (d *drawing) done(height float64, what string) template.HTML {
	// Everything that is not a number has passed html.EscapeString.
	return template.HTML(fmt.Sprintf(
		`<svg viewBox="0 0 %d %.0f" role="img" aria-label="%s"><defs><pattern id="hatch" width="4" height="4" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path class="hatching" d="M0 0V4"/></pattern></defs>%s</svg>`,
		drawingWidth, height, html.EscapeString(what), d.String()))
}

// axis is a span of time across a drawing.
type axis struct {
	from, until time.Time
	zone        *time.Location
	// edges are where its bins begin, and the last one ends; unit names them.
	edges []time.Time
	unit  string
	label string
}

// newAxis makes one of the span, in as many bins as can be told apart.
func newAxis(from, until time.Time, zone *time.Location) *axis {
	a := &axis{zone: zone}
	from, until = from.In(zone), until.In(zone)
	span := until.Sub(from)
	day := func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, zone) }
	var start time.Time
	var next func(time.Time) time.Time
	switch {
	case span <= 6*time.Hour:
		a.unit, a.label = "quarter of an hour", "15:04"
		start = from.Truncate(slot)
		next = func(t time.Time) time.Time { return t.Add(slot) }
	case span <= 60*time.Hour:
		a.unit, a.label = "hour", "02 Jan 15:04"
		start = from.Add(-time.Duration(from.Minute())*time.Minute - time.Duration(from.Second())*time.Second - time.Duration(from.Nanosecond()))
		next = func(t time.Time) time.Time { return t.Add(time.Hour) }
	case span <= maxBins*24*time.Hour:
		a.unit, a.label = "day", "02 Jan"
		start = day(from)
		next = func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }
	case span <= maxBins*7*24*time.Hour:
		a.unit, a.label = "week", "02 Jan 2006"
		start = day(from).AddDate(0, 0, -int(from.Weekday()+6)%7)
		next = func(t time.Time) time.Time { return t.AddDate(0, 0, 7) }
	default:
		a.unit, a.label = "month", "Jan 2006"
		start = time.Date(from.Year(), from.Month(), 1, 0, 0, 0, 0, zone)
		next = func(t time.Time) time.Time { return t.AddDate(0, 1, 0) }
	}
	a.edges = []time.Time{start}
	const most = 400 // months; what is longer ends there
	for t := start; !t.After(until) && len(a.edges) <= most; {
		t = next(t)
		a.edges = append(a.edges, t)
	}
	a.from, a.until = start, a.edges[len(a.edges)-1]
	return a
}

func (a *axis) x(at time.Time) float64 {
	share := float64(at.Sub(a.from)) / float64(a.until.Sub(a.from))
	return leftEdge + math.Min(1, math.Max(0, share))*(rightEdge-leftEdge)
}

// bins gathers counts by the axis' bins.
func (a *axis) bins(slots map[int64]*counts) []counts {
	bins := make([]counts, len(a.edges)-1)
	for quarter, c := range slots {
		at := time.Unix(quarter*int64(slot/time.Second), 0)
		i := sort.Search(len(a.edges), func(i int) bool { return a.edges[i].After(at) }) - 1
		if i >= 0 && i < len(bins) {
			bins[i].add(c)
		}
	}
	return bins
}

// draw draws the axis below y, with lines up to top.
func (a *axis) draw(d *drawing, top, y float64) {
	const room = 78 // of a label
	every := max(1, int(math.Ceil(float64(len(a.edges)-1)/math.Floor((rightEdge-leftEdge)/room))))
	for i, edge := range a.edges {
		if i%every != 0 || i == len(a.edges)-1 && i > 0 && every > 1 {
			continue
		}
		x := a.x(edge)
		if x > rightEdge-room/2 && i > 0 {
			continue
		}
		d.put(`<path class="grid" d="M%.1f %.1fV%.1f"/>`, x, top, y+4)
		d.text(x, y+16, "tick", edge.Format(a.label))
	}
	d.put(`<path class="axis" d="M%d %.1fH%d"/>`, leftEdge, y, rightEdge)
}

// panel is one row of bars.
type panel struct {
	title string
	value func(*counts) int64
	// hatched is the part of value that is drawn hatched; nil: none is.
	hatched func(*counts) int64
	note    string
}

func panels() []panel {
	return []panel{
		{"Downloaded", func(c *counts) int64 { return c.Downloaded }, func(c *counts) int64 { return c.Bulk }, "hatched: copied in bulk"},
		{"Sent", func(c *counts) int64 { return c.Sent }, nil, ""},
		{"Changed, filed", func(c *counts) int64 { return c.Changed }, nil, ""},
		{"Refused, failed", func(c *counts) int64 { return c.Refused + c.Failed }, nil, ""},
		{"Alerts", func(c *counts) int64 { return c.Alarms }, nil, ""},
	}
}

// chart draws what was done, by time.
func (t *tally) chart(a *axis) template.HTML {
	bins := a.bins(t.slots)
	d := new(drawing)
	y := 4.0
	top := y
	var words []string
	for _, p := range panels() {
		var highest, total int64
		for i := range bins {
			highest = max(highest, p.value(&bins[i]))
			total += p.value(&bins[i])
		}
		words = append(words, fmt.Sprintf("%s %s", p.title, number(total)))
		if highest == 0 {
			continue
		}
		base := y + panelHeight - 10
		d.text(0, y+24, "label", p.title)
		d.text(0, y+39, "note", number(total)+" in all")
		if p.note != "" {
			d.text(0, y+52, "note", p.note)
		}
		d.text(leftEdge-6, y+14, "most", number(highest))
		d.put(`<path class="grid" d="M%d %.1fH%d"/>`, leftEdge, y+10, rightEdge)
		for i := range bins {
			p.bar(d, &bins[i], a.x(a.edges[i]), a.x(a.edges[i+1]), base, (base-y-10)/float64(highest))
		}
		d.put(`<path class="axis" d="M%d %.1fH%d"/>`, leftEdge, base, rightEdge)
		y += panelHeight
	}
	if y == top {
		return ""
	}
	a.draw(d, top+6, y-10)
	return d.done(y+12, "Bars by "+a.unit+": "+strings.Join(words, ", "))
}

func (p *panel) bar(d *drawing, c *counts, x1, x2, base, scale float64) {
	value := p.value(c)
	if value == 0 {
		return
	}
	gap := math.Min(2, (x2-x1)/5)
	x, width := x1+gap/2, math.Max(1, x2-x1-gap)
	height := math.Max(1.5, float64(value)*scale)
	var hatched float64
	if p.hatched != nil {
		hatched = float64(min(p.hatched(c), value)) * scale
	}
	if solid := height - hatched; solid > 0.1 {
		d.put(`<rect class="bar" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, x, base-solid, width, solid)
	}
	if hatched > 0 {
		d.put(`<rect class="bulk" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, x, base-height, width, hatched)
	}
}

// lane is an agent's line in the time line; "": of nobody who is known.
type lane struct {
	agent    broker.ID
	sessions []*session
	marks    []mark
}

// lanes are those of agents, the busiest first, and how many there is no room
// for.
func (t *tally) lanes(a *axis) (lanes []*lane, left int) {
	byAgent := make(map[broker.ID]*lane)
	get := func(agent broker.ID) *lane {
		l := byAgent[agent]
		if l == nil {
			l = &lane{agent: agent}
			byAgent[agent] = l
		}
		return l
	}
	for _, s := range t.sessions {
		if s.until.Before(a.from) || s.from.After(a.until) {
			continue
		}
		l := get(s.agent)
		l.sessions = append(l.sessions, s)
	}
	for _, m := range t.marks {
		l := get(m.agent)
		l.marks = append(l.marks, m)
	}
	lanes = slices.SortedFunc(maps.Values(byAgent), func(x, y *lane) int {
		if (x.agent == "") != (y.agent == "") {
			return len(x.agent) - len(y.agent) // nobody comes first: alarms
		}
		if n := len(y.sessions) - len(x.sessions); n != 0 {
			return n
		}
		return strings.Compare(t.name(x.agent)+string(x.agent), t.name(y.agent)+string(y.agent))
	})
	if len(lanes) > maxLanes {
		lanes, left = lanes[:maxLanes], len(lanes)-maxLanes
	}
	return lanes, left
}

// timeline draws sessions as bars, a lane for each agent, with marks for what
// was sent and refused and for alerts.
func (t *tally) timeline(a *axis) (template.HTML, int) {
	lanes, left := t.lanes(a)
	if len(lanes) == 0 {
		return "", 0
	}
	d := new(drawing)
	const top = 6.0
	y := top
	bottom := top + float64(len(lanes)*laneHeight)
	a.draw(d, top, bottom)
	for _, l := range lanes {
		name := t.name(l.agent)
		if l.agent == "" {
			name = "(no agent)"
		}
		d.text(0, y+15, "label", cut(shown(name), 18))
		d.put(`<path class="grid" d="M%d %.1fH%d"/>`, leftEdge, y+laneHeight, rightEdge)
		for _, s := range l.sessions {
			x1, x2 := a.x(s.from), a.x(s.until)
			d.put(`<rect class="session" x="%.1f" y="%.1f" width="%.1f" height="10"/>`, x1, y+6, math.Max(1.6, x2-x1))
		}
		for _, m := range l.marks {
			d.sign(m.kind, a.x(m.at), y+11)
		}
		y += laneHeight
	}
	return d.done(bottom+22, fmt.Sprintf("Sessions of %d agents by time, with what was sent, refused, and alerts", len(lanes))), left
}

// sign draws what a mark stands for: a triangle, a cross or a diamond, which
// differ without colours.
func (d *drawing) sign(kind markKind, x, y float64) {
	switch kind {
	case markSent:
		d.put(`<path class="sent" d="M%.1f %.1fl4 7h-8z"/>`, x, y-5)
	case markRefused:
		d.put(`<path class="refused" d="M%.1f %.1fl7 7m0 -7l-7 7"/>`, x-3.5, y-3.5)
	case markAlarm:
		d.put(`<path class="alarm" d="M%.1f %.1fl5 6l-5 6l-5 -6z"/>`, x, y-6)
	}
}

// cut shortens a text to n characters, for a place of fixed width.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
