// SPDX-License-Identifier: Apache-2.0

// Package attest proves to the server that a workstation's key is in a TPM 2.0,
// and in which.
//
// A TPM is known by its endorsement key, which it can use to decrypt and for
// nothing else. The server encrypts a secret to that key, bound to the name of
// the workstation's key: a digest of its public part and its attributes. The TPM
// gives the secret away only while it holds that very key (TPM2_ActivateCredential,
// TPM 2.0 Library Part 1 §24), and the attributes say that it was made there and
// never leaves (fixedTPM, fixedParent, sensitiveDataOrigin). So one round trip
// proves it, with no key in between.
//
// Whose endorsement keys are TPMs' is for others to say: a maker, by a
// certificate of its CA that the configuration trusts (TCG EK Credential
// Profile), or the administrator, who pins the key of one machine.
//
// Invariants:
//   - Nothing is kept between challenge and answer: the secret is a MAC of all
//     that it stands for, and of when it ends. Any node can check it.
//   - A challenge answered proves one key, for one enrolment code.
//   - The workstation's side is believed in nothing: what it sends is parsed
//     strictly and must be the form that is written out again.
package attest
