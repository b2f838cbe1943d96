// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // the templates
	"encoding/base64"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

var (
	//go:embed report.html.tmpl
	reportTemplate string
	//go:embed certificate.html.tmpl
	certificateTemplate string
	//go:embed report.css
	stylesheet string
)

const (
	stampForm = "2006-01-02 15:04:05"
	dayForm   = "2006-01-02"
)

// stamp is an instant as it is shown: in UTC, and in the zone that was asked for.
type stamp struct{ UTC, Local string }

// counted is a line of a table of counts.
type counted struct {
	Name   string
	Proved bool
	ID     string
	counts
}

// shownLine is an event's line.
type shownLine struct {
	Seq              int64
	At               stamp
	Who, Where, What string
	Kind             string
	Outside, Grave   bool
}

// view is what the templates are given. All text in it that is not Postern's own
// has passed shown.
type view struct {
	Style template.CSS
	// Policy is the content security policy: nothing is loaded and nothing runs;
	// the style above is the only one.
	Policy string
	M      *Manifest

	Title, Firm, Maker, Version       string
	Zone                              string
	From, Until, Made, First, Last    stamp
	Earliest, Latest                  stamp
	Entries                           int64
	Narrowed                          []string
	Incident, Alert                   string
	Total                             counts
	Events, Outside                   int64
	Agents, Mailboxes, Machines, Days []counted
	Unit                              string
	Chart, Timeline                   template.HTML
	LanesLeft                         int
	Alarms, Standing, Rows            []shownLine
	AlarmsLeft, StandingLeft          int64
	RowsLeft, SessionsLeft            int64
	Types                             []typeCount
	Doubts                            []string
	Files                             []File
	Checkpoint                        string
	Signatures                        int
	Keys                              []string
	Older                             []int64
	Cosigned                          []shownCosigned
}

// shownCosigned is what a checkpoint says a witness has cosigned.
type shownCosigned struct {
	Witness string
	Size    int64
	At      stamp
}

type typeCount struct {
	Kind    string
	N       int64
	Meaning string
}

func (t *tally) stamp(at time.Time) stamp {
	if at.IsZero() {
		return stamp{}
	}
	s := stamp{UTC: at.UTC().Format(stampForm)}
	if t.manifest.Zone != "" {
		s.Local = at.In(t.zone).Format(stampForm + " MST")
	}
	return s
}

// render makes report and certificate. files are those that they are made from;
// checkpoints are the bundle's, of which the first is the newest.
func render(m *Manifest, t *tally, files map[string]File, checkpoints []*held, keys []string) (report, certificate []byte, err error) {
	v, err := t.view(files, checkpoints, keys)
	if err != nil {
		return nil, nil, err
	}
	digest := sha256.Sum256([]byte(v.Style))
	v.Policy = "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) + "'; base-uri 'none'; form-action 'none'"
	functions := template.FuncMap{"number": number, "octets": octets, "plural": plural, "percent": percent, "length": func(n int) int64 { return int64(n) }}
	execute := func(name, text string) ([]byte, error) {
		parsed, err := template.New(name).Funcs(functions).Parse(text)
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		err = parsed.Execute(&out, v)
		return out.Bytes(), err
	}
	if report, err = execute(reportFile, reportTemplate); err != nil {
		return nil, nil, err
	}
	v.Files = append(v.Files, File{reportFile, int64(len(report)), sum(report)})
	certificate, err = execute(certificateFile, certificateTemplate)
	return report, certificate, err
}

func percent(part, whole int64) string {
	if whole == 0 {
		return "0"
	}
	return fmt.Sprintf("%.0f", 100*float64(part)/float64(whole))
}

// view gathers what the templates show.
func (t *tally) view(files map[string]File, checkpoints []*held, keys []string) (*view, error) {
	t.end()
	note := checkpoints[0].note
	m := t.manifest
	v := &view{
		Style: template.CSS(stylesheet), M: m, // ours, from the binary
		Firm: shown(m.Firm), Maker: shown(m.Maker), Version: shown(m.Postern), Zone: shown(m.Zone),
		From: t.stamp(m.From), Until: t.stamp(m.Until), Made: t.stamp(m.Made),
		Earliest: t.stamp(t.earliest), Latest: t.stamp(t.latest), First: t.stamp(t.firstOfAll), Last: t.stamp(t.lastOfAll),
		Entries: m.Last - m.First + 1, Total: t.total, Events: t.events, Outside: t.outside,
		AlarmsLeft: t.alarmsLeft, StandingLeft: t.standingLeft, RowsLeft: t.rowsLeft, SessionsLeft: t.sessionsLeft,
		Agents: t.table(t.agents), Mailboxes: t.table(t.mailboxes), Machines: t.table(t.machines), Days: t.days(),
		Alarms: t.lines(t.alarms), Standing: t.lines(t.standing), Rows: t.lines(t.rows),
		Checkpoint: shownLines(note), Signatures: bytes.Count(note, []byte("\n— ")), Doubts: t.doubts(),
	}
	v.Narrowed = t.narrowed()
	if m.Incident != nil {
		v.Incident = meaning(m.Incident.Kind)
		v.Alert = shown(fmt.Sprintf("alert %s, %s, of %s until %s UTC", m.Incident.AlertID, m.Incident.Severity,
			m.Incident.FirstSeen.UTC().Format(stampForm), m.Incident.LastSeen.UTC().Format(stampForm)))
	}
	cosigned, err := claims(checkpoints)
	if err != nil {
		return nil, err
	}
	for _, c := range cosigned {
		v.Cosigned = append(v.Cosigned, shownCosigned{shown(c.Witness), c.Size, t.stamp(c.At)})
	}
	if len(cosigned) > 0 && cosigned[0].Size <= m.Last {
		v.Doubts = append(v.Doubts, fmt.Sprintf("No witness had cosigned the log beyond %s when this was made: the entries from %d on were pinned by the log’s key alone.", plural(cosigned[0].Size, "event"), cosigned[0].Size))
	}
	for _, k := range keys {
		v.Keys = append(v.Keys, shown(k))
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		v.Files = append(v.Files, files[name])
		var size int64
		if found := olderName.FindStringSubmatch(name); found != nil {
			_, _ = fmt.Sscan(found[1], &size) // digits, by the pattern
			v.Older = append(v.Older, size)
		}
	}
	slices.Sort(v.Older)
	for kind, n := range t.types {
		v.Types = append(v.Types, typeCount{shown(string(kind)), n, meaningOf(kind)})
	}
	slices.SortFunc(v.Types, func(a, b typeCount) int { return cmp.Or(cmp.Compare(b.N, a.N), strings.Compare(a.Kind, b.Kind)) })
	if t.events > 0 {
		from, until := m.From, m.Until
		if from.IsZero() {
			from = t.earliest
		}
		if until.IsZero() {
			until = t.latest
		}
		a := newAxis(from, until, t.zone)
		v.Unit = a.unit
		v.Chart = t.chart(a)
		v.Timeline, v.LanesLeft = t.timeline(newAxis(t.earliest, t.latest, t.zone))
	}
	return v, nil
}

// shown2 shows a text of several lines.
func shownLines(text []byte) string {
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for i := range lines {
		lines[i] = shown(lines[i])
	}
	return strings.Join(lines, "\n")
}

// narrowed says what a bundle was narrowed to.
func (t *tally) narrowed() []string {
	n := t.manifest.Narrowed
	if n == nil {
		return nil
	}
	var all []string
	for _, to := range []struct {
		what string
		id   broker.ID
	}{{"the agent", n.AgentID}, {"the mailbox", n.MailboxID}, {"the workstation", n.WorkstationID}} {
		if to.id != "" {
			all = append(all, to.what+" "+shown(t.name(to.id))+" ("+shown(string(to.id))+")")
		}
	}
	return all
}

// table lists counts by name.
func (t *tally) table(all map[broker.ID]*counts) []counted {
	var lines []counted
	for id, c := range all {
		lines = append(lines, counted{shown(t.name(id)), t.agentNames[id] != "", shown(string(id)), *c})
	}
	slices.SortFunc(lines, func(a, b counted) int {
		return cmp.Or(strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)), strings.Compare(a.ID, b.ID))
	})
	return lines
}

// days lists counts by day, in the zone that was asked for.
func (t *tally) days() []counted {
	days := make(map[string]*counts)
	for quarter, c := range t.slots {
		of(days, time.Unix(quarter*int64(slot/time.Second), 0).In(t.zone).Format(dayForm)).add(c)
	}
	var lines []counted
	for _, day := range slices.Sorted(maps.Keys(days)) {
		lines = append(lines, counted{Name: day, counts: *days[day]})
	}
	return lines
}

func (t *tally) lines(all []line) []shownLine {
	var lines []shownLine
	for _, l := range all {
		where := shown(t.name(l.mailbox))
		if l.machine != "" {
			if where != "" {
				where += " · "
			}
			where += shown(t.name(l.machine))
		}
		lines = append(lines, shownLine{
			Seq: l.seq, At: t.stamp(l.at), Who: t.who(l.actor), Where: where, What: l.what, Kind: shown(string(l.kind)), Outside: l.outside, Grave: l.grave,
		})
	}
	return lines
}

// doubts says what is not known, of these events in particular.
func (t *tally) doubts() []string {
	m := t.manifest
	var all []string
	say := func(n int64, format string, args ...any) {
		if n > 0 {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	say(m.Withheld, "%s in between %s left out, because the bundle was narrowed. Their number and places are proved; that none of them belongs to what it was narrowed to is the maker's word.", plural(m.Withheld, "event"), were(m.Withheld))
	say(m.Pruned, "Of %s the log has only the hash: %s pruned when the time to keep them was over. Their number and places are proved; what they said is gone. Which records were pruned the log itself tells in later events (log.pruned): a bundle that reaches the log's end holds those, and is verified with them; for any other, ask for a copy of the log.", plural(m.Pruned, "event"), theyWere(m.Pruned))
	if m.open() {
		say(1, "The bundle ends where its checkpoint does, and a checkpoint bears no time: that nothing was recorded from its last event until the end of the period is the maker's word, unless a witness cosigned it later than that.")
	}
	hidden := int64(0)
	for _, end := range []bool{m.First > 0 && !t.firstShown, m.Last < m.Size-1 && !t.lastShown} {
		if end {
			hidden++
		}
	}
	say(hidden, "Of %s, which would show that none of the period is missing there, only the hash is here: that none is is the maker's word.", map[int64]string{1: "the entry at one of its ends", 2: "the entries at both of its ends"}[hidden])
	say(t.restored, "The log was restored from a backup %s: what was recorded between backup and restore is not in it. The events below say when, and how much.", times(t.restored))
	say(t.unwitnessed, "A witness of the log fell silent %s, which the events tell: what was recorded from then until it cosigned again was pinned by that witness only afterwards.", times(t.unwitnessed))
	say(t.unknown, "Of %s it is not known whether it was sent: the connection broke after it had been handed over.", plural(t.unknown, "message"))
	say(t.unanswered, "Of %s to messages or folders it is not known whether it was carried out: the session ended before the mail server answered.", plural(t.unanswered, "change"))
	say(t.unnamed, "Of %s the Message-ID is not known; folder and UID identify %s.", plural(t.unnamed, "downloaded part"), them(t.unnamed))
	say(t.stale, "%s ended with the death of the server that held %s: what it had not yet recorded, at most 1 MiB of messages each, is not known.", plural(t.stale, "session"), them(t.stale))
	say(t.unrecorded, "Nothing could be recorded for a time (%s told of it): meanwhile no session was let in, and none went on.", plural(t.unrecorded, "event"))
	open := int64(0)
	for _, s := range t.sessions {
		if !s.closed && t.within(s.from) {
			open++
		}
	}
	say(open, "%s no end among these events: it went on afterwards, or is told of later in the log.", has(open, "session"))
	say(t.backwards, "%s a time that is more than %s behind an event before it in the log: the server's clock was changed, or nodes' clocks differ.", has(t.backwards, "event"), Margin)
	return all
}

func were(n int64) string {
	if n == 1 {
		return "was"
	}
	return "were"
}

func theyWere(n int64) string {
	if n == 1 {
		return "it was"
	}
	return "they were"
}

func them(n int64) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

func has(n int64, one string) string {
	if n == 1 {
		return "1 " + one + " has"
	}
	return plural(n, one) + " have"
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return number(n) + " times"
}
