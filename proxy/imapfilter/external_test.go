// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"
)

// TestExternal: SASL EXTERNAL (RFC 4422, appendix A), with an initial response
// and without, is there for whom the gate says it is, and unknown to others.
func TestExternal(t *testing.T) {
	identity := base64.StdEncoding.EncodeToString([]byte("box@firm.example"))
	for _, test := range []struct {
		name, says, hears string
		offered           bool
		certificate       *x509.Certificate
	}{
		{"at once", "a AUTHENTICATE EXTERNAL " + identity, "a OK [CAPABILITY ", true, &x509.Certificate{}},
		{"when asked", "a AUTHENTICATE EXTERNAL\r\n" + identity, "+ |a OK [CAPABILITY ", true, &x509.Certificate{}},
		{"in lower case", "a authenticate external " + identity, "a OK [CAPABILITY ", true, &x509.Certificate{}},
		{"no identity", "a AUTHENTICATE EXTERNAL =", "a NO [AUTHENTICATIONFAILED] ", true, &x509.Certificate{}},
		{"another identity", "a AUTHENTICATE EXTERNAL Ym94", "a NO [AUTHENTICATIONFAILED] ", true, &x509.Certificate{}},
		{"no base64", "a AUTHENTICATE EXTERNAL !!", "a BAD ", true, &x509.Certificate{}},
		{"cancelled", "a AUTHENTICATE EXTERNAL\r\n*", "+ |a BAD authentication cancelled", true, &x509.Certificate{}},
		{"not offered", "a AUTHENTICATE EXTERNAL " + identity, "a NO [CANNOT] use AUTH=PLAIN, LOGIN or OAUTHBEARER", false, &x509.Certificate{}},
		{"no certificate", "a AUTHENTICATE EXTERNAL " + identity, "a NO [CANNOT] use AUTH=PLAIN, LOGIN or OAUTHBEARER", true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			gate, _ := scripted(t)
			gate.external = test.offered
			c := newRig(t, gate).connectWith(test.certificate)
			c.send("c CAPABILITY")
			offers := c.expect("* CAPABILITY ")
			if want := test.offered && test.certificate != nil; strings.Contains(offers, "AUTH=EXTERNAL") != want {
				t.Errorf("offers %q", offers)
			}
			c.expect("c OK")
			c.send("%s", test.says)
			for _, want := range strings.Split(test.hears, "|") {
				c.expect(want)
			}
		})
	}
}
