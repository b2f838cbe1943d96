// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"time"
)

// EnrolmentCode is a random token that makes the machine that redeems it a
// workstation, once.
type EnrolmentCode struct {
	ID ID `json:"id"`
	// Name, Class, SiteID, Groups and AgentID are the workstation's that it makes.
	Name    string           `json:"name"`
	Class   WorkstationClass `json:"class"`
	SiteID  ID               `json:"site_id,omitempty"`
	Groups  []string         `json:"groups,omitempty"`
	AgentID ID               `json:"agent_id,omitempty"`
	// TPM is the fingerprint of the one that the key must be in; empty, where
	// the class is hardware: one whose maker is trusted.
	TPM string `json:"tpm,omitempty"`
	// Hash is the code's under the server's key.
	Hash      []byte    `json:"-"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	// WorkstationID is what it made.
	WorkstationID ID        `json:"workstation_id,omitempty"`
	RedeemedAt    time.Time `json:"redeemed_at,omitzero"`
	// ReplacedAt is when another code for the same name took its place.
	ReplacedAt time.Time `json:"replaced_at,omitzero"`
}

// Enrolments keeps the codes by which machines become workstations:
// broker/store. Its errors are those of State, and every change is an event of
// the BPO's log.
type Enrolments interface {
	// CreateEnrolmentCode takes the place of a code for the same name that was
	// not redeemed. Conflict when a workstation of that name exists.
	CreateEnrolmentCode(ctx context.Context, by Actor, c *EnrolmentCode) error
	// EnrolmentCode returns one that can be redeemed now. NotFound when there is
	// none, or it is redeemed, replaced or expired.
	EnrolmentCode(ctx context.Context, hash []byte, now time.Time) (*EnrolmentCode, error)
	// EnrolmentCodeFor returns the one that waits for a workstation of that name
	// and can be redeemed now. NotFound when there is none.
	EnrolmentCodeFor(ctx context.Context, name string, now time.Time) (*EnrolmentCode, error)
	// RedeemEnrolmentCode makes the workstation that the code describes, with
	// w's id, key pins and TPM. NotFound as EnrolmentCode's: of those who redeem a
	// code together, one does.
	RedeemEnrolmentCode(ctx context.Context, hash []byte, w *Workstation) error
}
