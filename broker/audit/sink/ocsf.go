// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"encoding/json"
	"net"
	"slices"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// ocsfVersion is the schema's that events follow (schema.ocsf.io).
const ocsfVersion = "1.3.0"

// The classes, each with its category in its thousands.
const (
	classBase           = 0
	classFinding        = 2004
	classAccountChange  = 3001
	classAuthentication = 3002
	classEmail          = 4009
)

// Numbers that several classes share.
const (
	activityOther = 99
	statusSuccess = 1
	statusFailure = 2
)

// The statuses of a finding.
const (
	findingNew        = 1
	findingInProgress = 2
	findingResolved   = 4
)

// ocsfEvent has the attributes that Postern's events have something for. What has
// no attribute is in unmapped, which is the whole record.
type ocsfEvent struct {
	ActivityID   int    `json:"activity_id"`
	ActivityName string `json:"activity_name"`
	CategoryUID  int    `json:"category_uid"`
	ClassUID     int    `json:"class_uid"`
	TypeUID      int    `json:"type_uid"`
	SeverityID   int    `json:"severity_id"`
	StatusID     int    `json:"status_id,omitempty"`
	StatusDetail string `json:"status_detail,omitempty"`
	// Time is in milliseconds since 1970.
	Time     int64        `json:"time"`
	Message  string       `json:"message"`
	Metadata ocsfMetadata `json:"metadata"`
	Actor    *ocsfActor   `json:"actor,omitempty"`

	User        *ocsfUser        `json:"user,omitempty"`
	Service     *ocsfNamed       `json:"service,omitempty"`
	Session     *ocsfUID         `json:"session,omitempty"`
	SrcEndpoint *ocsfEndpoint    `json:"src_endpoint,omitempty"`
	IsRemote    *bool            `json:"is_remote,omitempty"`
	DirectionID *int             `json:"direction_id,omitempty"`
	Email       *ocsfEmail       `json:"email,omitempty"`
	Finding     *ocsfFindingInfo `json:"finding_info,omitempty"`

	Unmapped json.RawMessage `json:"unmapped"`
}

type ocsfMetadata struct {
	Version   string      `json:"version"`
	Product   ocsfProduct `json:"product"`
	UID       broker.ID   `json:"uid"`
	Sequence  int64       `json:"sequence"`
	EventCode string      `json:"event_code"`
	LogName   string      `json:"log_name"`
	TenantUID broker.ID   `json:"tenant_uid,omitempty"`
	Profiles  []string    `json:"profiles,omitempty"`
}

type ocsfProduct struct {
	Name       string `json:"name"`
	VendorName string `json:"vendor_name"`
}

type ocsfActor struct {
	User    ocsfUser `json:"user"`
	Session *ocsfUID `json:"session,omitempty"`
}

type ocsfUser struct {
	Name string    `json:"name,omitempty"`
	UID  broker.ID `json:"uid,omitempty"`
	Type string    `json:"type,omitempty"`
}

type ocsfNamed struct {
	Name string `json:"name"`
}

type ocsfUID struct {
	UID broker.ID `json:"uid"`
}

type ocsfEndpoint struct {
	IP  string    `json:"ip,omitempty"`
	UID broker.ID `json:"uid,omitempty"`
}

type ocsfEmail struct {
	From       string   `json:"from"`
	To         []string `json:"to"`
	SMTPFrom   string   `json:"smtp_from,omitempty"`
	SMTPTo     []string `json:"smtp_to,omitempty"`
	MessageUID string   `json:"message_uid,omitempty"`
	Size       int64    `json:"size,omitempty"`
	UID        string   `json:"uid,omitempty"`
}

type ocsfFindingInfo struct {
	UID   broker.ID `json:"uid"`
	Title string    `json:"title"`
}

const (
	unknownUser = "unknown"
	// unknownAddress stands where the schema wants an address that a record does
	// not have; nobody can have it (RFC 2606 §2).
	unknownAddress = "unknown@unknown.invalid"
)

// OCSF makes an event of the Open Cybersecurity Schema Framework of a record:
// Authentication, Email Activity, Account Change, a Detection Finding of what tells
// of an alert, and a Base Event of all others.
func OCSF(e *Event) ([]byte, error) {
	x := &ocsfEvent{
		ActivityID: activityOther, ActivityName: string(e.Type), SeverityID: ocsfSeverity(e.Severity), Time: e.Time.UnixMilli(), Message: string(e.Type),
		Metadata: ocsfMetadata{
			Version: ocsfVersion, Product: ocsfProduct{"Postern", "Postern"}, UID: e.ID, Sequence: e.Seq,
			EventCode: string(e.Type), LogName: "bpo", TenantUID: e.FirmID,
		},
		Actor: &ocsfActor{User: ocsfUser{Name: e.Actor.Name, UID: e.Actor.ID, Type: e.Actor.Kind}}, Unmapped: e.Record,
	}
	if e.FirmID != "" {
		x.Metadata.LogName = string(e.FirmID)
	}
	if e.SessionID != "" {
		x.Session = &ocsfUID{e.SessionID}
	}
	if e.WorkstationID != "" {
		x.SrcEndpoint = &ocsfEndpoint{UID: e.WorkstationID}
	}
	x.classify(e)
	x.fitClass()
	x.CategoryUID, x.TypeUID = x.ClassUID/1000, x.ClassUID*100+x.ActivityID
	return json.Marshal(x)
}

// fitClass takes away what the event's class has no attribute for, and puts the
// session where it has one. Some classes have an actor by the profile host alone.
func (x *ocsfEvent) fitClass() {
	switch x.ClassUID {
	case classAuthentication:
		return
	case classBase:
		x.Actor, x.SrcEndpoint = nil, nil
	case classFinding:
		x.SrcEndpoint = nil
		x.Metadata.Profiles = []string{"host"}
	case classEmail:
		x.Metadata.Profiles = []string{"host"}
	}
	if x.Actor != nil {
		x.Actor.Session = x.Session
	}
	x.Session = nil
}

func ocsfSeverity(s broker.Severity) int {
	switch s {
	case broker.SeverityInfo:
		return 1
	case broker.SeverityWarning:
		return 3
	}
	return 5
}

// fields are those of all types' data that attributes are made of.
type fields struct {
	Protocol   string           `json:"protocol"`
	RemoteAddr string           `json:"remote_addr"`
	Username   string           `json:"username"`
	Cause      string           `json:"cause"`
	Reason     string           `json:"reason"`
	Text       string           `json:"text"`
	Session    *broker.Session  `json:"session"`
	MailFrom   string           `json:"mail_from"`
	HeaderFrom string           `json:"header_from"`
	Recipients []string         `json:"recipients"`
	Address    string           `json:"address"`
	MessageID  string           `json:"message_id"`
	Octets     int64            `json:"octets"`
	Intent     string           `json:"intent"`
	Outcome    string           `json:"outcome"`
	Answer     string           `json:"answer"`
	Messages   []fieldsMessage  `json:"messages"`
	AlertID    broker.ID        `json:"alert_id"`
	Kind       broker.AlertKind `json:"kind"`
	Before     *fieldsThing     `json:"before"`
	After      *fieldsThing     `json:"after"`
}

type fieldsMessage struct {
	Octets    int64  `json:"octets"`
	MessageID string `json:"message_id"`
}

type fieldsThing struct {
	ID   broker.ID `json:"id"`
	Name string    `json:"name"`
}

// classify fills in what the event's class has.
func (x *ocsfEvent) classify(e *Event) {
	var f fields
	if raw, ok := e.Data.(json.RawMessage); ok {
		// A field of another form is another thing's: it is in unmapped.
		_ = json.Unmarshal(raw, &f)
	}
	subject, verb, _ := strings.Cut(string(e.Type), ".")
	switch {
	case IsAlert(e.Type):
		x.ClassUID = classFinding
		x.ActivityID = 1 + slices.Index([]broker.EventType{broker.EventAlertRaised, broker.EventAlertAcknowledged, broker.EventAlertResolved}, e.Type)
		x.StatusID = map[int]int{1: findingNew, 2: findingInProgress, 3: findingResolved}[x.ActivityID]
		x.Finding = &ocsfFindingInfo{f.AlertID, string(f.Kind)}
	case slices.Contains([]broker.EventType{
		broker.EventSessionOpen, broker.EventSessionEnd, broker.EventSessionRefused, broker.EventAuthFailed, broker.EventAppPasswordAstray,
	}, e.Type):
		x.authentication(e, &f)
	case subject == "message" || subject == "send":
		x.email(e, &f)
	default:
		x.account(e, &f, subject, verb)
	}
}

func (x *ocsfEvent) authentication(e *Event, f *fields) {
	const logon, logoff = 1, 2
	x.ClassUID, x.ActivityID, x.StatusID = classAuthentication, logon, statusFailure
	remote := true
	x.IsRemote = &remote
	x.User = &ocsfUser{Name: f.Username, UID: e.AgentID}
	x.StatusDetail = first(f.Cause, f.Reason)
	address, protocol := f.RemoteAddr, f.Protocol
	switch e.Type {
	case broker.EventSessionOpen:
		x.StatusID = statusSuccess
		if s := f.Session; s != nil {
			address, protocol = s.RemoteAddr, string(s.Protocol)
		}
	case broker.EventSessionEnd:
		x.ActivityID, x.StatusID = logoff, statusSuccess
	default:
		x.SeverityID = max(x.SeverityID, 2)
	}
	if x.User.Name == "" {
		x.User.Name = first(e.Actor.Name, unknownUser)
	}
	x.Service = &ocsfNamed{first(protocol, "postern")}
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	if address != "" {
		if x.SrcEndpoint == nil {
			x.SrcEndpoint = new(ocsfEndpoint)
		}
		x.SrcEndpoint.IP = address
	}
}

func (x *ocsfEvent) email(e *Event, f *fields) {
	const send, unknown, outbound = 1, 0, 2
	x.ClassUID = classEmail
	direction := unknown
	x.Email = &ocsfEmail{
		From: first(f.HeaderFrom, f.MailFrom, unknownAddress), To: f.Recipients, SMTPFrom: f.MailFrom, SMTPTo: f.Recipients,
		MessageUID: f.MessageID, Size: f.Octets, UID: f.Intent,
	}
	if strings.HasPrefix(string(e.Type), "send.") {
		x.ActivityID, direction = send, outbound
	}
	if len(f.Messages) > 0 { // the others are in unmapped
		x.Email.MessageUID, x.Email.Size = f.Messages[0].MessageID, f.Messages[0].Octets
	}
	if len(x.Email.To) == 0 {
		x.Email.To = []string{first(f.Address, unknownAddress)}
	}
	switch {
	case e.Type == broker.EventSendRefused, f.Outcome == "refused", f.Outcome == "not-sent":
		x.StatusID, x.SeverityID = statusFailure, max(x.SeverityID, 2)
	case f.Outcome == "accepted":
		x.StatusID = statusSuccess
	}
	x.StatusDetail = first(f.Answer, f.Text)
	x.DirectionID = &direction
}

// account is for what opens something to somebody: people, agents, what they show,
// and mailboxes' credentials.
func (x *ocsfEvent) account(e *Event, f *fields, subject, verb string) {
	const create, enable, passwordChange, passwordReset, remove, attach, detach, lock = 1, 2, 3, 4, 6, 7, 8, 9
	switch subject {
	case "credential":
		x.ActivityID = passwordChange
		if e.Type != broker.EventCredentialSet {
			x.ActivityID = activityOther
		}
	case "rotation":
		x.ActivityID = passwordReset
	case "lock":
		x.ActivityID = map[string]int{"created": lock, "removed": enable}[verb]
	case "delegation", "assignment":
		x.ActivityID = map[string]int{"created": attach, "approved": attach, "updated": attach, "revoked": detach}[verb]
	case "agent", "person", "app-password", "api-token", "mailbox":
		x.ActivityID = map[string]int{"created": create, "deleted": remove, "removed": remove, "revoked": remove}[verb]
	default:
		return // a base event
	}
	if x.ActivityID == 0 {
		x.ActivityID = activityOther
	}
	x.ClassUID = classAccountChange
	x.User = &ocsfUser{UID: e.MailboxID, Type: "mailbox"}
	if e.AgentID != "" {
		x.User = &ocsfUser{UID: e.AgentID, Type: "agent"}
	}
	if subject == "agent" || subject == "person" {
		x.User.Type = subject
	}
	for _, thing := range []*fieldsThing{f.Before, f.After} {
		if thing != nil && (x.User.UID == "" || x.User.UID == thing.ID) {
			x.User.UID, x.User.Name = thing.ID, thing.Name
		}
	}
	if x.User.UID == "" && x.User.Name == "" {
		x.User.Name = unknownUser
	}
}

// first is the first that is not empty.
func first(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}
