// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

// AgentsImport are agents to add.
type AgentsImport struct {
	DryRun bool       `json:"dry_run,omitempty" doc:"Checks everything, and stores nothing."`
	Rows   []AgentRow `json:"rows" minItems:"1" maxItems:"500" nullable:"false"`
}

// AgentRow is an agent to add, and whether he needs an app password.
type AgentRow struct {
	AgentInput
	AppPassword *AppPasswordRow `json:"app_password,omitempty" doc:"Makes an app password, unless the agent has one that is good."`
}

// AppPasswordRow says what an app password is good for.
type AppPasswordRow struct {
	Groups    []string   `json:"groups,omitempty" nullable:"false" doc:"Workstation groups that it is good on; without any, every sanctioned workstation."`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

func (a *api) importAgents(ctx context.Context, in *struct{ Body AgentsImport }) (*answer[Imported], error) {
	before := earlier{}
	var supplied map[broker.ID]bool
	return importRows(ctx, a, in.Body.DryRun, in.Body.Rows, func(ctx context.Context, row *AgentRow) (ImportedRow, error) {
		if err := before.once("name", row.Name); err != nil {
			return ImportedRow{}, err
		}
		out, err := a.importAgent(ctx, &row.AgentInput)
		if err != nil || row.AppPassword == nil {
			return out, err
		}
		if supplied == nil {
			if supplied, err = a.suppliedAgents(ctx); err != nil {
				return out, err
			}
		}
		if supplied[out.ID] {
			return out, nil
		}
		p := &broker.AppPassword{AgentID: out.ID, Groups: row.AppPassword.Groups}
		if row.AppPassword.ExpiresAt != nil {
			p.ExpiresAt = row.AppPassword.ExpiresAt.UTC()
		}
		out.Outcome = rowCreated
		out.AppPassword, err = a.newAppPassword(ctx, p)
		return out, within("app_password", err)
	})
}

// suppliedAgents returns the agents who have an app password that is good.
func (a *api) suppliedAgents(ctx context.Context) (map[broker.ID]bool, error) {
	all, err := a.State.AppPasswords(ctx)
	if err != nil {
		return nil, err
	}
	supplied := map[broker.ID]bool{}
	for _, p := range all {
		if a.grantState(time.Time{}, p.ExpiresAt, p.RevokedAt).holds() {
			supplied[p.AgentID] = true
		}
	}
	return supplied, nil
}

func (a *api) importAgent(ctx context.Context, row *AgentInput) (ImportedRow, error) {
	g, err := a.State.AgentByName(ctx, row.Name)
	switch {
	case broker.CodeOf(err) == broker.NotFound:
		g, err := a.addAgent(ctx, row)
		if err != nil {
			return ImportedRow{}, err
		}
		return ImportedRow{Name: g.Name, Outcome: rowCreated, ID: g.ID}, nil
	case err != nil:
		return ImportedRow{}, err
	case row.FullName != "" && row.FullName != g.FullName:
		return ImportedRow{}, differs("full_name", "%s is there with the full name %q: change that agent, or this row", g.Name, g.FullName)
	case row.Authentication != "" && row.Authentication != cmp.Or(g.Authentication, broker.AuthAppPassword):
		return ImportedRow{}, differs("authentication", "%s is let in by %s: change that agent, or this row", g.Name, cmp.Or(g.Authentication, broker.AuthAppPassword))
	case row.DirectoryAccount != "" && row.DirectoryAccount != g.DirectoryAccount:
		return ImportedRow{}, differs("directory_account", "%s is there with the directory's account %q: change that agent, or this row", g.Name, g.DirectoryAccount)
	}
	return ImportedRow{Name: g.Name, Outcome: rowUnchanged, ID: g.ID}, nil
}

// WorkstationRow is a workstation to add: by the pins of its keys or its name in
// a company's certificates, or else by a code with which its machine enrols
// itself.
type WorkstationRow struct {
	Name    string                  `json:"name" minLength:"1" example:"pune-07"`
	Class   broker.WorkstationClass `json:"class" enum:"hardware,software"`
	TPM     string                  `json:"tpm,omitempty" pattern:"^[0-9a-f]{64}$" doc:"For a code of class hardware: the machine's TPM, by its fingerprint."`
	Site    string                  `json:"site,omitempty" doc:"By id or name."`
	Groups  []string                `json:"groups,omitempty" nullable:"false"`
	KeyPins []string                `json:"key_pins,omitempty" nullable:"false" doc:"SHA-256 hashes of SubjectPublicKeyInfo, in lower-case hex. Without any, and without certificate_name, a code is made."`
	Agent   string                  `json:"agent,omitempty" doc:"Whose machine it is, by id or name: he may log in by its certificate alone (SASL EXTERNAL)."`

	CertificateName *CertificateNameInput `json:"certificate_name,omitempty" doc:"How certificates of a company's own CA name it."`
}

// WorkstationsImport are workstations to add.
type WorkstationsImport struct {
	DryRun       bool             `json:"dry_run,omitempty" doc:"Checks everything, and stores nothing."`
	Rows         []WorkstationRow `json:"rows" minItems:"1" maxItems:"500" nullable:"false"`
	ExpiresAt    *time.Time       `json:"expires_at,omitempty" doc:"When the codes end; without it, in a day; at most in thirty."`
	ReplaceCodes bool             `json:"replace_codes,omitempty" doc:"Makes new codes for workstations that have one which nobody redeemed: the old ones open nothing then. Without it, they stay good."`
}

func (a *api) importWorkstations(ctx context.Context, in *struct{ Body WorkstationsImport }) (*answer[Imported], error) {
	before := earlier{}
	var there map[string]*broker.Workstation
	return importRows(ctx, a, in.Body.DryRun, in.Body.Rows, func(ctx context.Context, row *WorkstationRow) (ImportedRow, error) {
		if err := before.once("name", row.Name); err != nil {
			return ImportedRow{}, err
		}
		if there == nil {
			all, err := a.State.Workstations(ctx)
			if err != nil {
				return ImportedRow{}, err
			}
			there = make(map[string]*broker.Workstation, len(all))
			for _, w := range all {
				there[strings.ToLower(w.Name)] = w
			}
		}
		w := &broker.Workstation{ID: broker.NewID(), Name: row.Name, Class: row.Class, Groups: row.Groups, KeyPins: row.KeyPins}
		if row.Site != "" {
			s, err := a.findSite(ctx, "site", row.Site)
			if err != nil {
				return ImportedRow{}, err
			}
			w.SiteID = s.ID
		}
		if err := a.bind(ctx, w, row.Agent); err != nil {
			return ImportedRow{}, err
		}
		if err := a.name(w, row.CertificateName); err != nil {
			return ImportedRow{}, err
		}
		if old := there[strings.ToLower(row.Name)]; old != nil {
			return ImportedRow{Name: old.Name, Outcome: rowUnchanged, ID: old.ID}, sameWorkstation(old, w, row.TPM)
		}
		if len(row.KeyPins) > 0 || w.CertificateName != nil {
			if row.TPM != "" {
				return ImportedRow{}, broker.InvalidField("tpm", "is for a code, and this row's workstation needs none")
			}
			err := a.State.CreateWorkstation(ctx, actor(ctx), w)
			return ImportedRow{Name: w.Name, Outcome: rowCreated, ID: w.ID}, err
		}
		return a.importCode(ctx, &in.Body, row, w)
	})
}

// importCode makes a code for a workstation, unless one is out.
func (a *api) importCode(ctx context.Context, in *WorkstationsImport, row *WorkstationRow, w *broker.Workstation) (ImportedRow, error) {
	if !in.ReplaceCodes {
		out, err := a.Enrolments.EnrolmentCodeFor(ctx, row.Name, a.Now())
		if err == nil {
			return ImportedRow{Name: out.Name, Outcome: rowUnchanged},
				sameWorkstation(&broker.Workstation{Name: out.Name, Class: out.Class, SiteID: out.SiteID, Groups: out.Groups, AgentID: out.AgentID, TPM: out.TPM}, w, row.TPM)
		}
		if broker.CodeOf(err) != broker.NotFound {
			return ImportedRow{}, err
		}
	}
	code, c, err := a.newEnrolmentCode(ctx, &EnrolmentCodeInput{
		Name: row.Name, Class: row.Class, TPM: row.TPM, Site: row.Site, Groups: row.Groups, Agent: row.Agent, ExpiresAt: in.ExpiresAt,
	})
	if err != nil {
		return ImportedRow{}, err
	}
	return ImportedRow{Name: c.Name, Outcome: rowCreated, Code: code, ExpiresAt: &c.ExpiresAt}, nil
}

// sameWorkstation reports whether what is there, or what a code is out for, is
// as a row says.
func sameWorkstation(old, row *broker.Workstation, tpm string) error {
	sorted := func(s []string) []string { return slices.Sorted(slices.Values(s)) }
	switch {
	case row.Class != old.Class:
		return differs("class", "%s is there, or has a code, with the class %s", old.Name, old.Class)
	case tpm != "" && tpm != old.TPM:
		return differs("tpm", "%s is there, or has a code, with another TPM or none", old.Name)
	case row.SiteID != "" && row.SiteID != old.SiteID:
		return differs("site", "%s is there, or has a code, with another site: change that workstation, or this row", old.Name)
	case len(row.Groups) > 0 && !slices.Equal(sorted(row.Groups), sorted(old.Groups)):
		return differs("groups", "%s is there, or has a code, with the groups %q: change that workstation, or this row", old.Name, strings.Join(old.Groups, ", "))
	case row.AgentID != "" && row.AgentID != old.AgentID:
		return differs("agent", "%s is there, or has a code, as another agent's or nobody's: change that workstation, or this row", old.Name)
	case row.CertificateName != nil && (old.CertificateName == nil || *row.CertificateName != *old.CertificateName):
		return differs("certificate_name.name", "%s is there, or has a code, with another name or none: change that workstation, or this row", old.Name)
	case len(row.KeyPins) > 0 && !slices.Equal(sorted(row.KeyPins), sorted(old.KeyPins)):
		return differs("key_pins", "%s is there, or has a code, with other keys", old.Name)
	}
	return nil
}

// MailboxesImport are mailboxes to add.
type MailboxesImport struct {
	DryRun bool           `json:"dry_run,omitempty" doc:"Checks everything, and stores nothing."`
	Rows   []MailboxInput `json:"rows" minItems:"1" maxItems:"500" nullable:"false"`
}

func (a *api) importMailboxes(ctx context.Context, in *struct{ Body MailboxesImport }) (*answer[Imported], error) {
	before := earlier{}
	var there map[string]*broker.Mailbox
	return importRows(ctx, a, in.Body.DryRun, in.Body.Rows, func(ctx context.Context, row *MailboxInput) (ImportedRow, error) {
		if err := before.once("address", row.Address); err != nil {
			return ImportedRow{}, err
		}
		if there == nil {
			// Once: a firm's look-ups go through all that it has, and all others
			// wait for this transaction.
			all, err := a.reads(ctx).Mailboxes(ctx)
			if err != nil {
				return ImportedRow{}, err
			}
			there = make(map[string]*broker.Mailbox, len(all))
			for _, m := range all {
				there[strings.ToLower(m.Address)] = m
			}
		}
		if m := there[strings.ToLower(row.Address)]; m != nil {
			return ImportedRow{Name: m.Address, Outcome: rowUnchanged, ID: m.ID}, a.sameMailbox(ctx, m, row)
		}
		m, _, err := a.addMailbox(ctx, row)
		if err != nil {
			return ImportedRow{}, err
		}
		return ImportedRow{Name: m.Address, Outcome: rowCreated, ID: m.ID}, nil
	})
}

// sameMailbox reports whether a mailbox is as a row says; what the row leaves
// out may be as it is.
func (a *api) sameMailbox(ctx context.Context, old *broker.Mailbox, row *MailboxInput) error {
	wanted, err := row.mailbox()
	if err != nil {
		return err
	}
	if row.Firm != "" {
		firm, err := a.findFirm(ctx, "firm", row.Firm)
		if err != nil {
			return err
		}
		if firm.ID != old.FirmID {
			return differs("firm", "%s is another firm's", old.Address)
		}
	}
	if row.IMAP.CA == nil {
		wanted.IMAP.CA = old.IMAP.CA
	}
	if row.Submission.CA == nil {
		wanted.Submission.CA = old.Submission.CA
	}
	lower := func(s []string) []string {
		return slices.Sorted(slices.Values(strings.Fields(strings.ToLower(strings.Join(s, " ")))))
	}
	const instead = "%s is there with another one: change that mailbox, or this row"
	switch {
	case wanted.IMAP != old.IMAP:
		return differs("imap.host", instead, old.Address)
	case wanted.Submission != old.Submission:
		return differs("submission.host", instead, old.Address)
	case len(row.Aliases) > 0 && !slices.Equal(lower(row.Aliases), lower(old.Aliases)):
		return differs("aliases", "%s is there with the aliases %q: change that mailbox, or this row", old.Address, strings.Join(old.Aliases, ", "))
	case len(row.RecoverySenders) > 0 && !slices.Equal(lower(row.RecoverySenders), lower(old.RecoverySenders)):
		return differs("recovery_senders", instead, old.Address)
	case row.Username != "" && row.Username != old.Username:
		return differs("username", instead, old.Address)
	case row.MaxConnections != 0 && row.MaxConnections != old.MaxConnections:
		return differs("max_connections", instead, old.Address)
	}
	return nil
}

// AssignmentsImport are agents to put on delegations.
type AssignmentsImport struct {
	DryRun bool              `json:"dry_run,omitempty" doc:"Checks everything, and stores nothing."`
	Rows   []AssignmentInput `json:"rows" minItems:"1" maxItems:"500" nullable:"false"`
}

func (a *api) importAssignments(ctx context.Context, in *struct{ Body AssignmentsImport }) (*answer[Imported], error) {
	before := earlier{}
	var delegations []*broker.Delegation
	return importRows(ctx, a, in.Body.DryRun, in.Body.Rows, func(ctx context.Context, row *AssignmentInput) (ImportedRow, error) {
		if delegations == nil {
			var err error
			if delegations, err = a.State.Delegations(ctx); err != nil {
				return ImportedRow{}, err
			}
		}
		agent, err := a.findAgent(ctx, "agent", row.Agent)
		if err != nil {
			return ImportedRow{}, err
		}
		d, err := a.delegationOfRow(ctx, row, delegations)
		if err != nil {
			return ImportedRow{}, err
		}
		name := agent.Name + " on " + row.Mailbox + row.Delegation
		if err := before.once("agent", string(agent.ID)+string(d.ID)); err != nil {
			return ImportedRow{}, broker.InvalidField("agent", "%s is in a row before as well", name)
		}
		s, err := a.standingAssignment(ctx, agent, d)
		if err != nil {
			return ImportedRow{}, err
		}
		if s == nil {
			if s, err = a.assign(ctx, agent, d, &row.Terms); err != nil {
				return ImportedRow{}, err
			}
			return ImportedRow{Name: name, Outcome: rowCreated, ID: s.ID}, nil
		}
		// What the row leaves out may be as it is.
		wanted, err := a.terms(ctx, &row.Terms, s.Terms)
		if err == nil && broker.TagOf(wanted) != broker.TagOf(s.Terms) {
			err = differs("agent", "%s is there with other terms: change that assignment (%s), or this row", name, s.ID)
		}
		return ImportedRow{Name: name, Outcome: rowUnchanged, ID: s.ID}, err
	})
}

// delegationOfRow is delegationFor for who has read all delegations.
func (a *api) delegationOfRow(ctx context.Context, row *AssignmentInput, all []*broker.Delegation) (*broker.Delegation, error) {
	if row.Delegation != "" || row.Mailbox == "" {
		return a.delegationFor(ctx, row)
	}
	m, err := a.findMailbox(ctx, "mailbox", row.Mailbox)
	if err != nil {
		return nil, err
	}
	return a.delegationAmong(all, m, "mailbox", GrantState.holds)
}

// standingAssignment returns the assignment of an agent on a delegation that
// holds now or will; nil: there is none.
func (a *api) standingAssignment(ctx context.Context, agent *broker.Agent, d *broker.Delegation) (*broker.Assignment, error) {
	all, err := a.State.AssignmentsOf(ctx, agent.ID, d.MailboxID)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.DelegationID == d.ID && a.grantState(s.Terms.NotBefore, s.Terms.NotAfter, s.RevokedAt).holds() {
			return s, nil
		}
	}
	return nil, nil
}
