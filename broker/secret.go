// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"go.uber.org/zap/zapcore"
)

const redacted = "[redacted]"

// Secret is an octet string that must not be shown: its String, GoString,
// JSON, text and zap forms are all redacted. Go and the TLS stack may have
// copied it, so Wipe narrows exposure and does not end it.
type Secret struct{ b []byte }

// NewSecret takes ownership of b.
func NewSecret(b []byte) Secret { return Secret{b} }

// Reveal returns the octets, not a copy. Call it where the secret goes onto
// a wire or into a hash, and keep no reference.
func (s Secret) Reveal() []byte { return s.b }

// Empty reports whether there is nothing in it.
func (s Secret) Empty() bool { return len(s.b) == 0 }

// Wipe overwrites the octets.
func (s Secret) Wipe() { clear(s.b) }

// String is redacted.
func (Secret) String() string { return redacted }

// GoString is redacted.
func (Secret) GoString() string { return redacted }

// MarshalText is redacted; it serves JSON and YAML too.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalLogObject is redacted.
func (Secret) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("secret", redacted)
	return nil
}
