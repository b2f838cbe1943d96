// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
)

// step is what is to be done next.
type step string

const (
	stepName      step = "name"       // choose a name for the new password
	stepStore     step = "store"      // make it, and store it under that name
	stepAsk       step = "ask"        // note that the provider is about to be asked
	stepSet       step = "set"        // ask it
	stepProveNew  step = "prove-new"  // log in with the new password
	stepProveOld  step = "prove-old"  // log in with the old one, since the new was refused
	stepProveDead step = "prove-dead" // log in with the old one, which is to be refused
	stepCommit    step = "commit"     // make the new one the credential
	stepDrain     step = "drain"      // wait for sessions on the old one, end others'
	stepClean     step = "clean"      // destroy what is kept
)

// verdict is what came of a login.
type verdict int

const (
	unreached verdict = iota
	accepted
	refused
)

// both are the verdicts of the two protocols.
type both struct{ imap, submission verdict }

// finding is what a step found.
type finding struct {
	// blocked says what was out of reach: the step is to be tried again.
	blocked string
	// impossible says why the rotation cannot be.
	impossible string
	// gone says that the new password is not where it was stored: somebody has
	// deleted it there, or put an older state of the storage in its place.
	gone bool

	// said, reason and words are the provider's.
	said   broker.RotationSaid
	reason broker.DriverReason
	words  string

	// new and old are what came of logins.
	new, old both

	// oldVersion is the credential's that is replaced, version what a commit
	// made.
	oldVersion, version int
	// superseded says that somebody else's credential is stored and works.
	superseded bool

	// kicked says that the provider ended its sessions, unheard that it could not be
	// asked to, which another try may mend.
	kicked     bool
	unheard    bool
	inspection *broker.Inspection
	// keep says why an ended rotation's passwords are not destroyed yet, shut that
	// IMAP takes none of them, nor the mailbox's credential.
	keep string
	shut bool
}

// Limits are the machine's bounds. Zero fields take their defaults.
type Limits struct {
	// Passwords is how many are made for one rotation when the provider's rules
	// refuse them: 4. Asks is how often the provider is asked for one that it
	// says it has set, or may have: 5.
	Passwords, Asks int
	// Looks is how often a new password is tried, after each ask, before it is
	// taken for refused, and on how many days after the end nothing opens a mailbox
	// before it is taken for lost: 4; LookAfter the mean pause between: 5 s, doubled each
	// time.
	Looks     int
	LookAfter time.Duration
	// OldLooks are the pauses before the old password is tried again while it
	// is not dead: 5 s, 30 s, 2 min, 10 min, 1 h (Active Directory takes an old
	// one for an hour).
	OldLooks []time.Duration
	// WaitMin to WaitMax is the pause after an outage, doubled each time: 1 s to
	// 5 min.
	WaitMin, WaitMax time.Duration
	// GiveUp is when an outage is no longer waited for, counted from the
	// rotation's beginning: 24 h.
	GiveUp time.Duration
	// Kick is for how long after the commit a provider that is out of reach is asked
	// again to end its sessions: 15 min. Until then the mailbox's next rotation waits.
	Kick time.Duration
	// Keep is for how long replaced passwords are kept: DefaultKeep.
	Keep time.Duration
}

func (l Limits) withDefaults() Limits {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	for _, n := range []struct {
		at        *int
		otherwise int
	}{{&l.Passwords, 4}, {&l.Asks, 5}, {&l.Looks, 4}} {
		if *n.at == 0 {
			*n.at = n.otherwise
		}
	}
	set(&l.LookAfter, 5*time.Second)
	set(&l.WaitMin, time.Second)
	set(&l.WaitMax, 5*time.Minute)
	set(&l.GiveUp, 24*time.Hour)
	set(&l.Kick, 15*time.Minute)
	set(&l.Keep, DefaultKeep)
	if l.OldLooks == nil {
		l.OldLooks = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour}
	}
	return l
}

// next returns what is to be done in a state.
func next(r *broker.Rotation) step {
	switch r.State {
	case broker.RotationRequested:
		if len(r.Pending) == 0 {
			return stepName
		}
		return stepStore
	case broker.RotationPrepared:
		return stepAsk
	case broker.RotationAsking:
		return stepSet
	case broker.RotationAsked:
		return stepProveNew
	case broker.RotationDoubted:
		return stepProveOld
	case broker.RotationVerified:
		return stepProveDead
	case broker.RotationOldDead:
		return stepCommit
	case broker.RotationCommitted:
		return stepDrain
	}
	return stepClean
}

// machine makes the next journal.
type machine struct {
	Limits
	now time.Time
	id  func() broker.ID
}

// after returns the journal after a step. It changes nothing of r.
func (m *machine) after(r broker.Rotation, s step, f finding) broker.Rotation {
	r.Pending, r.Unproved = slices.Clone(r.Pending), slices.Clone(r.Unproved)
	r.NextAt = time.Time{}
	if f.blocked != "" {
		m.wait(&r, f.blocked)
		return r
	}
	if f.impossible != "" {
		m.impossible(&r, f.impossible)
		return r
	}
	if f.gone {
		m.gone(&r)
		return r
	}
	switch s {
	case stepName:
		r.Pending = append(r.Pending, m.id())
	case stepStore:
		r.State, r.OldVersion = broker.RotationPrepared, f.oldVersion
		r.Asked, r.Refused = 0, 0
	case stepAsk:
		if r.Entered { // he has set it himself
			r.State, r.Said = broker.RotationAsked, broker.SaidDone
		} else {
			r.State = broker.RotationAsking
		}
		r.Asked++
		r.Refused = 0
	case stepSet:
		r.State, r.Said, r.Reason, r.Words = broker.RotationAsked, f.said, f.reason, f.words
	case stepProveNew:
		m.provedNew(&r, f)
		return r
	case stepProveOld:
		m.provedOld(&r, f)
		return r
	case stepProveDead:
		m.provedDead(&r, f)
		return r
	case stepCommit:
		switch {
		case f.superseded:
			m.end(&r, broker.RotationSuperseded)
		case f.version == 0: // another one is stored, which is refused: over it
			r.OldVersion = f.oldVersion
		default:
			r.State, r.NewVersion = broker.RotationCommitted, f.version
		}
	case stepDrain:
		if f.unheard && m.now.Before(r.CommittedAt.Add(m.Kick)) {
			m.wait(&r, "the provider is out of reach, and has not ended its sessions")
			return r
		}
		if !f.kicked {
			unproved(&r, broker.UnprovedOldSessions)
		}
		r.Inspection = f.inspection
		m.end(&r, broker.RotationDone)
	case stepClean:
		if f.keep != "" {
			m.keepOn(&r, f)
			return r
		}
		r.CleanedAt = m.now
	}
	m.goOn(&r)
	return r
}

// mayBeSet reports whether the provider may have set a new password, or may yet.
func mayBeSet(r *broker.Rotation) bool {
	return r.Asked > 0 || len(r.Pending) > 1
}

// impossible ends a rotation that cannot go on. While nobody was asked it is as if
// it had not been. Afterwards what is stored is kept: it may be what opens the
// mailbox, now or in a while.
func (m *machine) impossible(r *broker.Rotation, why string) {
	r.Words = why
	switch {
	case !mayBeSet(r):
		m.end(r, broker.RotationCancelled)
	case r.State == broker.RotationRequested || r.State == broker.RotationPrepared: // the old one worked last
		m.end(r, broker.RotationKeptOld)
	case r.State == broker.RotationCommitted:
		unproved(r, broker.UnprovedOldSessions)
		m.end(r, broker.RotationDone)
	default:
		m.end(r, broker.RotationLost)
	}
}

// gone has the old password tried, once nobody knows the new one any more: it
// works, or a person must see to the mailbox.
func (m *machine) gone(r *broker.Rotation) {
	const why = "the new password is gone from the credential storage"
	if !mayBeSet(r) {
		m.impossible(r, why)
		return
	}
	r.State, r.Said, r.Reason, r.Words = broker.RotationDoubted, broker.SaidNotApplied, broker.DriverMisconfigured, why
	r.Refused = m.Looks // there is nothing to look at
	m.goOn(r)
}

func unproved(r *broker.Rotation, what string) {
	if !slices.Contains(r.Unproved, what) {
		r.Unproved = append(r.Unproved, what)
	}
}

// keepOn has an ended rotation's passwords kept, and looks again on another day:
// logins that are refused more often lock accounts. One that says that the old
// password works, and has found on Looks days that nothing does, is lost.
func (m *machine) keepOn(r *broker.Rotation, f finding) {
	if f.shut {
		r.OldTries++
	}
	if r.Outcome == broker.RotationKeptOld && r.OldTries >= m.Looks {
		r.Outcome = broker.RotationLost
	}
	r.Waiting, r.Waits = f.keep, 0
	r.NextAt = m.now.Add(doubled(cleanPause, r.OldTries-m.Looks, maxCleanPause))
}

// wait has the step tried again, later each time.
func (m *machine) wait(r *broker.Rotation, what string) {
	most := m.WaitMax
	if r.State == broker.RotationEnded { // nobody waits for it
		most = cleanPause
	}
	r.Waiting = what
	r.NextAt = m.now.Add(doubled(m.WaitMin, r.Waits, most))
	r.Waits++
}

// Ended rotations are looked at again after cleanPause; where nothing has opened the
// mailbox on Limits.Looks days, doubled each time up to maxCleanPause.
const (
	cleanPause    = 24 * time.Hour
	maxCleanPause = 30 * 24 * time.Hour
)

func doubled(d time.Duration, times int, most time.Duration) time.Duration {
	for range times {
		if d *= 2; d >= most {
			return most
		}
	}
	return min(d, most)
}

func (m *machine) goOn(r *broker.Rotation) { r.Waits, r.Waiting = 0, "" }

// late reports whether outages are no longer waited for.
func (m *machine) late(r *broker.Rotation) bool { return m.now.Sub(r.CreatedAt) >= m.GiveUp }

func (m *machine) end(r *broker.Rotation, how broker.RotationOutcome) {
	r.State, r.Outcome, r.Waiting, r.Waits, r.OldTries = broker.RotationEnded, how, "", 0, 0
	r.NextAt = m.now.Add(m.Keep)
	if how == broker.RotationCancelled {
		r.NextAt = m.now
	}
}

// provedNew: the new password was tried.
func (m *machine) provedNew(r *broker.Rotation, f finding) {
	switch {
	case f.new.imap == refused:
		r.State = broker.RotationDoubted
		return
	case f.new.imap == unreached:
		m.wait(r, "the mailbox's IMAP server is out of reach")
		return
	case f.new.submission == unreached && !m.late(r):
		m.wait(r, "the mailbox's submission server is out of reach")
		return
	case f.new.submission == refused && r.Refused+1 < m.Looks:
		m.lookAgain(r)
		return
	case f.new.submission == refused && r.Asked < m.Asks && !r.Entered: // half of it was set
		r.State = broker.RotationPrepared
		m.goOn(r)
		return
	case f.new.submission != accepted:
		unproved(r, broker.UnprovedSubmission)
	}
	r.State, r.OldTries = broker.RotationVerified, 0
	m.goOn(r)
}

// lookAgain has the new password tried again: providers take time.
func (m *machine) lookAgain(r *broker.Rotation) {
	r.State = broker.RotationAsked
	r.Waiting = "the new password is not taken yet"
	r.NextAt = m.now.Add(doubled(m.LookAfter, r.Refused, m.WaitMax))
	r.Refused++
	r.Waits = 0
}

// provedOld: the new password is refused, and the old one was tried.
func (m *machine) provedOld(r *broker.Rotation, f finding) {
	if f.old.imap == unreached {
		m.wait(r, "the mailbox's IMAP server is out of reach")
		return
	}
	old := f.old.imap == accepted
	// While the old password works, only a provider that says to have set the new
	// one may yet do so: whatever else it said, it can be asked again.
	if (r.Said == broker.SaidDone || !old) && r.Refused+1 < m.Looks {
		m.lookAgain(r)
		return
	}
	stop := broker.RotationLost
	if old {
		stop = broker.RotationKeptOld
	}
	switch {
	case r.Entered:
	case r.Reason == broker.DriverUnavailable && !m.late(r):
		m.askLater(r)
		return
	case r.Said != broker.SaidNotApplied:
		if r.Asked < m.Asks {
			r.State = broker.RotationPrepared
			m.goOn(r)
			return
		}
	case r.Reason == broker.DriverPasswordPolicy && len(r.Pending) < m.Passwords:
		r.State, r.Asked, r.Refused = broker.RotationRequested, 0, 0
		r.Pending = append(r.Pending, m.id())
		m.goOn(r)
		return
	}
	m.end(r, stop)
}

// askLater has a provider that does not answer asked again, later each time: the
// steps between two asks begin the count of waits anew.
func (m *machine) askLater(r *broker.Rotation) {
	r.State, r.Waiting, r.Waits = broker.RotationPrepared, "the provider is out of reach", 0
	r.NextAt = m.now.Add(doubled(m.WaitMin, r.Asked-1, m.WaitMax))
}

// provedDead: the new password works, and the old one was tried; the new one
// again, where the old was refused.
func (m *machine) provedDead(r *broker.Rotation, f finding) {
	dead := f.old == both{refused, refused}
	alive := f.old.imap == accepted || f.old.submission == accepted
	// A service that refuses both has proved nothing of the old one.
	alike := dead && (f.new.imap == refused || f.new.submission == refused)
	switch {
	case r.OldVersion == 0, dead && f.new == both{accepted, accepted}:
	case !alive && !alike:
		if !m.late(r) {
			m.wait(r, "a server is out of reach, and the old password cannot be tried")
			return
		}
		unproved(r, broker.UnprovedOldDead)
	case r.OldTries < len(m.OldLooks):
		r.Waiting = "the old password is not dead yet"
		if !alive {
			r.Waiting = "both passwords are refused, as after too many tries"
		}
		r.NextAt = m.now.Add(m.OldLooks[r.OldTries])
		r.OldTries++
		r.Waits = 0
		return
	default:
		unproved(r, broker.UnprovedOldDead)
	}
	r.State = broker.RotationOldDead
	m.goOn(r)
}
