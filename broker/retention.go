// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// How long the records of a log are kept. Nothing is pruned unless somebody asks
// for it: the days of a log are 0 then, which is for ever.
const (
	// MinRetentionDays is the shortest time that anybody can set: far longer than
	// a sink's outage or a firm's forgotten 'postern log pull' should last, since
	// pruning waits for neither.
	MinRetentionDays = 30
	// MaxRetentionDays is a century.
	MaxRetentionDays = 36500
	// RetentionNotice is how long before a shorter time counts, and how long a
	// hold goes on after its release: whoever steals an admin's token, or is one,
	// destroys nothing before others could see that he asked for it.
	RetentionNotice = 7 * 24 * time.Hour
	// MaxHolds bounds the holds that stand on one log.
	MaxHolds = 100
)

// LongerDays returns the longer of two times in days, of which 0 is for ever.
func LongerDays(a, b int) int {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

// RetentionDays is a time in days, which may be shortened with notice only.
type RetentionDays struct {
	// Days counts from From on; until then Before does.
	Days   int       `json:"days"`
	From   time.Time `json:"from,omitzero"`
	Before int       `json:"before,omitempty"`
}

// At returns the days that count at an instant.
func (d RetentionDays) At(now time.Time) int {
	if now.Before(d.From) {
		return d.Before
	}
	return d.Days
}

// String says how long it is, and what counts before.
func (d RetentionDays) String() string { return retentionWords(d.Days) + d.notice() }

func (d RetentionDays) notice() string {
	if d.From.IsZero() {
		return ""
	}
	return " from " + d.From.UTC().Format(time.RFC3339) + " on, " + retentionWords(d.Before) + " until then"
}

func retentionWords(days int) string {
	if days == 0 {
		return "for ever"
	}
	return fmt.Sprintf("%d days", days)
}

// daysAfter is a time that follows another: at once, or with notice when it is
// shorter.
func daysAfter(before, days int, now time.Time) RetentionDays {
	if LongerDays(before, days) == days {
		return RetentionDays{Days: days}
	}
	return RetentionDays{Days: days, From: now.Add(RetentionNotice), Before: before}
}

// RetentionRules are the BPO's: how long any firm's records are kept at least,
// how long where the firm has said nothing, and how long the BPO's own log's.
type RetentionRules struct {
	Minimum RetentionDays `json:"minimum"`
	Default RetentionDays `json:"default"`
	Own     RetentionDays `json:"own"`
}

// NewRetentionRules are the rules until somebody sets others: all is kept.
func NewRetentionRules() RetentionRules {
	return RetentionRules{Minimum: RetentionDays{Days: MinRetentionDays}}
}

// RetentionWish changes the rules; nil: as it was.
type RetentionWish struct{ Minimum, Default, Own *int }

// With returns the rules after a change.
func (r RetentionRules) With(w RetentionWish, now time.Time) RetentionRules {
	for _, x := range []struct {
		days *RetentionDays
		wish *int
	}{{&r.Minimum, w.Minimum}, {&r.Default, w.Default}, {&r.Own, w.Own}} {
		if x.wish != nil && *x.wish != x.days.Days {
			*x.days = daysAfter(x.days.At(now), *x.wish, now)
		}
	}
	return r
}

// FirmRetention is what a firm has said of its records.
type FirmRetention struct {
	FirmID ID `json:"firm_id"`
	// Chosen says that Days is the firm's own; else the BPO's default counts.
	Chosen bool `json:"chosen"`
	RetentionDays
}

// String says how long it is, and what counts before.
func (f FirmRetention) String() string {
	if f.Chosen {
		return f.RetentionDays.String()
	}
	return "the BPO's default" + f.notice()
}

// wish is how long the firm's records would be kept but for the minimum.
func (f FirmRetention) wish(r RetentionRules, now time.Time) int {
	switch {
	case now.Before(f.From):
		return f.Before
	case f.Chosen:
		return f.Days
	}
	return r.Default.At(now)
}

// With returns what the firm has said after a change; days nil: the default
// counts.
func (f FirmRetention) With(r RetentionRules, days *int, now time.Time) FirmRetention {
	before := f.wish(r, now)
	after := FirmRetention{FirmID: f.FirmID, Chosen: days != nil}
	if days != nil {
		after.RetentionDays = daysAfter(before, *days, now)
	} else {
		// The default may be about to become shorter.
		least := r.Default.At(now)
		if LongerDays(least, r.Default.Days) == least {
			least = r.Default.Days
		}
		after.RetentionDays = daysAfter(before, least, now)
		after.Days = 0
	}
	return after
}

// Effective returns for how many days the firm's records are kept at an instant:
// what it said, and never less than the minimum.
func (f FirmRetention) Effective(r RetentionRules, now time.Time) int {
	return LongerDays(f.wish(r, now), r.Minimum.At(now))
}

// RetentionStanding is all that is said of how long a log's records are kept.
type RetentionStanding struct {
	// FirmID is the log's; empty: the BPO's own.
	FirmID ID
	Rules  RetentionRules
	Firm   FirmRetention
	// Days is what counts now; 0: for ever.
	Days int
	// PrunedUntil is the time of the newest record that was pruned; zero: none
	// was.
	PrunedUntil time.Time
}

// Hold keeps records from being pruned.
type Hold struct {
	ID ID `json:"id"`
	// FirmID is whose log it is on; empty: the BPO's own.
	FirmID ID `json:"firm_id,omitempty"`
	// Reason says why, such as a court's reference.
	Reason string `json:"reason"`
	// Since and Until, which is exclusive, are the times of the records that it
	// covers; zero: they have no such bound.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// By is who placed it, OfFirm that he spoke for the firm: then only those who
	// do release it, and else only the BPO's.
	By        Actor     `json:"by"`
	OfFirm    bool      `json:"of_firm"`
	CreatedAt time.Time `json:"created_at"`
	// ReleasedAt is when it was released; it holds for RetentionNotice after it.
	ReleasedAt    time.Time `json:"released_at,omitzero"`
	ReleasedBy    *Actor    `json:"released_by,omitempty"`
	ReleaseReason string    `json:"release_reason,omitempty"`
}

// Stands reports whether the hold keeps records at an instant.
func (h *Hold) Stands(now time.Time) bool {
	return h.ReleasedAt.IsZero() || now.Before(h.ReleasedAt.Add(RetentionNotice))
}

// Covers reports whether a record of a time is covered.
func (h *Hold) Covers(t time.Time) bool {
	return !t.Before(h.Since) && (h.Until.IsZero() || t.Before(h.Until))
}

// PrunedSpan is a run of entries of which only the hashes are left.
type PrunedSpan struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	// Since and Until are the times of the oldest and the newest of them.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

// LogPruned is the data of log.pruned.
type LogPruned struct {
	// Days is for how long the log's records were kept, Before the time that only
	// older ones were pruned of.
	Days   int       `json:"days"`
	Before time.Time `json:"before"`
	Count  int64     `json:"count"`
	// Spans are all of them, by their numbers.
	Spans []PrunedSpan `json:"spans"`
}

// KeptForEver reports whether events of a type are never pruned: what tells that
// others were, and who could do what in which mailbox when. They tell of no
// message.
func (t EventType) KeptForEver() bool {
	kind, _, _ := strings.Cut(string(t), ".")
	switch t {
	case EventLogPruned, EventStateRestored, EventRestoreConfirmed, EventCredentialSet:
		return true
	}
	return t.IsChange() && slices.Contains([]string{"retention", "hold", "mailbox", "delegation", "assignment", "lock", "witness"}, kind)
}

// PruneTask is a log of which records may be due: those between two numbers, the
// end exclusive.
type PruneTask struct {
	FirmID   ID
	From, To int64
	// At is when: what is due goes by it.
	At time.Time
}

// Retentions keeps how long records are kept, and prunes them: broker/store.
// Errors are those of State.
type Retentions interface {
	// Retention returns what is said of a log.
	Retention(ctx context.Context, firm ID) (*RetentionStanding, error)
	// PrunedUntil returns the time of the newest record of a log that was pruned, or
	// nil: of any log; zero: none was.
	PrunedUntil(ctx context.Context, firm *ID) (time.Time, error)
	// SetRetention sets how long a firm's records are kept; nil: the BPO's default
	// counts. It is Invalid below the minimum, and Refused to the BPO's people for
	// a claimed firm.
	SetRetention(ctx context.Context, by Actor, firm ID, days *int) error
	// SetRetentionRules changes the BPO's rules. What the change is for firms
	// stands in their own logs as well.
	SetRetentionRules(ctx context.Context, by Actor, w RetentionWish) error

	// Holds returns the holds on a log, or nil: on all logs, those that were
	// released among them, oldest first.
	Holds(ctx context.Context, firm *ID) ([]*Hold, error)
	CreateHold(ctx context.Context, by Actor, h *Hold) error
	// ReleaseHold is Refused to those who do not speak for the side that placed
	// the hold, and a Conflict when it was released.
	ReleaseHold(ctx context.Context, by Actor, id ID, reason string) (*Hold, error)

	// PruneTime moves the time that pruning goes by towards what the clock says: by no
	// more than a step, and than twice of what has passed by the clock since any node
	// called it last. It returns both, or the clock's twice where that is behind. The
	// first call sets it.
	PruneTime(ctx context.Context, step time.Duration) (at, clock time.Time, err error)
	// PruneTasks returns the logs that have something to look at, at a time.
	PruneTasks(ctx context.Context, at time.Time) ([]PruneTask, error)
	// Prune takes away in one transaction a few of the records of a task that are
	// due and not held, and records in their log which. It returns how many, and
	// where the next look at the task begins.
	Prune(ctx context.Context, by Actor, task PruneTask) (count, next int64, err error)
}
