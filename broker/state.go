// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"time"
)

// Actor is who did something.
type Actor struct {
	// Kind is a Role, "agent", "workstation", "system" or "stranger".
	Kind string `json:"kind"`
	// Name is readable: a login name, or "unix:uid=0".
	Name string `json:"name,omitempty"`
	ID   ID     `json:"id,omitempty"`
	// TokenID is the API token's that was used, if any.
	TokenID ID `json:"token_id,omitempty"`
}

// State is what Postern knows: broker/store.
//
// Every method that changes something validates it (Invalid, with the field),
// commits it together with its event (see the catalogue) and a new policy
// revision in one transaction, and then tells the subscribers. A thing's id
// and CreatedAt are filled in by Create when they are empty. Names and
// addresses are unique, compared in lower case: Conflict. What does not exist
// is NotFound. A database that cannot answer is Unavailable.
//
// An address, alias or not, that a mailbox of another firm has is a Conflict;
// mailboxes of one firm may share aliases.
//
// Deleting a thing that others need is Conflict, and says what needs it.
//
// A firm's people give its mailboxes no address outside of the firm's domains:
// Refused, whether the address is anybody's or not.
//
// Once a firm was claimed, its mailboxes, credentials and delegations are its
// own people's affair: what an admin of the BPO tries there is Refused.
type State interface {
	CreateFirm(ctx context.Context, by Actor, f *Firm) error
	// UpdateFirm changes the contact and the domains alone. The contact of a
	// claimed firm is its own people's affair.
	UpdateFirm(ctx context.Context, by Actor, f *Firm) error
	Firm(ctx context.Context, id ID) (*Firm, error)
	Firms(ctx context.Context) ([]*Firm, error)

	CreateMailbox(ctx context.Context, by Actor, m *Mailbox) error
	UpdateMailbox(ctx context.Context, by Actor, m *Mailbox) error
	DeleteMailbox(ctx context.Context, by Actor, id ID) error
	Mailbox(ctx context.Context, id ID) (*Mailbox, error)
	MailboxByAddress(ctx context.Context, address string) (*Mailbox, error)
	Mailboxes(ctx context.Context) ([]*Mailbox, error)
	// CredentialSet records that a mailbox's credential was stored: an event
	// alone, and it never holds the credential.
	CredentialSet(ctx context.Context, by Actor, mailbox ID, version int) error

	CreateAgent(ctx context.Context, by Actor, a *Agent) error
	// UpdateAgent changes all but the name: records name agents, and clients
	// log in, by that. Of an agent of AuthLDAP the app passwords are revoked.
	UpdateAgent(ctx context.Context, by Actor, a *Agent) error
	// DeleteAgent revokes the agent's assignments and app passwords too, and
	// makes his workstations nobody's.
	DeleteAgent(ctx context.Context, by Actor, id ID) error
	Agent(ctx context.Context, id ID) (*Agent, error)
	AgentByName(ctx context.Context, name string) (*Agent, error)
	Agents(ctx context.Context) ([]*Agent, error)

	CreateWorkstation(ctx context.Context, by Actor, w *Workstation) error
	UpdateWorkstation(ctx context.Context, by Actor, w *Workstation) error
	DeleteWorkstation(ctx context.Context, by Actor, id ID) error
	Workstation(ctx context.Context, id ID) (*Workstation, error)
	// WorkstationByKeyPin finds the one that has the pin.
	WorkstationByKeyPin(ctx context.Context, pin string) (*Workstation, error)
	// WorkstationByCertificateName finds the one that has the name.
	WorkstationByCertificateName(ctx context.Context, n CertificateName) (*Workstation, error)
	Workstations(ctx context.Context) ([]*Workstation, error)

	CreateSite(ctx context.Context, by Actor, s *Site) error
	UpdateSite(ctx context.Context, by Actor, s *Site) error
	DeleteSite(ctx context.Context, by Actor, id ID) error
	Site(ctx context.Context, id ID) (*Site, error)
	Sites(ctx context.Context) ([]*Site, error)

	CreateDelegation(ctx context.Context, by Actor, d *Delegation) error
	// UpdateDelegation changes the terms and ApproveAgents alone; a revoked one
	// is Conflict.
	UpdateDelegation(ctx context.Context, by Actor, d *Delegation) error
	// RevokeDelegation ends it and its assignments; once revoked it stays so,
	// and revoking again is no error.
	RevokeDelegation(ctx context.Context, by Actor, id ID) error
	Delegation(ctx context.Context, id ID) (*Delegation, error)
	Delegations(ctx context.Context) ([]*Delegation, error)

	// CreateAssignment sets Pending as the delegation demands.
	CreateAssignment(ctx context.Context, by Actor, a *Assignment) error
	// UpdateAssignment changes the terms alone, within what the delegation
	// allows now; a revoked one is Conflict.
	UpdateAssignment(ctx context.Context, by Actor, a *Assignment) error
	// ApproveAssignment ends Pending; approving again is no error, and a
	// revoked one is Conflict. It is the firm's affair.
	ApproveAssignment(ctx context.Context, by Actor, id ID) error
	RevokeAssignment(ctx context.Context, by Actor, id ID) error
	Assignment(ctx context.Context, id ID) (*Assignment, error)
	Assignments(ctx context.Context) ([]*Assignment, error)
	// AssignmentsOf returns an agent's assignments on a mailbox, revoked ones
	// among them, oldest first.
	AssignmentsOf(ctx context.Context, agent, mailbox ID) ([]*Assignment, error)

	// CreateAppPassword is a Conflict for an agent of AuthLDAP.
	CreateAppPassword(ctx context.Context, by Actor, p *AppPassword) error
	RevokeAppPassword(ctx context.Context, by Actor, id ID) error
	AppPasswordByHash(ctx context.Context, hash []byte) (*AppPassword, error)
	AppPassword(ctx context.Context, id ID) (*AppPassword, error)
	AppPasswords(ctx context.Context) ([]*AppPassword, error)

	CreateLock(ctx context.Context, by Actor, l *Lock) error
	RemoveLock(ctx context.Context, by Actor, id ID) error
	// Locks returns those not removed.
	Locks(ctx context.Context) ([]*Lock, error)

	// Sessions returns session records, newest first: live ones only, or
	// all up to limit.
	Sessions(ctx context.Context, liveOnly bool, limit int) ([]*Session, error)
	// EndStaleSessions marks sessions that a node left open when it died.
	EndStaleSessions(ctx context.Context, node string) (int, error)

	// Together has all that is changed and read with the context that do is
	// given done in one transaction: stored when do returns nil and no change of
	// it failed, and otherwise not. Everybody who changes something waits for do, which therefore waits
	// for nothing but State, and starts no goroutine.
	Together(ctx context.Context, do func(context.Context) error) error

	// PolicyRevision grows with every change that can alter a decision.
	PolicyRevision(ctx context.Context) (int64, error)
	// Subscribe calls f after each commit of a change, in the order of the
	// revisions, on a goroutine of the store's; f must not block. A gap between
	// revisions stands for changes of other nodes that are not told. The returned
	// function ends it, and returns when no call to f is under way.
	Subscribe(f func(Change)) (cancel func())
}

// Change tells what a commit touched.
type Change struct {
	Revision int64
	// Kind is the type's name in lower case with hyphens: "firm", "mailbox",
	// "agent", "workstation", "site", "delegation", "assignment",
	// "app-password", "lock", "canary". Target and TargetID are a lock's. An
	// empty Kind says that notices may have been lost: anything up to Revision
	// may have changed.
	Kind     string
	ID       ID
	Target   LockTarget
	TargetID ID
	At       time.Time
}
