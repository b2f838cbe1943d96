// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/postern-mail/postern/broker"
)

const (
	// assertionLife is how long an assertion is good; Microsoft asks for 5 to
	// 10 minutes, Google for an hour at most.
	assertionLife = 5 * time.Minute
	// assertionSlack is how far it begins in the past, for an issuer whose
	// clock is a little behind what its last answer said.
	assertionSlack = 30 * time.Second
)

// claims are those of RFC 7523 §3.
type claims struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"`
	Scope     string `json:"scope,omitempty"`
	ID        string `json:"jti,omitempty"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf,omitempty"`
	Expires   int64  `json:"exp"`
}

func newClaims(issuer, subject, audience string, now time.Time) claims {
	begin := now.Add(-assertionSlack)
	return claims{
		Issuer: issuer, Subject: subject, Audience: audience,
		IssuedAt: begin.Unix(), Expires: begin.Add(assertionLife).Unix(),
	}
}

// clientAssertion proves who the client is (private_key_jwt: RFC 7523 §2.2).
// PS256 and the certificate's SHA-256 in x5t#S256 (RFC 7515 §4.1.8) are what
// Microsoft asks for.
func (d *Document) clientAssertion(now time.Time) (string, error) {
	certificate, err := d.certificate()
	if err != nil {
		return "", err
	}
	thumbprint := sha256.Sum256(certificate.Raw)
	c := newClaims(d.ClientID, d.ClientID, d.TokenURL, now)
	c.NotBefore, c.ID = c.IssuedAt, rand.Text()
	return d.sign(jose.PS256, c, "x5t#S256", base64.RawURLEncoding.EncodeToString(thumbprint[:]))
}

// grantAssertion asks for a token in a mailbox's name (RFC 7523 §2.1). RS256
// and these claims are what Google asks for.
func (d *Document) grantAssertion(subject string, now time.Time) (string, error) {
	c := newClaims(d.ClientID, subject, d.TokenURL, now)
	c.Scope = d.Scope
	return d.sign(jose.RS256, c, "kid", d.PrivateKeyID)
}

func (d *Document) sign(algorithm jose.SignatureAlgorithm, c claims, header jose.HeaderKey, value string) (string, error) {
	key, err := d.key()
	if err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	if value != "" {
		options = options.WithHeader(header, value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		return "", unsigned(err)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", unsigned(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", unsigned(err)
	}
	return signed.CompactSerialize()
}

func unsigned(err error) error {
	return broker.Errorf(broker.Internal, "the request for a token could not be signed").WithCause(err)
}
