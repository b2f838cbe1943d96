// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// Limits of a stored credential, in octets. The secret's leaves room for the
// longest access tokens.
const (
	MaxSecret   = 64 << 10
	MaxUsername = 1024
)

// CredentialKind is how a credential opens a mailbox upstream.
type CredentialKind string

// The kinds.
const (
	// KindPassword logs in with SASL PLAIN or LOGIN, or IMAP LOGIN.
	KindPassword CredentialKind = "password"
	// KindAccessToken logs in with OAUTHBEARER (RFC 7628) or XOAUTH2, by what
	// the upstream offers.
	KindAccessToken CredentialKind = "access-token"
	// The kinds from which access tokens are minted: their secret is a JSON
	// object that broker/oauth describes.
	//
	// KindOAuth2Client is the client credentials grant (RFC 6749 §4.4).
	KindOAuth2Client CredentialKind = "oauth2-client"
	// KindOAuth2Refresh is a refresh token of a consent that a person gave.
	KindOAuth2Refresh CredentialKind = "oauth2-refresh"
	// KindGoogleServiceAccount is a signed assertion for the mailbox (RFC 7523).
	KindGoogleServiceAccount CredentialKind = "google-service-account"
)

// MintsTokens reports whether access tokens are minted from credentials of
// this kind: no login can carry them as they are.
func (k CredentialKind) MintsTokens() bool {
	return k == KindOAuth2Client || k == KindOAuth2Refresh || k == KindGoogleServiceAccount
}

// Credential is what opens a mailbox upstream. It is never shown to anyone.
type Credential struct {
	Kind CredentialKind
	// Username is the upstream's login name; empty: the mailbox's.
	Username string
	// Secret is the password, the access token, or the JSON object of a kind
	// that mints tokens.
	Secret Secret
	// Version is the storage's, for check-and-set; 0: not stored yet.
	Version int
}

// Validate reports what keeps c from being stored, since no login could carry
// it: an unknown kind, no secret, one over MaxSecret, a password with a NUL, an
// access token with anything but visible ASCII, no JSON object where the kind
// wants one, or a login name over MaxUsername or with a control character in
// it. The error is Invalid and holds no part of c.
func (c *Credential) Validate() error {
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	// An octet that is not ASCII is at least 0x80 or, as no UTF-8, U+FFFD.
	notVisible := func(r rune) bool { return r <= ' ' || r >= 0x7f }
	switch secret := c.Secret.Reveal(); {
	case c.Kind != KindPassword && c.Kind != KindAccessToken && !c.Kind.MintsTokens():
		return InvalidField("kind", "not a kind of credential: use %s, %s, %s, %s or %s",
			KindPassword, KindAccessToken, KindOAuth2Client, KindOAuth2Refresh, KindGoogleServiceAccount)
	case len(secret) == 0:
		return InvalidField("secret", "the secret is empty")
	case len(secret) > MaxSecret:
		return InvalidField("secret", "the secret is longer than %d octets", MaxSecret)
	case c.Kind == KindPassword && bytes.IndexByte(secret, 0) >= 0:
		// It separates the parts of SASL PLAIN (RFC 4616 §2), and no IMAP string
		// holds one (RFC 9051 §9).
		return InvalidField("secret", "the password holds a NUL, which no login can carry")
	case c.Kind == KindAccessToken && bytes.ContainsFunc(secret, notVisible):
		// RFC 6750 §2.1. XOAUTH2 and OAUTHBEARER end a field with control-A
		// (RFC 7628 §3.1): a token that held one could add fields.
		return InvalidField("secret", "the access token holds a space, a line end, or something else that no token has")
	case c.Kind.MintsTokens() && (secret[0] != '{' || !json.Valid(secret)):
		return InvalidField("secret", "a credential of this kind is a JSON object")
	case len(c.Username) > MaxUsername, !utf8.ValidString(c.Username), strings.ContainsFunc(c.Username, control):
		return InvalidField("username", "the login name is too long, not UTF-8, or holds a control character")
	}
	return nil
}

// Credentials keeps credentials: broker/vault and broker/sealed.
//
// Errors, for all methods: NotFound when there is none, Unavailable when the
// storage is down, sealed, slow or refuses Postern's own identity, Invalid
// when what is stored cannot be understood, Internal otherwise. No error
// holds any part of a credential.
type Credentials interface {
	// Credential returns a fresh copy, which the caller wipes.
	Credential(ctx context.Context, firm, mailbox ID) (*Credential, error)
	// SetCredential stores c if the stored version is still c.Version (0:
	// none is stored) and returns the new version; else the error is Conflict.
	SetCredential(ctx context.Context, firm, mailbox ID, c *Credential) (int, error)
	// CredentialVersion returns the version stored, 0 if none, without reading
	// the credential.
	CredentialVersion(ctx context.Context, firm, mailbox ID) (int, error)
	// DeleteCredential removes every version; deleting nothing is no error.
	DeleteCredential(ctx context.Context, firm, mailbox ID) error
	// Ready reports whether a credential could be read now; for health checks.
	Ready(ctx context.Context) error
}
