// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"time"
)

// WitnessRule is what happens when a witness falls silent.
type WitnessRule string

// The rules.
const (
	// WitnessAlarm raises an alert.
	WitnessAlarm WitnessRule = "alarm"
	// WitnessStop opens no new session in the firm's mailboxes besides; those
	// that are live go on.
	WitnessStop WitnessRule = "stop"
)

// WitnessRules returns all.
func WitnessRules() []WitnessRule { return []WitnessRule{WitnessAlarm, WitnessStop} }

// How long a witness may be silent.
const (
	DefaultWitnessSilence = time.Minute
	MinWitnessSilence     = 10 * time.Second
	MaxWitnessSilence     = 7 * 24 * time.Hour
	// MaxWitnesses bounds those of one log.
	MaxWitnesses = 16
	// WitnessClockSkew is by how much a witness's clock may differ from the
	// database's.
	WitnessClockSkew = 5 * time.Minute
)

// Witness is somebody who cosigns a log's checkpoints: a process that holds a key
// which Postern does not have.
type Witness struct {
	ID ID `json:"id"`
	// FirmID is whose log it watches; empty: the BPO's own.
	FirmID ID `json:"firm_id,omitempty"`
	// Name is its key's, Key the verifier key (C2SP tlog-cosignature).
	Name string `json:"name"`
	Key  string `json:"key"`
	// Silence is after how many seconds without a cosignature Rule applies.
	Silence   int         `json:"silence_seconds"`
	Rule      WitnessRule `json:"rule"`
	CreatedAt time.Time   `json:"created_at"`
	RemovedAt time.Time   `json:"removed_at,omitzero"`
}

// ReasonUnconfirmed is the Reason of an Error about a log whose restore nobody has
// confirmed.
const ReasonUnconfirmed = "restore-unconfirmed"

// WitnessStanding is a witness, and what it has cosigned last.
type WitnessStanding struct {
	Witness
	// Epoch, Size and Note are of the newest checkpoint that it has cosigned, in
	// any epoch; Size 0: none yet. Note bears the log's signatures and its own.
	Epoch ID
	Size  int64
	Note  string
	// CosignedAt is when, by its own clock; HeardAt up to when the log's events are
	// all covered: until that was taken, unless the checkpoint was an old one; or
	// else when the witness was registered.
	CosignedAt, HeardAt time.Time
	// SilentSince is since when it has been silent, where that is on record.
	SilentSince time.Time
}

// Cosigned is a checkpoint that one witness has cosigned. Whoever makes one has
// verified both signatures.
type Cosigned struct {
	Epoch ID
	Size  int64
	// Root is the log's in it.
	Root [32]byte
	Note string
	At   time.Time
}

// Witnesses keeps the logs' witnesses: broker/store. Errors are those of State. A
// firm's witnesses are its own people's affair once it was claimed.
type Witnesses interface {
	// CreateWitness fills in Silence and Rule when they are empty. A name or key
	// that a witness of the same log has is a Conflict.
	CreateWitness(ctx context.Context, by Actor, w *Witness) error
	RemoveWitness(ctx context.Context, by Actor, id ID) error
	// Witnesses returns those of one log that were not removed, by name.
	Witnesses(ctx context.Context, firm ID) ([]*WitnessStanding, error)
	// AllWitnesses returns those of every log.
	AllWitnesses(ctx context.Context) ([]*WitnessStanding, error)
	// KeepCosignature notes that a witness has cosigned a checkpoint of its log.
	// It is a Conflict when the checkpoint is not of the log's epoch, or smaller
	// than what the witness has cosigned in it, or at its own time not later; and
	// Refused as long as the epoch began with a restore that nobody has confirmed.
	KeepCosignature(ctx context.Context, id ID, c *Cosigned) error
	// RecordSilence records that a witness has been silent since then, unless it
	// was heard, or that is on record. Where it is, KeepCosignature records the
	// end of it.
	RecordSilence(ctx context.Context, by Actor, id ID, since time.Time) error
	// ConfirmRestore says for a log that its epoch may be witnessed; it returns
	// that. Conflict when there is nothing to confirm.
	ConfirmRestore(ctx context.Context, by Actor, firm ID) (epoch ID, err error)
}
