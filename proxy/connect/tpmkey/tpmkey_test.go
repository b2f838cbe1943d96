// SPDX-License-Identifier: Apache-2.0

package tpmkey_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/postern-mail/postern/proxy/connect/tpmkey"
	"github.com/postern-mail/postern/test/servers"
)

func TestAKeySignsInItsOwnTPMAlone(t *testing.T) {
	tpm := tpmkey.At(servers.StartTPM(t))
	made, kept, err := tpmkey.Create(tpm)
	if err != nil {
		t.Fatal(err)
	}
	if !tpmkey.Is(kept) || tpmkey.Is([]byte("-----BEGIN PRIVATE KEY-----")) {
		t.Error("a key's file is not known")
	}
	k, err := tpmkey.Load(tpm, kept)
	if err != nil {
		t.Fatal(err)
	}
	if !made.Public().(*ecdsa.PublicKey).Equal(k.Public()) {
		t.Error("another key was loaded")
	}
	digest := sha256.Sum256([]byte("what TLS signs"))
	// More often than the TPM has room for keys.
	for range 12 {
		signature, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest[:], signature) {
			t.Fatal("the signature does not verify")
		}
	}
	if _, err := k.Sign(rand.Reader, digest[:20], crypto.SHA1); err == nil {
		t.Error("it signs SHA-1")
	}

	elsewhere, err := tpmkey.Load(tpmkey.At(servers.StartTPM(t)), kept)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.Sign(rand.Reader, digest[:], crypto.SHA256); err == nil {
		t.Error("another TPM signs with the key's file")
	}
	for _, broken := range [][]byte{nil, kept[:len(kept)/2], bytes.Replace(kept, []byte("WRAPPED"), []byte("OTHER"), 2)} {
		if _, err := tpmkey.Load(tpm, broken); err == nil {
			t.Error("what is not a whole key is loaded")
		}
	}
}
