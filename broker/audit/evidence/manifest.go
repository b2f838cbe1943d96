// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/logcopy"
	"github.com/postern-mail/postern/broker/translog"
)

// The files of a bundle.
const (
	manifestFile    = "manifest.json"
	eventsFile      = "events.jsonl"
	proofFile       = "proof.json"
	checkpointFile  = "checkpoint.txt"
	keysFile        = "keys.txt"
	reportFile      = "report.html"
	certificateFile = "certificate.html"
)

const (
	// format is the manifest's.
	format = 1
	// Margin is by how much the order of a log and the order of its times may
	// differ: events wait for a transaction, and nodes' clocks are not one. A
	// bundle's entries begin as much before its period, and end as much after.
	Margin = time.Minute
	// maxOlder is how many older checkpoints a bundle may have.
	maxOlder = 64
	// MaxEvents bounds the entries of a bundle.
	MaxEvents = 50_000_000
)

// What files may have at most, in octets.
const (
	maxManifest    = 8 << 20
	maxProof       = 1 << 20
	maxKeys        = 256 << 10
	maxReport      = 64 << 20
	maxCertificate = 8 << 20
	maxEvents      = 64 << 30
	// maxLine bounds an entry's line.
	maxLine = 16 << 20
)

var olderName = regexp.MustCompile(`^checkpoint-([1-9][0-9]{0,17})\.txt$`)

func olderFile(size int64) string { return "checkpoint-" + strconv.FormatInt(size, 10) + ".txt" }

// mostOctets returns what a file of a bundle may have at most; 0: a bundle has
// no such file.
func mostOctets(name string) int64 {
	switch name {
	case manifestFile:
		return maxManifest
	case eventsFile:
		return maxEvents
	case proofFile:
		return maxProof
	case checkpointFile:
		return translog.MaxCheckpoint
	case keysFile:
		return maxKeys
	case reportFile:
		return maxReport
	case certificateFile:
		return maxCertificate
	}
	if olderName.MatchString(name) {
		return translog.MaxCheckpoint
	}
	return 0
}

// File is one file of a bundle.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Narrowing is whose events alone a bundle discloses; what is empty does not
// narrow it.
type Narrowing struct {
	AgentID       broker.ID `json:"agent_id,omitempty"`
	MailboxID     broker.ID `json:"mailbox_id,omitempty"`
	WorkstationID broker.ID `json:"workstation_id,omitempty"`
}

// Incident is the alert whose surroundings a bundle is of, as its server told.
type Incident struct {
	AlertID   broker.ID        `json:"alert_id"`
	Kind      broker.AlertKind `json:"kind"`
	Severity  broker.Severity  `json:"severity"`
	FirstSeen time.Time        `json:"first_seen"`
	LastSeen  time.Time        `json:"last_seen"`
}

// Manifest says what a bundle is of.
type Manifest struct {
	Format int `json:"format"`
	// Made is when, Maker who, by his own word and clock, Postern its version.
	Made    time.Time `json:"made"`
	Maker   string    `json:"maker"`
	Postern string    `json:"postern"`
	// Origin is the log's name, Firm its firm's.
	Origin string `json:"origin"`
	Firm   string `json:"firm"`
	// From and Until are the period; a zero one has no beginning, or ends with
	// the checkpoint.
	From  time.Time `json:"from,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Zone is that in which times are shown beside UTC, as IANA names it.
	Zone     string     `json:"zone,omitempty"`
	Incident *Incident  `json:"incident,omitempty"`
	Narrowed *Narrowing `json:"narrowed,omitempty"`
	// KeysGiven says that the maker had the log's keys from elsewhere than from
	// its server.
	KeysGiven bool `json:"keys_given"`
	// First and Last are the first and the last entry, by their place in the log,
	// and Size is the checkpoint's.
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	Size  int64 `json:"size"`
	// Disclosed is how many entries are there whole, Withheld how many the
	// narrowing left out, and Pruned how many the log itself has no more of than
	// their hash.
	Disclosed int64 `json:"disclosed"`
	Withheld  int64 `json:"withheld"`
	Pruned    int64 `json:"pruned"`
	// Names are of things that events name by id, as a directory had them when
	// the bundle was made.
	Names map[broker.ID]string `json:"names,omitempty"`
	Files []File               `json:"files"`
}

// octets returns the manifest as it is written.
func (m *Manifest) octets() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	return append(b, '\n'), err
}

// readManifest reads a manifest, strictly: nothing may stand in it that nobody
// looks at.
func readManifest(b []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := strictly(b, m); err != nil {
		return nil, fmt.Errorf("manifest.json cannot be read: %w", err)
	}
	switch {
	case m.Format != format:
		return nil, fmt.Errorf("the bundle's format is %d, and this version of Postern knows %d", m.Format, format)
	case m.First < 0 || m.Last < m.First || m.Size <= m.Last || m.Last-m.First >= MaxEvents:
		return nil, fmt.Errorf("the manifest tells of entries %d to %d of %d", m.First, m.Last, m.Size)
	case m.From.IsZero() && m.First > 0 || m.Until.IsZero() && m.Last < m.Size-1:
		return nil, errors.New("the period has no beginning or no end, and the manifest's entries have one")
	case m.Disclosed < 0 || m.Withheld < 0 || m.Pruned < 0 || m.Withheld > 0 && m.Narrowed == nil:
		return nil, errors.New("the manifest's counts cannot be true")
	case !m.Narrowed.plausible():
		return nil, errors.New("the manifest does not say to what the bundle was narrowed")
	}
	times := []time.Time{m.Made, m.From, m.Until}
	if m.Incident != nil {
		times = append(times, m.Incident.FirstSeen, m.Incident.LastSeen)
	}
	for _, at := range times {
		// What the report does not show nobody checks.
		if at.Nanosecond() != 0 || at.Location() != time.UTC {
			return nil, fmt.Errorf("the manifest's time %s is not a whole second in UTC", at)
		}
	}
	if again, err := m.octets(); err != nil || !bytes.Equal(again, b) {
		return nil, errors.New("manifest.json is not in the form in which Postern writes it")
	}
	return m, nil
}

// strictly decodes JSON that holds nothing else.
func strictly(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows")
	}
	return nil
}

// proof is what proof.json holds.
type proof struct {
	// Before and After are those of translog.RangeProof.
	Before []tlog.Hash `json:"before"`
	After  []tlog.Hash `json:"after"`
	// Grown proves of each older checkpoint that the log grew from it (RFC 6962
	// §2.1.2).
	Grown []grown `json:"grown"`
}

type grown struct {
	Size   int64          `json:"size"`
	Hashes tlog.TreeProof `json:"hashes"`
}

// explained finds that what has no record was pruned, as the log tells: where the
// bundle holds all that the log says after it, and was not narrowed.
func (m *Manifest) explained(p *logcopy.Prunings) error {
	if m.Narrowed != nil || m.Last < m.Size-1 {
		return nil
	}
	return p.Fault()
}

// ends finds that the first and the last entry are outside the period, where the
// log has any outside: none of the period is missing at its ends. Of those that are
// there as their hashes nobody can tell.
func (m *Manifest) ends(e *Event) error {
	if e.Seq == m.First && e.Seq > 0 && !e.Time.Before(m.From.Add(-Margin)) || e.Seq == m.Last && e.Seq < m.Size-1 && e.Time.Before(m.Until.Add(Margin)) {
		return fmt.Errorf("event %d has a time that does not fit its place: there may be more events of the period", e.Seq)
	}
	return nil
}

// plausible reports whether it names what it narrows to, where it does at all.
func (n *Narrowing) plausible() bool {
	if n == nil {
		return true
	}
	for _, id := range []broker.ID{n.AgentID, n.MailboxID, n.WorkstationID} {
		if _, err := broker.ParseID(string(id)); id != "" && err != nil {
			return false
		}
	}
	return *n != Narrowing{}
}

// open reports whether the checkpoint covers nothing after the period's last event:
// what was recorded from then until its end may not be in it.
func (m *Manifest) open() bool { return !m.Until.IsZero() && m.Last == m.Size-1 }

// matches reports whether an event is disclosed.
func (n *Narrowing) matches(e *Event) bool {
	if n == nil {
		return true
	}
	return (n.AgentID == "" || e.AgentID == n.AgentID || e.Actor.ID == n.AgentID) &&
		(n.MailboxID == "" || e.MailboxID == n.MailboxID) &&
		(n.WorkstationID == "" || e.WorkstationID == n.WorkstationID)
}
