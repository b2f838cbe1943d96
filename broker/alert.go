// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"slices"
	"time"
)

// Severity is how soon a person must see an alert.
type Severity string

// The severities, in rising order.
const (
	// SeverityInfo: worth knowing; nothing needs to be done.
	SeverityInfo Severity = "info"
	// SeverityWarning: look at it within the day.
	SeverityWarning Severity = "warning"
	// SeverityCritical: a mailbox may be in the wrong hands, or nobody can work
	// in it: act now.
	SeverityCritical Severity = "critical"
)

// Severities returns all, in rising order.
func Severities() []Severity { return []Severity{SeverityInfo, SeverityWarning, SeverityCritical} }

// Above reports whether s is graver than other. One that is not known is the
// gravest: a newer node's must not be overlooked.
func (s Severity) Above(other Severity) bool { return s.rank() > other.rank() }

func (s Severity) rank() int {
	if i := slices.Index(Severities(), s); i >= 0 {
		return i
	}
	return len(Severities())
}

// AlertState is where an alert stands.
type AlertState string

// The states.
const (
	// AlertOpen: nobody has seen to it yet.
	AlertOpen AlertState = "open"
	// AlertAcknowledged: somebody has, and the cause may still be there.
	AlertAcknowledged AlertState = "acknowledged"
	// AlertResolved: the cause is gone, or a person said that it is over.
	AlertResolved AlertState = "resolved"
)

// What bounds alerts.
const (
	// AlertQuiet is how long an acknowledged alert must have been quiet for its
	// next event to open it again.
	AlertQuiet = 24 * time.Hour
	// AlertRelapse is for how long after its end an event opens a resolved alert
	// again, instead of raising another: what comes and goes makes one an hour
	// at most.
	AlertRelapse = time.Hour
	// AlertEvidenceFirst and AlertEvidenceLast are how many of its first and of
	// its last events an alert names.
	AlertEvidenceFirst = 4
	AlertEvidenceLast  = 12
	// MaxAlertNote and MaxAlertDetail are in octets.
	MaxAlertNote   = 1000
	MaxAlertDetail = 300
)

// Alert is one thing that a person must see. It is made of events, in the log
// that they are in and in their transactions: see [AlertChanges]. One that
// stands, open or acknowledged, takes up whatever has the same kind and subject;
// so there are at most as many as there are things to have one.
type Alert struct {
	ID ID `json:"id"`
	// FirmID is whose it is, as the log is; empty: the BPO's own.
	FirmID   ID         `json:"firm_id,omitempty"`
	Kind     AlertKind  `json:"kind"`
	Severity Severity   `json:"severity"`
	State    AlertState `json:"state"`
	// Subject tells it from others of its kind: ids of things, and nothing that
	// a stranger or an agent can make up.
	Subject string `json:"subject,omitempty"`

	// What the last event was about. An id that was another before is empty: it
	// is about several.
	MailboxID     ID `json:"mailbox_id,omitempty"`
	AgentID       ID `json:"agent_id,omitempty"`
	WorkstationID ID `json:"workstation_id,omitempty"`
	SessionID     ID `json:"session_id,omitempty"`
	// Detail is the last event's: a mail server's answer, a rule's name.
	Detail string `json:"detail,omitempty"`

	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
	// Count is how many events there were, which Evidence names the first and
	// last of.
	Count    int64           `json:"count"`
	Evidence []AlertEvidence `json:"evidence"`

	// OpenedAt is when it was last raised or opened again.
	OpenedAt     time.Time    `json:"opened_at"`
	Acknowledged *AlertAnswer `json:"acknowledged,omitempty"`
	Resolved     *AlertAnswer `json:"resolved,omitempty"`
}

// AlertEvidence names one event of the alert's log.
type AlertEvidence struct {
	EventID ID        `json:"event_id"`
	Seq     int64     `json:"seq"`
	Type    EventType `json:"type"`
	Time    time.Time `json:"time"`
}

// AlertAnswer is what was done about an alert.
type AlertAnswer struct {
	By   Actor     `json:"by"`
	At   time.Time `json:"at"`
	Note string    `json:"note,omitempty"`
	// EventID is the event that ended the cause; empty: a person said so.
	EventID ID `json:"event_id,omitempty"`
}

// AlertStanding is what an alert's tag is made of. Further events of the same
// gravity do not change it, so that a storm keeps nobody from answering.
type AlertStanding struct {
	ID       ID         `json:"id"`
	State    AlertState `json:"state"`
	Severity Severity   `json:"severity"`
	OpenedAt time.Time  `json:"opened_at"`
}

// Standing returns what the alert's tag is made of.
func (a *Alert) Standing() AlertStanding {
	return AlertStanding{a.ID, a.State, a.Severity, a.OpenedAt}
}

// AlertQuery selects alerts, the last raised first.
type AlertQuery struct {
	// FirmID selects a firm's, OwnOnly those of the BPO; neither: all.
	FirmID  ID
	OwnOnly bool
	// States are those wanted; empty: all.
	States []AlertState
	// Severity is the least that is wanted; empty: all.
	Severity           Severity
	Kind               AlertKind
	MailboxID, AgentID ID
	// Since leaves out what was last seen before.
	Since time.Time
	// Limit is 1 to 10000; 0: 1000.
	Limit int
}

// AlertCount is how many alerts of one firm (empty: the BPO) stand at one
// severity.
type AlertCount struct {
	FirmID   ID
	Severity Severity
	State    AlertState
	Count    int
}

// Alerts keeps alerts: broker/store.
//
// To raise or resolve one is to append an event whose type AlertChanges knows,
// by EventStore.AppendEvents or an EventLog, or to make a change of State that
// has such an event. Both are one transaction. Where an event opens an alert,
// an alert.raised follows it in the log; what else the event does to alerts is
// not recorded, since it follows from the event.
//
// Errors are those of State. A firm's alerts are its own people's affair, as its
// mailboxes are: once it was claimed, an admin of the BPO is Refused.
type Alerts interface {
	// AcknowledgeAlert says that somebody has seen to it. What was acknowledged
	// already stays as it is, and is no error; what was resolved is Conflict.
	// With WithExpected, the tag is that of its Standing.
	AcknowledgeAlert(ctx context.Context, by Actor, id ID, note string) (*Alert, error)
	// ResolveAlert says that it is over. What was resolved stays as it is.
	ResolveAlert(ctx context.Context, by Actor, id ID, note string) (*Alert, error)
	Alert(ctx context.Context, id ID) (*Alert, error)
	Alerts(ctx context.Context, q AlertQuery) ([]*Alert, error)
	// AlertCounts counts those that stand, of a firm or (empty) of all.
	AlertCounts(ctx context.Context, firm ID) ([]AlertCount, error)
}
