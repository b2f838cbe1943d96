// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"

	"github.com/postern-mail/postern/broker/redact"
)

// quote returns a server's words fit for a log: without the credential, raw or
// in any form in which it was sent, without control characters, and at most
// maxWords octets of UTF-8.
func (c *credentials) quote(words []byte) string {
	forms := c.forms()
	defer func() {
		for _, f := range forms {
			clear(f)
		}
	}()
	return redact.Words(words, maxWords, forms)
}

// forms returns the secret as a server may have seen it, or may write it: as
// anybody may, quoted as in an IMAP string, and within the SASL messages. They
// are copies, which the caller wipes.
func (c *credentials) forms() [][]byte {
	secret := c.secret.Reveal()
	quoted := appendQuoted(make([]byte, 0, 2*len(secret)+2), secret)
	// Without the quotes around it.
	forms := append(redact.Forms(secret), quoted[1:len(quoted)-1])
	for _, message := range [][]byte{bytes.Clone(secret), c.plain(), c.oauthBearer(), c.xoauth2()} {
		forms = append(forms, encode(message))
	}
	return forms
}

// appendQuoted appends s as an IMAP quoted string (RFC 9051 §4.3).
func appendQuoted(b, s []byte) []byte {
	b = append(b, '"')
	for _, octet := range s {
		if octet == '"' || octet == '\\' {
			b = append(b, '\\')
		}
		b = append(b, octet)
	}
	return append(b, '"')
}
