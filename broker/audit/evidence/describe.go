// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// maxNamed is how many messages, recipients or fields a line names.
const maxNamed = 6

// describe says in a line what an event is, in words that a stranger to mail
// servers understands. What others wrote in it is made fit to be shown.
func describe(e *Event) string {
	switch e.Type {
	case broker.EventSessionOpen:
		d := dataOf[broker.SessionOpen](e)
		return fmt.Sprintf("Signed in (%s) from %s; let in by %s", shown(string(d.Session.Protocol)), shown(d.Session.RemoteAddr), authenticated(d.Session.Authentication))
	case broker.EventSessionEnd:
		d := dataOf[broker.SessionEnd](e)
		s := "Session ended: " + ended(d.Reason)
		if d.Detail != "" {
			s += " (" + shown(d.Detail) + ")"
		}
		return s + fmt.Sprintf("; %s downloaded, %s of message text", plural(d.Opened, "message"), octets(d.BodyOctets))
	case broker.EventAuthFailed:
		d := dataOf[broker.AuthFailed](e)
		return fmt.Sprintf("Sign-in failed from %s as “%s”: %s", shown(d.RemoteAddr), shown(d.Username), shown(d.Cause))
	case broker.EventAppPasswordAstray:
		d := dataOf[broker.AppPasswordAstray](e)
		return fmt.Sprintf("ALARM: a good app password was used where it is not good, from %s: %s", shown(d.RemoteAddr), shown(d.Cause))
	case broker.EventSessionRefused:
		d := dataOf[broker.SessionRefused](e)
		return fmt.Sprintf("Refused a session from %s (%s): %s", shown(d.RemoteAddr), shown(d.Reason), shown(d.Text))
	case broker.EventDrift:
		return "ALARM: the mail server refused the mailbox's password, which had worked: " + shown(dataOf[broker.Drift](e).Answer)
	case broker.EventConsentWithdrawn:
		return "ALARM: the firm's consent to access was withdrawn or has ended: " + shown(dataOf[broker.ConsentWithdrawn](e).Answer)
	case broker.EventBypassed:
		d := dataOf[broker.Bypassed](e)
		return fmt.Sprintf("ALARM: the mailbox was used without Postern: %s (%s in “%s”)", shown(string(d.What)), plural(int64(d.Count), "message"), shown(d.Folder))
	case broker.EventUnwatched:
		if d := dataOf[broker.Unwatched](e); !d.Until.IsZero() {
			return "The mailbox is looked after again, which it was not since " + d.Since.UTC().Format(stampForm)
		}
		return "ALARM: the mailbox could not be looked after: what is done in it without Postern goes unseen"
	case broker.EventCanaryOpened, broker.EventCanaryDownloaded:
		return "ALARM: a message that the firm had marked was opened: " + shown(dataOf[broker.CanaryOpened](e).String())
	case broker.EventCommandRefused:
		d := dataOf[broker.CommandRefused](e)
		return fmt.Sprintf("Refused the command %s, which needs “%s”%s", shown(d.Command), shown(strings.Join(d.Needs.Names(), ", ")), inFolder(d.Folder))
	case broker.EventQuotaReached:
		d := dataOf[broker.QuotaReached](e)
		return fmt.Sprintf("Refused a download: the quota “%s” was reached%s", shown(d.Quota), inFolder(d.Folder))
	}
	return describeMessage(e)
}

// describeMessage is describe for what happens to messages.
func describeMessage(e *Event) string {
	switch e.Type {
	case broker.EventMessageOpen:
		d := dataOf[broker.MessageOpen](e)
		return fmt.Sprintf("Downloaded %s of “%s”: %s", plural(openings(&d), "message"), shown(d.Folder), opened(&d))
	case broker.EventMessageIdentify:
		d := dataOf[broker.MessageIdentify](e)
		return fmt.Sprintf("The message downloaded as UID %d of “%s” is %s", d.UID, shown(d.Folder), messageID(d.MessageID))
	case broker.EventMessageFlag, broker.EventMessageCopy, broker.EventMessageMove, broker.EventMessageExpunge:
		return changed(e)
	case broker.EventMessageAppend:
		d := dataOf[broker.MessageAppend](e)
		return fmt.Sprintf("Filed a message in “%s”: %s, %s%s", shown(d.Folder), messageID(d.MessageID), octets(d.Octets), doubt(d.Outcome))
	case broker.EventMessageFiling:
		d := dataOf[broker.MessageFiling](e)
		return fmt.Sprintf("About to file a message in “%s”: %s", shown(d.Folder), messageID(d.MessageID))
	case broker.EventFolderChange:
		d := dataOf[broker.FolderChange](e)
		s := fmt.Sprintf("Folder: %s “%s”", shown(d.Command), shown(d.Folder))
		if d.Target != "" {
			s += " to “" + shown(d.Target) + "”"
		}
		return s
	case broker.EventSendIntent:
		d := dataOf[broker.SendIntent](e)
		return fmt.Sprintf("About to send %s to %s, from %s, %s", messageID(d.MessageID), named(d.Recipients), shown(d.HeaderFrom), octets(d.Octets))
	case broker.EventSendFlagged:
		d := dataOf[broker.SendFlagged](e)
		return fmt.Sprintf("The content rule “%s” flags %s: it matched in %s", shown(d.Rule), messageID(d.MessageID), shown(d.Where))
	case broker.EventSendResult:
		d := dataOf[broker.SendResult](e)
		s := fmt.Sprintf("Sent %s: %s", messageID(d.MessageID), sent(d.Outcome))
		if d.FoundInSent {
			s += ", found among the sent messages"
		}
		if d.Answer != "" {
			s += "; the mail server answered “" + shown(d.Answer) + "”"
		}
		return s
	case broker.EventSendRefused:
		d := dataOf[broker.SendRefused](e)
		s := fmt.Sprintf("Refused to send: the rule “%s”", shown(d.Rule))
		if d.Address != "" {
			s += " about " + shown(d.Address)
		}
		return s + ": " + shown(d.Text)
	}
	return describeControl(e)
}

// describeControl is describe for what people and Postern itself do.
func describeControl(e *Event) string {
	switch e.Type {
	case broker.EventAlertRaised:
		d := dataOf[broker.AlertRaised](e)
		return fmt.Sprintf("Alert raised (%s): %s", shown(string(d.Severity)), meaning(d.Kind))
	case broker.EventAlertAcknowledged, broker.EventAlertResolved:
		d := dataOf[broker.AlertAnswered](e)
		verb := "seen to"
		if e.Type == broker.EventAlertResolved {
			verb = "declared over"
		}
		s := fmt.Sprintf("Alert %s: %s", verb, shown(string(d.Kind)))
		if d.Note != "" {
			s += ": “" + shown(d.Note) + "”"
		}
		return s
	case broker.EventStateRestored:
		d := dataOf[broker.StateRestored](e)
		s := fmt.Sprintf("RESTORED from a backup of %s, in which this log had %s", d.BackedUp.UTC().Format(stampForm), plural(d.Events, "event"))
		if d.Lost != nil {
			s += fmt.Sprintf("; %s after it were lost", plural(*d.Lost, "event"))
		}
		return s
	case broker.EventRotationEnded:
		d := dataOf[broker.Rotation](e)
		s := "The replacement of the mailbox's password ended: " + shown(string(d.Outcome))
		if len(d.Unproved) > 0 {
			s += "; not proved: " + named(d.Unproved)
		}
		return s
	case broker.EventRotationRequested:
		return "The replacement of the mailbox's password was begun: " + shown(string(dataOf[broker.Rotation](e).Cause))
	case broker.EventLogPruned:
		d := dataOf[broker.LogPruned](e)
		s := fmt.Sprintf("Of %s the record was pruned, since such records are kept for %s", plural(d.Count, "event"), plural(int64(d.Days), "day"))
		if n := len(d.Spans); n > 0 {
			s += fmt.Sprintf(": entries %d to %d, of %s to %s", d.Spans[0].First, d.Spans[n-1].Last, d.Spans[0].Since.UTC().Format(stampForm), d.Spans[n-1].Until.UTC().Format(stampForm))
		}
		return s
	case broker.EventEvidenceMade:
		d := dataOf[broker.EvidenceMade](e)
		return fmt.Sprintf("An evidence bundle was made of entries %d to %d; its manifest's SHA-256 is %s", d.First, d.Last, shown(d.ManifestSHA256))
	case broker.EventCredentialSet:
		return fmt.Sprintf("The mailbox's password was stored (version %d)", dataOf[broker.CredentialSetData](e).Version)
	case broker.EventDriftOver:
		return "The mail server takes the mailbox's password again"
	}
	if change := dataOf[broker.StateChange](e); change.Before != nil || change.After != nil {
		return stateChange(e.Type, &change)
	}
	return meaningOf(e.Type) + members(e.Data)
}

// meaningOf is what the catalogue says of a type.
func meaningOf(t broker.EventType) string {
	for _, spec := range broker.Catalogue() {
		if spec.Type == t {
			return strings.ToUpper(spec.Meaning[:1]) + spec.Meaning[1:]
		}
	}
	return "Another kind of event, " + shown(string(t))
}

func meaning(kind broker.AlertKind) string {
	if spec := broker.AlertKindSpec(kind); spec.Meaning != "" {
		return spec.Meaning
	}
	return shown(string(kind))
}

func authenticated(a broker.Authentication) string {
	if a == "" {
		return "app password"
	}
	return shown(string(a))
}

// ended says how a session ended.
func ended(reason broker.EndReason) string {
	switch reason {
	case broker.EndLogout:
		return "signed out"
	case broker.EndClientClosed:
		return "the mail client closed the connection"
	case broker.EndUpstreamClosed:
		return "the mail server closed the connection"
	case broker.EndUpstreamFailed:
		return "the mail server could not be signed in to"
	case broker.EndProtocol:
		return "the mail client broke the protocol"
	case broker.EndIdle:
		return "silent for too long"
	case broker.EndRevoked:
		return "access was revoked or narrowed"
	case broker.EndLocked:
		return "locked"
	case broker.EndExpired:
		return "the permission ended"
	case broker.EndByAdmin:
		return "ended by an administrator"
	case broker.EndRecord:
		return "the record could not be written"
	case broker.EndStale:
		return "the server died; what it had not recorded is not known"
	}
	return shown(string(reason))
}

// sent says what became of a message.
func sent(outcome string) string {
	switch outcome {
	case "accepted":
		return "accepted by the mail server"
	case "refused":
		return "refused by the mail server"
	case "not-sent":
		return "not sent"
	case "unknown":
		return "NOT KNOWN whether it was sent: the connection broke after it had been handed over"
	}
	return shown(outcome)
}

func doubt(outcome broker.ChangeOutcome) string {
	switch outcome {
	case "":
		return ""
	case broker.ChangeUnanswered:
		return "; NOT KNOWN whether it was done: the session ended first"
	case broker.ChangeRefused:
		return "; refused by the mail server, which may have done a part"
	}
	return "; " + shown(string(outcome))
}

func inFolder(folder string) string {
	if folder == "" {
		return ""
	}
	return " in “" + shown(folder) + "”"
}

func messageID(id string) string {
	if id == "" {
		return "a message without an identifier"
	}
	return "message " + shown(id)
}

// named is the first of a list.
func named(all []string) string {
	var some []string
	for _, s := range all[:min(len(all), maxNamed)] {
		some = append(some, shown(s))
	}
	s := strings.Join(some, ", ")
	if more := len(all) - len(some); more > 0 {
		s += " and " + number(int64(more)) + " more"
	}
	return s
}

// openings is how many messages an event tells of: one may have been relayed in
// several parts.
func openings(d *broker.MessageOpen) int64 {
	seen := make(map[uint64]bool)
	for _, m := range d.Messages {
		switch {
		case m.Continues:
		case m.UID != 0:
			seen[uint64(m.UID)] = true
		default:
			seen[1<<32|uint64(m.Seq)] = true
		}
	}
	return int64(len(seen))
}

// opened names the messages of an event.
func opened(d *broker.MessageOpen) string {
	var some []string
	var octetsMore, more int64
	for _, m := range d.Messages {
		if len(some) == maxNamed {
			more++
			octetsMore += m.Octets
			continue
		}
		s := "UID " + strconv.FormatUint(uint64(m.UID), 10)
		if m.UID == 0 {
			s = "number " + strconv.FormatUint(uint64(m.Seq), 10)
		}
		if m.MessageID != "" {
			s += " " + shown(m.MessageID)
		}
		some = append(some, s+" ("+shown(m.Section)+", "+octets(m.Octets)+")")
	}
	s := strings.Join(some, "; ")
	if more > 0 {
		s += fmt.Sprintf("; and %s more (%s)", plural(more, "part"), octets(octetsMore))
	}
	return s
}

// changed describes a change to messages.
func changed(e *Event) string {
	d := dataOf[broker.MessageChange](e)
	what := "numbers "
	if d.UIDs {
		what = "UIDs "
	}
	what += shown(d.Set) + " of “" + shown(d.Folder) + "”"
	switch e.Type {
	case broker.EventMessageFlag:
		what = "Changed marks of " + what + ": " + shown(d.Flags)
	case broker.EventMessageCopy:
		what = "Copied " + what + " to “" + shown(d.Target) + "”"
	case broker.EventMessageMove:
		what = "Moved " + what + " to “" + shown(d.Target) + "”"
	default:
		what = "Deleted for good: " + what
	}
	return what + doubt(d.Outcome)
}

// stateChange says what of a thing has changed.
func stateChange(t broker.EventType, change *broker.StateChange) string {
	kind, verb, _ := strings.Cut(string(t), ".")
	if kind == "" {
		return "Change of something that has no name"
	}
	var before, after map[string]json.RawMessage
	_ = json.Unmarshal(change.Before, &before) // absent when it was created
	_ = json.Unmarshal(change.After, &after)   // or removed
	s := shown(strings.ToUpper(kind[:1]) + kind[1:] + " " + verb)
	thing := after
	if thing == nil {
		thing = before
	}
	for _, field := range []string{"name", "address", "label"} {
		var name string
		if json.Unmarshal(thing[field], &name) == nil && name != "" {
			s += " “" + shown(name) + "”"
			break
		}
	}
	if before == nil || after == nil {
		return s
	}
	var differ []string
	for _, field := range slices.Sorted(maps.Keys(union(before, after))) {
		if !bytes.Equal(before[field], after[field]) && field != "revision" && field != "updated_at" {
			differ = append(differ, fmt.Sprintf("%s from %s to %s", shown(field), value(before[field]), value(after[field])))
		}
	}
	if len(differ) == 0 {
		return s
	}
	more := ""
	if len(differ) > maxNamed {
		more = fmt.Sprintf(" and %d more", len(differ)-maxNamed)
		differ = differ[:maxNamed]
	}
	return s + ": " + strings.Join(differ, "; ") + more
}

func union(a, b map[string]json.RawMessage) map[string]bool {
	all := make(map[string]bool)
	for field := range a {
		all[field] = true
	}
	for field := range b {
		all[field] = true
	}
	return all
}

// value is a member's, as it stands in the record.
func value(raw json.RawMessage) string {
	if raw == nil {
		return "nothing"
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return "“" + shown(s) + "”"
	}
	return shown(string(raw))
}

// members are those of an event's data that are plain.
func members(data json.RawMessage) string {
	var all map[string]json.RawMessage
	_ = json.Unmarshal(data, &all) // of what has none there is nothing to say
	var some []string
	for _, field := range slices.Sorted(maps.Keys(all)) {
		if raw := all[field]; len(raw) > 0 && raw[0] != '{' && len(some) < maxNamed {
			some = append(some, shown(field)+": "+value(raw))
		}
	}
	if len(some) == 0 {
		return ""
	}
	return " (" + strings.Join(some, "; ") + ")"
}
