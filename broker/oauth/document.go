// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"bytes"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/broker"
)

// What a document says when it does not say otherwise.
const (
	// DefaultClientScope is Exchange Online's for application permissions.
	DefaultClientScope = "https://outlook.office365.com/.default"
	// DefaultGoogleScope is Gmail's for IMAP and SMTP.
	DefaultGoogleScope = "https://mail.google.com/"
	// GoogleTokenURL is where Google takes assertions.
	GoogleTokenURL = "https://oauth2.googleapis.com/token"
)

// documentVersion is the version of the format.
const documentVersion = 1

// maxField bounds what is no key and no token, in octets.
const maxField = 2048

// How a client shows its secret to the token endpoint (RFC 6749 §2.3.1).
const (
	AuthPost  = "post"
	AuthBasic = "basic"
)

// Document is the JSON object in a credential of a kind that mints tokens.
type Document struct {
	// ID names the consent. It stays while refresh tokens follow each other:
	// an access token is good for all of them.
	ID string
	// TokenURL is the issuer's token endpoint.
	TokenURL string
	// ClientID is the application's, for Google the service account's address.
	ClientID string
	// ClientSecret, or Certificate and PrivateKey, prove who the client is; a
	// public client (RFC 6749 §2.1) has neither.
	ClientSecret broker.Secret
	// ClientAuth is AuthPost or AuthBasic; empty: AuthPost.
	ClientAuth string
	// Certificate is in PEM, PrivateKey an RSA key in PEM (PKCS #8 or #1).
	Certificate string
	PrivateKey  broker.Secret
	// PrivateKeyID is what Google calls the key.
	PrivateKeyID string
	// Scope is a list with spaces (RFC 6749 §3.3).
	Scope string
	// RefreshToken is for KindOAuth2Refresh alone.
	RefreshToken broker.Secret
}

// field is one member of the JSON object.
type field struct {
	name   string
	text   func(*Document) *string
	secret func(*Document) *broker.Secret
	// kinds have it, needed by those in needs.
	kinds, needs []broker.CredentialKind
}

func fields() []field {
	const client, refresh, google = broker.KindOAuth2Client, broker.KindOAuth2Refresh, broker.KindGoogleServiceAccount
	kinds := func(k ...broker.CredentialKind) []broker.CredentialKind { return k }
	all := kinds(client, refresh, google)
	return []field{
		{name: "id", text: func(d *Document) *string { return &d.ID }, kinds: all},
		{name: "token_url", text: func(d *Document) *string { return &d.TokenURL }, kinds: all, needs: all},
		{name: "client_id", text: func(d *Document) *string { return &d.ClientID }, kinds: kinds(client, refresh), needs: kinds(client, refresh)},
		{name: "client_email", text: func(d *Document) *string { return &d.ClientID }, kinds: kinds(google), needs: kinds(google)},
		{name: "client_secret", secret: func(d *Document) *broker.Secret { return &d.ClientSecret }, kinds: kinds(client, refresh)},
		{name: "client_auth", text: func(d *Document) *string { return &d.ClientAuth }, kinds: kinds(client, refresh)},
		{name: "certificate", text: func(d *Document) *string { return &d.Certificate }, kinds: kinds(client, refresh)},
		{name: "private_key", secret: func(d *Document) *broker.Secret { return &d.PrivateKey }, kinds: all, needs: kinds(google)},
		{name: "private_key_id", text: func(d *Document) *string { return &d.PrivateKeyID }, kinds: kinds(google)},
		{name: "scope", text: func(d *Document) *string { return &d.Scope }, kinds: all},
		{name: "refresh_token", secret: func(d *Document) *broker.Secret { return &d.RefreshToken }, kinds: kinds(refresh), needs: kinds(refresh)},
	}
}

// Parse reads a document, fills in defaults, and checks that tokens could be
// asked for with it. The error is Invalid; it names a field and quotes
// nothing.
func Parse(kind broker.CredentialKind, secret []byte) (_ *Document, err error) {
	malformed := broker.InvalidField("document", "not the JSON object that a credential of this kind is")
	var members map[string]json.RawMessage
	if !kind.MintsTokens() || !utf8.Valid(secret) || json.Unmarshal(secret, &members) != nil || members == nil {
		return nil, malformed
	}
	defer func() {
		for _, raw := range members {
			clear(raw)
		}
	}()
	d := &Document{}
	defer func() {
		if err != nil {
			d.Wipe()
		}
	}()
	if string(members["version"]) != "1" {
		return nil, broker.InvalidField("version", "the document's version is not %d", documentVersion)
	}
	known := 1
	for _, f := range fields() {
		raw, given := members[f.name]
		if !slices.Contains(f.kinds, kind) {
			continue
		}
		if !given {
			if slices.Contains(f.needs, kind) {
				return nil, broker.InvalidField(f.name, "is missing")
			}
			continue
		}
		known++
		if f.text != nil {
			err = json.Unmarshal(raw, f.text(d))
		} else {
			var o octets
			err = json.Unmarshal(raw, &o)
			*f.secret(d) = broker.NewSecret(o)
		}
		if err != nil || string(raw) == "null" {
			return nil, broker.InvalidField(f.name, "not a string")
		}
	}
	if known != len(members) {
		return nil, malformed
	}
	d.complete(kind)
	if err := d.check(kind); err != nil {
		return nil, err
	}
	return d, nil
}

// octets takes a JSON string without making a Go string of it, which could not
// be wiped.
type octets []byte

func (o *octets) UnmarshalText(text []byte) error {
	*o = bytes.Clone(text)
	return nil
}

func (d *Document) complete(kind broker.CredentialKind) {
	if d.Scope == "" {
		switch kind {
		case broker.KindOAuth2Client:
			d.Scope = DefaultClientScope
		case broker.KindGoogleServiceAccount:
			d.Scope = DefaultGoogleScope
		}
	}
	if d.ClientAuth == "" {
		d.ClientAuth = AuthPost
	}
}

// check holds a document against the grammar of RFC 6749, appendix A.
func (d *Document) check(kind broker.CredentialKind) error {
	if err := CheckURL("token_url", d.TokenURL); err != nil {
		return err
	}
	for _, text := range []struct{ name, value string }{
		{"id", d.ID}, {"client_id", d.ClientID}, {"private_key_id", d.PrivateKeyID}, {"scope", d.Scope},
	} {
		if len(text.value) > maxField || strings.ContainsFunc(text.value, notVSCHAR) {
			return broker.InvalidField(text.name, "too long, or not of visible ASCII")
		}
	}
	for _, secret := range []struct {
		name  string
		value broker.Secret
	}{{"client_secret", d.ClientSecret}, {"refresh_token", d.RefreshToken}} {
		if bytes.ContainsFunc(secret.value.Reveal(), notVSCHAR) {
			return broker.InvalidField(secret.name, "not of visible ASCII")
		}
	}
	if kind == broker.KindOAuth2Refresh && d.RefreshToken.Empty() {
		return broker.InvalidField("refresh_token", "is empty")
	}
	if d.ClientID == "" {
		return broker.InvalidField("client_id", "is empty")
	}
	if d.ClientAuth != AuthPost && d.ClientAuth != AuthBasic {
		return broker.InvalidField("client_auth", "must be %s or %s", AuthPost, AuthBasic)
	}
	return d.checkProof(kind)
}

// checkProof checks what proves who the client is: a secret or a key.
func (d *Document) checkProof(kind broker.CredentialKind) error {
	hasKey := !d.PrivateKey.Empty()
	switch {
	case hasKey && !d.ClientSecret.Empty():
		return broker.InvalidField("client_secret", "give either a secret or a key")
	case kind == broker.KindOAuth2Client && !hasKey && d.ClientSecret.Empty():
		return broker.InvalidField("client_secret", "a secret, or a certificate and its key, is needed")
	case kind != broker.KindGoogleServiceAccount && hasKey != (d.Certificate != ""):
		return broker.InvalidField("certificate", "a key needs its certificate, and a certificate its key")
	case !hasKey:
		return nil
	}
	key, err := d.key()
	if err != nil {
		return err
	}
	if kind == broker.KindGoogleServiceAccount {
		return nil
	}
	certificate, err := d.certificate()
	if err != nil {
		return err
	}
	if !key.PublicKey.Equal(certificate.PublicKey) {
		return broker.InvalidField("certificate", "is not the key's")
	}
	return nil
}

// minKeyBits is what issuers ask for.
const minKeyBits = 2048

func (d *Document) key() (*rsa.PrivateKey, error) {
	wrong := broker.InvalidField("private_key", "not an RSA key in PEM, of %d bits or more", minKeyBits)
	block, _ := pem.Decode(d.PrivateKey.Reveal())
	if block == nil {
		return nil, wrong
	}
	defer clear(block.Bytes)
	var key *rsa.PrivateKey
	if parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		key, _ = parsed.(*rsa.PrivateKey)
	} else if key, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
		return nil, wrong
	}
	if key == nil || key.N.BitLen() < minKeyBits {
		return nil, wrong
	}
	return key, nil
}

func (d *Document) certificate() (*x509.Certificate, error) {
	if block, _ := pem.Decode([]byte(d.Certificate)); block != nil && block.Type == "CERTIFICATE" {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			return c, nil
		}
	}
	return nil, broker.InvalidField("certificate", "not a certificate in PEM")
}

var errURL = errors.New("must be https://host/path")

// CheckURL checks the URL of an issuer's endpoint: https, a host, and neither
// user nor fragment (RFC 6749 §3.1, §3.2).
func CheckURL(name, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Opaque != "" ||
		len(text) > maxField || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return broker.InvalidField(name, "%v", errURL)
	}
	return nil
}

// notVSCHAR is the complement of RFC 6749's VSCHAR: visible ASCII and space.
func notVSCHAR(r rune) bool { return r < ' ' || r > '~' }

// Encode returns the document as JSON, which the caller wipes. It is built by
// hand: encoding/json would leave copies of the secrets in its buffers.
func (d *Document) Encode(kind broker.CredentialKind) []byte {
	size := len(`{"version":1}`)
	for _, f := range fields() {
		size += len(`,"":""`) + len(f.name) + 6*len(f.value(d)) // \u00xx at worst
	}
	b := append(make([]byte, 0, size), `{"version":1`...)
	for _, f := range fields() {
		if value := f.value(d); len(value) > 0 && slices.Contains(f.kinds, kind) {
			b = append(append(append(b, `,"`...), f.name...), `":"`...)
			b = append(appendEscaped(b, value), '"')
		}
	}
	return append(b, '}')
}

func (f *field) value(d *Document) []byte {
	if f.text != nil {
		return []byte(*f.text(d))
	}
	return f.secret(d).Reveal()
}

// appendEscaped appends UTF-8 as the inside of a JSON string (RFC 8259 §7).
func appendEscaped(b, text []byte) []byte {
	const hex = "0123456789abcdef"
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}

// host is the issuer's.
func (d *Document) host() string {
	u, err := url.Parse(d.TokenURL)
	if err != nil {
		return ""
	}
	return u.Host
}

// Wipe overwrites the secrets.
func (d *Document) Wipe() {
	d.ClientSecret.Wipe()
	d.PrivateKey.Wipe()
	d.RefreshToken.Wipe()
}

// clone returns a copy with secrets of its own.
func (d *Document) clone() *Document {
	c := *d
	for _, secret := range []*broker.Secret{&c.ClientSecret, &c.PrivateKey, &c.RefreshToken} {
		*secret = broker.NewSecret(bytes.Clone(secret.Reveal()))
	}
	return &c
}

// print is what tokens are kept by.
type print [sha256.Size]byte

// fingerprint tells credentials apart without holding one: all of a document,
// but for the refresh token where an ID names the consent, and for whom tokens
// are.
func (d *Document) fingerprint(key []byte, kind broker.CredentialKind, subject string) print {
	same := *d
	if d.ID != "" {
		same.RefreshToken = broker.Secret{}
	}
	encoded := same.Encode(kind)
	defer clear(encoded)
	h := hmac.New(sha256.New, key)
	for _, part := range [][]byte{[]byte(kind), []byte(subject)} {
		h.Write(part)
		h.Write([]byte{0}) // neither holds a NUL
	}
	h.Write(encoded)
	return print(h.Sum(nil))
}
