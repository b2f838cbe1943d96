// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"slices"
	"time"
)

// Activity says in a word what an event tells, for questions that are about
// many types of them.
type Activity string

// The activities.
const (
	ActivitySession    Activity = "session"
	ActivitySessionEnd Activity = "session-end"
	// ActivityRead is the opening of messages one by one, ActivitySync that of
	// many at a time, as a mail client's synchronisation or an export does.
	ActivityRead Activity = "read"
	ActivitySync Activity = "sync"
	// ActivityChange is of flags, and copying and moving; ActivityDelete is
	// expunging, ActivityAppend what was put into a folder.
	ActivityChange Activity = "change"
	ActivityDelete Activity = "delete"
	ActivityAppend Activity = "append"
	// ActivitySubmit is a message on its way to the upstream, ActivitySent one
	// that it took, ActivityUnsent one that it did not take or may not have.
	ActivitySubmit Activity = "submit"
	ActivitySent   Activity = "sent"
	ActivityUnsent Activity = "unsent"
	// ActivityRefused is what rules, quotas and decisions refused,
	// ActivityFailed a failed authentication.
	ActivityRefused Activity = "refused"
	ActivityFailed  Activity = "failed"
	ActivityAlert   Activity = "alert"
	// ActivityControl is a change of state, or of a credential.
	ActivityControl Activity = "control"
	ActivityOther   Activity = "other"
)

// Activities returns all. Stores keep their places: new ones come last.
func Activities() []Activity {
	return []Activity{
		ActivityOther, ActivitySession, ActivitySessionEnd, ActivityRead, ActivitySync, ActivityChange, ActivityDelete, ActivityAppend,
		ActivitySubmit, ActivitySent, ActivityUnsent, ActivityRefused, ActivityFailed, ActivityAlert, ActivityControl,
	}
}

const (
	// SyncMessages messages that were opened within SyncSpan in one session are
	// a bulk synchronisation: nobody reads as fast.
	SyncMessages = 20
	SyncSpan     = time.Minute
	// syncEvent messages in one message.open are one too, in records of before
	// these said so.
	syncEvent = 10
)

// IsSync reports whether the messages were opened in a bulk synchronisation.
func (m *MessageOpen) IsSync() bool {
	if m.Sync {
		return true
	}
	uids := make([]uint32, 0, syncEvent)
	for _, x := range m.Messages {
		if x.UID != 0 && !slices.Contains(uids, x.UID) {
			if uids = append(uids, x.UID); len(uids) == syncEvent {
				return true
			}
		}
	}
	return false
}

// ActivityOf says what an event tells. It is ActivityOther too when its data is
// not what its type has.
func ActivityOf(e *Event) Activity {
	switch e.Type {
	case EventSessionOpen:
		return ActivitySession
	case EventSessionEnd:
		return ActivitySessionEnd
	case EventMessageOpen:
		m, err := DataOf[MessageOpen](e)
		switch {
		case err != nil:
			return ActivityOther
		case m.IsSync():
			return ActivitySync
		}
		return ActivityRead
	case EventMessageFlag, EventMessageCopy, EventMessageMove, EventFolderChange:
		return ActivityChange
	case EventMessageExpunge:
		return ActivityDelete
	case EventMessageAppend:
		return ActivityAppend
	case EventSendIntent:
		return ActivitySubmit
	case EventSendResult:
		if r, err := DataOf[SendResult](e); err == nil && r.Outcome == "accepted" {
			return ActivitySent
		}
		return ActivityUnsent
	case EventSessionRefused, EventCommandRefused, EventQuotaReached, EventSendRefused:
		return ActivityRefused
	case EventAuthFailed:
		return ActivityFailed
	case EventAppPasswordAstray, EventDrift, EventConsentWithdrawn, EventBypassed, EventUnwatched, EventSendFlagged, EventOutage,
		EventCanaryOpened, EventCanaryDownloaded, EventWitnessSilent, EventWitnessHeard, EventAlertRaised, EventAlertAcknowledged, EventAlertResolved:
		return ActivityAlert
	case EventCredentialSet, EventProviderAccount, EventCertified, EventStateRestored, EventRestoreConfirmed, EventLogPruned, EventCanaryCreated, EventCanaryRemoved,
		EventRotationRequested, EventRotationStep, EventRotationEnded, EventRotationCleaned:
		return ActivityControl
	}
	if e.Type.IsChange() {
		return ActivityControl
	}
	return ActivityOther
}

// Place is where an event stands among those of several logs, which are in the
// order of their times.
type Place struct {
	Time time.Time
	Log  ID
	Seq  int64
}

// SubjectQuery selects the events about mailboxes, agents and workstations,
// oldest first.
type SubjectQuery struct {
	// Subjects are whom it may be about; an event about several comes once.
	Subjects []ID
	// FirmID selects its log; empty: all logs are read.
	FirmID ID
	// Since and Until, which is exclusive, bound the events' times; zero: they do
	// not.
	Since, Until time.Time
	// Activities narrow it, when there are any; so does Other: the mailbox of an
	// agent's or a workstation's events, or the agent of a mailbox's.
	Activities []Activity
	Other      ID
	// After is the place of the last one already seen; nil: none.
	After *Place
	// Limit is 1 to 10000; 0: 1000.
	Limit int
}

// MessageQuery selects the events about one message, oldest first: openings,
// appending, sending, and its use around Postern.
type MessageQuery struct {
	// MessageID is as in the message, or the next four say where it is.
	MessageID   string
	MailboxID   ID
	Folder      string
	UIDValidity uint32
	UID         uint32

	// The rest is as in SubjectQuery.
	FirmID       ID
	Since, Until time.Time
	Activities   []Activity
	After        *Place
	Limit        int
}

// MessageEvent is an event about a message.
type MessageEvent struct {
	*StoredEvent
	// Opened are, of a message.open, the entries about that message.
	Opened []OpenedMessage
}

// ActivityCount is how much of an activity a day had.
type ActivityCount struct {
	// Day is that of the instant, in the zone that was asked for.
	Day      string
	Activity Activity
	// Other is the mailbox or the agent; see SubjectQuery.
	Other                    ID
	Events, Messages, Octets int64
	First, Last              time.Time
}

// Questions finds events by what they are about: broker/store. Each answer is of
// one instant, the last durable events included.
type Questions interface {
	//
	// A page may have fewer events than its limit: there are more when next is
	// not nil, which is what to give as After.
	SubjectEvents(ctx context.Context, q SubjectQuery) (events []*StoredEvent, next *Place, err error)
	// SubjectSessions returns the sessions of q that there were between Since and
	// Until, by their end; those that live come last. A page may have more than
	// its limit by these. Activities do not count.
	SubjectSessions(ctx context.Context, q SubjectQuery) (sessions []*Session, next *Place, err error)
	// CountSubjects counts all events of q, those about several subjects for each, of which After and Limit do not count,
	// by day, activity and the other side. The days are those of a zone that is
	// so many seconds east of UTC.
	CountSubjects(ctx context.Context, q SubjectQuery, zone int) ([]ActivityCount, error)
	MessageEvents(ctx context.Context, q MessageQuery) (events []*MessageEvent, next *Place, err error)
	CountMessage(ctx context.Context, q MessageQuery, zone int) ([]ActivityCount, error)
	// Unindexed is how many events a question must read one by one, since the
	// index does not hold them yet.
	Unindexed(ctx context.Context) (int64, error)
}
