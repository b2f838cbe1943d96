// SPDX-License-Identifier: Apache-2.0

// Package connect is the workstation's side of Postern: it takes a mail
// client's connections on the workstation's loopback and carries them to
// Postern over TLS with the workstation's key. So any mail client can be used,
// also one that knows no client certificates, and also with a key in a TPM.
//
// Invariants:
//
//   - Octets pass as they are, in both directions, and none is kept or logged.
//     The app password is the client's and passes through like all else.
//   - Nothing goes to a server whose certificate does not verify.
//   - The client hears nothing of Postern's before TLS is through and the server
//     has spoken: until then a failure is answered in the client's own
//     protocol, with what to do about it. Afterwards nothing is put between the
//     server's octets: a broken connection is closed.
//   - Where the system tells whose a connection is (Linux), only those of the
//     forwarder's own user are carried, unless it is told otherwise.
//
// It imports nothing of ours. cmd/postern calls it.
package connect
