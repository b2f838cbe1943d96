// SPDX-License-Identifier: Apache-2.0

package companycatest

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// List is a template of a revocation list, number n, good from now for a day.
func List(n int64, revoked ...*x509.Certificate) *x509.RevocationList {
	now := time.Now()
	rl := &x509.RevocationList{Number: big.NewInt(n), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(24 * time.Hour)}
	for _, c := range revoked {
		rl.RevokedCertificateEntries = append(rl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now})
	}
	return rl
}

// SignList signs a revocation list; DER.
func (c *CA) SignList(rl *x509.RevocationList) []byte {
	c.t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, rl, c.Certificate, c.Key)
	if err != nil {
		c.t.Fatal(err)
	}
	return der
}

// Replace puts content into a file by a rename, as who publishes lists does.
func Replace(t testing.TB, file string, content []byte) {
	t.Helper()
	next := filepath.Join(filepath.Dir(file), "next.tmp")
	if err := os.WriteFile(next, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, file); err != nil {
		t.Fatal(err)
	}
}
