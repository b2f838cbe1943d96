// SPDX-License-Identifier: Apache-2.0

// Package servers starts the real servers that Postern's tests run against:
// Dovecot, Cyrus, Postfix, PostgreSQL, OpenLDAP and Vault, each from a configuration of its own in a
// temporary folder, on loopback, in the foreground. It also has a certificate
// authority made when the test runs, and Tap, a recording proxy that breaks
// connections on command.
//
// Only tests import it. Every Start function fails the test with the name of
// the Debian package when a program is missing, waits until the server
// answers, prints its log when the test failed, and ends it by its own
// process id when the test is over. Each server is ended by the kernel as
// well when the test process dies.
package servers
