// SPDX-License-Identifier: Apache-2.0

// Package vault keeps credentials in HashiCorp Vault or OpenBao: KV version
// 2, at <mount>/firms/<firm-id>/mailboxes/<mailbox-id>.
//
// cmd/postern makes a Client with New and keeps Run going; everything else
// sees a broker.Credentials.
//
// Invariants:
//
//   - Only ids that broker.ParseID accepted become parts of a path; the Vault
//     library cleans "..", so anything else could read another firm's
//     credential, or reach sys/.
//   - Nothing in the environment has a say: not the address, the token, the
//     namespace, a proxy or the checks on certificates. VAULT_SKIP_VERIFY
//     refuses to start. Redirects are not followed, so a token goes to the
//     configured address alone.
//   - A call ends within Config.Timeout, tries at most twice, and fails at
//     once while the breaker is open. No lock is held over I/O.
//   - A secret is decoded from Vault's answer into octets that can be wiped,
//     and the answer is wiped; it never becomes a Go string. net/http and
//     crypto/tls have buffers of their own that nobody can wipe.
//   - No error holds anything that Vault said on a credential's path, beyond
//     its status and a closed list of phrases: a body could hold the secret.
//
// Two identities divide the work (see deployments/vault): the proxy's reads
// credentials and can do nothing else; the writer's stores and deletes them,
// and cannot read one.
//
// A credential's fields in Vault are kind, username (optional), and either
// secret, for people who use Vault's own tools, or secret_base64, which is
// what Postern writes since a secret may be any octets. Postern also writes
// the field write: it names the write, so that one whose answer was lost can
// be found again without reading the secret.
package vault
