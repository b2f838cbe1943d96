// SPDX-License-Identifier: Apache-2.0

package connect

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// What clients are told. They show it to a person who knows neither Postern nor
// certificates: each says what to do.
const (
	textFull    = "Too many mail connections are open on this machine: close a mail program, then try again."
	textForeign = "This mail connection belongs to another user of this machine: start 'postern workstation connect' as the user who reads the mail."
	textKey     = "This machine's key for Postern cannot be used: ask the administrator to enrol the machine again."
	textSilent  = "Postern did not answer: try again in a minute. If that does not help, tell the administrator."
	textServer  = "Postern could not be recognised: its certificate is not good. Somebody may be between this machine and it: do not go on, tell the administrator."
	textRefused = "Postern does not accept this machine's certificate: it has expired or was withdrawn. Ask the administrator to enrol the machine again."
)

var errSilent = errors.New("the server closed without a word")

// identityError is a key or certificate that cannot be used.
type identityError struct{ cause error }

// Error returns the cause's text.
func (e *identityError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *identityError) Unwrap() error { return e.cause }

// explain says to a person what is wrong, without what is for the log alone.
func (f *Forwarder) explain(err error) string {
	var identity *identityError
	var verification *tls.CertificateVerificationError
	var alert *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &identity):
		return textKey
	case errors.As(err, &verification):
		return textServer
	// crypto/tls reports the peer's alerts so.
	case errors.As(err, &alert) && alert.Op == "remote error":
		return textRefused
	case errors.Is(err, errSilent):
		return textSilent
	case errors.As(err, &dns):
		return fmt.Sprintf("The name %s cannot be looked up: check the network connection, then try again.", f.host)
	}
	return fmt.Sprintf("Postern cannot be reached at %s: check the network connection, then try again.", f.Server)
}

// refuse tells a client why it is not carried, as its protocol's greeting
// (RFC 9051 §7.1.5, RFC 5321 §3.8), and closes its connection.
func (f *Forwarder) refuse(client net.Conn, text string) {
	line := "* BYE [UNAVAILABLE] " + text + "\r\n"
	if f.Protocol == Submission {
		line = "421 4.3.2 " + text + "\r\n"
	}
	if client.SetWriteDeadline(time.Now().Add(partingTimeout)) == nil {
		if _, err := client.Write([]byte(line)); err == nil {
			part(client)
			return
		}
	}
	_ = client.Close()
}
