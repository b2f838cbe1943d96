// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
)

// KeyPin is what Workstation.KeyPins holds of a certificate: the SHA-256 hash
// of its SubjectPublicKeyInfo, in lower-case hex. It stays the same when a
// certificate is renewed with its key.
func KeyPin(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}
