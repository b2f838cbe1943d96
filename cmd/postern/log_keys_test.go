// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadLogKey: an Ed25519 key that nobody else can read, and nothing else.
func TestReadLogKey(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	file := filepath.Join(t.TempDir(), "log.key")
	write := func(content []byte, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, content, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readLogKey(file); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
	write(encoded(private), 0o600)
	s, err := readLogKey(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.PublicKey(t.Context()); err != nil || !got.Equal(public) {
		t.Errorf("the key is %x, %v", got, err)
	}
	write(encoded(private), 0o640)
	if _, err := readLogKey(file); err == nil || !strings.Contains(err.Error(), "chmod 0600") {
		t.Errorf("open to others: %v", err)
	}
	for what, content := range map[string][]byte{"another kind": encoded(other), "no PEM": private.Seed(), "nothing": nil, "a broken one": encoded(private)[:60]} {
		write(content, 0o600)
		if _, err := readLogKey(file); err == nil || !strings.Contains(err.Error(), "openssl genpkey") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
