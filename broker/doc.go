// SPDX-License-Identifier: Apache-2.0

// Package broker is Postern's domain: its types, the interfaces of the
// services around it with their error contracts, and the catalogue of events.
//
// It does no I/O. Its sub-packages do: store, vault, sealed and upstream are
// adapters, named for their technology, and import only broker and policy;
// session, audit and httpapi orchestrate, and take adapters as the interfaces
// declared here. cmd/postern alone knows which implementation stands behind
// one.
package broker
