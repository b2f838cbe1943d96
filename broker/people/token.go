// SPDX-License-Identifier: Apache-2.0

package people

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// What tokens begin with, so that people and secret scanners know them.
const (
	APIPrefix       = "postern_api_"
	ClaimPrefix     = "postern_claim_"
	EnrolmentPrefix = "postern_enrol_"
)

const (
	// tokenSize is a token's randomness in octets.
	tokenSize     = 32
	tokenAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
)

// Tokens makes and recognises tokens of one kind.
type Tokens struct {
	prefix string
	key    []byte
}

// NewAPITokens, NewClaims and NewEnrolmentCodes derive their own keys from the server's, which is
// the app passwords'. They keep no reference to it.
func NewAPITokens(key broker.Secret) (*Tokens, error) {
	return newTokens(key, APIPrefix, "postern api token")
}

// NewClaims is described at NewAPITokens.
func NewClaims(key broker.Secret) (*Tokens, error) {
	return newTokens(key, ClaimPrefix, "postern claim")
}

// NewEnrolmentCodes is described at NewAPITokens.
func NewEnrolmentCodes(key broker.Secret) (*Tokens, error) {
	return newTokens(key, EnrolmentPrefix, "postern enrolment code")
}

func newTokens(key broker.Secret, prefix, purpose string) (*Tokens, error) {
	if key.Empty() {
		return nil, fmt.Errorf("people: the key of the tokens is empty")
	}
	derived, err := hkdf.Key(sha256.New, key.Reveal(), nil, purpose, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("people: %w", err)
	}
	return &Tokens{prefix, derived}, nil
}

// New returns a token as it is shown, once, and its hash, which is kept.
func (t *Tokens) New() (token string, hash []byte) {
	var raw [tokenSize]byte
	rand.Read(raw[:]) // it never fails (crypto/rand)
	defer clear(raw[:])
	token = t.prefix + t.encoding().EncodeToString(raw[:])
	return token, t.hash(raw[:])
}

// Hash returns a token's hash; ok is false for what New never returns.
func (t *Tokens) Hash(token string) (hash []byte, ok bool) {
	symbols, ok := strings.CutPrefix(strings.TrimSpace(token), t.prefix)
	if !ok {
		return nil, false
	}
	raw, err := t.encoding().DecodeString(symbols)
	if err != nil || len(raw) != tokenSize || t.encoding().EncodeToString(raw) != symbols {
		return nil, false
	}
	defer clear(raw)
	return t.hash(raw), true
}

func (*Tokens) encoding() *base32.Encoding {
	return base32.NewEncoding(tokenAlphabet).WithPadding(base32.NoPadding)
}

func (t *Tokens) hash(raw []byte) []byte {
	mac := hmac.New(sha256.New, t.key)
	mac.Write(raw)
	return mac.Sum(nil)
}
