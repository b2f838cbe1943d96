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
	// AssignmentPending says that it waits for the firm's approval.
	AssignmentPending bool
	// Site is the id of the site that the session comes from; empty: none.
	Site string
	// HardwareKey says that the workstation's class is hardware.
	HardwareKey bool
	// Password says that the agent proved who he is by a password, the
	// directory's or an app password, and not by his workstation alone.
	Password bool
	// Locks are those on the session's agent, workstation, mailbox, firm
	// and site, ended ones among them.
	Locks []Lock
	// Addresses are the mailbox's own: what it may send from.
	Addresses []string
	// RecoverySenders are whom mail for the recovery of the mailbox's account
	// comes from, as addresses and domains: see RecoverySenders.
	RecoverySenders []string
	// Zones keeps the time zones of hours; nil: they are read each time.
	Zones *Zones
	// Guardrails of the BPO; nil: none. They look at the Subject.
	Guardrails *Guardrails
	Subject    Subject
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
	// Folders are visible that every one of these shows.
	Folders []FolderPatterns `json:"folders,omitempty"`
	// Slices choose the messages that are visible: those that are in all. What
	// hides recovery mail is among them.
	Slices []Slice `json:"slices,omitempty"`
	// Quotas are the smaller ones.
	Quotas Quotas `json:"quotas,omitzero"`
	// Recipients may be written to whom every one of these allows.
	Recipients []RecipientPatterns `json:"recipients,omitempty"`
	// Sending has the other rules; its own Recipients are empty.
	Sending Sending `json:"sending,omitzero"`
}

// Restricted reports whether the decision hides folders or messages, so that
// the session must be shown a view.
func (d *Decision) Restricted() bool { return len(d.Folders) > 0 || len(d.Slices) > 0 }

// Visible reports whether the folder may be seen: see FolderPatterns.Visible.
func (d *Decision) Visible(name string, delimiter byte) bool {
	for i := range d.Folders {
		if !d.Folders[i].Visible(name, delimiter) {
			return false
		}
	}
	return true
}

// Creatable reports whether a folder may be made under a name: see
// FolderPatterns.Creatable.
func (d *Decision) Creatable(name string, delimiter byte) bool {
	for i := range d.Folders {
		if !d.Folders[i].Creatable(name, delimiter) {
			return false
		}
	}
	return true
}

// MaySendTo reports whether the recipients' patterns allow the address: see
// RecipientPatterns.Allowed. The other rules are not asked.
func (d *Decision) MaySendTo(address string) bool {
	for i := range d.Recipients {
		if !d.Recipients[i].Allowed(address) {
			return false
		}
	}
	return d.Actions.Has(Send)
}

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
	ReasonPending     = "pending"
	ReasonNotYetValid = "not-yet-valid"
	ReasonExpired     = "expired"
	ReasonHours       = "hours"
	ReasonSite        = "site"
	ReasonWorkstation = "workstation-class"
	ReasonPassword    = "password"
	ReasonNoActions   = "no-actions"
	// ReasonNotEnforced is for terms that a proxy cannot keep.
	ReasonNotEnforced = "not-enforced"
	ReasonGuardrail   = "guardrail"
)
