// SPDX-License-Identifier: Apache-2.0

package people

import (
	"bytes"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

func TestTokensAreKnownByTheirHashAlone(t *testing.T) {
	key := broker.NewSecret(bytes.Repeat([]byte{7}, 32))
	api, err := NewAPITokens(key)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := NewClaims(key)
	if err != nil {
		t.Fatal(err)
	}
	token, hash := api.New()
	if other, _ := api.New(); other == token {
		t.Fatal("two tokens are one")
	}
	if !strings.HasPrefix(token, APIPrefix) || len(hash) != 32 {
		t.Errorf("token %q with a hash of %d octets", token, len(hash))
	}
	if again, ok := api.Hash(" " + token + "\n"); !ok || !bytes.Equal(again, hash) {
		t.Error("a token is not known again")
	}
	symbols := strings.TrimPrefix(token, APIPrefix)
	for name, text := range map[string]string{
		"empty": "", "a claim's prefix": ClaimPrefix + symbols, "no prefix": symbols, "cut": token[:len(token)-1],
		"longer": token + "0", "upper case": APIPrefix + strings.ToUpper(symbols), "a symbol that is none": APIPrefix + "u" + symbols[1:],
	} {
		if _, ok := api.Hash(text); ok && text != token {
			t.Errorf("%s: %q is taken for a token", name, text)
		}
	}
	// The last symbol holds bits that stand for nothing: only one spelling is
	// good.
	spellings := 0
	for _, last := range tokenAlphabet {
		if _, ok := api.Hash(token[:len(token)-1] + string(last)); ok {
			spellings++
		}
	}
	if spellings != 2 { // 256 bits leave one bit of the last symbol's five
		t.Errorf("%d last symbols are good, want 2", spellings)
	}
	if claim, _ := claims.Hash(ClaimPrefix + symbols); bytes.Equal(claim, hash) {
		t.Error("a claim and an API token share their key")
	}
}
