// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/postern-mail/postern/broker"
)

// lifetime is how long a challenge may be answered. A TPM takes a second or two.
const lifetime = 10 * time.Minute

// maxKey and maxEndorsement bound what is parsed, in octets.
const (
	maxKey         = 1 << 10
	maxEndorsement = 16 << 10
)

// Config is a Verifier's. Key is the server's own, of which another is derived.
type Config struct {
	Key broker.Secret
	// Makers are the CAs that certify endorsement keys: roots, or whichever
	// below them issue. Nil: none is trusted.
	Makers *x509.CertPool
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Verifier checks keys that are said to be in a TPM. Its methods may be called
// from any goroutine.
type Verifier struct {
	key    []byte
	makers *x509.CertPool
	now    func() time.Time
}

// New keeps no reference to the config's key.
func New(c Config) (*Verifier, error) {
	if c.Key.Empty() {
		return nil, errors.New("attest: Config.Key is empty")
	}
	key, err := hkdf.Key(sha256.New, c.Key.Reveal(), nil, "postern tpm challenge", sha256.Size)
	if err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Verifier{key, c.Makers, c.Now}, nil
}

// TrustsMakers reports whether a maker's certificate can prove a TPM.
func (v *Verifier) TrustsMakers() bool { return v.makers != nil }

// Challenge makes what the TPM that e names can answer, for code, with the key
// that the request is signed with. pinned is the TPM that it must be; empty: one
// whose maker is trusted. The error is Invalid, or Refused when the TPM is
// another or nobody's.
func (v *Verifier) Challenge(code []byte, pinned string, k *broker.TPMKey) (*broker.TPMChallenge, error) {
	c, err := v.check(pinned, k)
	if err != nil {
		return nil, err
	}
	expires := v.now().Add(lifetime).UTC().Truncate(time.Second)
	// The endorsement key's own template is the TCG's: with another it has other
	// names for its algorithms, and cannot decrypt this.
	to, err := tpm2.ImportEncapsulationKey(c.endorsement)
	if err != nil {
		return nil, broker.InvalidField("endorsement_key", "cannot be encrypted to").WithCause(err)
	}
	blob, sealed, err := tpm2.CreateCredential(rand.Reader, to, c.name, v.secret(code, k, expires))
	if err != nil {
		return nil, broker.InvalidField("endorsement_key", "cannot be encrypted to").WithCause(err)
	}
	return &broker.TPMChallenge{CredentialBlob: blob, EncryptedSecret: sealed, ExpiresAt: expires}, nil
}

// Verify checks the answer to a challenge for code, and that the key is public,
// a SubjectPublicKeyInfo in DER. It returns the TPM's fingerprint. The error is
// Invalid, or Refused when nothing is proved.
func (v *Verifier) Verify(code []byte, pinned string, public []byte, a *broker.TPMAnswer) (tpm string, err error) {
	c, err := v.check(pinned, &a.TPMKey)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(c.public, public) {
		return "", broker.Errorf(broker.Refused, "the key in the TPM is not the one that the request is for")
	}
	now := v.now()
	if expires := a.ExpiresAt; !now.Before(expires) || expires.After(now.Add(lifetime)) {
		return "", broker.Errorf(broker.Refused, "the TPM's answer came too late: try again")
	}
	if subtle.ConstantTimeCompare(v.secret(code, &a.TPMKey, a.ExpiresAt), a.Answer) != 1 {
		return "", broker.Errorf(broker.Refused, "the TPM's answer is not the right one")
	}
	return c.fingerprint, nil
}

// secret is what the TPM has to tell: a MAC of what it proves.
func (v *Verifier) secret(code []byte, k *broker.TPMKey, expires time.Time) []byte {
	mac := hmac.New(sha256.New, v.key)
	var length [8]byte
	for _, part := range [][]byte{code, k.Key, k.EndorsementKey} {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		mac.Write(length[:])
		mac.Write(part)
	}
	binary.BigEndian.PutUint64(length[:], uint64(expires.Unix()))
	mac.Write(length[:])
	return mac.Sum(nil)
}

// checked is a key that may be in a TPM, and that TPM.
type checked struct {
	endorsement *tpm2.TPMTPublic
	fingerprint string
	// name is the key's, public its SubjectPublicKeyInfo in DER.
	name, public []byte
}

func (v *Verifier) check(pinned string, k *broker.TPMKey) (*checked, error) {
	if len(k.EndorsementKey)+len(k.EndorsementCertificate) > maxEndorsement {
		return nil, broker.InvalidField("endorsement_key", "too long, with its certificate")
	}
	c := &checked{fingerprint: broker.TPMFingerprint(k.EndorsementKey)}
	var err error
	if c.endorsement, err = endorsementKey(k.EndorsementKey); err != nil {
		return nil, err
	}
	switch {
	case pinned != "":
		if c.fingerprint != pinned {
			return nil, broker.Errorf(broker.Refused, "the code is for a machine with another TPM: this one's is %s", c.fingerprint)
		}
	case v.makers == nil:
		return nil, broker.Errorf(broker.Refused, "the server trusts no maker of TPMs, and the code names no TPM")
	default:
		if err := v.certified(k); err != nil {
			return nil, err
		}
	}
	c.name, c.public, err = workstationKey(k.Key)
	return c, err
}

// workstationKey reads a TPM2B_PUBLIC, and returns its name and its key.
func workstationKey(area []byte) (name, public []byte, err error) {
	invalid := func(format string, args ...any) ([]byte, []byte, error) {
		return nil, nil, broker.InvalidField("key", format, args...)
	}
	if len(area) > maxKey {
		return invalid("too long")
	}
	parsed, err := tpm2.Unmarshal[tpm2.TPM2BPublic](area)
	if err != nil {
		return invalid("not a TPM2B_PUBLIC")
	}
	p, err := parsed.Contents()
	if err != nil || !bytes.Equal(tpm2.Marshal(tpm2.New2B(*p)), area) {
		return invalid("not a TPM2B_PUBLIC")
	}
	// What the name vouches for. A policy could let others use the key; a
	// restricted one signs nothing of TLS's.
	if a := p.ObjectAttributes; !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.SignEncrypt ||
		a.Restricted || a.Decrypt || a.AdminWithPolicy || a.EncryptedDuplication || len(p.AuthPolicy.Buffer) > 0 {
		return invalid("it could leave the TPM, or was not made there, or does not sign")
	}
	if p.Type != tpm2.TPMAlgECC || p.NameAlg != tpm2.TPMAlgSHA256 {
		return invalid("not an elliptic-curve key named by SHA-256")
	}
	key, err := tpm2.Pub(*p)
	if err != nil {
		return invalid("cannot be read")
	}
	ec, ok := key.(*ecdsa.PublicKey)
	if !ok || ec.Curve != elliptic.P256() {
		return invalid("not of P-256")
	}
	if _, err := ec.ECDH(); err != nil { // not on the curve
		return invalid("not of P-256")
	}
	if public, err = x509.MarshalPKIXPublicKey(ec); err != nil {
		return invalid("cannot be read")
	}
	n, err := tpm2.ObjectName(p)
	if err != nil {
		return invalid("has no name")
	}
	return n.Buffer, public, nil
}
