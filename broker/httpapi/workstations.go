// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http"

	"github.com/postern-mail/postern/broker"
)

// WorkstationInput makes a workstation. Its key comes in one of three ways:
// csr, certificate or key_pins.
type WorkstationInput struct {
	Name        string                  `json:"name" minLength:"1" doc:"Unique." example:"pune-07"`
	Class       broker.WorkstationClass `json:"class" enum:"hardware,software" doc:"hardware: the key is in a TPM or the system's store and cannot be exported; software: it is in a file."`
	Site        string                  `json:"site,omitempty" doc:"Binds it to a site's networks, by the site's id or name; without it, it may roam."`
	Groups      []string                `json:"groups,omitempty" nullable:"false" doc:"What app passwords can be limited to."`
	CSR         string                  `json:"csr,omitempty" doc:"A PKCS #10 request in PEM: the server's own CA certifies its key."`
	Certificate string                  `json:"certificate,omitempty" doc:"A certificate of a trusted CA, in PEM: its key is pinned."`
	KeyPins     []string                `json:"key_pins,omitempty" nullable:"false" doc:"SHA-256 hashes of SubjectPublicKeyInfo, in lower-case hex."`
}

// Workstation is a workstation with its site's name.
type Workstation struct {
	broker.Workstation
	Site string `json:"site,omitempty"`
}

// WorkstationCreated is a new workstation, and its certificate if the
// server's own CA issued one.
type WorkstationCreated struct {
	Workstation Workstation `json:"workstation"`
	Certificate string      `json:"certificate,omitempty" doc:"In PEM, for the workstation: it is not kept."`
	CA          string      `json:"ca,omitempty" doc:"The issuing CA's certificate, in PEM."`
}

type workstationPath struct {
	Workstation string `path:"workstation" doc:"Id or name."`
}

func (a *api) registerWorkstations() {
	route(a, http.MethodGet, "/v1/workstations", "list-workstations", "List workstations", a.listWorkstations)
	route(a, http.MethodPost, "/v1/workstations", "create-workstation", "Add a workstation, by a CSR, a certificate or key pins", a.createWorkstation)
	route(a, http.MethodGet, "/v1/workstations/{workstation}", "get-workstation", "Show a workstation",
		func(ctx context.Context, in *workstationPath) (*answer[*Workstation], error) {
			w, err := a.findWorkstation(ctx, "", in.Workstation)
			if err != nil {
				return nil, err
			}
			shown, err := a.showWorkstation(ctx, w)
			return &answer[*Workstation]{shown}, err
		})
	route(a, http.MethodDelete, "/v1/workstations/{workstation}", "delete-workstation", "Remove a workstation, ending its sessions",
		func(ctx context.Context, in *workstationPath) (*answer[Ended], error) {
			w, err := a.findWorkstation(ctx, "", in.Workstation)
			if err != nil {
				return nil, err
			}
			ended, err := a.ending(ctx,
				func(s *broker.Session) bool { return s.WorkstationID == w.ID },
				func() error { return a.State.DeleteWorkstation(ctx, actor(ctx), w.ID) })
			return &answer[Ended]{ended}, err
		})
}

func (a *api) listWorkstations(ctx context.Context, _ *none) (*answer[List[*Workstation]], error) {
	all, err := a.State.Workstations(ctx)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	shown := make([]*Workstation, len(all))
	for i, w := range all {
		shown[i] = &Workstation{Workstation: *w, Site: names.sites[w.SiteID]}
	}
	return listOf(shown), nil
}

func (a *api) showWorkstation(ctx context.Context, w *broker.Workstation) (*Workstation, error) {
	shown := &Workstation{Workstation: *w}
	if w.SiteID != "" {
		s, err := a.State.Site(ctx, w.SiteID)
		if err != nil {
			return nil, err
		}
		shown.Site = s.Name
	}
	return shown, nil
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
		w.SiteID, created.Workstation.Site = s.ID, s.Name
	}
	var err error
	if w.KeyPins, created.Certificate, err = a.keyPins(b, w); err != nil {
		return nil, err
	}
	if created.Certificate != "" {
		created.CA = string(a.WorkstationCA.CertificatePEM())
	}
	// A certificate that was issued for a workstation which then cannot be
	// created (the name is taken, say) opens nothing: nobody pinned its key.
	if err := a.State.CreateWorkstation(ctx, actor(ctx), w); err != nil {
		return nil, err
	}
	created.Workstation.Workstation = *w
	return &answer[WorkstationCreated]{created}, nil
}

// keyPins returns the pins of w, and the certificate if one was issued.
func (a *api) keyPins(in *WorkstationInput, w *broker.Workstation) (pins []string, certificate string, err error) {
	ways := 0
	for _, given := range []bool{in.CSR != "", in.Certificate != "", len(in.KeyPins) > 0} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return nil, "", broker.InvalidField("csr", "give one of csr, certificate and key_pins")
	}
	switch {
	case len(in.KeyPins) > 0:
		return in.KeyPins, "", nil
	case in.Certificate != "":
		pin, err := certificatePin([]byte(in.Certificate))
		if err != nil {
			return nil, "", broker.InvalidField("certificate", "%s", broker.PublicText(err)).WithCause(err)
		}
		return []string{pin}, "", nil
	}
	if a.WorkstationCA == nil {
		return nil, "", broker.InvalidField("csr", "this server has no CA of its own: give a certificate of the CA it trusts")
	}
	issued, err := a.WorkstationCA.Issue([]byte(in.CSR), w)
	if err != nil {
		return nil, "", err
	}
	pin, err := certificatePin(issued)
	if err != nil {
		return nil, "", broker.Errorf(broker.Internal, "the CA's certificate cannot be read").WithCause(err)
	}
	return []string{pin}, string(issued), nil
}

// certificatePin hashes the key of the first certificate in PEM.
func certificatePin(text []byte) (string, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return "", broker.Errorf(broker.Invalid, "is no certificate in PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", broker.Errorf(broker.Invalid, "is a certificate that cannot be read").WithCause(err)
	}
	return broker.KeyPin(c), nil
}
