// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/broker"
)

// credentials is a credential on its way to one endpoint.
type credentials struct {
	kind   broker.CredentialKind
	user   string
	secret broker.Secret
	host   string
	port   uint16
}

// newCredentials refuses, as Invalid, what no mechanism could carry.
func newCredentials(m *broker.Mailbox, c *broker.Credential, e *broker.Endpoint) (*credentials, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Kind.MintsTokens() {
		// It would go out as a password, to the mail server.
		return nil, broker.InvalidField("kind", "no login carries a credential of this kind")
	}
	user := m.LoginName(c)
	if user == "" || !utf8.ValidString(user) || strings.ContainsFunc(user, isControl) {
		return nil, broker.InvalidField("username", "the login name is empty, not UTF-8, or holds a control character")
	}
	return &credentials{kind: c.Kind, user: user, secret: c.Secret, host: e.Host, port: e.Port}, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// exchange is one run of a SASL mechanism, client first.
type exchange struct {
	mechanism string
	// responses are made when it is their turn, so that no copy of the secret
	// waits. The first may be sent along with the command if initial is set.
	responses []func() []byte
	initial   bool
	// dummy answers the challenge by which OAuth mechanisms tell a failure,
	// before the failure itself; nil: the mechanism has none.
	dummy []byte
	// failed says that this challenge came.
	failed bool
}

// choose picks the mechanism: has tells which the server offers, by upper-case
// name. It returns nil when there is no common one.
func (c *credentials) choose(has func(mechanism string) bool, names ...string) *exchange {
	for _, name := range names {
		if has(name) {
			return c.exchange(name)
		}
	}
	return nil
}

// tokenMechanisms in order of preference: the standard one first.
var tokenMechanisms = []string{"OAUTHBEARER", "XOAUTH2"}

func (c *credentials) exchange(mechanism string) *exchange {
	switch mechanism {
	case "PLAIN": // RFC 4616
		return &exchange{mechanism: mechanism, initial: true, responses: []func() []byte{c.plain}}
	case "LOGIN": // draft-murchison-sasl-login
		return &exchange{mechanism: mechanism, responses: []func() []byte{
			func() []byte { return []byte(c.user) },
			func() []byte { return bytes.Clone(c.secret.Reveal()) },
		}}
	case "OAUTHBEARER": // RFC 7628 §3.2.3: ^A acknowledges a failure
		return &exchange{mechanism: mechanism, initial: true, responses: []func() []byte{c.oauthBearer}, dummy: []byte{1}}
	default: // Google's and Microsoft's XOAUTH2: an empty response does
		return &exchange{mechanism: "XOAUTH2", initial: true, responses: []func() []byte{c.xoauth2}, dummy: []byte{}}
	}
}

// respond returns the answer to the next challenge, in base64 and followed by
// CRLF; the caller wipes it. A challenge too many is outside the protocol.
func (x *exchange) respond() ([]byte, error) {
	if len(x.responses) > 0 {
		response := x.responses[0]()
		x.responses = x.responses[1:]
		return append(encode(response), "\r\n"...), nil
	}
	if x.dummy != nil && !x.failed {
		x.failed = true
		return append(encode(bytes.Clone(x.dummy)), "\r\n"...), nil
	}
	return nil, protocolError("%s: a challenge too many", x.mechanism)
}

// initialResponse returns the first response in base64 if it can be sent
// along in a command of limit octets, and uses it up; else nil.
func (x *exchange) initialResponse(limit int) []byte {
	if !x.initial {
		return nil
	}
	response := x.responses[0]()
	if base64.StdEncoding.EncodedLen(len(response)) > limit {
		clear(response)
		return nil
	}
	x.responses = x.responses[1:]
	return encode(response)
}

// encode returns b in base64, with room for CRLF, and wipes b.
func encode(b []byte) []byte {
	defer clear(b)
	encoded := make([]byte, 0, base64.StdEncoding.EncodedLen(len(b))+2)
	return base64.StdEncoding.AppendEncode(encoded, b)
}

func (c *credentials) plain() []byte {
	secret := c.secret.Reveal()
	b := make([]byte, 0, len(c.user)+len(secret)+2)
	b = append(b, 0)
	b = append(b, c.user...)
	b = append(b, 0)
	return append(b, secret...)
}

// gs2 escapes what separates the parts of a GS2 header (RFC 5801 §4).
var gs2 = strings.NewReplacer("=", "=3D", ",", "=2C")

func (c *credentials) oauthBearer() []byte {
	return c.token(fmt.Sprintf("n,a=%s,\x01host=%s\x01port=%d\x01", gs2.Replace(c.user), c.host, c.port))
}

func (c *credentials) xoauth2() []byte { return c.token("user=" + c.user + "\x01") }

func (c *credentials) token(head string) []byte {
	const bearer, end = "auth=Bearer ", "\x01\x01"
	secret := c.secret.Reveal()
	b := make([]byte, 0, len(head)+len(bearer)+len(secret)+len(end))
	b = append(b, head...)
	b = append(b, bearer...)
	b = append(b, secret...)
	return append(b, end...)
}
