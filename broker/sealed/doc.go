// SPDX-License-Identifier: Apache-2.0

// Package sealed keeps credentials in one age-encrypted file on this machine:
// for trying Postern out, and for small sites that run no Vault.
//
// cmd/postern makes the file with Create and opens it with Open; everything
// else sees a broker.Credentials. Several processes may use one file at once.
//
// There are two files. The identity file holds an X25519 age identity, either
// in the clear (mode 0600; looser modes are refused) or itself encrypted with
// a passphrase, as `age-keygen | age -p` makes it. The credentials file is
// encrypted to that identity, so that `age -d -i identity credentials` opens
// it in an emergency. A passphrase costs a second of scrypt once, when the
// store is opened; after that only the identity is kept in memory.
//
// Invariants:
//
//   - No credential stays in memory in the clear between calls. The entries of
//     a file that did not change since are kept encrypted with a key of this
//     process, since decrypting all of them at each login costs more than the
//     rest of it. A call decrypts and returns one. age's own buffers cannot be
//     wiped.
//   - The file is replaced whole, by rename, after it and before its folder
//     are synced: a crash leaves the old one or the new one. A writer holds a
//     lock (flock) from its reading to its rename.
//   - A file that cannot be decrypted and understood is never replaced.
//
// Who can write to the folder can put an old file back, and who can read both
// files, or this process's memory, has the credentials. For more, use Vault.
package sealed
