// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"encoding/json"
	"time"

	"github.com/postern-mail/postern/policy"
)

// WorkstationCertified is the data of workstation.certified.
type WorkstationCertified struct {
	// Serial is as SerialNumber has it, Issuer the CA's distinguished name.
	Serial   string    `json:"serial"`
	Issuer   string    `json:"issuer"`
	KeyPin   string    `json:"key_pin"`
	NotAfter time.Time `json:"not_after"`
}

// StateChange is the data of every change of state: the thing before and
// after, as its JSON form, which holds no secret.
type StateChange struct {
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

// SessionOpen is the data of session.open.
type SessionOpen struct {
	Session  Session         `json:"session"`
	Decision policy.Decision `json:"decision"`
	Revision int64           `json:"policy_revision"`
}

// SessionEnd is the data of session.end.
type SessionEnd struct {
	// Reason is one of the EndReason constants.
	Reason EndReason `json:"reason"`
	Detail string    `json:"detail,omitempty"`
	// OctetsDown and OctetsUp count what was relayed to and from the client.
	OctetsDown int64 `json:"octets_down"`
	OctetsUp   int64 `json:"octets_up"`
	// BodyOctets counts message bodies relayed to the client.
	BodyOctets int64     `json:"body_octets"`
	Opened     int64     `json:"messages_opened"`
	OpenedAt   time.Time `json:"opened_at"`
}

// Bypassed is the data of mailbox.bypassed.
type Bypassed struct {
	What        Bypass `json:"what"`
	Folder      string `json:"folder"`
	UIDValidity uint32 `json:"uid_validity"`
	// Flag is which, and Cleared that it was taken away.
	Flag    string `json:"flag,omitempty"`
	Cleared bool   `json:"cleared,omitempty"`
	// UIDs are the messages', as a set; Count is how many they are, and Messages
	// the newest of them with their Message-IDs.
	UIDs     string            `json:"uids,omitempty"`
	Count    int               `json:"count"`
	Messages []BypassedMessage `json:"messages,omitempty"`
	// Target is the folder in which removed messages were found.
	Target string `json:"target,omitempty"`
	// Since and Until are the looks between which it happened.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

// BypassedMessage is one message of a bypass.
type BypassedMessage struct {
	UID       uint32 `json:"uid"`
	MessageID string `json:"message_id,omitempty"`
}

// Unwatched is the data of mailbox.unwatched.
type Unwatched struct {
	// Since is the first look of those that failed.
	Since time.Time `json:"since"`
	// Until is when the mailbox was read again, or was no more to be; absent while
	// it is not.
	Until time.Time `json:"until,omitzero"`
	// Text says why, in words of Postern's own.
	Text string `json:"text,omitempty"`
}

// AuthFailed is the data of auth.failed.
type AuthFailed struct {
	Protocol   Protocol `json:"protocol"`
	RemoteAddr string   `json:"remote_addr"`
	// Username is what the client gave, cut to 256 octets; never the token.
	Username string `json:"username"`
	// Cause is the true one: "unknown-token", "unknown-certificate",
	// "no-certificate", "not-assigned", …
	Cause string `json:"cause"`
	// KeyPin is the presented certificate's, if any.
	KeyPin string `json:"key_pin,omitempty"`
	// CertificateName is how a company's own CA names the presenter in it.
	CertificateName *CertificateName `json:"certificate_name,omitempty"`
}

// AppPasswordAstray is the data of app-password.astray. A person must see it:
// the agent lent his app password, or lost it.
type AppPasswordAstray struct {
	AppPasswordID ID       `json:"app_password_id"`
	Protocol      Protocol `json:"protocol"`
	RemoteAddr    string   `json:"remote_addr"`
	// Cause is that of the auth.failed: "no-certificate", "unknown-certificate",
	// "workstation-group", or what a company's CA has against the certificate, such
	// as "revoked-certificate".
	Cause string `json:"cause"`
	// KeyPin is the presented certificate's, if any.
	KeyPin string `json:"key_pin,omitempty"`
}

// SessionRefused is the data of session.refused.
type SessionRefused struct {
	Protocol   Protocol `json:"protocol"`
	RemoteAddr string   `json:"remote_addr"`
	Code       Code     `json:"code"`
	Reason     string   `json:"reason"`
	Text       string   `json:"text"`
}

// Drift is the data of credential.drift.
type Drift struct {
	Protocol Protocol `json:"protocol"`
	// Answer is the upstream's text, with anything that could be the
	// credential cut out.
	Answer string `json:"answer"`
	// Probe says that the sentinel found it, and no session.
	Probe bool `json:"probe,omitempty"`
}

// ConsentWithdrawn is the data of consent.withdrawn. A person of the firm must
// see it. Whoever tries in the minutes after it makes none of his own.
type ConsentWithdrawn struct {
	Protocol Protocol       `json:"protocol"`
	Kind     CredentialKind `json:"kind"`
	// Answer is the issuer's: its status, and the error's code where it is a
	// known one.
	Answer string `json:"answer"`
}

// CredentialSetData is the data of credential.set.
type CredentialSetData struct {
	Version int `json:"version"`
}

// Outage is the data of server.outage.
type Outage struct {
	Node string `json:"node"`
	// Component is "store", "audit" or "credentials", as readiness has them.
	Component string    `json:"component"`
	Since     time.Time `json:"since"`
	// Until is when it was in reach again; absent while it is not.
	Until time.Time `json:"until,omitzero"`
	Text  string    `json:"text,omitempty"`
}

// Unrecorded reports whether nothing could be recorded meanwhile.
func (o *Outage) Unrecorded() bool { return o.Component == "store" || o.Component == "audit" }

// SinkOutage is the data of sink.outage. What was recorded meanwhile is delivered
// when it is over.
type SinkOutage struct {
	Sink  string    `json:"sink"`
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
	// Until is when the receiver took events again; absent while it does not.
	Until time.Time `json:"until,omitzero"`
	Text  string    `json:"text,omitempty"`
}

// SinkSkipped is the data of sink.skipped: the event stays in its log.
type SinkSkipped struct {
	Sink string `json:"sink"`
	// LogOf is the firm in whose log the event stands; empty: the BPO's own.
	LogOf     ID        `json:"log_of,omitempty"`
	Event     ID        `json:"event_id"`
	EventSeq  int64     `json:"seq"`
	EventType EventType `json:"type"`
	// Text is what the receiver said.
	Text string `json:"text,omitempty"`
}

// AlertRaised is the data of alert.raised.
type AlertRaised struct {
	AlertID  ID        `json:"alert_id"`
	Kind     AlertKind `json:"kind"`
	Severity Severity  `json:"severity"`
	// Cause is the event that raised it, in the same log.
	Cause ID `json:"cause"`
}

// AlertAnswered is the data of alert.acknowledged and alert.resolved.
type AlertAnswered struct {
	AlertID  ID        `json:"alert_id"`
	Kind     AlertKind `json:"kind"`
	Severity Severity  `json:"severity"`
	// Count is how many events the alert had by then.
	Count int64  `json:"count"`
	Note  string `json:"note,omitempty"`
}

// EvidenceMade is the data of evidence.made. Who has a bundle finds here whether
// it is one that was recorded, by its manifest's hash.
type EvidenceMade struct {
	// Origin is the log's name: its epoch is that of the bundle.
	Origin string `json:"origin"`
	// First and Last are the bundle's entries, and Size is its checkpoint's.
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	Size  int64 `json:"size"`
	// From and Until are its period; a zero one was not given.
	From  time.Time `json:"from,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// AlertID is the incident's. AgentID, MailboxID and WorkstationID are what it
	// was narrowed to.
	AlertID       ID `json:"alert_id,omitempty"`
	AgentID       ID `json:"agent_id,omitempty"`
	MailboxID     ID `json:"mailbox_id,omitempty"`
	WorkstationID ID `json:"workstation_id,omitempty"`
	// Disclosed is how many events it holds whole.
	Disclosed int64 `json:"disclosed"`
	// ManifestSHA256 is its manifest's, in hex.
	ManifestSHA256 string `json:"manifest_sha256"`
}

// StateRestored is the data of state.restored, which stands in every log.
type StateRestored struct {
	// Backup is the SHA-256 of the backup's database, in hex.
	Backup   string    `json:"backup"`
	BackedUp time.Time `json:"backed_up"`
	// Events is how many events this log had in the backup.
	Events int64 `json:"events"`
	// Lost is how many more this log had in the state that was replaced; absent
	// when there was none.
	Lost *int64 `json:"lost,omitempty"`
}

// WitnessSilent is the data of witness.silent and witness.heard.
type WitnessSilent struct {
	WitnessID ID          `json:"witness_id"`
	Name      string      `json:"name"`
	Rule      WitnessRule `json:"rule"`
	// Size is how many events of the log it has cosigned; 0: none yet.
	Size int64 `json:"size"`
	// Since is when it was heard last; Until when it was heard again.
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"`
}

// RestoreConfirmed is the data of restore.confirmed.
type RestoreConfirmed struct {
	Epoch ID `json:"epoch"`
}
