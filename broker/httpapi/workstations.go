// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"slices"

	"github.com/postern-mail/postern/broker"
)

// WorkstationInput makes a workstation. Its key comes in one of three ways:
// csr, certificate or key_pins; with certificate_name it needs none.
type WorkstationInput struct {
	Name        string                  `json:"name" minLength:"1" doc:"Unique." example:"pune-07"`
	Class       broker.WorkstationClass `json:"class" enum:"hardware,software" doc:"hardware: the key is in a TPM or the system's store and cannot be exported; software: it is in a file."`
	Site        string                  `json:"site,omitempty" doc:"Binds it to a site's networks, by the site's id or name; without it, it may roam."`
	Groups      []string                `json:"groups,omitempty" nullable:"false" doc:"What app passwords can be limited to."`
	Agent       string                  `json:"agent,omitempty" doc:"Whose machine it is, by id or name: he may log in by its certificate alone (SASL EXTERNAL). Without it, nobody may."`
	CSR         string                  `json:"csr,omitempty" doc:"A PKCS #10 request in PEM: the server's own CA certifies its key."`
	Certificate string                  `json:"certificate,omitempty" doc:"A certificate of a trusted CA, in PEM: its key is pinned."`
	KeyPins     []string                `json:"key_pins,omitempty" nullable:"false" doc:"SHA-256 hashes of SubjectPublicKeyInfo, in lower-case hex."`

	CertificateName *CertificateNameInput `json:"certificate_name,omitempty" doc:"How certificates of a company's own CA name it: any of them is its own, whatever its key."`
}

// CertificateNameInput is a name in certificates of a company's own CA.
type CertificateNameInput struct {
	Authority string `json:"authority,omitempty" doc:"What the server's configuration calls the CA; without it, the only one that it has." example:"head-office"`
	Name      string `json:"name" doc:"As the certificates have it where the authority's rule looks: exactly, but for the case of a DNS name." example:"pune-07.corp.example"`
}

// Workstation is a workstation with its site's and its agent's name.
type Workstation struct {
	broker.Workstation
	Site  string `json:"site,omitempty"`
	Agent string `json:"agent,omitempty"`
}

// WorkstationCreated is a new workstation, and its certificate if the
// server's own CA issued one.
type WorkstationCreated struct {
	Workstation Workstation `json:"workstation"`
	Certificate string      `json:"certificate,omitempty" doc:"In PEM, for the workstation: it is not kept."`
	CA          string      `json:"ca,omitempty" doc:"The issuing CA's certificate, in PEM."`
}

// WorkstationPatch changes what is in it. Its key changes by renewal.
type WorkstationPatch struct {
	Name   *string   `json:"name,omitempty" minLength:"1" doc:"Unique. Certificates that were issued keep the old name, and stay good."`
	Site   *string   `json:"site,omitempty" doc:"Binds it to a site's networks, by the site's id or name; empty: it may roam."`
	Groups *[]string `json:"groups,omitempty" nullable:"false" doc:"What app passwords can be limited to, in place of all before."`
	Agent  *string   `json:"agent,omitempty" doc:"Whose machine it is, by id or name: he may log in by its certificate alone (SASL EXTERNAL); empty: nobody may."`

	CertificateName *CertificateNameInput `json:"certificate_name,omitempty" doc:"How certificates of a company's own CA name it; with an empty name: none does any more."`
}

// WorkstationUpdated is a changed workstation, and what the change ended.
type WorkstationUpdated struct {
	Workstation Workstation `json:"workstation"`
	Ended
}

type workstationPath struct {
	Workstation string `path:"workstation" doc:"Id or name."`
}

func (a *api) registerWorkstations() {
	route(a, http.MethodGet, "/v1/workstations", "list-workstations", "List workstations", a.listWorkstations)
	route(a, http.MethodPost, "/v1/workstations", "create-workstation", "Add a workstation, by a CSR, a certificate, key pins or its name in a company's certificates", a.createWorkstation)
	route(a, http.MethodGet, "/v1/workstations/{workstation}", "get-workstation", "Show a workstation",
		func(ctx context.Context, in *workstationPath) (*tagged[*Workstation], error) {
			w, err := a.findWorkstation(ctx, "", in.Workstation)
			if err != nil {
				return nil, err
			}
			shown, err := a.showWorkstation(ctx, w)
			return show(w, shown), err
		})
	route(a, http.MethodPatch, "/v1/workstations/{workstation}", "update-workstation",
		"Change a workstation, ending the sessions that it can no longer open", a.updateWorkstation)
	route(a, http.MethodPost, "/v1/workstations/{workstation}/renew", "renew-workstation",
		"Give a workstation a new certificate, or a new key, by a CSR or a certificate; sessions of keys that it loses end", a.renewWorkstation)
	route(a, http.MethodDelete, "/v1/workstations/{workstation}", "delete-workstation", "Remove a workstation, ending its sessions",
		func(ctx context.Context, in *workstationPath) (*answer[Ended], error) {
			w, err := a.findWorkstation(ctx, "", in.Workstation)
			if err != nil {
				return nil, err
			}
			if ctx, err = a.unchangedWorkstation(ctx, w); err != nil {
				return nil, err
			}
			ended, err := a.ending(ctx,
				func(s *broker.Session) bool { return s.WorkstationID == w.ID },
				func() error { return a.State.DeleteWorkstation(ctx, actor(ctx), w.ID) })
			if err == nil {
				a.revokeCertificates(ctx, w.ID, allPins)
			}
			return &answer[Ended]{ended}, err
		})
}

func (a *api) listWorkstations(ctx context.Context, _ *none) (*answer[List[*Workstation]], error) {
	all, err := a.reads(ctx).Workstations(ctx)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	shown := make([]*Workstation, len(all))
	for i, w := range all {
		shown[i] = &Workstation{Workstation: *w, Site: names.sites[w.SiteID], Agent: names.agents[w.AgentID]}
	}
	return listOf(shown), nil
}

func (a *api) showWorkstation(ctx context.Context, w *broker.Workstation) (*Workstation, error) {
	shown := &Workstation{Workstation: *w}
	if w.SiteID != "" {
		s, err := a.reads(ctx).Site(ctx, w.SiteID)
		if err != nil {
			return nil, err
		}
		shown.Site = s.Name
	}
	if w.AgentID != "" {
		g, err := a.reads(ctx).Agent(ctx, w.AgentID)
		if err != nil {
			return nil, err
		}
		shown.Agent = g.Name
	}
	return shown, nil
}

// unchangedWorkstation is unchanged for a workstation.
func (a *api) unchangedWorkstation(ctx context.Context, w *broker.Workstation) (context.Context, error) {
	return unchanged(ctx, w.ID, w, func() (any, error) { return a.showWorkstation(ctx, w) })
}

// bind makes a workstation an agent's, or nobody's. It refuses what would have
// no effect.
func (a *api) bind(ctx context.Context, w *broker.Workstation, agent string) error {
	if w.AgentID = ""; agent == "" {
		return nil
	}
	g, err := a.findAgent(ctx, "agent", agent)
	if err != nil {
		return err
	}
	if !slices.Contains(a.CertificateAlone, w.Class) {
		return broker.InvalidField("agent", "this server lets nobody in by the certificate of a %s workstation alone: see its configuration's workstations.certificate_alone", w.Class)
	}
	w.AgentID = g.ID
	return nil
}

// name gives a workstation its name in certificates of a company's own CA; an
// empty one takes it away.
func (a *api) name(w *broker.Workstation, in *CertificateNameInput) error {
	w.CertificateName = nil
	if in == nil || *in == (CertificateNameInput{}) {
		return nil
	}
	if a.CompanyCAs == nil {
		return broker.InvalidField("certificate_name", "this server knows no company's CA by rule: see its configuration's workstations.authorities")
	}
	named, class, err := a.CompanyCAs.Named(broker.CertificateName{Authority: in.Authority, Name: in.Name})
	if err != nil {
		return err
	}
	if w.Class == broker.ClassHardware && class != broker.ClassHardware {
		return broker.InvalidField("class", "certificates of %s are taken for keys of class %s: see its class in the server's configuration", named.Authority, class)
	}
	w.CertificateName = &named
	return nil
}

func (a *api) createWorkstation(ctx context.Context, in *struct{ Body WorkstationInput }) (*answer[WorkstationCreated], error) {
	b := &in.Body
	// The id is made here, so that a certificate can name it.
	w := &broker.Workstation{ID: broker.NewID(), Name: b.Name, Class: b.Class, Groups: b.Groups}
	created := WorkstationCreated{}
	if b.Site != "" {
		s, err := a.findSite(ctx, "site", b.Site)
		if err != nil {
			return nil, err
		}
		w.SiteID = s.ID
	}
	err := a.bind(ctx, w, b.Agent)
	if err != nil {
		return nil, err
	}
	if err := a.name(w, b.CertificateName); err != nil {
		return nil, err
	}
	key := workstationKey{csr: b.CSR, certificate: b.Certificate, pins: b.KeyPins}
	if !key.none() || w.CertificateName == nil {
		if w.KeyPins, created.Certificate, err = a.keyPins(ctx, actor(ctx), key, w); err != nil {
			return nil, err
		}
	}
	if created.Certificate != "" {
		created.CA = string(a.WorkstationCA.CertificatePEM())
	}
	// A certificate that was issued for a workstation which then cannot be
	// created (the name is taken, say) opens nothing: nobody pinned its key.
	if err := a.State.CreateWorkstation(ctx, actor(ctx), w); err != nil {
		return nil, err
	}
	shown, err := a.showWorkstation(ctx, w)
	if err != nil {
		return nil, err
	}
	created.Workstation = *shown
	return &answer[WorkstationCreated]{created}, nil
}

func (a *api) updateWorkstation(ctx context.Context, in *struct {
	Workstation string `path:"workstation" doc:"Id or name."`
	Body        WorkstationPatch
},
) (*answer[WorkstationUpdated], error) {
	w, unlock, err := a.lockWorkstation(ctx, in.Workstation)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if ctx, err = a.unchangedWorkstation(ctx, w); err != nil {
		return nil, err
	}
	if in.Body.Name != nil {
		w.Name = *in.Body.Name
	}
	if in.Body.Groups != nil {
		w.Groups = *in.Body.Groups
	}
	if in.Body.Agent != nil {
		if err := a.bind(ctx, w, *in.Body.Agent); err != nil {
			return nil, err
		}
	}
	if in.Body.CertificateName != nil {
		if err := a.name(w, in.Body.CertificateName); err != nil {
			return nil, err
		}
	}
	if in.Body.Site != nil {
		w.SiteID = ""
		if *in.Body.Site != "" {
			s, err := a.findSite(ctx, "site", *in.Body.Site)
			if err != nil {
				return nil, err
			}
			w.SiteID = s.ID
		}
	}
	updated, err := a.storeWorkstation(ctx, w)
	return &answer[WorkstationUpdated]{updated}, err
}

// lockWorkstation finds a workstation, and keeps other requests from changing
// it.
func (a *api) lockWorkstation(ctx context.Context, ref string) (w *broker.Workstation, unlock func(), err error) {
	if w, err = a.findWorkstation(ctx, "", ref); err != nil {
		return nil, nil, err
	}
	if unlock, err = a.changing.lock(ctx, w.ID); err != nil {
		return nil, nil, err
	}
	if w, err = a.reads(ctx).Workstation(ctx, w.ID); err != nil {
		unlock()
		return nil, nil, err
	}
	return w, unlock, nil
}

// storeWorkstation stores a changed workstation and tells what that ended.
func (a *api) storeWorkstation(ctx context.Context, w *broker.Workstation) (updated WorkstationUpdated, err error) {
	updated.Ended, err = a.narrowing(ctx,
		func(s *broker.Session) bool { return s.WorkstationID == w.ID },
		func() error { return a.State.UpdateWorkstation(ctx, actor(ctx), w) })
	if err != nil {
		return updated, err
	}
	shown, err := a.showWorkstation(ctx, w)
	if err != nil {
		return updated, err
	}
	updated.Workstation = *shown
	return updated, nil
}
