// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"crypto/x509"
	"net/http"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// EndpointInput is one upstream service. In a patch, what is missing stays.
type EndpointInput struct {
	Host *string         `json:"host,omitempty" minLength:"1" example:"imap.provider.example"`
	Port *uint16         `json:"port,omitempty" minimum:"1" maximum:"65535" doc:"993 and 465 unless given; 143 and 587 without implicit TLS."`
	TLS  *broker.TLSMode `json:"tls,omitempty" enum:"implicit,starttls,none" doc:"implicit unless given; none for loopback addresses alone."`
	CA   *string         `json:"ca,omitempty" doc:"Certificates in PEM that replace the system's roots; empty: the server's."`
}

// MailboxInput makes a mailbox.
type MailboxInput struct {
	Firm           string        `json:"firm,omitempty" doc:"Whose it is: a firm's id or name. A firm's people may leave it out."`
	Address        string        `json:"address" minLength:"3" doc:"The main address, and the mailbox's name in Postern." example:"sales@acme.example"`
	Aliases        []string      `json:"aliases,omitempty" nullable:"false" doc:"Further addresses that it may send from."`
	IMAP           EndpointInput `json:"imap"`
	Submission     EndpointInput `json:"submission"`
	Username       string        `json:"username,omitempty" doc:"The login name upstream; without it, the address."`
	MaxConnections int           `json:"max_connections,omitempty" minimum:"0" maximum:"1000" doc:"The budget of upstream IMAP connections; 0: the server's default."`
	// RecoverySenders are broker.Mailbox's.
	RecoverySenders []string `json:"recovery_senders,omitempty" nullable:"false" doc:"Whom mail for the recovery of this account comes from, as addresses or domains, beside what is known of its provider: hidden from agents unless a delegation says otherwise." example:"accounts.provider.example"`
}

// MailboxPatch changes what is in it.
type MailboxPatch struct {
	Aliases        *[]string      `json:"aliases,omitempty" nullable:"false"`
	IMAP           *EndpointInput `json:"imap,omitempty"`
	Submission     *EndpointInput `json:"submission,omitempty"`
	Username       *string        `json:"username,omitempty"`
	MaxConnections *int           `json:"max_connections,omitempty" minimum:"0" maximum:"1000"`
	// RecoverySenders are broker.Mailbox's.
	RecoverySenders *[]string `json:"recovery_senders,omitempty" nullable:"false"`
	// RemoveCredential agrees to what an endpoint's change entails.
	RemoveCredential bool `json:"remove_credential,omitempty" doc:"Needed to change an endpoint while a credential is stored or rotated: both were entrusted to the old endpoint, and are removed so that no password reaches another."`
}

// Mailbox is a mailbox with its firm's name and what is known of its
// credential; the latter only when one mailbox is asked for.
type Mailbox struct {
	broker.Mailbox
	Firm       string            `json:"firm,omitempty"`
	Credential *CredentialStatus `json:"credential,omitempty"`
}

// CredentialStatus tells whether a credential is stored, and nothing of it.
type CredentialStatus struct {
	// State is "stored", "none", or "unavailable" when the storage is.
	State   string `json:"state" enum:"stored,none,unavailable"`
	Version int    `json:"version,omitempty"`
}

// MailboxRemoved is the answer to a removal.
type MailboxRemoved struct {
	Mailbox *Mailbox `json:"mailbox"`
	// Credential is "none" when none is left, "unavailable" when one may be.
	Credential CredentialStatus `json:"credential"`
}

type mailboxPath struct {
	Mailbox string `path:"mailbox" doc:"Id or address."`
}

func (a *api) registerMailboxes() {
	route(a, http.MethodGet, "/v1/mailboxes", "list-mailboxes", "List mailboxes", a.listMailboxes)
	route(a, http.MethodPost, "/v1/mailboxes", "create-mailbox", "Add a mailbox", a.createMailbox)
	route(a, http.MethodGet, "/v1/mailboxes/{mailbox}", "get-mailbox", "Show a mailbox, and whether its credential is stored",
		func(ctx context.Context, in *mailboxPath) (*tagged[*Mailbox], error) {
			m, err := a.findMailbox(ctx, "", in.Mailbox)
			if err != nil {
				return nil, err
			}
			shown, err := a.showMailbox(ctx, m)
			return show(m, shown), err
		})
	route(a, http.MethodPatch, "/v1/mailboxes/{mailbox}", "update-mailbox", "Change a mailbox", a.updateMailbox)
	route(a, http.MethodDelete, "/v1/mailboxes/{mailbox}", "delete-mailbox", "Remove a mailbox that is not delegated, and its credential", a.deleteMailbox)
}

type mailboxesQuery struct {
	Firm string `query:"firm" doc:"Only this firm's, by id or name."`
}

func (a *api) listMailboxes(ctx context.Context, in *mailboxesQuery) (*answer[List[*Mailbox]], error) {
	var firm broker.ID
	if in.Firm != "" {
		f, err := a.findFirm(ctx, "firm", in.Firm)
		if err != nil {
			return nil, err
		}
		firm = f.ID
	}
	all, err := a.reads(ctx).Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	var mailboxes []*Mailbox
	for _, m := range all {
		if firm == "" || m.FirmID == firm {
			mailboxes = append(mailboxes, &Mailbox{Mailbox: *m, Firm: names.firms[m.FirmID]})
		}
	}
	return listOf(mailboxes), nil
}

func (a *api) createMailbox(ctx context.Context, in *struct{ Body MailboxInput }) (*answer[*Mailbox], error) {
	m, firm, err := a.addMailbox(ctx, &in.Body)
	if err != nil {
		return nil, err
	}
	return &answer[*Mailbox]{&Mailbox{Mailbox: *m, Firm: firm.Name}}, nil
}

// addMailbox stores a new mailbox, and returns it and its firm.
func (a *api) addMailbox(ctx context.Context, in *MailboxInput) (*broker.Mailbox, *broker.Firm, error) {
	ref := in.Firm
	if ref == "" {
		ref = string(principal(ctx).FirmID)
	}
	if ref == "" {
		return nil, nil, broker.InvalidField("firm", "is missing")
	}
	firm, err := a.findFirm(ctx, "firm", ref)
	if err != nil {
		return nil, nil, err
	}
	if err := a.actsFor(ctx, firm.ID); err != nil {
		return nil, nil, err
	}
	m, err := in.mailbox()
	if err != nil {
		return nil, nil, err
	}
	m.FirmID = firm.ID
	if err := encrypted(ctx, m); err != nil {
		return nil, nil, err
	}
	return m, firm, a.State.CreateMailbox(ctx, actor(ctx), m)
}

// mailbox is what in says, without its firm.
func (in *MailboxInput) mailbox() (*broker.Mailbox, error) {
	m := &broker.Mailbox{
		Address: in.Address, Aliases: in.Aliases, Username: in.Username, MaxConnections: in.MaxConnections,
		RecoverySenders: in.RecoverySenders,
	}
	if err := setEndpoint(&m.IMAP, &in.IMAP, "imap", imapPorts); err != nil {
		return nil, err
	}
	return m, setEndpoint(&m.Submission, &in.Submission, "submission", submissionPorts)
}

// encrypted refuses a firm's people plain text towards loopback addresses: what
// listens there is the BPO's.
func encrypted(ctx context.Context, m *broker.Mailbox) error {
	if principal(ctx).FirmID == "" {
		return nil
	}
	for field, e := range map[string]*broker.Endpoint{"imap.tls": &m.IMAP, "submission.tls": &m.Submission} {
		if e.TLS == broker.TLSNone {
			return broker.InvalidField(field, "plain text is for the BPO's own machine: use implicit or starttls")
		}
	}
	return nil
}

// defaultPorts are those of implicit TLS, and of STARTTLS and plain text.
type defaultPorts struct{ implicit, clear uint16 }

var (
	imapPorts       = defaultPorts{993, 143} // RFC 8314 §7.2, RFC 9051 §2.1
	submissionPorts = defaultPorts{465, 587} // RFC 8314 §7.3, RFC 6409 §3.1
)

// setEndpoint applies in to e; what e has no value for gets its default.
func setEndpoint(e *broker.Endpoint, in *EndpointInput, field string, ports defaultPorts) error {
	if in.Host != nil {
		e.Host = *in.Host
	}
	if e.Host == "" {
		return broker.InvalidField(field+".host", "is missing: the upstream server's name")
	}
	if in.TLS != nil && *in.TLS != e.TLS {
		// Another mode has another port, unless one is given.
		e.TLS, e.Port = *in.TLS, 0
	}
	if e.TLS == "" {
		e.TLS = broker.TLSImplicit
	}
	if in.Port != nil {
		e.Port = *in.Port
	}
	if e.Port == 0 {
		e.Port = ports.clear
		if e.TLS == broker.TLSImplicit {
			e.Port = ports.implicit
		}
	}
	if in.CA != nil {
		e.CA = *in.CA
	}
	if e.CA != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(e.CA)) {
		return broker.InvalidField(field+".ca", "holds no certificate in PEM")
	}
	return nil
}

func (a *api) updateMailbox(ctx context.Context, in *struct {
	Mailbox string `path:"mailbox" doc:"Id or address."`
	Body    MailboxPatch
},
) (*tagged[*Mailbox], error) {
	m, err := a.findMailbox(ctx, "", in.Mailbox)
	if err != nil {
		return nil, err
	}
	unlock, err := a.changing.lock(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	before, err := a.reads(ctx).Mailbox(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	if err := a.actsFor(ctx, before.FirmID); err != nil {
		return nil, err
	}
	ctx, err = unchanged(ctx, m.ID, before, func() (any, error) { return a.showMailbox(ctx, before) })
	if err != nil {
		return nil, err
	}
	after, err := patchMailbox(before, &in.Body)
	if err != nil {
		return nil, err
	}
	if err := encrypted(ctx, after); err != nil {
		return nil, err
	}
	if after.IMAP != before.IMAP || after.Submission != before.Submission {
		if err := a.releaseCredential(ctx, before, in.Body.RemoveCredential); err != nil {
			return nil, err
		}
	}
	if err := a.State.UpdateMailbox(ctx, actor(ctx), after); err != nil {
		return nil, err
	}
	shown, err := a.showMailbox(ctx, after)
	return show(after, shown), err
}

func patchMailbox(before *broker.Mailbox, patch *MailboxPatch) (*broker.Mailbox, error) {
	after := *before
	if patch.Aliases != nil {
		after.Aliases = *patch.Aliases
	}
	if patch.IMAP != nil {
		if err := setEndpoint(&after.IMAP, patch.IMAP, "imap", imapPorts); err != nil {
			return nil, err
		}
	}
	if patch.Submission != nil {
		if err := setEndpoint(&after.Submission, patch.Submission, "submission", submissionPorts); err != nil {
			return nil, err
		}
	}
	if patch.Username != nil {
		after.Username = *patch.Username
	}
	if patch.MaxConnections != nil {
		after.MaxConnections = *patch.MaxConnections
	}
	if patch.RecoverySenders != nil {
		after.RecoverySenders = *patch.RecoverySenders
	}
	return &after, nil
}

// releaseCredential removes a mailbox's credential before its endpoints
// change. Otherwise whoever may change a mailbox, but not read its
// credential, would point it at a server of his own and have the credential
// sent there. The store takes the way of rotating away for the same reason.
func (a *api) releaseCredential(ctx context.Context, m *broker.Mailbox, agreed bool) error {
	if err := a.settled(ctx, m); err != nil {
		return err
	}
	version, err := a.Credentials.CredentialVersion(ctx, m.FirmID, m.ID)
	if err != nil {
		return err
	}
	if (version > 0 || m.Rotation != nil) && !agreed {
		return broker.Errorf(broker.Conflict, "the credential and its rotation were entrusted to the present endpoints: "+
			"agree to their removal (remove_credential), and set them again after the change")
	}
	if err := a.releasePending(ctx, m); err != nil || version == 0 {
		return err
	}
	return a.Credentials.DeleteCredential(ctx, m.FirmID, m.ID)
}

func (a *api) deleteMailbox(ctx context.Context, in *mailboxPath) (*answer[MailboxRemoved], error) {
	m, err := a.findMailbox(ctx, "", in.Mailbox)
	if err != nil {
		return nil, err
	}
	unlock, err := a.changing.lock(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := a.actsFor(ctx, m.FirmID); err != nil {
		return nil, err
	}
	if m, err = a.reads(ctx).Mailbox(ctx, m.ID); err != nil {
		return nil, err
	}
	ctx, err = unchanged(ctx, m.ID, m, func() (any, error) { return a.showMailbox(ctx, m) })
	if err != nil {
		return nil, err
	}
	// In this order, a mailbox that is still needed keeps its credential.
	if err := a.State.DeleteMailbox(ctx, actor(ctx), m.ID); err != nil {
		return nil, err
	}
	removed := MailboxRemoved{Mailbox: &Mailbox{Mailbox: *m}, Credential: CredentialStatus{State: "none"}}
	if err := a.Credentials.DeleteCredential(ctx, m.FirmID, m.ID); err != nil {
		a.Logger.Error("a removed mailbox's credential is still stored: remove it from the storage",
			zap.String("firm_id", string(m.FirmID)), zap.String("mailbox_id", string(m.ID)), zap.Error(err))
		removed.Credential.State = "unavailable"
	}
	return &answer[MailboxRemoved]{removed}, nil
}

// showMailbox shows one mailbox.
func (a *api) showMailbox(ctx context.Context, m *broker.Mailbox) (*Mailbox, error) {
	firm, err := a.reads(ctx).Firm(ctx, m.FirmID)
	if err != nil {
		return nil, err
	}
	shown := &Mailbox{Mailbox: *m, Firm: firm.Name, Credential: &CredentialStatus{State: "none"}}
	version, err := a.Credentials.CredentialVersion(ctx, m.FirmID, m.ID)
	switch {
	case err != nil:
		a.Logger.Warn("whether a credential is stored is not known", zap.String("mailbox", m.Address), zap.Error(err))
		shown.Credential.State = "unavailable"
	case version > 0:
		*shown.Credential = CredentialStatus{State: "stored", Version: version}
	}
	return shown, nil
}
