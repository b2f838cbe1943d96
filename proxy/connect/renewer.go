// SPDX-License-Identifier: Apache-2.0

package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
)

// Times of renewal. A certificate is renewed when a third of its time is left.
const (
	// renewalLook is how often a Renewer looks: a timer for the very moment would
	// be late by as long as the machine slept.
	renewalLook = 10 * time.Minute
	// renewalRetryMin to renewalRetryMax is the mean pause after a failure; it
	// doubles with each.
	renewalRetryMin = time.Minute
	renewalRetryMax = time.Hour
)

// ErrRenewalRefused is a refusal that no repetition changes: the workstation was
// removed, its key was replaced, or its certificate has ended.
var ErrRenewalRefused = errors.New("renewal refused")

// Renewer keeps a workstation's certificate renewed.
type Renewer struct {
	// Identity returns the present certificate.
	Identity func() (*tls.Certificate, error)
	// Renew gets the next one and puts it in its place. What it fails with is
	// tried again, unless it is ErrRenewalRefused.
	Renew  func(context.Context) error
	Logger *zap.Logger

	failures int
	// refused is the certificate that is not to be renewed any more.
	refused *x509.Certificate
}

// Run renews until ctx ends. After a final refusal it asks no more, until the
// machine has another certificate: somebody enrolled it again.
func (r *Renewer) Run(ctx context.Context) error {
	for {
		timer := time.NewTimer(r.look(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// look renews if it is time, and returns when to look again.
func (r *Renewer) look(ctx context.Context) time.Duration {
	present, err := r.Identity()
	if err != nil {
		r.Logger.Error("this machine's certificate cannot be used", zap.Error(err))
		return renewalLook
	}
	end := present.Leaf.NotAfter
	if !RenewalDue(present.Leaf, time.Now()) || r.refused != nil && r.refused.Equal(present.Leaf) {
		return renewalLook
	}
	switch err := r.Renew(ctx); {
	case err == nil:
		r.failures, r.refused = 0, nil
		r.Logger.Info("this machine's certificate was renewed")
		return renewalLook
	case ctx.Err() != nil:
		return renewalLook
	case errors.Is(err, ErrRenewalRefused):
		r.failures, r.refused = 0, present.Leaf
		r.Logger.Error("this machine's certificate is not renewed any more: ask the administrator to enrol the machine again",
			zap.Time("good_until", end), zap.Error(err))
		return renewalLook
	default:
		r.failures++
		pause := r.pause(time.Until(end))
		r.Logger.Error("this machine's certificate was not renewed; it is tried again",
			zap.Int("failures", r.failures), zap.Duration("in", pause), zap.Time("good_until", end), zap.Error(err))
		return pause
	}
}

// pause is how long to wait after a failure; left is what remains of the
// certificate, of which each wait takes half at most.
func (r *Renewer) pause(left time.Duration) time.Duration {
	pause := renewalRetryMax
	if doublings := r.failures - 1; doublings < 6 {
		pause = min(renewalRetryMin<<doublings, renewalRetryMax)
	}
	// Machines that failed together do not come back together.
	pause += time.Duration((rand.Float64() - 0.5) * 0.4 * float64(pause))
	return max(min(pause, left/2), renewalRetryMin/2)
}

// RenewalDue reports whether less than a third of a certificate's time is left.
func RenewalDue(c *x509.Certificate, now time.Time) bool {
	return now.After(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3))
}
