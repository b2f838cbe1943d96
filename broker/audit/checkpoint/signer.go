// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"

	"golang.org/x/mod/sumdb/note"

	"github.com/postern-mail/postern/broker/translog"
)

// Signer signs with one Ed25519 key: a local one, or Vault's.
type Signer interface {
	// PublicKey returns the key's public half.
	PublicKey(ctx context.Context) (ed25519.PublicKey, error)
	// Sign signs message. An error is an outage.
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// Local is a key in this process.
type Local struct{ key ed25519.PrivateKey }

// NewLocal makes the key that a seed of 32 octets stands for.
func NewLocal(seed []byte) *Local { return &Local{ed25519.NewKeyFromSeed(seed)} }

// PublicKey returns the key's public half.
func (l *Local) PublicKey(context.Context) (ed25519.PublicKey, error) {
	return l.key.Public().(ed25519.PublicKey), nil
}

// Sign signs message.
func (l *Local) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(l.key, message), nil
}

// algorithmEd25519 identifies keys of notes (C2SP signed-note).
const algorithmEd25519 = 1

// noteSigner is a Signer as one log's key, within one context.
type noteSigner struct {
	ctx    context.Context
	signer Signer
	name   string
	hash   uint32
}

func newNoteSigner(ctx context.Context, s Signer, origin translog.Origin) (*noteSigner, error) {
	public, err := s.PublicKey(ctx)
	if err != nil {
		return nil, err
	}
	name := origin.String()
	sum := sha256.Sum256(append(append([]byte(name+"\n"), algorithmEd25519), public...))
	return &noteSigner{ctx, s, name, binary.BigEndian.Uint32(sum[:])}, nil
}

func (n *noteSigner) Name() string    { return n.name }
func (n *noteSigner) KeyHash() uint32 { return n.hash }

func (n *noteSigner) Sign(message []byte) ([]byte, error) { return n.signer.Sign(n.ctx, message) }

// verifierKey is the key that verifies what s signs for a log.
func verifierKey(ctx context.Context, s Signer, origin translog.Origin) (string, error) {
	public, err := s.PublicKey(ctx)
	if err != nil {
		return "", err
	}
	return note.NewEd25519VerifierKey(origin.String(), public)
}
