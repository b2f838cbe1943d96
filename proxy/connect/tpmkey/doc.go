// SPDX-License-Identifier: Apache-2.0

// Package tpmkey keeps a workstation's key in its TPM 2.0: the key is made
// there, and signs there.
//
// What is kept in a file is the key wrapped by the TPM's storage root key: it
// is of no use without this TPM, and the TPM gives the key itself to nobody
// (fixedTPM, fixedParent; TPM 2.0 Library Part 1 §23). Whoever may use the TPM
// and read the file can have it sign, as the machine's root can.
//
// It imports nothing of ours. cmd/postern calls it.
package tpmkey
