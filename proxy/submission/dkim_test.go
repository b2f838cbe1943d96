// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
)

// TestNever8DKIMSignatureStaysValid signs before and verifies after, with
// simple canonicalisation, which forgives no octet.
func TestNever8DKIMSignatureStaysValid(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := "From: =?utf-8?q?Al=C3=AFce?=   <alice@own.example>\r\nTO:bob@client.example\r\nSubject:  folded\r\n\t subject \r\nMessage-ID: <d@own.example>\r\n" +
		"\r\n.leading dot\r\n trailing blanks  \t\r\n\r\ncaf\xc3\xa9\r\n\r\n\r\n"
	var signed bytes.Buffer
	err = dkim.Sign(&signed, strings.NewReader(m), &dkim.SignOptions{
		Domain: "own.example", Selector: "s", Signer: private,
		HeaderCanonicalization: dkim.CanonicalizationSimple, BodyCanonicalization: dkim.CanonicalizationSimple,
	})
	if err != nil {
		t.Fatal(err)
	}
	s, k := start(t)
	c := s.login(t)
	c.data()
	c.raw(stuffed(signed.String()))
	c.expect("250 ")
	c.quit()

	got, err := dkim.VerifyWithOptions(bytes.NewReader(k.only(t).body), &dkim.VerifyOptions{
		LookupTXT: func(string) ([]string, error) {
			return []string{"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)}, nil
		},
	})
	if err != nil || len(got) != 1 || got[0].Err != nil {
		t.Fatalf("the signature does not verify any more: %v %+v", err, got)
	}
}
