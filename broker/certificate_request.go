// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
)

// Limits of certificate requests. RSA keys below minRSABits are weak; ones
// above maxRSABits cost the server too much at each handshake, and crypto/tls
// refuses them.
const (
	// maxRequest bounds a request, in octets of PEM.
	maxRequest = 64 << 10
	minRSABits = 2048
	maxRSABits = 8192
)

// ParseCertificateRequest reads a certificate request (PKCS #10, PEM) and checks
// that its sender holds the key, and that the key is fit for a workstation. The
// error is Invalid, with the field "csr".
func ParseCertificateRequest(csrPEM []byte) (*x509.CertificateRequest, error) {
	if len(csrPEM) > maxRequest {
		return nil, badRequest("larger than %d octets", maxRequest)
	}
	block, rest := pem.Decode(csrPEM)
	if block == nil || (block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST") {
		return nil, badRequest("not a certificate request in PEM form (PKCS #10)")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, badRequest("holds more than one PEM block")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, badRequest("not a certificate request (PKCS #10)").WithCause(err)
	}
	switch csr.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1:
		return nil, badRequest("signed with %s; use SHA-256 or better", csr.SignatureAlgorithm)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, badRequest("its signature is wrong").WithCause(err)
	}
	return csr, nil
}

func checkKey(public any) error {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize < 256 {
			return badRequest("the key's curve is %s; use P-256 or better", key.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return badRequest("the RSA key has %d bits; use %d to %d", bits, minRSABits, maxRSABits)
		}
	default:
		return badRequest("the key is neither ECDSA, Ed25519 nor RSA")
	}
	return nil
}

func badRequest(format string, args ...any) *Error {
	return InvalidField("csr", format, args...)
}
