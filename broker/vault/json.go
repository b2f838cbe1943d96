// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/postern-mail/postern/broker"
)

// octets is a JSON string decoded without ever being a Go string, so that it
// can be wiped. A lone surrogate becomes U+FFFD, as encoding/json has it.
type octets []byte

var (
	errNotText = errors.New("not a JSON string")
	errNotRead = errors.New("what is stored is not a credential of Postern's")
)

// UnmarshalJSON decodes one JSON value. Its errors never quote the input.
func (o *octets) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return errNotText
	}
	b = b[1 : len(b)-1]
	out := make([]byte, 0, len(b)+utf8.UTFMax) // escapes are longer than what they stand for
	for len(b) > 0 {
		if b[0] != '\\' {
			r, n := utf8.DecodeRune(b)
			out, b = utf8.AppendRune(out, r), b[n:]
			if cap(out)-len(out) < utf8.UTFMax { // invalid UTF-8 grows: U+FFFD for each octet
				out = regrow(out, len(b))
			}
			continue
		}
		r, n := unescape(b)
		if n == 0 {
			clear(out)
			return errNotText
		}
		out, b = utf8.AppendRune(out, r), b[n:]
	}
	*o = out
	return nil
}

// regrow makes room for n more octets of invalid UTF-8 and wipes the old.
func regrow(out []byte, n int) []byte {
	grown := make([]byte, len(out), len(out)+utf8.UTFMax*(n+1))
	copy(grown, out)
	clear(out)
	return grown
}

// unescape reads one escape at the start of b (RFC 8259 §7) and returns how
// many octets it took; 0: it is none.
func unescape(b []byte) (rune, int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r := hex4(b)
		if r < 0 {
			return 0, 0
		}
		if utf16.IsSurrogate(r) {
			if pair := utf16.DecodeRune(r, hex4(b[6:])); pair != utf8.RuneError {
				return pair, 12
			}
			return utf8.RuneError, 6
		}
		return r, 6
	}
	return 0, 0
}

// hex4 reads \uXXXX at the start of b; -1: there is none.
func hex4(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// stored is a credential's fields in Vault.
type stored struct {
	Kind         broker.CredentialKind `json:"kind"`
	Username     string                `json:"username"`
	Secret       octets                `json:"secret"`
	SecretBase64 []byte                `json:"secret_base64"`
}

// decodeCredential reads the answer to a read of KV version 2. The error is
// NotFound when there is no data, Invalid when it is not a credential. The
// causes are fixed: those of encoding/json quote numbers.
func decodeCredential(answer []byte) (*broker.Credential, error) {
	var a struct {
		Data *struct {
			Data     json.RawMessage `json:"data"`
			Metadata struct {
				Version int `json:"version"`
			} `json:"metadata"`
		} `json:"data"`
	}
	defer func() {
		if a.Data != nil {
			clear(a.Data.Data)
		}
	}()
	if json.Unmarshal(answer, &a) != nil || a.Data == nil {
		return nil, unavailable(ReasonAnswer, errors.New("the answer is not KV version 2's"))
	}
	if len(a.Data.Data) == 0 || string(a.Data.Data) == "null" {
		return nil, notFound()
	}
	var s stored
	invalid := func(field string) error {
		clear(s.Secret)
		clear(s.SecretBase64)
		return broker.InvalidField(field, "what is stored for this mailbox is not a credential: store it anew").WithCause(errNotRead)
	}
	if json.Unmarshal(a.Data.Data, &s) != nil {
		return nil, invalid("credential")
	}
	if (s.Secret == nil) == (s.SecretBase64 == nil) {
		return nil, invalid("secret")
	}
	c := &broker.Credential{Kind: s.Kind, Username: s.Username, Version: a.Data.Metadata.Version}
	if c.Kind == "" {
		c.Kind = broker.KindPassword
	}
	if s.Secret != nil {
		c.Secret = broker.NewSecret(s.Secret)
	} else {
		c.Secret = broker.NewSecret(s.SecretBase64)
	}
	if err := c.Validate(); err != nil {
		return nil, invalid("credential")
	}
	return c, nil
}

// encodeCredential makes the body of a write that succeeds only when the
// stored version is cas.
func encodeCredential(c *broker.Credential, cas int, marker string) ([]byte, error) {
	head, err := json.Marshal(struct {
		Kind     broker.CredentialKind `json:"kind"`
		Username string                `json:"username,omitempty"`
		Write    map[string]bool       `json:"write"`
	}{c.Kind, c.Username, map[string]bool{marker: true}})
	if err != nil {
		return nil, err
	}
	options, err := json.Marshal(map[string]int{"cas": cas})
	if err != nil {
		return nil, err
	}
	secret := c.Secret.Reveal()
	const frame = `{"options":,"data":,"secret_base64":""}}`
	// The size is known, so that no outgrown buffer keeps a copy.
	body := make([]byte, 0, len(frame)+len(options)+len(head)+base64.StdEncoding.EncodedLen(len(secret)))
	body = append(append(body, `{"options":`...), options...)
	body = append(append(body, `,"data":`...), head[:len(head)-1]...)
	body = append(body, `,"secret_base64":"`...)
	body = base64.StdEncoding.AppendEncode(body, secret)
	return append(body, `"}}`...), nil
}

// metadata is what KV version 2 knows of a path without its data.
type metadata struct {
	CurrentVersion int `json:"current_version"`
	Versions       map[string]struct {
		DeletionTime string `json:"deletion_time"`
		Destroyed    bool   `json:"destroyed"`
	} `json:"versions"`
}

// live reports whether the current version has data. A deletion time can lie
// in the future (delete_version_after).
func (m *metadata) live(key string, now time.Time) bool {
	v, ok := m.Versions[key]
	if !ok || v.Destroyed {
		return false
	}
	if v.DeletionTime == "" {
		return true
	}
	at, err := time.Parse(time.RFC3339Nano, v.DeletionTime)
	return err == nil && at.After(now)
}
