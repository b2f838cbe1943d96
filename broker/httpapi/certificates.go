// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"crypto/x509"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

const (
	// revokeTime bounds revoking a workstation's certificates at their CA. They
	// open nothing more at Postern by then.
	revokeTime = 10 * time.Second
	// certificatesPage is how many records of certificates are read at once.
	certificatesPage = 1000
)

// machine is a workstation that acts for itself.
func machine(w *broker.Workstation) broker.Actor {
	return broker.Actor{Kind: "workstation", Name: w.Name, ID: w.ID}
}

// recordCertificate makes it durable that a certificate was issued.
func (a *api) recordCertificate(ctx context.Context, by broker.Actor, w *broker.Workstation, c *x509.Certificate) error {
	return a.Events.AppendEvents(ctx, []*broker.Event{{
		Type: broker.EventCertified, Actor: by, WorkstationID: w.ID, Data: broker.WorkstationCertified{
			Serial: broker.SerialNumber(c), Issuer: c.Issuer.String(), KeyPin: broker.KeyPin(c), NotAfter: c.NotAfter.UTC(),
		},
	}})
}

func allPins(string) bool { return true }

// revokeCertificates revokes at their CA those certificates of a workstation
// whose keys it has lost, as far as that can be done now: what fails is logged
// with its serial number, for an operator to revoke by hand.
func (a *api) revokeCertificates(ctx context.Context, id broker.ID, lost func(pin string) bool) {
	revoker, ok := a.WorkstationCA.(CertificateRevoker)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTime)
	defer cancel()
	failed := func(err error, fields ...zap.Field) {
		a.Logger.Error("a workstation's certificate was not revoked at its CA; it opens nothing here all the same",
			append(fields, zap.String("workstation_id", string(id)), zap.Error(err))...)
	}
	for after := int64(-1); ; {
		events, err := a.Events.Events(ctx, broker.EventQuery{After: after, Type: broker.EventCertified, Limit: certificatesPage})
		if err != nil {
			failed(err)
			return
		}
		for _, e := range events {
			after = e.Seq
			c, known := e.Data.(broker.WorkstationCertified)
			if !known || e.WorkstationID != id || !a.Now().Before(c.NotAfter) || !lost(c.KeyPin) {
				continue
			}
			if err := revoker.Revoke(ctx, &c); err != nil {
				failed(err, zap.String("serial", c.Serial))
			}
		}
		if len(events) < certificatesPage {
			return
		}
	}
}
