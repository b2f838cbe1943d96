// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/policy"
)

// Firm is a client company that owns mailboxes: the tenant.
type Firm struct {
	ID   ID     `json:"id"`
	Name string `json:"name"`
	// Contact is whom a refused agent is told to ask.
	Contact   string    `json:"contact,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// Domains are what the firm's people may give its mailboxes addresses in: a
	// domain, or one whole address. They are the BPO's word.
	Domains []string `json:"domains,omitempty"`
	// ClaimedAt is when its first admin redeemed the claim. Until then the
	// BPO's admins act for the firm; from then on, only its own do.
	ClaimedAt time.Time `json:"claimed_at,omitzero"`
}

// TLSMode is how an upstream connection is protected.
type TLSMode string

// The modes.
const (
	// TLSImplicit is TLS from the first octet: ports 993 and 465 (RFC 8314).
	TLSImplicit TLSMode = "implicit"
	// TLSStartTLS upgrades, and fails when the server does not offer it.
	TLSStartTLS TLSMode = "starttls"
	// TLSNone is plain text, accepted for loopback addresses only.
	TLSNone TLSMode = "none"
)

// Endpoint is one upstream service.
type Endpoint struct {
	Host string  `json:"host"`
	Port uint16  `json:"port"`
	TLS  TLSMode `json:"tls"`
	// CA is a PEM bundle that replaces the system's roots; empty: the roots
	// that the server was configured with.
	CA string `json:"ca,omitempty"`
}

// Mailbox is one upstream account.
type Mailbox struct {
	ID     ID `json:"id"`
	FirmID ID `json:"firm_id"`
	// Address is the mailbox's main address and its name in Postern: unique.
	Address string `json:"address"`
	// Aliases are further addresses that it may send from.
	Aliases    []string `json:"aliases,omitempty"`
	IMAP       Endpoint `json:"imap"`
	Submission Endpoint `json:"submission"`
	// Username is the upstream's login name; empty: Address.
	Username string `json:"username,omitempty"`
	// MaxConnections is the budget of upstream IMAP connections, 1 to 1000;
	// 0: the server's default.
	MaxConnections int `json:"max_connections,omitempty"`
	// RecoverySenders are whom mail for the recovery of the account comes from,
	// as addresses or domains, beside those that policy.RecoverySenders knows.
	RecoverySenders []string `json:"recovery_senders,omitempty"`
	// Rotation is how its password is replaced; nil: Postern does not.
	Rotation *RotationMethod `json:"rotation,omitempty"`
	// MinCredential is the oldest version of its credential that sessions may
	// have logged in with: a rotation raises it.
	MinCredential int `json:"min_credential,omitempty"`
	// MinCredentialID names the password of that version in its rotation.
	MinCredentialID ID `json:"min_credential_id,omitempty"`
	// Watch is how the sentinel watches it; nil: as all mailboxes.
	Watch *WatchTerms `json:"watch,omitempty"`

	CreatedAt time.Time `json:"created_at"`
}

// AllRecoverySenders returns its own and those of its provider.
func (m *Mailbox) AllRecoverySenders() []string {
	return append(policy.RecoverySenders(m.IMAP.Host), m.RecoverySenders...)
}

// LoginName returns the upstream's login name for a credential.
func (m *Mailbox) LoginName(c *Credential) string {
	switch {
	case c != nil && c.Username != "":
		return c.Username
	case m.Username != "":
		return m.Username
	}
	return m.Address
}

// Addresses returns all own addresses in lower case, the main one first.
func (m *Mailbox) Addresses() []string {
	all := make([]string, 0, 1+len(m.Aliases))
	all = append(all, strings.ToLower(m.Address))
	for _, a := range m.Aliases {
		all = append(all, strings.ToLower(a))
	}
	return all
}

// Authentication is what somebody was let in by.
type Authentication string

// The ways. Each wants a sanctioned workstation beside, or a network-only site.
const (
	// AuthAppPassword: a random token of Postern's.
	AuthAppPassword Authentication = "app-password"
	// AuthLDAP: the password that the agent has in the company's directory.
	AuthLDAP Authentication = "ldap"
	// AuthCertificate: the key of a workstation that is his alone, and nothing
	// else (SASL EXTERNAL).
	AuthCertificate Authentication = "certificate"
)

// Agent is a person at the BPO who reads and writes mail.
type Agent struct {
	ID ID `json:"id"`
	// Name is short, unique and stable: what `agent/mailbox` logs in with.
	Name     string `json:"name"`
	FullName string `json:"full_name,omitempty"`
	// Authentication is AuthLDAP for an agent whose password the directory
	// has, and who has no app password; empty: he has those alone.
	Authentication Authentication `json:"authentication,omitempty"`
	// DirectoryAccount is what the directory calls an agent of AuthLDAP; empty:
	// by his name.
	DirectoryAccount string    `json:"directory_account,omitempty"`
	CreatedAt        time.Time `json:"created_at"`
}

// Account returns what the directory calls the agent.
func (a *Agent) Account() string {
	if a.DirectoryAccount != "" {
		return a.DirectoryAccount
	}
	return a.Name
}

// WorkstationClass is how well a workstation's key is kept.
type WorkstationClass string

// The classes.
const (
	// ClassHardware: the key is in a TPM or the system's store, not exportable.
	ClassHardware WorkstationClass = "hardware"
	// ClassSoftware: the key is in a file.
	ClassSoftware WorkstationClass = "software"
)

// Workstation is a sanctioned machine.
type Workstation struct {
	ID    ID               `json:"id"`
	Name  string           `json:"name"`
	Class WorkstationClass `json:"class"`
	// SiteID binds it to a site's networks; empty: it may roam.
	SiteID ID       `json:"site_id,omitempty"`
	Groups []string `json:"groups,omitempty"`
	// AgentID is whose machine it is, who may log in by its certificate alone;
	// empty: nobody may.
	AgentID ID `json:"agent_id,omitempty"`
	// KeyPins are SHA-256 hashes of certificates' SubjectPublicKeyInfo, in
	// lower-case hex: any certificate of a trusted CA with that key is it.
	KeyPins []string `json:"key_pins"`
	// TPM is the fingerprint of the TPM that its key was proved to be in
	// ([TPMFingerprint]); empty: nothing was proved.
	TPM string `json:"tpm,omitempty"`
	// CertificateName is its name in certificates of a company's own CA, any of
	// which is it, whatever the key; nil: it has none.
	CertificateName *CertificateName `json:"certificate_name,omitempty"`
	CreatedAt       time.Time        `json:"created_at"`
}

// Site is a named set of networks.
type Site struct {
	ID       ID             `json:"id"`
	Name     string         `json:"name"`
	Networks []netip.Prefix `json:"networks"`
	// NetworkOnly lets machines without a certificate in, from these networks.
	NetworkOnly bool      `json:"network_only,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
}

// Contains reports whether addr is in one of the site's networks.
func (s *Site) Contains(addr netip.Addr) bool {
	addr = addr.Unmap()
	return slices.ContainsFunc(s.Networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// Delegation is a firm's grant on one mailbox to the BPO.
type Delegation struct {
	ID        ID           `json:"id"`
	FirmID    ID           `json:"firm_id"`
	MailboxID ID           `json:"mailbox_id"`
	Terms     policy.Terms `json:"terms"`
	// ApproveAgents says that an agent who is assigned waits for the firm's
	// approval.
	ApproveAgents bool      `json:"approve_agents,omitempty"`
	CreatedAt     time.Time `json:"created_at"`
	RevokedAt     time.Time `json:"revoked_at,omitzero"`
}

// Assignment puts one agent on a delegation, with terms equal or narrower.
type Assignment struct {
	ID           ID           `json:"id"`
	DelegationID ID           `json:"delegation_id"`
	FirmID       ID           `json:"firm_id"`
	MailboxID    ID           `json:"mailbox_id"`
	AgentID      ID           `json:"agent_id"`
	Terms        policy.Terms `json:"terms"`
	// Pending says that it waits for the firm's approval, and opens nothing.
	Pending   bool      `json:"pending,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
}

// AppPassword is a random token of 160 bits that names one agent.
type AppPassword struct {
	ID      ID     `json:"id"`
	AgentID ID     `json:"agent_id"`
	Label   string `json:"label,omitempty"`
	// Hash is HMAC-SHA-256 of the token under the server's key.
	Hash []byte `json:"-"`
	// Groups are the workstation groups it is good on; empty: any workstation
	// that is sanctioned, and network-only sites.
	Groups    []string  `json:"groups,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
}

// LockTarget is what a lock is on.
type LockTarget string

// The targets.
const (
	LockAgent       LockTarget = "agent"
	LockWorkstation LockTarget = "workstation"
	LockMailbox     LockTarget = "mailbox"
	LockFirm        LockTarget = "firm"
	LockSite        LockTarget = "site"
)

// Lock is an instant refusal for whatever it is on.
type Lock struct {
	ID        ID         `json:"id"`
	Target    LockTarget `json:"target"`
	TargetID  ID         `json:"target_id"`
	Message   string     `json:"message"`
	Until     time.Time  `json:"until,omitzero"`
	CreatedAt time.Time  `json:"created_at"`
	RemovedAt time.Time  `json:"removed_at,omitzero"`
}

// Protocol is what a session speaks.
type Protocol string

// The protocols.
const (
	ProtocolIMAP       Protocol = "imap"
	ProtocolSubmission Protocol = "submission"
)

// Session is the record of one connection that was let in.
type Session struct {
	ID            ID       `json:"id"`
	Protocol      Protocol `json:"protocol"`
	FirmID        ID       `json:"firm_id"`
	MailboxID     ID       `json:"mailbox_id"`
	AgentID       ID       `json:"agent_id"`
	WorkstationID ID       `json:"workstation_id,omitempty"`
	SiteID        ID       `json:"site_id,omitempty"`
	DelegationID  ID       `json:"delegation_id"`
	AssignmentID  ID       `json:"assignment_id"`
	AppPasswordID ID       `json:"app_password_id,omitempty"`
	// Authentication is what the agent was let in by; records of older servers
	// lack it, which knew app passwords alone.
	Authentication Authentication `json:"authentication,omitempty"`
	RemoteAddr     string         `json:"remote_addr"`
	Node           string         `json:"node"`
	OpenedAt       time.Time      `json:"opened_at"`
	EndedAt        time.Time      `json:"ended_at,omitzero"`
	EndReason      string         `json:"end_reason,omitempty"`
}
