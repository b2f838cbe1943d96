// SPDX-License-Identifier: Apache-2.0

package session

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// A token has 160 random bits. It is shown as eight groups of four symbols
// joined by hyphens, in Crockford's base 32, which leaves out i, l, o and u so
// that it can be read aloud and typed:
//
//	7k3m-q0vz-9xah-2d4e-r8tn-5cjw-b6py-1fgs
//
// It is read in any case, with or without spaces and hyphens; i and l are read
// as 1, o as 0.
const (
	tokenSize     = 20
	tokenSymbols  = tokenSize * 8 / 5
	tokenGroup    = 4
	tokenAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
)

// tokens makes app passwords and their keyed hashes.
type tokens struct{ key broker.Secret }

func newTokens(key broker.Secret) tokens {
	// A copy: whoever gave the key may wipe it.
	return tokens{broker.NewSecret(append([]byte(nil), key.Reveal()...))}
}

// NewToken returns a new app password as the agent types it, to be shown once,
// and its keyed hash, which is all that is stored. The error is always nil.
func (m *Manager) NewToken() (display string, hash []byte, err error) {
	var raw [tokenSize]byte
	rand.Read(raw[:]) // it never fails (crypto/rand)
	defer clear(raw[:])
	symbols := base32.NewEncoding(tokenAlphabet).EncodeToString(raw[:])
	var b strings.Builder
	for i := 0; i < len(symbols); i += tokenGroup {
		if i > 0 {
			b.WriteByte('-')
		}
		b.WriteString(symbols[i : i+tokenGroup])
	}
	return b.String(), m.tokens.hash(raw[:]), nil
}

// TokenHash returns the HMAC-SHA-256 of an app password as an agent typed it.
// For what is not a token it returns a hash that no token has.
func (m *Manager) TokenHash(token []byte) []byte {
	raw, ok := parseToken(token)
	defer clear(raw[:])
	if !ok {
		// No token is empty: this hash belongs to none, and took as long.
		return m.tokens.hash(nil)
	}
	return m.tokens.hash(raw[:])
}

func (t tokens) hash(raw []byte) []byte {
	mac := hmac.New(sha256.New, t.key.Reveal())
	mac.Write(raw)
	return mac.Sum(nil)
}

// sameHash compares in constant time.
func sameHash(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// parseToken reads what NewToken shows, as leniently as is said there.
func parseToken(typed []byte) (raw [tokenSize]byte, ok bool) {
	var bits uint
	var held uint
	n, symbols := 0, 0
	for _, c := range typed {
		if c == ' ' || c == '-' || c == '\t' {
			continue
		}
		value := symbolValue(c)
		if value < 0 || symbols == tokenSymbols {
			clear(raw[:])
			return raw, false
		}
		symbols++
		held, bits = held<<5|uint(value), bits+5
		if bits >= 8 {
			bits -= 8
			raw[n] = byte(held >> bits)
			n++
		}
	}
	return raw, symbols == tokenSymbols
}

// symbolValue returns what a symbol stands for, or -1.
func symbolValue(c byte) int {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	switch c {
	case 'i', 'l':
		c = '1'
	case 'o':
		c = '0'
	}
	return strings.IndexByte(tokenAlphabet, c)
}
