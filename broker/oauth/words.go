// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"errors"
	"net"
	"regexp"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// longestWord is the length in octets up to which letters alone are taken for a
// word.
const longestWord = 24

// tokenLike finds what may be a token, or one in hex or base64 (RFC 6750 §2.1),
// or the better part of one.
var tokenLike = regexp.MustCompile(`[A-Za-z0-9+/=._~-]{16,}`)

// withoutTokens clears an error's cause of what looks like a token. The dialer
// has cut out the one that it used; but a mail server was shown others before,
// which may live on, and could repeat them.
func withoutTokens(err error) error {
	var e *broker.Error
	var network net.Error
	if !errors.As(err, &e) || e.Cause == nil || errors.As(e.Cause, &network) {
		return err
	}
	words := e.Cause.Error()
	cleared := tokenLike.ReplaceAllStringFunc(words, func(run string) string {
		if len(run) <= longestWord && !strings.ContainsFunc(run, notLetter) {
			return run
		}
		return "[withheld]"
	})
	if cleared == words {
		return err
	}
	copied := *e
	copied.Cause = errors.New(cleared)
	return &copied
}

func notLetter(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }
