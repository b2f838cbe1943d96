// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/policy"
)

// EventType names a kind of event: "<subject>.<what happened>".
type EventType string

// The types of live traffic. Changes of state have the types
// "<kind>.created", "<kind>.updated", "<kind>.deleted", "<kind>.revoked" and
// "<kind>.removed", with StateChange as their data.
const (
	EventSessionOpen       EventType = "session.open"
	EventSessionEnd        EventType = "session.end"
	EventAuthFailed        EventType = "auth.failed"
	EventAppPasswordAstray EventType = "app-password.astray"
	EventSessionRefused    EventType = "session.refused"
	EventDrift             EventType = "credential.drift"
	EventConsentWithdrawn  EventType = "consent.withdrawn"
	EventCredentialSet     EventType = "credential.set"
	EventCommandRefused    EventType = "command.refused"
	EventQuotaReached      EventType = "quota.reached"
	EventFoldersUnmatched  EventType = "folders.unmatched"
	EventMessageOpen       EventType = "message.open"
	EventMessageIdentify   EventType = "message.identify"
	EventMessageFlag       EventType = "message.flag"
	EventMessageCopy       EventType = "message.copy"
	EventMessageMove       EventType = "message.move"
	EventMessageExpunge    EventType = "message.expunge"
	EventMessageAppend     EventType = "message.append"
	EventMessageFiling     EventType = "message.filing"
	EventFolderChange      EventType = "folder.change"
	EventSendIntent        EventType = "send.intent"
	EventSendFlagged       EventType = "send.flagged"
	EventSendResult        EventType = "send.result"
	EventSendRefused       EventType = "send.refused"
	EventCertified         EventType = "workstation.certified"
	EventAuthorityList     EventType = "authority.list"
	EventStateRestored     EventType = "state.restored"
	EventRotationRequested EventType = "rotation.requested"
	EventRotationStep      EventType = "rotation.step"
	EventRotationEnded     EventType = "rotation.ended"
	EventRotationCleaned   EventType = "rotation.cleaned"
	EventProviderAccount   EventType = "provider-account.set"
	EventOutage            EventType = "server.outage"
	EventAlertRaised       EventType = "alert.raised"
	EventAlertAcknowledged EventType = "alert.acknowledged"
	EventAlertResolved     EventType = "alert.resolved"
	EventBypassed          EventType = "mailbox.bypassed"
	EventUnwatched         EventType = "mailbox.unwatched"
	EventDriftOver         EventType = "credential.accepted"
	EventCanaryCreated     EventType = "canary.created"
	EventCanaryRemoved     EventType = "canary.removed"
	EventCanaryOpened      EventType = "canary.opened"
	EventCanaryDownloaded  EventType = "canary.downloaded"
	EventWitnessSilent     EventType = "witness.silent"
	EventWitnessHeard      EventType = "witness.heard"
	EventRestoreConfirmed  EventType = "restore.confirmed"
	EventSinkOutage        EventType = "sink.outage"
	EventSinkSkipped       EventType = "sink.skipped"
	EventEvidenceMade      EventType = "evidence.made"
	EventLogPruned         EventType = "log.pruned"
)

// EventSpec documents one type.
type EventSpec struct {
	Type    EventType
	Version int
	// Data is a zero value of the data's struct.
	Data any
	// Meaning says when the event is written.
	Meaning string
	// Personal names the fields that hold personal data.
	Personal string
}

// Catalogue returns every type of event, in a fixed order.
func Catalogue() []EventSpec {
	specs := []EventSpec{
		{EventSessionOpen, 1, SessionOpen{}, "a session was let in; durable before the upstream is dialled", "remote_addr"},
		{EventSessionEnd, 1, SessionEnd{}, "a session ended", ""},
		{EventAuthFailed, 1, AuthFailed{}, "an unknown token, certificate or combination; the true cause, which the client is not told", "remote_addr, username"},
		{EventAppPasswordAstray, 1, AppPasswordAstray{}, "an alarm: a good app password was used where it is not good: on a machine that is not sanctioned, or a workstation outside its groups; beside the auth.failed", "remote_addr"},
		{EventSessionRefused, 1, SessionRefused{}, "a known agent was refused, or an outage kept him out", "remote_addr"},
		{EventDrift, 1, Drift{}, "an alarm: the upstream refused a session, or the sentinel, a credential that worked before", ""},
		{EventConsentWithdrawn, 1, ConsentWithdrawn{}, "an alarm: the issuer of access tokens gives none for a mailbox any more: the consent was withdrawn or has ended, and the firm must consent again", ""},
		{EventCredentialSet, 1, CredentialSetData{}, "a mailbox's credential was stored", ""},
		{EventCommandRefused, 1, CommandRefused{}, "an IMAP command was not allowed by the decision; the first of its kind in a session", ""},
		{EventQuotaReached, 1, QuotaReached{}, "a quota on what is opened refused a FETCH; the first of its kind in a session", "folder"},
		{EventFoldersUnmatched, 1, FoldersUnmatched{}, "a warning: patterns in the terms describe no folder that the mailbox has; each once while the server runs", "patterns"},
		{EventMessageOpen, 1, MessageOpen{}, "body octets of a message were relayed to the agent", "message_id, folder"},
		{EventMessageIdentify, 1, MessageIdentify{}, "the Message-ID of a message that was opened without its header", "message_id, folder"},
		{EventMessageFlag, 1, MessageChange{}, "flags were changed: STORE, or a FETCH that sets \\Seen: of header fields, or one that was still under way when message.open told of it", "folder"},
		{EventMessageCopy, 1, MessageChange{}, "messages were copied", "folder, target"},
		{EventMessageMove, 1, MessageChange{}, "messages were moved", "folder, target"},
		{EventMessageExpunge, 1, MessageChange{}, "messages were expunged on the agent's command", "folder"},
		{EventMessageAppend, 1, MessageAppend{}, "a message was appended to a folder", "folder, message_id"},
		{EventMessageFiling, 1, MessageFiling{}, "a session whose terms are reply_only is about to append a message; durable before the upstream has it as a whole", "folder, message_id"},
		{EventFolderChange, 1, FolderChange{}, "a folder was created, renamed, deleted or (un)subscribed", "folder, target"},
		{EventSendIntent, 1, SendIntent{}, "a message is about to be submitted; durable before the final dot goes upstream", "mail_from, header_from, recipients, message_id"},
		{EventSendFlagged, 1, SendFlagged{}, "a content rule that flags matched a message that is about to be submitted; durable before the final dot goes upstream", "message_id"},
		{EventSendResult, 1, SendResult{}, "what the upstream answered to it", "message_id"},
		{EventSendRefused, 1, SendRefused{}, "a rule refused a message or an address", "address"},
		{EventCertified, 1, WorkstationCertified{}, "a certificate was issued for a workstation; durable before it is handed out. It opens nothing unless its key is the workstation's", ""},
		{EventAuthorityList, 1, AuthorityList{}, "a revocation list of a company's CA was taken over or refused; an alarm when it is expiring, stale or missing", ""},
		{EventStateRestored, 1, StateRestored{}, "state and log were restored from a backup: what the log held after it is not there", ""},
		{EventRotationRequested, 1, Rotation{}, "a rotation of a mailbox's password was begun", ""},
		{EventRotationStep, 1, Rotation{}, "a rotation's journal, before its next step", "words"},
		{EventRotationEnded, 1, Rotation{}, "a rotation ended; an alarm unless its outcome is done and nothing is unproved", "words, inspection"},
		{EventRotationCleaned, 1, Rotation{}, "what an ended rotation kept, and the versions before, were destroyed", ""},
		{EventProviderAccount, 1, CredentialSetData{}, "a provider account was stored", ""},
		{EventOutage, 1, Outage{}, "what the server needs was out of reach for a minute, or is in reach again; in the BPO's log", ""},
		{EventAlertRaised, 1, AlertRaised{}, "an alert was raised, or opened again, or has become graver, by the event before it that it names", ""},
		{EventAlertAcknowledged, 1, AlertAnswered{}, "a person said that an alert is seen to", "note"},
		{EventAlertResolved, 1, AlertAnswered{}, "a person said that an alert is over", "note"},
		{EventDriftOver, 1, CredentialSetData{}, "the upstream takes a credential again that it had refused the sentinel", ""},
		{EventCanaryCreated, 1, CanaryMarked{}, "a firm marked a message whose opening is an alarm", ""},
		{EventCanaryRemoved, 1, CanaryMarked{}, "a firm marked it no more", ""},
		{EventCanaryOpened, 1, CanaryOpened{}, "an alarm: an agent opened, copied or moved a message that a firm has marked; after the event that says so, in its transaction", ""},
		{EventCanaryDownloaded, 1, CanaryOpened{}, "what opened it a moment ago has turned out to download many messages", ""},
		{EventSinkOutage, 1, SinkOutage{}, "a sink's receiver has taken nothing for a quarter of an hour, or takes events again; in the BPO's log", ""},
		{EventSinkSkipped, 1, SinkSkipped{}, "an event is not delivered to a sink, whose receiver refuses it and takes others; in the BPO's log", ""},
		{EventLogPruned, 1, LogPruned{}, "records were taken away when the time to keep them was over: their hashes stay. In the transaction that did it", ""},
		{EventEvidenceMade, 1, EvidenceMade{}, "an evidence bundle was made of the log, by its maker's word", ""},
		{EventBypassed, 1, Bypassed{}, "an alarm: a mailbox was used without Postern: what the sentinel found in it no session explains, nor an exception", "folder, target, messages[].message_id"},
		{EventUnwatched, 1, Unwatched{}, "the sentinel was let in to a mailbox and could not read it as a whole, three times on end, or reads it again: what is done in it meanwhile without Postern is not seen", ""},
		{EventWitnessSilent, 1, WitnessSilent{}, "an alarm: a witness of the log has cosigned nothing for longer than it may; with the rule stop no session is opened for the firm", ""},
		{EventWitnessHeard, 1, WitnessSilent{}, "a witness that was silent cosigns again", ""},
		{EventRestoreConfirmed, 1, RestoreConfirmed{}, "somebody who speaks for the log has confirmed the restore that its epoch began with: it may be witnessed", ""},
	}
	for _, kind := range []string{"firm", "mailbox", "agent", "workstation", "site", "delegation", "assignment", "app-password", "lock", "person", "api-token", "claim", "enrolment-code", "provider", "witness", "retention", "hold"} {
		for _, verb := range changeVerbs[kind] {
			specs = append(specs, EventSpec{
				EventType(kind + "." + verb), 1,
				StateChange{},
				"the " + kind + " was " + verb, "as the " + kind + "'s own fields",
			})
		}
	}
	return specs
}

var changeVerbs = map[string][]string{
	"firm":           {"created", "updated"},
	"mailbox":        {"created", "updated", "deleted"},
	"agent":          {"created", "updated", "deleted"},
	"workstation":    {"created", "updated", "deleted"},
	"site":           {"created", "updated", "deleted"},
	"delegation":     {"created", "updated", "revoked"},
	"assignment":     {"created", "updated", "approved", "revoked"},
	"app-password":   {"created", "revoked"},
	"lock":           {"created", "removed"},
	"person":         {"created", "removed"},
	"api-token":      {"created", "revoked"},
	"claim":          {"created", "replaced", "redeemed"},
	"enrolment-code": {"created", "replaced", "redeemed"},
	"provider":       {"created", "updated", "deleted"},
	"witness":        {"created", "removed"},
	"retention":      {"updated"},
	"hold":           {"created", "released"},
}

// IsChange reports whether events of the type tell a change of state.
func (t EventType) IsChange() bool {
	kind, verb, _ := strings.Cut(string(t), ".")
	return slices.Contains(changeVerbs[kind], verb)
}

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

// CommandRefused is the data of command.refused.
type CommandRefused struct {
	Command string         `json:"command"`
	Needs   policy.Actions `json:"needs"`
	Folder  string         `json:"folder,omitempty"`
}

// QuotaReached is the data of quota.reached: which quota, as "octets.day".
type QuotaReached struct {
	Quota  string `json:"quota"`
	Folder string `json:"folder"`
}

// FoldersUnmatched is the data of folders.unmatched.
type FoldersUnmatched struct {
	Patterns []string `json:"patterns"`
}

// MessageOpen is the data of message.open: the messages of one folder whose
// bodies were relayed, gathered within the bound of 1 MiB.
type MessageOpen struct {
	Folder      string          `json:"folder"`
	UIDValidity uint32          `json:"uid_validity"`
	Messages    []OpenedMessage `json:"messages"`
	// Sync says that they were opened faster than a person reads: see
	// SyncMessages. What a mail client downloads for its cache looks so, and an
	// export does.
	Sync bool `json:"sync,omitempty"`
}

// OpenedMessage is one body that was relayed.
type OpenedMessage struct {
	// UID is 0 when the upstream told it only after the octets: then a second
	// entry with the same Seq and with Continues set tells it.
	UID uint32 `json:"uid"`
	// Seq is the message sequence number in the response.
	Seq uint32 `json:"seq"`
	// Section is the FETCH item's, such as "BODY[]" or "BODY[1.2]<0>".
	Section string `json:"section"`
	// Octets is the announced size of what was relayed.
	Octets    int64  `json:"octets"`
	MessageID string `json:"message_id,omitempty"`
	Continues bool   `json:"continues,omitempty"`
}

// MessageIdentify is the data of message.identify.
type MessageIdentify struct {
	Folder      string `json:"folder"`
	UIDValidity uint32 `json:"uid_validity"`
	UID         uint32 `json:"uid"`
	MessageID   string `json:"message_id"`
}

// MessageChange is the data of message.flag, copy, move and expunge: written
// when the upstream's tagged OK has come, or when it is not to come.
type MessageChange struct {
	Folder      string `json:"folder"`
	UIDValidity uint32 `json:"uid_validity"`
	// Set is the client's message set; UIDs says whether it holds UIDs.
	Set  string `json:"set"`
	UIDs bool   `json:"uids"`
	// Target is the other folder; Flags what STORE did, such as "+FLAGS (\Seen)".
	Target string `json:"target,omitempty"`
	Flags  string `json:"flags,omitempty"`
	// CopyUID is the COPYUID or EXPUNGE answer where there is one.
	CopyUID string `json:"copy_uid,omitempty"`
	// Outcome is empty when it was carried out; see ChangeRefused.
	Outcome ChangeOutcome `json:"outcome,omitempty"`
}

// ChangeOutcome says of a change that it is not known to be carried out.
type ChangeOutcome string

// The outcomes that are not the upstream's OK.
const (
	// ChangeRefused: it answered NO, and may have changed a part.
	ChangeRefused ChangeOutcome = "refused"
	// ChangeUnanswered: the session ended first.
	ChangeUnanswered ChangeOutcome = "unanswered"
)

// MessageAppend is the data of message.append.
type MessageAppend struct {
	Folder    string `json:"folder"`
	Octets    int64  `json:"octets"`
	SHA256    string `json:"sha256"`
	MessageID string `json:"message_id,omitempty"`
	AppendUID string `json:"append_uid,omitempty"`
	// Outcome is empty, or ChangeUnanswered.
	Outcome ChangeOutcome `json:"outcome,omitempty"`
}

// MessageFiling is the data of message.filing.
type MessageFiling struct {
	Folder    string `json:"folder"`
	MessageID string `json:"message_id"`
}

// FolderChange is the data of folder.change.
type FolderChange struct {
	Command string `json:"command"`
	Folder  string `json:"folder"`
	Target  string `json:"target,omitempty"`
}

// SendIntent is the data of send.intent.
type SendIntent struct {
	// Intent names this submission; its send.result bears the same.
	Intent     ID       `json:"intent"`
	MailFrom   string   `json:"mail_from"`
	HeaderFrom string   `json:"header_from"`
	Recipients []string `json:"recipients"`
	MessageID  string   `json:"message_id"`
	Octets     int64    `json:"octets"`
	SHA256     string   `json:"sha256"`
}

// SendFlagged is the data of send.flagged.
type SendFlagged struct {
	// Intent is the one in the send.intent event.
	Intent    ID     `json:"intent"`
	MessageID string `json:"message_id"`
	// Rule is the content rule's name, Where the place in which it matched
	// first: "the text", "a file name", "the header field subject". What it
	// matched is not told.
	Rule  string `json:"rule"`
	Where string `json:"where"`
}

// SendResult is the data of send.result.
type SendResult struct {
	// Intent is the one in the send.intent event.
	Intent    ID     `json:"intent"`
	MessageID string `json:"message_id"`
	// Outcome is "accepted", "refused", "not-sent" or "unknown".
	Outcome string `json:"outcome"`
	// Answer is the upstream's, code and text, on one line.
	Answer string `json:"answer,omitempty"`
	// FoundInSent says that an unknown outcome was settled by finding it.
	FoundInSent bool `json:"found_in_sent,omitempty"`
}

// SendRefused is the data of send.refused.
type SendRefused struct {
	// Rule is the rule's name: "own-address", "header-from", "malformed-address", …
	Rule    string `json:"rule"`
	Address string `json:"address,omitempty"`
	Text    string `json:"text"`
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
