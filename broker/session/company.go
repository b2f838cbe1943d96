// SPDX-License-Identifier: Apache-2.0

package session

import (
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// source names where an attempt came from. A company's CA may give a machine as
// many keys as it asks for, so that they are one source, by their name.
func (a *attempt) source() string {
	if a.company != nil && a.company.Name != "" {
		return "certificate " + a.company.Authority + " " + a.company.Name
	}
	return sourceOf(a.pin, a.login.RemoteAddr.Addr())
}

// certificateName is for records; nil: no company's CA named the presenter.
func certificateName(c *broker.CompanyCertificate) *broker.CertificateName {
	if c == nil || c.Name == "" {
		return nil
	}
	return &broker.CertificateName{Authority: c.Authority, Name: c.Name}
}

// standing returns how a session must end because of its certificate, by what
// the company's CA says of it now; nil: it lives on.
func (m *Manager) standing(s *live) *broker.End {
	if s.company == nil {
		return nil
	}
	cause, down := unfitness(m.companyCAs.Standing(s.company))
	switch {
	case down != nil:
		return &broker.End{Reason: broker.EndRevoked, Text: textRevocation, Detail: down.Reason}
	case cause == causeExpiredCertificate:
		return &broker.End{Reason: broker.EndExpired, Text: advise(textExpired, s.contact), Detail: cause}
	case cause != "":
		return &broker.End{Reason: broker.EndRevoked, Text: advise(textWorkstation, s.contact), Detail: cause}
	}
	return nil
}

// watchCertificates ends sessions whose certificates cease to be good, until
// the returned function is called.
func (m *Manager) watchCertificates() (stop func()) {
	if m.companyCAs == nil {
		return func() {}
	}
	return m.companyCAs.Subscribe(func() {
		ended := 0
		for _, s := range m.sessions(nil) {
			if end := m.standing(s); end != nil && s.kill(end, m.system()) {
				ended++
			}
		}
		if ended > 0 {
			m.logger.Warn("certificates of a company's CA are no longer good: their sessions end", zap.Int("sessions", ended))
		}
	})
}
