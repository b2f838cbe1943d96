// SPDX-License-Identifier: Apache-2.0

package tpmkey

import (
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// The blocks of a key's file.
const (
	publicBlock  = "POSTERN TPM PUBLIC KEY"
	privateBlock = "POSTERN TPM WRAPPED KEY"
)

// Opener connects to a TPM.
type Opener func() (transport.TPMCloser, error)

// Key is an ECDSA P-256 key in a TPM. Its methods may be called from any
// goroutine; signatures are made one at a time.
type Key struct {
	open    Opener
	public  *ecdsa.PublicKey
	area    tpm2.TPM2BPublic
	wrapped tpm2.TPM2BPrivate

	mu sync.Mutex
}

var _ crypto.Signer = (*Key)(nil)

// Create makes a key in the TPM, and returns it with what is to be kept in a
// file.
func Create(open Opener) (*Key, []byte, error) {
	t, err := open()
	if err != nil {
		return nil, nil, fmt.Errorf("the TPM: %w", err)
	}
	defer t.Close()
	root, err := storageRoot(t)
	if err != nil {
		return nil, nil, err
	}
	defer flush(t, root.ObjectHandle)
	made, err := tpm2.Create{ParentHandle: parent(root), InPublic: tpm2.New2B(template())}.Execute(t)
	if err != nil {
		return nil, nil, fmt.Errorf("the TPM makes no key: %w", err)
	}
	k, err := newKey(open, made.OutPublic, made.OutPrivate)
	if err != nil {
		return nil, nil, err
	}
	kept := pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: tpm2.Marshal(k.area)})
	return k, append(kept, pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: tpm2.Marshal(k.wrapped)})...), nil
}

// Is reports whether a file holds a key of this package.
func Is(kept []byte) bool {
	block, _ := pem.Decode(kept)
	return block != nil && block.Type == publicBlock
}

// Load reads what Create returned.
func Load(open Opener, kept []byte) (*Key, error) {
	first, rest := pem.Decode(kept)
	if first == nil || first.Type != publicBlock {
		return nil, errors.New("not a key of a TPM")
	}
	second, _ := pem.Decode(rest)
	if second == nil || second.Type != privateBlock {
		return nil, errors.New("not a whole key of a TPM")
	}
	area, err := tpm2.Unmarshal[tpm2.TPM2BPublic](first.Bytes)
	if err != nil {
		return nil, fmt.Errorf("a key of a TPM: %w", err)
	}
	wrapped, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](second.Bytes)
	if err != nil {
		return nil, fmt.Errorf("a key of a TPM: %w", err)
	}
	return newKey(open, *area, *wrapped)
}

func newKey(open Opener, area tpm2.TPM2BPublic, wrapped tpm2.TPM2BPrivate) (*Key, error) {
	contents, err := area.Contents()
	if err != nil {
		return nil, fmt.Errorf("a key of a TPM: %w", err)
	}
	public, err := tpm2.Pub(*contents)
	if err != nil {
		return nil, fmt.Errorf("a key of a TPM: %w", err)
	}
	ec, ok := public.(*ecdsa.PublicKey)
	if !ok || ec.Curve.Params().BitSize != 256 {
		return nil, errors.New("a key of a TPM that is not of P-256")
	}
	return &Key{open: open, public: ec, area: area, wrapped: wrapped}, nil
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign has the TPM sign a SHA-256 digest. The TPM's own randomness is used.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, errors.New("a TPM key signs SHA-256 alone")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	// Nothing stays loaded: the TPM has room for few keys, and forgets them
	// when the machine sleeps.
	t, err := k.open()
	if err != nil {
		return nil, fmt.Errorf("the TPM: %w", err)
	}
	defer t.Close()
	var signed *tpm2.SignResponse
	err = k.loaded(t, func(key tpm2.NamedHandle) (err error) {
		signed, err = tpm2.Sign{
			KeyHandle:  key,
			Digest:     tpm2.TPM2BDigest{Buffer: digest},
			InScheme:   scheme(),
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
		}.Execute(t)
		if err != nil {
			return fmt.Errorf("the TPM does not sign: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s, err := signed.Signature.Signature.ECDSA()
	if err != nil {
		return nil, fmt.Errorf("the TPM's signature: %w", err)
	}
	return asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer),
	})
}

// loaded calls use while the key is loaded.
func (k *Key) loaded(t transport.TPM, use func(tpm2.NamedHandle) error) error {
	root, err := storageRoot(t)
	if err != nil {
		return err
	}
	// Before anything else is loaded: a TPM has room for three or so.
	loaded, err := tpm2.Load{ParentHandle: parent(root), InPrivate: k.wrapped, InPublic: k.area}.Execute(t)
	flush(t, root.ObjectHandle)
	if err != nil {
		return fmt.Errorf("the key is not this TPM's: %w", err)
	}
	defer flush(t, loaded.ObjectHandle)
	return use(tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name})
}

// storageRoot makes the storage root key, which is the same each time while
// nobody clears the TPM.
func storageRoot(t transport.TPM) (*tpm2.CreatePrimaryResponse, error) {
	root, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("the TPM's storage root key: %w", err)
	}
	return root, nil
}

func parent(root *tpm2.CreatePrimaryResponse) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: root.ObjectHandle, Name: root.Name, Auth: tpm2.PasswordAuth(nil)}
}

// flush frees a key's place. A resource manager does it at the connection's end
// as well.
func flush(t transport.TPM, handle tpm2.TPMHandle) {
	_, _ = tpm2.FlushContext{FlushHandle: handle}.Execute(t)
}

func scheme() tpm2.TPMTSigScheme {
	return tpm2.TPMTSigScheme{
		Scheme:  tpm2.TPMAlgECDSA,
		Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
	}
}

// template is a key that never leaves the TPM, and signs.
func template() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, NoDA: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
		}),
	}
}
