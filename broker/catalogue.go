// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"slices"
	"strings"
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
