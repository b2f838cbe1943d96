// SPDX-License-Identifier: Apache-2.0

package tpmkey

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Where a TPM keeps its maker's certificates (TCG EK Credential Profile §2.2.1.4).
const (
	rsaCertificate tpm2.TPMHandle = 0x01c00002
	eccCertificate tpm2.TPMHandle = 0x01c0000a
)

// maxCertificate and readSize bound what is read of one, in octets: in all and
// at once.
const (
	maxCertificate = 8 << 10
	readSize       = 512
)

// Endorsement is what a TPM is known by.
type Endorsement struct {
	// Key is its endorsement key, a SubjectPublicKeyInfo in DER; Certificate its
	// maker's for it, in DER; nil: it holds none.
	Key, Certificate []byte

	template tpm2.TPMTPublic
}

// Endorse asks a TPM who it is.
func Endorse(open Opener) (*Endorsement, error) {
	t, err := open()
	if err != nil {
		return nil, fmt.Errorf("the TPM: %w", err)
	}
	defer t.Close()
	// The kind of key that a certificate is for; without one, RSA as all have it.
	e := &Endorsement{template: tpm2.RSAEKTemplate}
	for _, kind := range []struct {
		index    tpm2.TPMHandle
		template tpm2.TPMTPublic
	}{{rsaCertificate, tpm2.RSAEKTemplate}, {eccCertificate, tpm2.ECCEKTemplate}} {
		if e.Certificate = certificateAt(t, kind.index); e.Certificate != nil {
			e.template = kind.template
			break
		}
	}
	made, err := e.root(t)
	if err != nil {
		return nil, err
	}
	defer flush(t, made.ObjectHandle)
	public, err := made.OutPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("the TPM's endorsement key: %w", err)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		return nil, fmt.Errorf("the TPM's endorsement key: %w", err)
	}
	if e.Key, err = x509.MarshalPKIXPublicKey(key); err != nil {
		return nil, fmt.Errorf("the TPM's endorsement key: %w", err)
	}
	return e, nil
}

// root makes the endorsement key, which is the same each time.
func (e *Endorsement) root(t transport.TPM) (*tpm2.CreatePrimaryResponse, error) {
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(e.template)}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("the TPM's endorsement key: %w", err)
	}
	return made, nil
}

// certificateAt reads a certificate from a TPM's own memory; nil: there is none
// that can be read.
func certificateAt(t transport.TPM, index tpm2.TPMHandle) []byte {
	place, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	if err != nil {
		return nil
	}
	public, err := place.NVPublic.Contents()
	if err != nil || public.DataSize > maxCertificate {
		return nil
	}
	var read []byte
	for len(read) < int(public.DataSize) {
		part, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index, Name: place.NVName, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: place.NVName},
			Size:       min(readSize, public.DataSize-uint16(len(read))), Offset: uint16(len(read)),
		}.Execute(t)
		if err != nil || len(part.Data.Buffer) == 0 {
			return nil
		}
		read = append(read, part.Data.Buffer...)
	}
	// The place may be longer than what it holds.
	var whole asn1.RawValue
	if _, err := asn1.Unmarshal(read, &whole); err != nil {
		return nil
	}
	return whole.FullBytes
}

// Area returns the key's TPM2B_PUBLIC.
func (k *Key) Area() []byte { return tpm2.Marshal(k.area) }

// Activate has the TPM decrypt what was encrypted for it and this key: which
// proves to whoever did that the key is in the TPM that e is of.
func (k *Key) Activate(e *Endorsement, credential, secret []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t, err := k.open()
	if err != nil {
		return nil, fmt.Errorf("the TPM: %w", err)
	}
	defer t.Close()
	var answer []byte
	err = k.loaded(t, func(key tpm2.NamedHandle) error {
		endorsement, err := e.root(t)
		if err != nil {
			return err
		}
		defer flush(t, endorsement.ObjectHandle)
		got, err := tpm2.ActivateCredential{
			ActivateHandle: tpm2.AuthHandle{Handle: key.Handle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)},
			KeyHandle: tpm2.AuthHandle{
				Handle: endorsement.ObjectHandle, Name: endorsement.Name,
				Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, ownersPolicy),
			},
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: credential},
			Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
		}.Execute(t)
		if err != nil {
			return fmt.Errorf("the TPM does not prove its key: %w", err)
		}
		answer = got.CertInfo.Buffer
		return nil
	})
	if err == nil && len(answer) == 0 {
		err = errors.New("the TPM proves nothing")
	}
	return answer, err
}

// ownersPolicy is the endorsement key's: whoever has the endorsement hierarchy
// may use it.
func ownersPolicy(t transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{
		AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		PolicySession: session, NonceTPM: nonce,
	}.Execute(t)
	return err
}
