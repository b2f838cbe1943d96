// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"testing"
)

func TestLeaksAreFound(t *testing.T) {
	const secret = "Marked?0123456789abcdef01234567"
	inside := []string{
		secret, "LOGIN a " + secret + "\r\n",
		base64.StdEncoding.EncodeToString([]byte(secret)),
	}
	for _, user := range []string{"a", "ab", "abc", "abcd", "sales@client.example"} {
		inside = append(inside,
			base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+secret)),
			base64.StdEncoding.EncodeToString([]byte("user="+user+"\x01auth=Bearer "+secret+"\x01\x01")))
	}
	for _, text := range inside {
		if len(Leaks([]byte("x"+text+"y"), []string{"other", secret})) != 1 {
			t.Errorf("not found in %q", text)
		}
	}
	for _, text := range []string{"", secret[1:], hex.EncodeToString([]byte("nothing of it"))} {
		if len(Leaks([]byte(text), []string{secret})) != 0 {
			t.Errorf("found in %q", text)
		}
	}
}
