// SPDX-License-Identifier: Apache-2.0

// Package e2e runs the whole of Postern as people run it: the binary itself,
// made ready by `postern init`, serving from a configuration file, managed by
// its own command line over the socket, with the mailboxes' passwords in a
// real Vault, and Dovecot and Postfix as the mail provider.
//
// StartPostern starts the server alone; NewWorld starts everything around it
// and adds a firm. World.Seat puts an agent at a workstation in front of a
// mailbox, and Seat.IMAP and Seat.Submission are a mail client's connections
// from there. For gives a subtest its own view of a shared world. Transcripts
// are conversations in files, test/testdata, that read like the protocols.
//
// Only tests import it. Everything it starts ends with the test that started
// it, and a server that raced, panicked or did not stop in order fails that
// test.
package e2e
