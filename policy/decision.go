// SPDX-License-Identifier: Apache-2.0

package policy

import "time"

// Input is all that a decision depends on, at one policy revision.
type Input struct {
	Now time.Time
	// Delegation and Assignment are the terms; DelegationRevoked and
	// AssignmentRevoked say that they are over.
	Delegation        Terms
	DelegationRevoked bool
	Assignment        Terms
	AssignmentRevoked bool
	// Site is the id of the site that the session comes from; empty: none.
	Site string
	// HardwareKey says that the workstation's class is hardware.
	HardwareKey bool
	// Locks are those on the session's agent, workstation, mailbox, firm
	// and site, ended ones among them.
	Locks []Lock
	// Addresses are the mailbox's own: what it may send from.
	Addresses []string
}

// Lock is an instant refusal.
type Lock struct {
	// Message tells the agent why, and whom to ask.
	Message string
	// Until is when it ends; zero: when somebody removes it.
	Until time.Time
}

// Decision is what one session may do, and until when. It is immutable.
type Decision struct {
	// Actions that are allowed.
	Actions Actions `json:"actions"`
	// Until is when the decision ends; zero: when it is changed.
	Until time.Time `json:"until,omitzero"`
	// Addresses that the session may send from, in lower case.
	Addresses []string `json:"addresses,omitempty"`
}

// Restricted reports whether the decision hides folders or messages, so that
// the session must be shown a view. No terms do so yet.
func (d *Decision) Restricted() bool { return false }

// Refusal says why there is no decision.
type Refusal struct {
	// Reason is one of the Reason constants: for the record and for metrics.
	Reason string
	// Text is for the agent: what is refused, without a secret in it.
	Text string
}

// Error returns the reason and the text.
func (r *Refusal) Error() string { return r.Reason + ": " + r.Text }

// Reasons of a refusal.
const (
	ReasonLocked      = "locked"
	ReasonRevoked     = "revoked"
	ReasonNotYetValid = "not-yet-valid"
	ReasonExpired     = "expired"
	ReasonSite        = "site"
	ReasonWorkstation = "workstation-class"
	ReasonNoActions   = "no-actions"
)
