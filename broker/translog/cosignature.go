// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const (
	// algorithmCosignature is the signature type of timestamped Ed25519
	// cosignatures (C2SP tlog-cosignature).
	algorithmCosignature = 4
	privatePrefix        = "PRIVATE+KEY"
	// maxWitnessName bounds a witness's name, in octets.
	maxWitnessName = 200
	// maxClaim is the year 10000, which RFC 3339 cannot write.
	maxClaim = 253402300800
)

// errWitnessKey is of all that is no verifier key of a witness.
var errWitnessKey = errors.New("not a witness's verifier key (C2SP tlog-cosignature: NAME+HASH+KEY, of signature type 4): 'postern log witness-key new' makes one")

// WitnessKey verifies one witness's cosignatures. It is a note.Verifier.
type WitnessKey struct {
	name   string
	hash   uint32
	public ed25519.PublicKey
}

var _ note.Verifier = (*WitnessKey)(nil)

// ParseWitnessKey reads a verifier key of signature type 4.
func ParseWitnessKey(text string) (*WitnessKey, error) {
	name, hash, key, err := splitKey(strings.TrimSpace(text), ed25519.PublicKeySize)
	if err != nil {
		return nil, errWitnessKey
	}
	k := &WitnessKey{name: name, public: ed25519.PublicKey(key)}
	if k.hash = witnessHash(name, k.public); k.hash != hash {
		return nil, errWitnessKey
	}
	return k, nil
}

// splitKey reads NAME+HASH+KEY, where KEY is the signature type and size
// octets.
func splitKey(text string, size int) (name string, hash uint32, key []byte, err error) {
	name, rest, _ := strings.Cut(text, "+")
	hash16, key64, _ := strings.Cut(rest, "+")
	if err := checkWitnessName(name); err != nil {
		return "", 0, nil, err
	}
	h, err := strconv.ParseUint(hash16, 16, 32)
	if err != nil || len(hash16) != 8 {
		return "", 0, nil, errWitnessKey
	}
	key, err = base64.StdEncoding.Strict().DecodeString(key64)
	if err != nil || len(key) != 1+size || key[0] != algorithmCosignature {
		return "", 0, nil, errWitnessKey
	}
	return name, uint32(h), key[1:], nil
}

// checkWitnessName wants what signed-note allows as a key's name, in ASCII.
func checkWitnessName(name string) error {
	if name == "" || len(name) > maxWitnessName || strings.HasPrefix(name, originPrefix) ||
		strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '+' }) {
		return fmt.Errorf("a witness's name is like a host and a path, without spaces and plus signs, such as witness.acme.example/log: %q is not", name)
	}
	return nil
}

func witnessHash(name string, public ed25519.PublicKey) uint32 {
	sum := sha256.Sum256(append(append([]byte(name+"\n"), algorithmCosignature), public...))
	return binary.BigEndian.Uint32(sum[:])
}

// Name is the witness's.
func (k *WitnessKey) Name() string { return k.name }

// KeyHash is the key's id.
func (k *WitnessKey) KeyHash() uint32 { return k.hash }

// Is reports whether it is the same key under whatever name.
func (k *WitnessKey) Is(other ed25519.PublicKey) bool { return k.public.Equal(other) }

func (k *WitnessKey) String() string {
	return encodeKey(k.name, k.hash, k.public)
}

// PublicKey returns the key in a log's verifier key.
func PublicKey(verifierKey string) (ed25519.PublicKey, error) {
	parts := strings.SplitN(verifierKey, "+", 3)
	if _, err := note.NewVerifier(verifierKey); err != nil || len(parts) != 3 {
		return nil, fmt.Errorf("%q is not a log's key", verifierKey)
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize {
		return nil, fmt.Errorf("%q is not a log's key", verifierKey)
	}
	return key[1:], nil
}

func encodeKey(name string, hash uint32, key []byte) string {
	return fmt.Sprintf("%s+%08x+%s", name, hash, base64.StdEncoding.EncodeToString(append([]byte{algorithmCosignature}, key...)))
}

// Verify reports whether sig, a time and a signature, is the witness's on a
// note's text.
func (k *WitnessKey) Verify(text, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	return ed25519.Verify(k.public, cosigned(text, binary.BigEndian.Uint64(sig)), sig[8:])
}

// cosigned is what a witness signs: when, and the checkpoint.
func cosigned(text []byte, at uint64) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", at), text...)
}

// Cosignature returns when the witness has cosigned a checkpoint. The error says
// that it has not, or that the note is none.
func (k *WitnessKey) Cosignature(signed []byte) (time.Time, error) {
	if len(signed) > MaxCheckpoint {
		return time.Time{}, errors.New("too long for a checkpoint")
	}
	n, err := note.Open(signed, note.VerifierList(k))
	if err != nil {
		return time.Time{}, fmt.Errorf("the witness %s has not cosigned it: %w", k.name, err)
	}
	// note.Open has verified it, so that it has a time.
	raw, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC(), nil
}

// WitnessSigner cosigns as one witness.
type WitnessSigner struct {
	key     *WitnessKey
	private ed25519.PrivateKey
}

// NewWitnessSigner makes a witness's key, out of 32 octets of random.
func NewWitnessSigner(name string, random io.Reader) (*WitnessSigner, error) {
	if err := checkWitnessName(name); err != nil {
		return nil, err
	}
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, err
	}
	return newWitnessSigner(name, seed), nil
}

func newWitnessSigner(name string, seed []byte) *WitnessSigner {
	private := ed25519.NewKeyFromSeed(seed)
	public := private.Public().(ed25519.PublicKey)
	return &WitnessSigner{&WitnessKey{name, witnessHash(name, public), public}, private}
}

// ParseWitnessSigner reads what Secret returns.
func ParseWitnessSigner(text string) (*WitnessSigner, error) {
	rest, ok := strings.CutPrefix(text, privatePrefix+"+")
	if !ok {
		return nil, errors.New("not a witness's secret key")
	}
	name, hash, seed, err := splitKey(rest, ed25519.SeedSize)
	if err != nil {
		return nil, errors.New("not a witness's secret key")
	}
	defer clear(seed)
	s := newWitnessSigner(name, seed)
	if s.key.hash != hash {
		return nil, errors.New("not a witness's secret key")
	}
	return s, nil
}

// Secret is the key in the form of signed-note's secret keys.
func (s *WitnessSigner) Secret() string {
	return privatePrefix + "+" + encodeKey(s.key.name, s.key.hash, s.private.Seed())
}

// Key is the public half.
func (s *WitnessSigner) Key() *WitnessKey { return s.key }

// Cosign adds the witness's cosignature to a signed checkpoint, which the caller
// has found to follow from all that the witness has cosigned before.
func (s *WitnessSigner) Cosign(signed []byte, at time.Time) ([]byte, error) {
	n, err := read(signed)
	if err != nil {
		return nil, err
	}
	if at.Unix() <= 0 {
		return nil, errors.New("the clock is wrong: it is before 1970")
	}
	return note.Sign(n, timedSigner{s, uint64(at.Unix())})
}

// timedSigner is a note.Signer at one time.
type timedSigner struct {
	*WitnessSigner
	at uint64
}

func (t timedSigner) Name() string    { return t.key.name }
func (t timedSigner) KeyHash() uint32 { return t.key.hash }

func (t timedSigner) Sign(text []byte) ([]byte, error) {
	return append(binary.BigEndian.AppendUint64(nil, t.at), ed25519.Sign(t.private, cosigned(text, t.at))...), nil
}

// read parses a note without believing any of its signatures.
func read(signed []byte) (*note.Note, error) {
	if len(signed) > MaxCheckpoint {
		return nil, errors.New("too long for a checkpoint")
	}
	var unverified *note.UnverifiedNoteError
	if _, err := note.Open(signed, note.VerifierList()); !errors.As(err, &unverified) {
		return nil, fmt.Errorf("not a checkpoint: %w", err)
	}
	return unverified.Note, nil
}

// Only returns a checkpoint with those of its signatures alone that the log's
// keys and the witness have made.
func (k *Keys) Only(signed []byte, witness *WitnessKey) ([]byte, error) {
	if len(signed) > MaxCheckpoint {
		return nil, errors.New("too long for a checkpoint")
	}
	n, err := note.Open(signed, note.VerifierList(append(slices.Clone(k.list), witness)...))
	if err != nil {
		return nil, err
	}
	n.UnverifiedSigs = nil
	return note.Sign(n)
}

// Merge returns a checkpoint with its own signatures and those that others of
// the same text have.
func Merge(signed []byte, others ...[]byte) ([]byte, error) {
	n, err := read(signed)
	if err != nil {
		return nil, err
	}
	for _, other := range others {
		o, err := read(other)
		if err != nil {
			return nil, err
		}
		if o.Text != n.Text {
			continue
		}
		for _, sig := range o.UnverifiedSigs {
			if !slices.ContainsFunc(n.UnverifiedSigs, func(s note.Signature) bool { return s.Name == sig.Name && s.Hash == sig.Hash }) {
				n.UnverifiedSigs = append(n.UnverifiedSigs, sig)
			}
		}
	}
	return note.Sign(n)
}

// Claim is what a signature of a checkpoint says of itself: who has cosigned it, and
// when. Nobody has verified it.
type Claim struct {
	Name string
	Hash uint32
	At   time.Time
}

// Claims returns those of a checkpoint's signatures that have a cosignature's form.
func Claims(signed []byte) ([]Claim, error) {
	n, err := read(signed)
	if err != nil {
		return nil, err
	}
	var all []Claim
	for _, s := range n.UnverifiedSigs {
		// The key's hash, a time and a signature.
		raw, err := base64.StdEncoding.DecodeString(s.Base64)
		if err != nil || len(raw) != 4+8+ed25519.SignatureSize {
			continue
		}
		again := slices.ContainsFunc(all, func(c Claim) bool { return c.Name == s.Name && c.Hash == s.Hash })
		if at := binary.BigEndian.Uint64(raw[4:]); at < maxClaim && !again {
			all = append(all, Claim{s.Name, s.Hash, time.Unix(int64(at), 0).UTC()})
		}
	}
	return all, nil
}
