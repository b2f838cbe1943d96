// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"slices"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// WorkstationRenewal gives a workstation a certificate or a key.
//
// With a key that it has, that is all: its keys stay as they are. A new key
// takes the place of all others unless Replace says that they stay: what a
// laptop was re-keyed for may be that somebody has the old key, and a key that
// nobody removed opens mailboxes for ever, whereas one that was removed too
// soon shows at once.
type WorkstationRenewal struct {
	CSR         string                  `json:"csr,omitempty" doc:"A PKCS #10 request in PEM: the server's own CA certifies its key."`
	Certificate string                  `json:"certificate,omitempty" doc:"A certificate of a trusted CA, in PEM: its key is pinned."`
	Class       broker.WorkstationClass `json:"class,omitempty" enum:"hardware,software" doc:"How well the key is kept; without it a new key is taken for software. It must be the workstation's class."`
	Replace     *bool                   `json:"replace,omitempty" doc:"Whether its other keys are removed, and their sessions ended; without it, when the key is new."`
}

// WorkstationRenewed is a workstation after its renewal, and its certificate
// if the server's own CA issued one.
type WorkstationRenewed struct {
	WorkstationUpdated
	Certificate string `json:"certificate,omitempty" doc:"In PEM, for the workstation: it is not kept."`
	CA          string `json:"ca,omitempty" doc:"The issuing CA's certificate, in PEM."`
}

func (a *api) renewWorkstation(ctx context.Context, in *struct {
	Workstation string `path:"workstation" doc:"Id or name."`
	Body        WorkstationRenewal
},
) (*answer[WorkstationRenewed], error) {
	b := &in.Body
	w, unlock, err := a.lockWorkstation(ctx, in.Workstation)
	if err != nil {
		return nil, err
	}
	defer unlock()
	pins, certificate, err := a.keyPins(ctx, actor(ctx), workstationKey{csr: b.CSR, certificate: b.Certificate}, w)
	if err != nil {
		return nil, err
	}
	isNew, before := !slices.Contains(w.KeyPins, pins[0]), w.KeyPins
	if err := sameClass(w, b.Class, isNew); err != nil {
		return nil, err
	}
	if isNew {
		w.TPM = "" // nothing proved where this one is
	}
	switch replace := b.Replace; {
	case replace != nil && *replace, replace == nil && isNew:
		w.KeyPins = pins
	case isNew:
		w.KeyPins = append(w.KeyPins, pins...)
	}
	renewed := WorkstationRenewed{Certificate: certificate}
	if renewed.WorkstationUpdated, err = a.storeWorkstation(ctx, w); err != nil {
		return nil, err
	}
	a.revokeCertificates(ctx, w.ID, func(pin string) bool { return slices.Contains(before, pin) && !slices.Contains(w.KeyPins, pin) })
	if certificate != "" {
		renewed.CA = string(a.WorkstationCA.CertificatePEM())
		// A key that it had leaves no other trace.
		a.Logger.Info("a workstation's certificate was renewed", zap.String("workstation", w.Name),
			zap.String("key_pin", pins[0]), zap.Bool("new_key", isNew), zap.String("by", actor(ctx).Name))
	}
	return &answer[WorkstationRenewed]{renewed}, nil
}

// sameClass keeps a key in a file from passing for one in hardware: the class
// is the workstation's, whichever of its keys is used.
func sameClass(w *broker.Workstation, class broker.WorkstationClass, isNew bool) error {
	if class == "" && !isNew {
		return nil
	}
	if class == "" {
		class = broker.ClassSoftware
	}
	if class == w.Class {
		return nil
	}
	return broker.InvalidField("class", "%s is of class %s, and the key would be of class %s: "+
		"give a key of its class and say so, or remove the workstation and add it anew", w.Name, w.Class, class)
}

// workstationKey is a key in one of three forms.
type workstationKey struct {
	csr, certificate string
	pins             []string
}

func (k *workstationKey) none() bool { return k.csr == "" && k.certificate == "" && len(k.pins) == 0 }

// keyPins returns the pins of a key for w, and the certificate if one was
// issued, which is on record then.
func (a *api) keyPins(ctx context.Context, by broker.Actor, in workstationKey, w *broker.Workstation) (pins []string, certificate string, err error) {
	ways := 0
	for _, given := range []bool{in.csr != "", in.certificate != "", len(in.pins) > 0} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return nil, "", broker.InvalidField("csr", "give the key in one way: csr, or certificate, or (for a new workstation) key_pins")
	}
	switch {
	case len(in.pins) > 0:
		return in.pins, "", nil
	case in.certificate != "":
		c, err := parseCertificate([]byte(in.certificate))
		if err != nil {
			return nil, "", broker.InvalidField("certificate", "%s", broker.PublicText(err)).WithCause(err)
		}
		return []string{broker.KeyPin(c)}, "", nil
	}
	if a.WorkstationCA == nil {
		return nil, "", broker.InvalidField("csr", "this server has no CA of its own: give a certificate of the CA it trusts")
	}
	issued, err := a.WorkstationCA.Issue(ctx, []byte(in.csr), w)
	if err != nil {
		return nil, "", err
	}
	c, err := parseCertificate(issued)
	if err != nil {
		return nil, "", broker.Errorf(broker.Internal, "the CA's certificate cannot be read").WithCause(err)
	}
	if err := a.recordCertificate(ctx, by, w, c); err != nil {
		return nil, "", err
	}
	return []string{broker.KeyPin(c)}, string(issued), nil
}

// parseCertificate reads the first certificate in PEM.
func parseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, broker.Errorf(broker.Invalid, "is no certificate in PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, broker.Errorf(broker.Invalid, "is a certificate that cannot be read").WithCause(err)
	}
	return c, nil
}
