// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/postern-mail/postern/broker"
)

var (
	// subjectAltName holds the TPM's make there, critical, as a directory name:
	// which crypto/x509 does not read (RFC 5280 §4.2.1.6).
	subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	// endorses is the extended key usage of such certificates (TCG EK Credential
	// Profile).
	endorses = asn1.ObjectIdentifier{2, 23, 133, 8, 1}
)

// endorsementKey puts a key into the TCG's template for its kind (TCG EK
// Credential Profile, templates L-1 and L-2).
func endorsementKey(der []byte) (*tpm2.TPMTPublic, error) {
	invalid := func(format string, args ...any) (*tpm2.TPMTPublic, error) {
		return nil, broker.InvalidField("endorsement_key", format, args...)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return invalid("not a SubjectPublicKeyInfo in DER")
	}
	// One key, one fingerprint.
	if again, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(again, der) {
		return invalid("not a SubjectPublicKeyInfo in its usual form")
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() != 2048 || key.E != 65537 {
			return invalid("an RSA key, and not one of 2048 bits")
		}
		public := tpm2.RSAEKTemplate
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.FillBytes(make([]byte, 256))})
		return &public, nil
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return invalid("an elliptic-curve key, and not of P-256")
		}
		point, err := key.ECDH()
		if err != nil {
			return invalid("not of P-256")
		}
		xy := point.Bytes()[1:] // after the mark of an uncompressed point
		public := tpm2.ECCEKTemplate
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: xy[:32]}, Y: tpm2.TPM2BECCParameter{Buffer: xy[32:]},
		})
		return &public, nil
	}
	return invalid("neither RSA nor of an elliptic curve")
}

// certified checks that a maker whom the configuration trusts says that the key
// is a TPM's.
func (v *Verifier) certified(k *broker.TPMKey) error {
	fingerprint := broker.TPMFingerprint(k.EndorsementKey)
	if len(k.EndorsementCertificate) == 0 {
		return broker.Errorf(broker.Refused, "this machine's TPM holds no certificate of its maker: have the administrator make a code for it alone (--tpm %s)", fingerprint)
	}
	c, err := x509.ParseCertificate(k.EndorsementCertificate)
	if err != nil {
		return broker.InvalidField("endorsement_certificate", "cannot be read").WithCause(err)
	}
	if !bytes.Equal(c.RawSubjectPublicKeyInfo, k.EndorsementKey) {
		return broker.InvalidField("endorsement_certificate", "is for another key")
	}
	if c.IsCA {
		return broker.InvalidField("endorsement_certificate", "is a CA's")
	}
	if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0 && !slices.ContainsFunc(c.UnknownExtKeyUsage, endorses.Equal) {
		return broker.InvalidField("endorsement_certificate", "is for another purpose than to endorse a TPM")
	}
	c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, subjectAltName.Equal)
	if _, err := c.Verify(x509.VerifyOptions{
		Roots: v.makers, Intermediates: x509.NewCertPool(), CurrentTime: v.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return broker.Errorf(broker.Refused, "the certificate of this machine's TPM is not of a maker whom the server trusts (its issuer is %q): have the administrator trust it, or make a code for this TPM alone (--tpm %s)",
			c.Issuer.String(), fingerprint).WithCause(err)
	}
	return nil
}
