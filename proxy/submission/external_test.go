// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/postern-mail/postern/proxy"
)

// TestExternal: SASL EXTERNAL (RFC 4422, appendix A) is there for whom the gate
// says it is, and unknown to others.
func TestExternal(t *testing.T) {
	identity := base64.StdEncoding.EncodeToString([]byte(ownAddress))
	for _, test := range []struct {
		name, script string
		offered      bool
		certificate  *x509.Certificate
	}{
		{"at once", "C: AUTH EXTERNAL " + identity + "\nS: 235 ", true, &x509.Certificate{}},
		{"when asked", "C: AUTH EXTERNAL\nS: 334 \nC: " + identity + "\nS: 235 ", true, &x509.Certificate{}},
		{"no identity", "C: AUTH EXTERNAL =\nS: 535 5.7.8", true, &x509.Certificate{}},
		{"another identity", "C: AUTH EXTERNAL Ym94\nS: 535 5.7.8", true, &x509.Certificate{}},
		{"a control in it", "C: AUTH EXTERNAL YQBi\nS*501", true, &x509.Certificate{}},
		{"not offered", "C: AUTH EXTERNAL " + identity + "\nS*504", false, &x509.Certificate{}},
		{"no certificate", "C: AUTH EXTERNAL " + identity + "\nS*504", true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			gate, k := newGate(), newSink(t, nil)
			gate.dial, gate.external = dialTo(k.addr), test.offered
			s := newSetupOn(t, gate, proxy.ConnConfig{IsTLS: true, Certificate: test.certificate}, nil)
			c := s.connect(t)
			c.raw("EHLO client.example\r\n")
			want := test.offered && test.certificate != nil
			if offers := c.expect("250 "); strings.Contains(offers, " EXTERNAL") != want {
				t.Errorf("offers %q", offers)
			}
			c.talk(test.script)
		})
	}
}
