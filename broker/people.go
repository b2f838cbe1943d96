// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"time"
)

// Role is what a person may do. Agents have none here: they work over IMAP and
// SMTP alone.
type Role string

// The roles. The first two are the BPO's, the others one firm's.
const (
	RoleAdmin       Role = "admin"
	RoleAuditor     Role = "auditor"
	RoleFirmAdmin   Role = "firm-admin"
	RoleFirmAuditor Role = "firm-auditor"
)

// OfFirm reports whether the role is a firm's and not the BPO's.
func (r Role) OfFirm() bool { return r == RoleFirmAdmin || r == RoleFirmAuditor }

// Person manages Postern, for the BPO or for one firm.
type Person struct {
	ID ID `json:"id"`
	// FirmID is whose person it is; empty: the BPO's.
	FirmID ID `json:"firm_id,omitempty"`
	// Name is unique among the people of one firm, or of the BPO.
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Identity lets the person in by an OpenID Connect token; nil: by API
	// tokens alone.
	Identity  *Identity `json:"identity,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	RemovedAt time.Time `json:"removed_at,omitzero"`
}

// Identity names somebody at an OpenID Connect issuer (OpenID Connect Core 1.0
// §5.7: these two together, and nothing else, never name another).
type Identity struct {
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
}

// APIToken is a random token that speaks for a person, shown once.
type APIToken struct {
	ID       ID `json:"id"`
	PersonID ID `json:"person_id"`
	// FirmID is the person's.
	FirmID ID     `json:"firm_id,omitempty"`
	Label  string `json:"label,omitempty"`
	// Scopes narrow what the person's role allows: "read", or a group of
	// operations such as "delegations". Empty: nothing is narrowed.
	Scopes []string `json:"scopes,omitempty"`
	// Hash is the token's under the server's key.
	Hash      []byte    `json:"-"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
}

// Claim is a random token that makes whoever redeems it a firm's first admin,
// once.
type Claim struct {
	ID     ID `json:"id"`
	FirmID ID `json:"firm_id"`
	// Hash is the claim's under the server's key.
	Hash      []byte    `json:"-"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	// RedeemedBy is the person it made.
	RedeemedBy ID        `json:"redeemed_by,omitempty"`
	RedeemedAt time.Time `json:"redeemed_at,omitzero"`
	// ReplacedAt is when another claim took its place.
	ReplacedAt time.Time `json:"replaced_at,omitzero"`
}

// People keeps those who manage Postern: broker/store.
//
// Its errors are those of State, and every change is an event of the firm's
// log, or of the BPO's. A firm's people and their tokens are made and ended by
// a firm-admin of it alone: what another Actor tries is Refused.
type People interface {
	CreatePerson(ctx context.Context, by Actor, p *Person) error
	// RemovePerson revokes the person's tokens too. Conflict when nobody would
	// be left who can add people to the firm or, for the BPO, an admin.
	RemovePerson(ctx context.Context, by Actor, id ID) error
	// Person returns one, removed or not.
	Person(ctx context.Context, id ID) (*Person, error)
	PersonByIdentity(ctx context.Context, i Identity) (*Person, error)
	// People returns those of a firm, or (empty) of the BPO, by name.
	People(ctx context.Context, firm ID) ([]*Person, error)

	CreateAPIToken(ctx context.Context, by Actor, t *APIToken) error
	// RevokeAPIToken ends it for good; revoking again is no error.
	RevokeAPIToken(ctx context.Context, by Actor, id ID) error
	// APITokenByHash returns the token and whom it speaks for, in whatever
	// state both are.
	APITokenByHash(ctx context.Context, hash []byte) (*APIToken, *Person, error)
	// APITokens returns those of a firm's people, or (empty) of the BPO's,
	// oldest first.
	APITokens(ctx context.Context, firm ID) ([]*APIToken, error)

	// CreateClaim takes the place of a claim that was not redeemed. Conflict
	// once the firm was claimed.
	CreateClaim(ctx context.Context, by Actor, c *Claim) error
	// RedeemClaim makes the firm's first admin and his token. NotFound when
	// there is no such claim, or it is redeemed, replaced or expired.
	RedeemClaim(ctx context.Context, hash []byte, p *Person, t *APIToken) (*Firm, error)
}

// FirmState reads what is one firm's. What it returns, and how long that takes,
// depends on nothing that is another firm's.
type FirmState interface {
	FirmMailboxes(ctx context.Context, firm ID) ([]*Mailbox, error)
	FirmDelegations(ctx context.Context, firm ID) ([]*Delegation, error)
	FirmAssignments(ctx context.Context, firm ID) ([]*Assignment, error)
	FirmSessions(ctx context.Context, firm ID, liveOnly bool, limit int) ([]*Session, error)
	// RevokeFirm revokes all delegations of a firm and their assignments.
	RevokeFirm(ctx context.Context, by Actor, firm ID) error
}
