// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a report in some zone is checked on machines that have none

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/evidence"
	"github.com/postern-mail/postern/broker/audit/logcopy"
	"github.com/postern-mail/postern/broker/httpapi"
)

// defaultAround is how much before and after an alert belongs to its incident.
const defaultAround = time.Hour

// Entry returns one entry of the log (evidence.Source).
func (s logSource) Entry(ctx context.Context, seq int64) (*logcopy.Entry, error) {
	raw, err := s.get(ctx, "entries", "first", strconv.FormatInt(seq, 10), "limit", "1")
	if err != nil {
		return nil, err
	}
	some, err := entriesOf(raw)
	if err == nil && len(some) != 1 {
		err = broker.Errorf(broker.Conflict, "the server does not have event %d, which its checkpoint tells of", seq)
	}
	if err != nil {
		return nil, err
	}
	return some[0], nil
}

// Witnessed returns what each of the log's witnesses has cosigned (evidence.Source).
func (s logSource) Witnessed(ctx context.Context) ([][]byte, error) {
	raw, err := s.app.request(ctx, http.MethodGet, withQuery(path("log", "witnesses"), "firm", s.firm), nil)
	if err != nil {
		return nil, err
	}
	var all httpapi.List[*httpapi.LogWitness]
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	var notes [][]byte
	for _, w := range all.Items {
		note, err := s.cosigned(ctx, w.Name)
		if err != nil {
			return nil, err
		}
		if note != nil {
			notes = append(notes, note)
		}
	}
	return notes, nil
}

// evidenceMaking is what a bundle is asked for with.
type evidenceMaking struct {
	app                                     *app
	trust                                   trust
	witnesses                               witnesses
	firm, since, until, alert, output, zone string
	agent, mailbox, workstation             string
	copied, maker                           string
	around                                  time.Duration
	// named are the names that are known, by the kind of thing.
	named map[string]map[broker.ID]string
}

func newEvidenceMakeCommand(a *app) *cobra.Command {
	m := &evidenceMaking{app: a}
	cmd := &cobra.Command{
		Use:   "make",
		Short: "Make an evidence bundle of a firm's log, for a period or around an alert",
		Long: `Copy what a log has of a period into a bundle for those who have neither the server
nor a reason to believe it: the events, what proves them, a report to read and to
print, and the particulars that a certificate for electronic records asks for.

What the server says is proved as it is copied. That a bundle was made is recorded
in the log, with the hash of its manifest; what was made is printed.

With --agent, --mailbox or --workstation the events of others are left out. That
they are, and how many, stands in the bundle: their hashes keep their places.

The newest checkpoint that each witness of the log has cosigned goes with it. With
--witness the bundle ends with what that witness has cosigned, which is the log of
some seconds ago.

With --copy it is made of what 'postern log pull' keeps of the log, and no server is
asked or told: --firm and --maker are what the report calls the firm and you.`,
		Example: `  postern evidence make --firm "Acme Pumps" --since 2026-11-01 --until 2026-11-30 --zone Asia/Kolkata -o acme-2026-11.zip
  postern evidence make --alert 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d --around 2h -o incident.zip
  postern evidence make --server mail.bpo.example:8443 --keys acme-log.keys --agent asha --since 2026-11-26 -o asha
  postern evidence make --copy acme-log --keys acme-log.keys --firm "Acme Pumps" --maker "Priya Nair" -o acme.zip`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return m.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&m.output, "output", "o", "", "where to make it: a `file` that ends in .zip, or a directory (required)")
	firmFlag(cmd, &m.firm)
	flags.StringVar(&m.since, "since", "", "the period's beginning: a `date`, or a time in RFC 3339 (without it: the log's)")
	flags.StringVar(&m.until, "until", "", "its end: a `date`, which it includes, or a time (without it: now)")
	flags.StringVar(&m.alert, "alert", "", "the `alert` whose surroundings are wanted, in place of a period")
	flags.DurationVar(&m.around, "around", defaultAround, "with --alert: how much `time` before and after it")
	flags.StringVar(&m.zone, "zone", "", "a `zone` in which dates are meant and times are shown beside UTC, such as Asia/Kolkata (without it: this machine's, and UTC alone)")
	flags.StringVar(&m.agent, "agent", "", "only events of this `agent`")
	flags.StringVar(&m.mailbox, "mailbox", "", "only events of this `mailbox`")
	flags.StringVar(&m.workstation, "workstation", "", "only events of this `workstation`")
	flags.StringVar(&m.copied, "copy", "", "a `directory` of 'postern log pull' to make it from, without a server")
	flags.StringVar(&m.maker, "maker", "", "with --copy: who makes it, in `words` for the report")
	m.trust.flags(cmd)
	m.witnesses.flags(cmd)
	return cmd
}

func (m *evidenceMaking) run(cmd *cobra.Command) error {
	if m.output == "" {
		return usagef("--output is missing: where is the bundle to be made?")
	}
	if m.alert != "" && (m.since != "" || m.until != "") {
		return usagef("--alert stands in place of --since and --until")
	}
	r := &evidence.Request{Source: logSource{m.app, m.firm}, Postern: version(), Zone: m.zone, Names: make(map[broker.ID]string)}
	from := m.people
	if m.copied != "" {
		from = m.fromCopy
		defer func() {
			if c, ok := r.Source.(*logcopy.Copy); ok {
				c.Close()
			}
		}()
	} else if m.maker != "" {
		return usagef("--maker goes with --copy: the server knows who asks it")
	}
	for _, step := range []func(*cobra.Command, *evidence.Request) error{m.period, m.keys, from, m.names, m.narrow} {
		if err := step(cmd, r); err != nil {
			return err
		}
	}
	made, err := evidence.Make(cmd.Context(), m.output, r)
	if err != nil {
		return evidenceError(err)
	}
	if m.copied == "" {
		if err := m.record(cmd, made); err != nil {
			return fmt.Errorf("%s was made, but that is not on record: %w", m.output, err)
		}
	}
	return m.tell(cmd, made)
}

// period finds which time is wanted.
func (m *evidenceMaking) period(cmd *cobra.Command, r *evidence.Request) error {
	zone := time.Local
	if m.zone != "" {
		var err error
		if zone, err = time.LoadLocation(m.zone); err != nil || m.zone == "Local" {
			return usagef("--zone %q is no zone such as Asia/Kolkata", m.zone)
		}
	}
	if m.alert != "" && m.copied == "" {
		_, x, err := call[httpapi.Alert](cmd, m.app, http.MethodGet, path("alerts", m.alert), nil)
		if err != nil {
			return err
		}
		if m.firm == "" && x.FirmID != "" {
			m.firm = string(x.FirmID)
			r.Source = logSource{m.app, m.firm}
		}
		r.Incident = &evidence.Incident{AlertID: x.ID, Kind: x.Kind, Severity: x.Severity, FirstSeen: x.FirstSeen.UTC().Truncate(time.Second), LastSeen: x.LastSeen.UTC().Truncate(time.Second)}
		r.From, r.Until = x.FirstSeen.Add(-m.around), x.LastSeen.Add(m.around)
		return nil
	}
	since, err := parseTimeIn(zone, "since", m.since, false)
	if err != nil {
		return err
	}
	until, err := parseTimeIn(zone, "until", m.until, true)
	if err != nil {
		return err
	}
	if since != nil {
		r.From = *since
	}
	if until != nil {
		r.Until = *until
		if !r.From.Before(r.Until) {
			return usagef("--until is not after --since")
		}
	}
	return nil
}

// keys has the log's keys: those that were given, else the server's word.
func (m *evidenceMaking) keys(cmd *cobra.Command, r *evidence.Request) (err error) {
	if r.KeyLines, err = m.trust.keyLines(); err != nil {
		return err
	}
	if r.KeysGiven = len(r.KeyLines) > 0; !r.KeysGiven && m.copied == "" {
		_, told, err := call[httpapi.LogKeys](cmd, m.app, http.MethodGet, withQuery(path("log", "keys"), "firm", m.firm), nil)
		if err != nil {
			return err
		}
		r.KeyLines = told.Keys
	}
	if r.Witnesses, err = m.witnesses.read(); err != nil {
		return err
	}
	r.Older, err = m.trust.olderCheckpoints()
	return err
}

// people finds who makes it, of whose log, and the names of what is in it.
func (m *evidenceMaking) people(cmd *cobra.Command, r *evidence.Request) error {
	_, self, err := call[httpapi.Self](cmd, m.app, http.MethodGet, path("whoami"), nil)
	if err != nil {
		return err
	}
	r.Maker, r.Firm = string(self.Role)+" "+self.Name, self.Firm
	if m.firm != "" {
		_, firm, err := call[broker.Firm](cmd, m.app, http.MethodGet, path("firms", m.firm), nil)
		if err != nil {
			return err
		}
		r.Firm = firm.Name
	}
	if r.Firm == "" {
		r.Firm = "the outsourcing firm itself"
	}
	m.named = map[string]map[broker.ID]string{"agents": {}, "mailboxes": {}, "workstations": {}}
	for _, kind := range []string{"agents", "mailboxes", "workstations", "sessions"} {
		where := path(kind)
		if kind == "sessions" {
			where = withQuery(where, "all", "true", "limit", "10000")
		}
		_, things, err := call[httpapi.List[*nameable]](cmd, m.app, http.MethodGet, where, nil)
		if codeOf(err) == broker.Refused {
			continue // a firm's people learn of workstations from its sessions
		}
		if err != nil {
			return err
		}
		for _, x := range things.Items {
			switch {
			case kind == "sessions" && x.WorkstationID != "" && x.Workstation != "":
				m.named["workstations"][x.WorkstationID] = x.Workstation
			case kind != "sessions":
				m.named[kind][x.ID] = x.Name + x.Address // each has one of them
			}
		}
	}
	return nil
}

// names has the bundle know all names that there are.
func (m *evidenceMaking) names(_ *cobra.Command, r *evidence.Request) error {
	for _, names := range m.named {
		maps.Copy(r.Names, names)
	}
	return nil
}

// nameable is a thing in a list, and of a session what it names.
type nameable struct {
	ID            broker.ID `json:"id"`
	Name          string    `json:"name"`
	Address       string    `json:"address"`
	WorkstationID broker.ID `json:"workstation_id"`
	Workstation   string    `json:"workstation"`
}

// narrow finds whose events are wanted.
func (m *evidenceMaking) narrow(_ *cobra.Command, r *evidence.Request) error {
	var n evidence.Narrowing
	for _, to := range []struct {
		flag, kind, name string
		id               *broker.ID
	}{{"agent", "agents", m.agent, &n.AgentID}, {"mailbox", "mailboxes", m.mailbox, &n.MailboxID}, {"workstation", "workstations", m.workstation, &n.WorkstationID}} {
		if to.name == "" {
			continue
		}
		if id, err := broker.ParseID(to.name); err == nil {
			*to.id = id
			continue
		}
		for id, name := range m.named[to.kind] {
			if strings.EqualFold(name, to.name) {
				*to.id = id
			}
		}
		if *to.id == "" {
			return broker.Errorf(broker.NotFound, "there is no %s %q; of one that was removed, give the id", to.flag, to.name)
		}
	}
	if n != (evidence.Narrowing{}) {
		r.Narrowed = &n
	}
	return nil
}

// record has the log say that the bundle was made.
func (m *evidenceMaking) record(cmd *cobra.Command, made *evidence.Made) error {
	of := made.Manifest
	e := httpapi.Evidence{Firm: m.firm, EvidenceMade: broker.EvidenceMade{
		Origin: of.Origin, First: of.First, Last: of.Last, Size: of.Size, From: of.From, Until: of.Until,
		Disclosed: of.Disclosed, ManifestSHA256: made.ManifestSHA256,
	}}
	if of.Incident != nil {
		e.AlertID = of.Incident.AlertID
	}
	if n := of.Narrowed; n != nil {
		e.AgentID, e.MailboxID, e.WorkstationID = n.AgentID, n.MailboxID, n.WorkstationID
	}
	_, _, err := call[broker.EvidenceMade](cmd, m.app, http.MethodPost, path("log", "evidence"), e)
	return err
}

func (m *evidenceMaking) tell(cmd *cobra.Command, made *evidence.Made) error {
	out := cmd.OutOrStdout()
	of := made.Manifest
	if m.app.json {
		b, err := json.Marshal(struct {
			Path           string             `json:"path"`
			Manifest       *evidence.Manifest `json:"manifest"`
			ManifestSHA256 string             `json:"manifest_sha256"`
		}{m.output, of, made.ManifestSHA256})
		if err == nil {
			_, err = fmt.Fprintf(out, "%s\n", b)
		}
		return err
	}
	fmt.Fprintf(out, "%s holds %s of the log %s, proved to a checkpoint of %d.\n", m.output, count(int(of.Disclosed), "event"), of.Origin, of.Size)
	if of.Withheld > 0 {
		fmt.Fprintf(out, "It was narrowed: %s of others left out.\n", count(int(of.Withheld), "event"))
	}
	tellPruned(out, of.Pruned)
	fmt.Fprintf(out, "SHA-256 of its manifest: %s\n", made.ManifestSHA256)
	if !of.KeysGiven {
		fmt.Fprintln(cmd.ErrOrStderr(), "The log's keys are the server's word: who checks the bundle must have them from elsewhere ('postern log key').")
	}
	return nil
}
