// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"testing"
)

func TestNewToken(t *testing.T) {
	m := newWorld(t).manager
	shape := regexp.MustCompile(`^[0-9a-hjkmnp-tv-z]{4}(-[0-9a-hjkmnp-tv-z]{4}){7}$`)
	seen := map[string]bool{}
	for range 1000 {
		token, hash, err := m.NewToken()
		if err != nil || !shape.MatchString(token) || seen[token] {
			t.Fatalf("token %q, %v", token, err)
		}
		seen[token] = true
		for _, typed := range []string{
			token, strings.ToUpper(token), strings.ReplaceAll(token, "-", ""), strings.ReplaceAll(token, "-", " "),
			"  " + token + "\t", strings.NewReplacer("0", "O", "1", "l").Replace(token), strings.ReplaceAll(token, "1", "I"),
		} {
			if got := m.TokenHash([]byte(typed)); !bytes.Equal(got, hash) {
				t.Errorf("%q, typed as %q, has another hash", token, typed)
			}
		}
	}
}

func TestTokenHashNeedsTheKeyAndEverySymbol(t *testing.T) {
	w := newWorld(t)
	other := newTokens(newKey(8))
	raw, ok := parseToken([]byte(w.token))
	if !ok {
		t.Fatal("not a token")
	}
	if bytes.Equal(other.hash(raw[:]), w.password.Hash) {
		t.Error("another key makes the same hash")
	}
	for i := range w.token {
		if w.token[i] == '-' {
			continue
		}
		changed := []byte(w.token)
		changed[i] = 'x'
		if w.token[i] == 'x' {
			changed[i] = 'y'
		}
		if bytes.Equal(w.manager.TokenHash(changed), w.password.Hash) {
			t.Errorf("symbol %d does not count", i)
		}
	}
}

func TestMalformedTokens(t *testing.T) {
	w := newWorld(t)
	for _, typed := range []string{
		"", "-", w.token[1:], w.token + "0", w.token + w.token, strings.Replace(w.token, w.token[:1], "u", 1),
		strings.Replace(w.token, w.token[:1], "\x00", 1), strings.Replace(w.token, w.token[:1], "é", 1), w.token + "\n", strings.Repeat("0", 1<<16),
	} {
		if _, ok := parseToken([]byte(typed)); ok {
			t.Errorf("%.40q was taken for a token", typed)
		}
		hash := w.manager.TokenHash([]byte(typed))
		if len(hash) != 32 || bytes.Equal(hash, w.password.Hash) {
			t.Errorf("%.40q has the hash %x", typed, hash)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add([]byte("7k3m-q0vz-9xah-2d4e-r8tn-5cjw-b6py-1fgs"))
	for _, s := range []string{
		"  OILoil", "7K3MQ0VZ9XAH2D4ER8TN5CJWB6PY1FGS", "7k3m q0vz\t9xah 2d4e r8tn 5cjw b6py 1fgs ", "7k3m-q0vz-9xah-2d4e-r8tn-5cjw-b6py-1fgsz", "7k3m-q0vz-9xah-2d4e-r8tn-5cjw-b6py-1fg",
		"OOOO-iiii-LLLL-llll-0000-1111-zzzz-ZZZZ", "uuuu-q0vz-9xah-2d4e-r8tn-5cjw-b6py-1fgs", "7k3m-q0vz-9xah-2d4e-r8tn-5cjw-b6py-1fgs\r\n", "\xc2\xa07k3m", "--------------------------------",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, typed []byte) {
		raw, ok := parseToken(typed)
		if want, is := naiveToken(string(typed)); ok != is || ok && want != fmt.Sprintf("%x", raw) {
			t.Fatalf("%q reads as %x, %v; naively as %s, %v", typed, raw, ok, want, is)
		}
		if !ok {
			return
		}
		symbols := 0
		for _, c := range typed {
			if symbolValue(c) >= 0 {
				symbols++
			}
		}
		if symbols != tokenSymbols {
			t.Errorf("%q has %d symbols", typed, symbols)
		}
		// What is a token has 32 symbols, and is the same however it is spaced.
		again, ok := parseToken(bytes.ToUpper(bytes.ReplaceAll(typed, []byte("-"), nil)))
		if !ok || again != raw {
			t.Errorf("%q reads as %x, without hyphens as %x", typed, raw, again)
		}
	})
}

// naiveToken reads a token as one number in base 32.
func naiveToken(typed string) (hex string, ok bool) {
	typed = strings.NewReplacer(" ", "", "-", "", "\t", "").Replace(typed)
	if len(typed) != 32 {
		return "", false
	}
	n := new(big.Int)
	for _, c := range []byte(typed) {
		v := strings.IndexByte("0123456789ABCDEFGHJKMNPQRSTVWXYZ", c)
		switch {
		case c >= 'a' && c <= 'z':
			v = strings.IndexByte("0123456789abcdefghjkmnpqrstvwxyz", c)
		}
		switch c {
		case 'i', 'I', 'l', 'L':
			v = 1
		case 'o', 'O':
			v = 0
		}
		if v < 0 {
			return "", false
		}
		n.Add(n.Mul(n, big.NewInt(32)), big.NewInt(int64(v)))
	}
	return fmt.Sprintf("%040x", n), true
}
