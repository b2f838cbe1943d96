// SPDX-License-Identifier: Apache-2.0

// Package workstationca is the embedded certificate authority for
// workstations' client certificates, for sites that have none of their own.
//
// Its key lies in one file of mode 0600 in the data directory. It signs two
// things: client certificates for workstations, from a certificate request
// whose key never leaves the workstation, and the first server certificate
// that `postern init` makes. Of a request nothing is taken over but the public
// key: subject, names, usages and validity are the authority's own.
//
// A certificate is withdrawn by deleting the workstation: a session needs the
// certificate to verify and its key to be pinned on a workstation, so there is
// no revocation list to distribute.
//
// Callers: cmd/postern (init, serve) and broker/httpapi through an interface.
package workstationca
