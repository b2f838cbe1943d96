// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/postern-mail/postern/policy"
)

// WatchTerms is what a firm says of how a mailbox is watched.
type WatchTerms struct {
	// Off: it is not looked at.
	Off bool `json:"off,omitempty"`
	// LockOnDrift locks the mailbox when its credential is refused.
	LockOnDrift bool `json:"lock_on_drift,omitempty"`
	// Exceptions are what happens without Postern and is known to the firm.
	Exceptions []WatchException `json:"exceptions,omitempty"`
}

// WatchException declares what is no bypass. A change must be described by all
// of its members; an empty one describes everything.
type WatchException struct {
	// Folders are patterns, as in terms.
	Folders []string `json:"folders,omitempty"`
	Changes []Bypass `json:"changes,omitempty"`
	// Hours are when. What was found after a look may have happened at any time
	// since the look before.
	Hours policy.Hours `json:"hours,omitzero"`
	Note  string       `json:"note,omitempty"`
}

// Bypass is a way in which a mailbox was used without Postern.
type Bypass string

// The ways.
const (
	BypassSeen    Bypass = "seen"    // messages were read: \Seen was set
	BypassFlags   Bypass = "flags"   // other flags were set or cleared
	BypassRemoved Bypass = "removed" // messages were moved away or deleted
	BypassAdded   Bypass = "added"   // messages appeared in Sent or Drafts
	BypassFolder  Bypass = "folder"  // a folder is gone, or is another one
)

// Bypasses returns all ways.
func Bypasses() []Bypass {
	return []Bypass{BypassSeen, BypassFlags, BypassRemoved, BypassAdded, BypassFolder}
}

// String says what happened, in a line.
func (b *Bypassed) String() string {
	if b.What == BypassFolder {
		return string(b.What) + ": " + b.Folder
	}
	s := fmt.Sprintf("%s: %d in %s", b.What, b.Count, b.Folder)
	if b.Flag != "" {
		s += " (" + b.Flag + ")"
	}
	if b.Target != "" {
		s += ", now in " + b.Target
	}
	return s
}

// WatchOutcome is what the last look at a mailbox found.
type WatchOutcome string

// The outcomes.
const (
	WatchOK           WatchOutcome = "ok"
	WatchDrift        WatchOutcome = "drift"         // the credential is refused
	WatchUnavailable  WatchOutcome = "unavailable"   // it could not be looked at
	WatchRotating     WatchOutcome = "rotating"      // its password is being rotated
	WatchNoCredential WatchOutcome = "no-credential" // none is stored
	WatchOff          WatchOutcome = "off"           // the firm does not want it
)

// Watch is what the sentinel knows of one mailbox.
type Watch struct {
	MailboxID ID `json:"mailbox_id"`
	FirmID    ID `json:"firm_id"`
	// ProbedAt is when it was looked at last; zero: not yet.
	ProbedAt time.Time    `json:"probed_at,omitzero"`
	Outcome  WatchOutcome `json:"outcome,omitempty"`
	Detail   string       `json:"detail,omitempty"`
	// GoodAt is when the credential opened it last.
	GoodAt time.Time `json:"good_at,omitzero"`
	NextAt time.Time `json:"next_at"`
	// RefusedVersion is the credential's that is refused, 0: none is; Refusals
	// counts how often it was tried.
	RefusedVersion int `json:"refused_version,omitempty"`
	Refusals       int `json:"refusals,omitempty"`

	// Unread counts the looks on end in which it was open and could not be read as
	// a whole, UnreadSince is the first of them.
	Unread      int       `json:"unread,omitempty"`
	UnreadSince time.Time `json:"unread_since,omitzero"`

	// Source is as whom and where the mailbox was looked at; elsewhere the folders
	// below are others, and RefusedVersion is another's.
	Source  string          `json:"source,omitempty"`
	Folders []WatchedFolder `json:"folders,omitempty"`
	// Suspects are changes that nothing explained yet.
	Suspects []Suspect `json:"suspects,omitempty"`
	// Past are positions in the log at earlier looks, the oldest first.
	Past []LogPosition `json:"past,omitempty"`
}

// WatchedFolder is a folder as it was last read.
type WatchedFolder struct {
	Name        string `json:"name"`
	Delimiter   byte   `json:"delimiter,omitempty"`
	UIDValidity uint32 `json:"uid_validity"`
	UIDNext     uint32 `json:"uid_next"`
	// ModSeq is HIGHESTMODSEQ; 0: the server has none.
	ModSeq   uint64 `json:"mod_seq,omitempty"`
	Messages uint32 `json:"messages"`
	// Refused says that the server did not let it be read since.
	Refused bool `json:"refused,omitempty"`
	// After is the last event in the log before it was read.
	After int64     `json:"after"`
	At    time.Time `json:"at"`
}

// LogPosition is the last event of a log at a time.
type LogPosition struct {
	At  time.Time `json:"at"`
	Seq int64     `json:"seq"`
}

// Suspect is a change that waits to be explained: the record may come a moment
// after what it records.
type Suspect struct {
	Bypassed
	Delimiter byte `json:"delimiter,omitempty"`
	// Deleted were marked for deletion before.
	Deleted string `json:"deleted,omitempty"`
	// After is the last event that cannot explain it.
	After   int64     `json:"after"`
	FoundAt time.Time `json:"found_at"`
}

// WatchClaim is who looks.
type WatchClaim struct {
	// Node and Holder are the process.
	Node   string
	Holder ID
	// Lasts is for how long the mailbox is his.
	Lasts time.Duration
	// Without are firms of whose mailboxes it has enough for now.
	Without []ID
}

// WatchResult is what a look at a mailbox came to. All of it is stored in one
// transaction, or nothing.
type WatchResult struct {
	Watch Watch
	// Events are recorded beside.
	Events []*Event
	// Folders replaces what is kept of folders, by their names; nil octets: it is
	// forgotten.
	Folders map[string][]byte
	// Lock locks the mailbox with this message, unless it is locked already.
	Lock string
}

// Watches keeps what the sentinel knows: broker/store. Errors are those of
// State.
type Watches interface {
	// PrepareWatches makes one for each mailbox that has none, due after a time,
	// and forgets those of mailboxes that are gone.
	PrepareWatches(ctx context.Context, due time.Duration) error
	// ClaimWatch gives one that is due, and that nobody else holds, to a process;
	// nil: there is none.
	ClaimWatch(ctx context.Context, c WatchClaim) (*Watch, error)
	// FinishWatch writes what came of it, and lets go of it until its NextAt;
	// Conflict when the claim is no longer the holder's.
	FinishWatch(ctx context.Context, c WatchClaim, r *WatchResult) error
	// ReleaseWatches lets go of what dead processes of this node held.
	ReleaseWatches(ctx context.Context, node string) error
	// Watch is NotFound before the first look was prepared.
	Watch(ctx context.Context, mailbox ID) (*Watch, error)
	// Watches are a firm's, or (empty) all.
	Watches(ctx context.Context, firm ID) ([]*Watch, error)
	// WatchedFolders returns what is kept of a mailbox's folders, by their names.
	WatchedFolders(ctx context.Context, mailbox ID) (map[string][]byte, error)
	// ProbeSoon makes one due now, where there is none first.
	ProbeSoon(ctx context.Context, mailbox ID) error
}
