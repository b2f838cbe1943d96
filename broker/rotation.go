// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"encoding/json"
	"time"

	"github.com/postern-mail/postern/policy"
)

// Provider is where a firm's mailboxes get their passwords changed: a driver
// and its settings. What the driver logs in with, the provider account, lies in
// Vault.
type Provider struct {
	ID     ID `json:"id"`
	FirmID ID `json:"firm_id"`
	// Name is unique within the firm.
	Name string `json:"name"`
	// Driver is the driver's name: "ldap", "sql", "http", "exec" or "manual".
	Driver string `json:"driver"`
	// Settings are the driver's, and hold no secret.
	Settings  json.RawMessage `json:"settings,omitempty"`
	CreatedAt time.Time       `json:"created_at"`
}

// RotationMethod is how a mailbox's password is replaced, and when.
type RotationMethod struct {
	ProviderID ID `json:"provider_id"`
	// Settings are the mailbox's own at the provider, and hold no secret.
	Settings json.RawMessage `json:"settings,omitempty"`
	// EveryDays is the schedule, 1 to 3660; 0: none.
	EveryDays int `json:"every_days,omitempty"`
	// Window is when a rotation by schedule may begin; zero: at any time.
	Window policy.Hours `json:"window,omitzero"`
	// On names what else begins one: "revoke", "off-board", "lock", "drift".
	On []RotationCause `json:"on,omitempty"`
	// FirmOnly keeps the BPO's admins from beginning one.
	FirmOnly bool `json:"firm_only,omitempty"`
	// LockWhenLost locks the mailbox when neither password opens it.
	LockWhenLost bool `json:"lock_when_lost,omitempty"`
}

// RotationCause is why a rotation was begun.
type RotationCause string

// The causes.
const (
	RotateOnDemand   RotationCause = "demand"
	RotateOnSchedule RotationCause = "schedule"
	RotateOnRevoke   RotationCause = "revoke"
	RotateOnOffBoard RotationCause = "off-board"
	RotateOnLock     RotationCause = "lock"
	RotateOnDrift    RotationCause = "drift"
)

// RotationState is the last step of a rotation that is in its journal. The
// journal is written before each step that anybody outside can notice, so that
// in each state it is known which of them may have been taken.
type RotationState string

// The states, in their order. A rotation may go back to RotationRequested for
// another password, and to RotationAsking to ask again.
const (
	// RotationRequested: nothing was done yet, or another password is needed.
	RotationRequested RotationState = "requested"
	// RotationPrepared: the new password lies at a path of its own.
	RotationPrepared RotationState = "prepared"
	// RotationAsking: the provider may have been asked to set it.
	RotationAsking RotationState = "asking"
	// RotationAsked: it was asked, and Said is what it said: APPLIED, where
	// that is SaidDone.
	RotationAsked RotationState = "asked"
	// RotationDoubted: the new password was refused, and the old is to be tried.
	RotationDoubted RotationState = "doubted"
	// RotationVerified: the new password opens the mailbox.
	RotationVerified RotationState = "verified"
	// RotationOldDead: the old one is refused, or what is unproved is noted.
	RotationOldDead RotationState = "old-dead"
	// RotationCommitted: the new one is the mailbox's credential.
	RotationCommitted RotationState = "committed"
	// RotationEnded: see the Outcome.
	RotationEnded RotationState = "ended"
)

// RotationSaid is what the provider said when it was asked.
type RotationSaid string

// What it may say.
const (
	SaidDone       RotationSaid = "done"
	SaidNotApplied RotationSaid = "not-applied"
	SaidUnknown    RotationSaid = "unknown"
)

// RotationOutcome is how a rotation ended.
type RotationOutcome string

// The outcomes.
const (
	// RotationDone: the new password is the mailbox's credential. What could not
	// be proved is in Unproved.
	RotationDone RotationOutcome = "done"
	// RotationKeptOld: the provider did not change it; the old one works.
	RotationKeptOld RotationOutcome = "kept-old"
	// RotationLost: neither password opens the mailbox: a person must see to it.
	// One that kept the old password becomes so when, on several days after, that
	// and all that it had made are refused.
	RotationLost RotationOutcome = "lost"
	// RotationSuperseded: somebody stored another credential meanwhile, and it
	// works.
	RotationSuperseded RotationOutcome = "superseded"
	// RotationCancelled: it could not begin, or the mailbox is gone.
	RotationCancelled RotationOutcome = "cancelled"
)

// What a rotation may leave unproved.
const (
	UnprovedSubmission  = "new-password-at-submission"
	UnprovedOldDead     = "old-password-dead"
	UnprovedOldSessions = "old-sessions-ended"
)

// Rotation is the journal of replacing one mailbox's password. It holds no
// secret: the new password lies with the credentials, under one of Pending.
type Rotation struct {
	ID         ID            `json:"id"`
	FirmID     ID            `json:"firm_id"`
	MailboxID  ID            `json:"mailbox_id"`
	ProviderID ID            `json:"provider_id"`
	Cause      RotationCause `json:"cause"`
	// By is who began it.
	By    Actor         `json:"by"`
	State RotationState `json:"state"`
	// Entered says that a person has set the password at the provider himself
	// and entered it.
	Entered bool `json:"entered,omitempty"`

	// Pending name the passwords that were made for it, the latest last; any of
	// them may be the mailbox's.
	Pending []ID `json:"pending,omitempty"`
	// OldVersion is the credential's that is replaced; 0: there was none.
	OldVersion int `json:"old_version,omitempty"`
	NewVersion int `json:"new_version,omitempty"`

	// Asked counts how often the provider was asked for the latest password,
	// Refused how often that password was refused since, OldTries how often the
	// old one was tried and not yet known to be dead (after the end: on how many
	// days nothing opened the mailbox), Waits the steps that waited one after
	// another.
	Asked    int `json:"asked,omitempty"`
	Refused  int `json:"refused,omitempty"`
	OldTries int `json:"old_tries,omitempty"`
	Waits    int `json:"waits,omitempty"`

	// Said, Reason and Words are the provider's last answer.
	Said   RotationSaid `json:"said,omitempty"`
	Reason DriverReason `json:"reason,omitempty"`
	Words  string       `json:"words,omitempty"`
	// Waiting says what the rotation waits for.
	Waiting string `json:"waiting,omitempty"`

	Outcome    RotationOutcome `json:"outcome,omitempty"`
	Unproved   []string        `json:"unproved,omitempty"`
	Inspection *Inspection     `json:"inspection,omitempty"`

	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
	NextAt      time.Time `json:"next_at,omitzero"`
	CommittedAt time.Time `json:"committed_at,omitzero"`
	EndedAt     time.Time `json:"ended_at,omitzero"`
	// CleanedAt is when its passwords and the versions before were destroyed.
	CleanedAt time.Time `json:"cleaned_at,omitzero"`

	// Revision counts the journal's entries.
	Revision int64 `json:"revision"`
}

// PendingID returns the latest password's name; empty: none was made.
func (r *Rotation) PendingID() ID {
	if len(r.Pending) == 0 {
		return ""
	}
	return r.Pending[len(r.Pending)-1]
}

// RotationQuery selects rotations, newest first.
type RotationQuery struct {
	FirmID, MailboxID ID // empty: all
	// Open selects those that have not ended.
	Open bool
	// Limit is 1 to 10000; 0: 1000.
	Limit int
}

// RotationClaim is who takes work.
type RotationClaim struct {
	// Node and Holder are the process.
	Node   string
	Holder ID
	// Lasts is for how long the rotation is his after each entry.
	Lasts time.Duration
	// Busy are the providers that have as much of his work as they may.
	Busy []ID
}

// Rotations keeps the journals: broker/store. Errors are those of State.
type Rotations interface {
	// RequestRotation begins one, in the state requested; ID and times are filled
	// in. A mailbox that has one under way is Conflict, which says whose it is
	// and since when; one without a method, or whose firm keeps rotations to
	// itself, is Refused; by drift, within an hour after another, Limit.
	RequestRotation(ctx context.Context, by Actor, r *Rotation) error
	// ClaimRotation gives one that is due, and that nobody else holds, to a
	// process; nil: there is none. Ended ones come when they are to be cleaned.
	ClaimRotation(ctx context.Context, c RotationClaim) (*Rotation, error)
	// AdvanceRotation writes r over the entry with the Revision before, and its
	// event, and prolongs the claim; Conflict when the claim or the entry is
	// no longer the holder's. When r.State is RotationCommitted for the first
	// time, sessions that logged in with an older version are to end.
	AdvanceRotation(ctx context.Context, c RotationClaim, r *Rotation) error
	// ReleaseRotation lets go of one until its NextAt.
	ReleaseRotation(ctx context.Context, c RotationClaim, id ID) error
	// ReleaseRotations lets go of what dead processes of this node held.
	ReleaseRotations(ctx context.Context, node string) error
	Rotation(ctx context.Context, id ID) (*Rotation, error)
	// PendingRotation returns the mailbox's latest rotation whose passwords were
	// not destroyed yet; nil: there is none.
	PendingRotation(ctx context.Context, mailbox ID) (*Rotation, error)
	Rotations(ctx context.Context, q RotationQuery) ([]*Rotation, error)
}

// Providers keeps firms' providers: broker/store. They are the firm's affair, as
// its mailboxes are.
type Providers interface {
	CreateProvider(ctx context.Context, by Actor, p *Provider) error
	UpdateProvider(ctx context.Context, by Actor, p *Provider) error
	// DeleteProvider is Conflict while a mailbox uses it.
	DeleteProvider(ctx context.Context, by Actor, id ID) error
	Provider(ctx context.Context, id ID) (*Provider, error)
	// FirmProviders returns a firm's, or (empty) all.
	FirmProviders(ctx context.Context, firm ID) ([]*Provider, error)
	// ProviderAccountSet records that its account was stored: an event alone.
	ProviderAccountSet(ctx context.Context, by Actor, provider ID, version int) error
}

// PendingCredentials are passwords that rotations have made and not committed:
// broker/vault and broker/sealed. Errors are those of Credentials.
type PendingCredentials interface {
	PendingCredential(ctx context.Context, firm, mailbox, pending ID) (*Credential, error)
}

// RotationSecrets is what the rotator keeps where credentials are.
type RotationSecrets interface {
	Credentials
	PendingCredentials
	// SetPendingCredential stores one, once: Conflict when it is there.
	SetPendingCredential(ctx context.Context, firm, mailbox, pending ID, c *Credential) error
	// DeletePendingCredential removes one; deleting nothing is no error.
	DeletePendingCredential(ctx context.Context, firm, mailbox, pending ID) error
	// DestroyCredentialsBefore destroys the versions of a credential before one, and
	// never the present one.
	DestroyCredentialsBefore(ctx context.Context, firm, mailbox ID, version int) error
	ProviderAccount(ctx context.Context, firm, provider ID) (*ProviderAccount, error)
	// SetProviderAccount and ProviderAccountVersion are as SetCredential and
	// CredentialVersion.
	SetProviderAccount(ctx context.Context, firm, provider ID, a *ProviderAccount) (int, error)
	ProviderAccountVersion(ctx context.Context, firm, provider ID) (int, error)
	DeleteProviderAccount(ctx context.Context, firm, provider ID) error
}
