// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/postern-mail/postern/policy"
)

// AlertChange is what an event does to one alert of its log.
type AlertChange struct {
	Kind AlertKind
	// Subject is ids of things, in as many parts as there are: what a stranger
	// or an agent can make up would let him raise alerts without an end.
	Subject string
	// Resolves says that the cause is gone, Amends that Detail tells more of what
	// raised the alert before; else the alert is raised.
	Resolves, Amends bool
	Severity         Severity
	// Detail is of the event's data, and so nothing that its log does not hold.
	Detail string
}

// AlertChanges is the table of what events do to alerts. The store asks it of
// each event that it writes, and changes the alerts of the event's own log in
// the same transaction. Most types do nothing, and cost nothing.
//
// To have a new type of event raise an alert, it has a case here and its kind an
// entry in AlertKinds. An error says that the data is not the type's.
func AlertChanges(e *Event) ([]AlertChange, error) {
	switch e.Type {
	case EventDrift:
		return raise(e, func(d Drift) AlertChange {
			return AlertChange{Kind: AlertDrift, Severity: SeverityCritical, Subject: string(e.MailboxID), Detail: d.Answer}
		})
	case EventConsentWithdrawn:
		return raise(e, func(d ConsentWithdrawn) AlertChange {
			return AlertChange{Kind: AlertConsent, Severity: SeverityCritical, Subject: string(e.MailboxID), Detail: d.Answer}
		})
	case EventBypassed:
		return raise(e, func(b Bypassed) AlertChange {
			return AlertChange{Kind: AlertBypass, Severity: SeverityCritical, Subject: subject(e.MailboxID, ID(b.What)), Detail: b.String()}
		})
	case EventUnwatched:
		return raise(e, func(u Unwatched) AlertChange {
			return AlertChange{Kind: AlertUnwatched, Severity: SeverityWarning, Subject: string(e.MailboxID), Resolves: !u.Until.IsZero(), Detail: u.Text}
		})
	case EventCanaryOpened, EventCanaryDownloaded:
		return raise(e, func(o CanaryOpened) AlertChange {
			return AlertChange{
				Kind: AlertCanary, Severity: SeverityCritical, Subject: subject(e.MailboxID, o.Canary, e.AgentID), Detail: o.String(),
				Amends: e.Type == EventCanaryDownloaded,
			}
		})
	case EventDriftOver:
		return resolve(e.MailboxID, AlertDrift, AlertConsent), nil
	case EventCredentialSet: // after logins with it
		return resolve(e.MailboxID, AlertDrift, AlertConsent, AlertRotationLost), nil
	case EventAppPasswordAstray:
		return raise(e, func(d AppPasswordAstray) AlertChange {
			return AlertChange{Kind: AlertAppPasswordAstray, Severity: SeverityCritical, Subject: string(d.AppPasswordID), Detail: d.Cause}
		})
	case EventSessionRefused:
		return outsideSite(e)
	case EventQuotaReached:
		return raise(e, func(d QuotaReached) AlertChange {
			return AlertChange{Kind: AlertQuota, Severity: SeverityWarning, Subject: subject(e.MailboxID, e.AgentID), Detail: d.Quota}
		})
	case EventSendFlagged:
		return raise(e, func(d SendFlagged) AlertChange {
			return AlertChange{Kind: AlertContent, Severity: SeverityWarning, Subject: subject(e.MailboxID, e.AgentID), Detail: d.Rule}
		})
	case EventSendResult:
		return sendUnknown(e)
	case EventFoldersUnmatched:
		return raise(e, func(d FoldersUnmatched) AlertChange {
			return AlertChange{
				Kind: AlertFoldersUnmatched, Severity: SeverityInfo, Subject: subject(e.MailboxID, e.AgentID), Detail: strings.Join(d.Patterns, ", "),
			}
		})
	case EventRotationEnded:
		return rotationEnded(e)
	case EventAuthorityList:
		return revocationList(e)
	case EventStateRestored:
		return []AlertChange{{Kind: AlertRestored, Severity: SeverityCritical}}, nil
	case EventOutage:
		return outage(e)
	case EventWitnessSilent, EventWitnessHeard:
		return raise(e, func(d WitnessSilent) AlertChange {
			severity := SeverityWarning
			if d.Rule == WitnessStop {
				severity = SeverityCritical
			}
			return AlertChange{Kind: AlertWitnessSilent, Severity: severity, Subject: string(d.WitnessID), Resolves: e.Type == EventWitnessHeard, Detail: d.Name}
		})
	case "witness.removed":
		return raise(e, func(d StateChange) AlertChange {
			var w Witness
			_ = json.Unmarshal(d.After, &w) // its own document
			return AlertChange{Kind: AlertWitnessSilent, Subject: string(w.ID), Resolves: true}
		})
	case EventSinkOutage:
		return raise(e, func(d SinkOutage) AlertChange {
			return AlertChange{Kind: AlertSink, Severity: SeverityWarning, Subject: d.Sink, Resolves: !d.Until.IsZero(), Detail: d.Sink + ": " + d.Text}
		})
	case EventSinkSkipped:
		return raise(e, func(d SinkSkipped) AlertChange {
			return AlertChange{Kind: AlertSinkSkipped, Severity: SeverityWarning, Subject: d.Sink, Detail: d.Sink + ": " + d.Text}
		})
	case "lock.created", "lock.removed":
		return locked(e)
	case "retention.updated":
		return retentionUpdated(e)
	case "hold.released":
		return raise(e, func(d StateChange) AlertChange {
			var h Hold
			_ = json.Unmarshal(d.After, &h) // its own document
			return AlertChange{
				Kind: AlertHoldReleased, Severity: SeverityWarning, Subject: string(h.ID),
				Detail: "kept until " + h.ReleasedAt.Add(RetentionNotice).UTC().Format(time.RFC3339) + ": " + h.Reason,
			}
		})
	}
	return nil, nil
}

// raise returns the one change that data of a type makes.
func raise[T any](e *Event, change func(T) AlertChange) ([]AlertChange, error) {
	data, err := DataOf[T](e)
	if err != nil {
		return nil, err
	}
	return []AlertChange{change(data)}, nil
}

// resolve ends the alerts of kinds about a mailbox.
func resolve(mailbox ID, kinds ...AlertKind) []AlertChange {
	all := make([]AlertChange, len(kinds))
	for i, k := range kinds {
		all[i] = AlertChange{Kind: k, Subject: string(mailbox), Resolves: true}
	}
	return all
}

// subject names several things together.
func subject(ids ...ID) string {
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = string(id)
	}
	return strings.Join(parts, "/")
}

func outsideSite(e *Event) ([]AlertChange, error) {
	data, err := DataOf[SessionRefused](e)
	if err != nil || data.Reason != policy.ReasonSite {
		return nil, err
	}
	return []AlertChange{{Kind: AlertOutsideSite, Severity: SeverityWarning, Subject: subject(e.AgentID, e.WorkstationID), Detail: data.Text}}, nil
}

func sendUnknown(e *Event) ([]AlertChange, error) {
	data, err := DataOf[SendResult](e)
	if err != nil || data.Outcome != "unknown" {
		return nil, err
	}
	return []AlertChange{{Kind: AlertSendUnknown, Severity: SeverityWarning, Subject: subject(e.MailboxID, e.AgentID), Detail: data.Answer}}, nil
}

// revocationList says nothing of a list that was refused: the one before is in
// use, until its time is up.
func revocationList(e *Event) ([]AlertChange, error) {
	d, err := DataOf[AuthorityList](e)
	if err != nil {
		return nil, err
	}
	change := AlertChange{Kind: AlertRevocationList, Severity: SeverityCritical, Subject: d.Authority + "/" + d.Issuer, Detail: string(d.State)}
	switch d.State {
	case ListTaken:
		change = AlertChange{Kind: change.Kind, Subject: change.Subject, Resolves: true}
	case ListExpiring:
		change.Severity = SeverityWarning
	case ListStale, ListMissing:
	default:
		return nil, nil
	}
	return []AlertChange{change}, nil
}

// rotationEnded raises what a rotation leaves to a person, and ends what earlier
// ones left.
func rotationEnded(e *Event) ([]AlertChange, error) {
	r, err := DataOf[Rotation](e)
	if err != nil {
		return nil, err
	}
	change := AlertChange{Subject: string(e.MailboxID), Severity: SeverityWarning, Detail: r.Words}
	if change.Detail == "" {
		change.Detail = string(r.Reason)
	}
	switch r.Outcome {
	case RotationDone:
		all := resolve(e.MailboxID, AlertDrift, AlertRotationFailed, AlertRotationLost)
		if len(r.Unproved) == 0 {
			return append(all, resolve(e.MailboxID, AlertRotationUnproved)...), nil
		}
		change.Kind, change.Detail = AlertRotationUnproved, strings.Join(r.Unproved, ", ")
		for _, u := range r.Unproved {
			if u == UnprovedOldDead {
				change.Severity = SeverityCritical
			}
		}
		return append(all, change), nil
	case RotationSuperseded: // by a credential that works
		return resolve(e.MailboxID, AlertDrift, AlertRotationLost), nil
	case RotationLost:
		change.Kind, change.Severity = AlertRotationLost, SeverityCritical
	default:
		change.Kind = AlertRotationFailed
	}
	return []AlertChange{change}, nil
}

// locked is for locks in a firm's log: the firm must know that nobody works for
// it, and who keeps whom out of the BPO's own is the BPO's affair.
func locked(e *Event) ([]AlertChange, error) {
	if e.FirmID == "" {
		return nil, nil
	}
	return raise(e, func(d StateChange) AlertChange {
		var l Lock
		_ = json.Unmarshal(d.After, &l) // its own document; were it not, all locks would share an alert
		return AlertChange{Kind: AlertLocked, Severity: SeverityInfo, Subject: string(l.ID), Resolves: e.Type == "lock.removed", Detail: l.Message}
	})
}

// retentionUpdated tells of records that will be kept for a shorter time: because
// of what a firm has said of its own, or of the BPO's rules. Of these a firm's log
// has those that are for firms.
func retentionUpdated(e *Event) ([]AlertChange, error) {
	d, err := DataOf[StateChange](e)
	if err != nil {
		return nil, err
	}
	var before, after struct { // a firm's document has the first, the rules the others
		FirmRetention
		RetentionRules
	}
	_ = json.Unmarshal(d.Before, &before) // their own documents
	_ = json.Unmarshal(d.After, &after)
	type kept struct {
		what    string
		was, is RetentionDays
		words   string
	}
	times := []kept{
		{"the firm's own time", before.RetentionDays, after.RetentionDays, after.FirmRetention.String()},
		{"the minimum", before.Minimum, after.Minimum, after.Minimum.String()},
		{"the default", before.Default, after.Default, after.Default.String()},
	}
	if e.FirmID == "" {
		times = []kept{{"the BPO's own log", before.Own, after.Own, after.Own.String()}}
	}
	var all []AlertChange
	for _, x := range times {
		if x.is != x.was {
			all = append(all, AlertChange{
				Kind: AlertRetention, Severity: SeverityWarning, Subject: x.what, Detail: x.what + ": " + x.words,
				Resolves: x.is.From.IsZero(), // what is longer counts at once
			})
		}
	}
	return all, nil
}

// outage ends with the outage. Of one in which nothing could be recorded the
// event comes after it, and a person is told all the same.
func outage(e *Event) ([]AlertChange, error) {
	data, err := DataOf[Outage](e)
	if err != nil {
		return nil, err
	}
	subject := data.Component + "@" + data.Node
	all := []AlertChange{{
		Kind: AlertOutage, Severity: SeverityCritical, Subject: subject, Resolves: !data.Until.IsZero(),
		Detail: data.Component + " on " + data.Node + ": " + data.Text,
	}}
	if data.Unrecorded() && !data.Until.IsZero() {
		all = append(all, AlertChange{
			Kind: AlertUnrecorded, Severity: SeverityWarning, Subject: subject,
			Detail: data.Component + " on " + data.Node + ", for " + data.Until.Sub(data.Since).Round(time.Second).String(),
		})
	}
	return all, nil
}
