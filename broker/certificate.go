// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net/url"
	"strings"
)

// KeyPin is what Workstation.KeyPins holds of a certificate: the SHA-256 hash
// of its SubjectPublicKeyInfo, in lower-case hex. It stays the same when a
// certificate is renewed with its key.
func KeyPin(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// SerialNumber is a certificate's serial number as Vault and openssl have it:
// its octets in lower-case hex, with colons between.
func SerialNumber(c *x509.Certificate) string {
	octets := c.SerialNumber.Bytes()
	parts := make([]string, len(octets))
	for i := range octets {
		parts[i] = hex.EncodeToString(octets[i : i+1])
	}
	return strings.Join(parts, ":")
}

// URI names the workstation in certificates: urn:uuid: and its id. A name can
// change, and be another's later.
func (w *Workstation) URI() (*url.URL, error) {
	id, err := ParseID(string(w.ID))
	if err != nil {
		return nil, Errorf(Internal, "the workstation has no id").WithCause(err)
	}
	return &url.URL{Scheme: "urn", Opaque: "uuid:" + string(id)}, nil
}
