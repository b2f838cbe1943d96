// SPDX-License-Identifier: Apache-2.0

package broker

// AlertKind is what an alert is about.
type AlertKind string

// The kinds.
const (
	AlertDrift             AlertKind = "drift"
	AlertConsent           AlertKind = "consent-withdrawn"
	AlertBypass            AlertKind = "bypass"
	AlertUnwatched         AlertKind = "unwatched"
	AlertCanary            AlertKind = "canary-opened"
	AlertAppPasswordAstray AlertKind = "app-password-astray"
	AlertOutsideSite       AlertKind = "outside-site"
	AlertQuota             AlertKind = "quota-reached"
	AlertContent           AlertKind = "content-flagged"
	AlertSendUnknown       AlertKind = "send-unknown"
	AlertFoldersUnmatched  AlertKind = "folders-unmatched"
	AlertRotationFailed    AlertKind = "rotation-failed"
	AlertRotationLost      AlertKind = "rotation-lost"
	AlertRotationUnproved  AlertKind = "rotation-unproved"
	AlertLocked            AlertKind = "locked"
	AlertRevocationList    AlertKind = "revocation-list"
	AlertRestored          AlertKind = "state-restored"
	AlertOutage            AlertKind = "outage"
	AlertUnrecorded        AlertKind = "record-outage"
	AlertWitnessSilent     AlertKind = "witness-silent"
	AlertSink              AlertKind = "sink-outage"
	AlertSinkSkipped       AlertKind = "sink-skipped"
	AlertRetention         AlertKind = "retention-shortened"
	AlertHoldReleased      AlertKind = "hold-released"
)

// AlertSpec documents one kind. Its texts are the same for everybody and name
// nothing: what a firm reads of an alert beside them is from its own log.
type AlertSpec struct {
	Kind AlertKind `json:"kind"`
	// Severity is the usual one, the gravest where it has several.
	Severity Severity `json:"severity"`
	// Meaning says what has happened, Action what to do.
	Meaning string `json:"meaning"`
	Action  string `json:"action"`
	// Ends says what resolves it by itself; empty: a person does.
	Ends string `json:"ends,omitempty"`
}

// AlertKinds returns every kind of alert, in a fixed order.
func AlertKinds() []AlertSpec {
	return []AlertSpec{
		{
			AlertDrift, SeverityCritical, "the mail server refuses the mailbox's credential, which worked before: it was changed elsewhere, or the account was closed",
			"find out at the provider who changed it, end his sessions there, and have the password replaced: by `postern rotate`, or by setting a new one and `postern mailbox set-credential`",
			"a credential that works is stored, by a person or a rotation, or the old one works again",
		},
		{
			AlertConsent, SeverityCritical, "the issuer of access tokens gives none for the mailbox any more: the consent was withdrawn or has ended",
			"if nobody at the firm withdrew it on purpose, consent again: `postern mailbox consent`",
			"a credential that works is stored",
		},
		{
			AlertBypass, SeverityCritical, "the mailbox was used without Postern: messages were read, changed, moved, deleted or filed by no session",
			"the mailbox.bypassed events name the messages; unless somebody at the firm did it, have the password replaced (`postern rotate`) and other sessions ended at the provider; if it is known, declare it: `postern sentinel set --exceptions`",
			"",
		},
		{
			AlertUnwatched, SeverityWarning, "the mailbox's credential opens it, and it could not be read as a whole three times on end: what is done in it without Postern goes unseen",
			"look into the mailbox, for more folders or messages than anybody has made on purpose, and into the server's log, which says what stood in the way; if the provider does not let it be read, say so: `postern sentinel set --off`",
			"it is read again",
		},
		{
			AlertCanary, SeverityCritical, "an agent opened, copied or moved a message that the firm has marked, since nobody has a reason to",
			"the firm's people see which message it is: ask the agent, and see what else he opened (`postern log events --type message.open`). In a bulk download it was his mail client that opened it, as one does that keeps whole folders; else, unless he has an answer, have him locked: `postern lock add`",
			"",
		},
		{
			AlertAppPasswordAstray, SeverityCritical, "a good app password was used on a machine where it is not good: the agent lent it, or lost it",
			"ask the agent; unless he has an answer, have the BPO revoke the app password and make another",
			"",
		},
		{
			AlertOutsideSite, SeverityWarning, "somebody with a good sign-in was refused because he was not where he may work from",
			"ask the agent where his machine was; if he does not know, have it locked: `postern lock add`",
			"",
		},
		{
			AlertQuota, SeverityWarning, "an agent has reached a quota on what he opens in the mailbox",
			"see what he opened (`postern log events --type message.open`); if it was his work, widen the quota in the terms",
			"",
		},
		{
			AlertContent, SeverityWarning, "an agent sent a message that a content rule flags",
			"look at the message, which the send.flagged and send.intent events name",
			"",
		},
		{
			AlertSendUnknown, SeverityWarning, "the connection broke when a message had been handed over: nobody knows whether it was sent",
			"look in Sent at the provider, or ask the recipient, before it is sent again",
			"",
		},
		{
			AlertFoldersUnmatched, SeverityInfo, "patterns in the terms describe no folder that the mailbox has",
			"correct the folders in the delegation's or the assignment's terms",
			"",
		},
		{
			AlertRotationFailed, SeverityWarning, "the mailbox's password was to be replaced and was not: the old one stands",
			"read why (`postern rotation show`), mend that at the provider or in the rotation's settings, and begin again",
			"a later rotation replaces it",
		},
		{
			AlertRotationLost, SeverityCritical, "a rotation was cut off, or kept the old password, and neither that nor a new one opens the mailbox",
			"set a password at the provider and enter it: `postern mailbox set-credential`",
			"a credential that works is stored",
		},
		{
			AlertRotationUnproved, SeverityCritical, "the mailbox's password was replaced, and something about it could not be proved, which the details name: critical when it is that the old one is dead",
			"see to it at the provider: that the old password is refused, and that sessions and app passwords of others are ended",
			"a later rotation proves everything",
		},
		{
			AlertLocked, SeverityInfo, "a lock keeps everybody out of the mailbox, or out of all of the firm's",
			"nothing, if the lock was agreed; else ask the BPO",
			"the lock is removed",
		},
		{
			AlertRevocationList, SeverityCritical, "what a company's own CA has revoked is not known any more, or soon will not be: critical when its list is out of date or missing",
			"find out why no newer list comes (the log of `postern serve` names file or URL), and have the CA publish one",
			"a newer list is taken over",
		},
		{
			AlertRestored, SeverityCritical, "state and log were restored from a backup: revocations and events after it are gone",
			"check delegations, assignments and locks, and revoke again what was revoked since",
			"",
		},
		{
			AlertOutage, SeverityCritical, "what the server needs has been out of reach for a minute: nobody new is let in, and live sessions go on",
			"see what the detail names: the credentials are Vault's or the sealed file's, and 'readyz' and the server's log say more",
			"it is in reach again",
		},
		{
			AlertUnrecorded, SeverityWarning, "for a time nothing could be recorded, and nobody was let in; it works again",
			"find out why: a full disk, a database that stood still or was cut off",
			"",
		},
		{
			AlertWitnessSilent, SeverityCritical, "a witness of the log cosigns nothing any more: what is recorded from now on is pinned by nobody; critical when its rule is stop: then no session is opened for the firm",
			"ask whoever runs the witness, which the detail names, what it says ('postern log witness'): it stops by itself when the log is not what it was; if it is gone for good, register another and remove it",
			"it is heard again, or removed",
		},
		{
			AlertSink, SeverityWarning, "a sink's receiver has taken no events for a quarter of an hour: they wait in the log, and nothing is lost",
			"see what the receiver says (`postern sink list`), mend it, and try with `postern sink test`",
			"it takes events again",
		},
		{
			AlertSinkSkipped, SeverityWarning, "a sink's receiver refuses an event and takes others, so that it was set aside: it is in the log and not at the receiver",
			"read the event with `postern log events`, whose log and number the sink.skipped event names, and find out why the receiver refuses it",
			"",
		},
		{
			AlertRetention, SeverityWarning, "somebody has shortened how long records are kept: a week later, those that are older are destroyed",
			"if it was not agreed, or a matter is open: set the time that was (`postern retention set`, or `rules`), or place a hold (`postern hold add`), before the day that the details name",
			"the time is made longer again",
		},
		{
			AlertHoldReleased, SeverityWarning, "somebody has released a hold: a week later, what it kept is destroyed if it is older than records are kept",
			"if it was not agreed: place another within the week (`postern hold add`)",
			"",
		},
	}
}

// AlertKindSpec returns a kind's documentation; of one that is not known its
// name alone.
func AlertKindSpec(kind AlertKind) AlertSpec {
	for _, spec := range AlertKinds() {
		if spec.Kind == kind {
			return spec
		}
	}
	return AlertSpec{Kind: kind, Severity: SeverityCritical}
}
