// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// TPMKey is a key that is said to be in a TPM 2.0, and that TPM.
type TPMKey struct {
	// Key is the key's TPM2B_PUBLIC.
	Key []byte `json:"key" doc:"The key's TPM2B_PUBLIC, as the TPM made it."`
	// EndorsementKey is the TPM's own, a SubjectPublicKeyInfo in DER, and
	// EndorsementCertificate its maker's certificate for it; empty: it has none.
	EndorsementKey         []byte `json:"endorsement_key" doc:"The TPM's endorsement key, by the TCG's template: a SubjectPublicKeyInfo in DER."`
	EndorsementCertificate []byte `json:"endorsement_certificate,omitempty" doc:"The maker's certificate for it, in DER."`
}

// TPMChallenge can be answered by the TPM that has the key alone
// (TPM2_ActivateCredential).
type TPMChallenge struct {
	// CredentialBlob and EncryptedSecret are the contents of the TPM2B_ID_OBJECT
	// and of the TPM2B_ENCRYPTED_SECRET.
	CredentialBlob  []byte    `json:"credential_blob" doc:"For TPM2_ActivateCredential."`
	EncryptedSecret []byte    `json:"encrypted_secret" doc:"For TPM2_ActivateCredential."`
	ExpiresAt       time.Time `json:"expires_at"`
}

// TPMAnswer is what the TPM made of a challenge.
type TPMAnswer struct {
	TPMKey
	Answer    []byte    `json:"answer" doc:"What TPM2_ActivateCredential returned."`
	ExpiresAt time.Time `json:"expires_at" doc:"The challenge's."`
}

// TPMFingerprint is what a TPM is known by: the SHA-256 hash of its endorsement
// key's SubjectPublicKeyInfo, in lower-case hex.
func TPMFingerprint(endorsementKey []byte) string {
	sum := sha256.Sum256(endorsementKey)
	return hex.EncodeToString(sum[:])
}
