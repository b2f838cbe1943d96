// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"sync"
	"time"
)

// maxVerifiedChains bounds what verifiedChains remembers: some hundred octets
// each.
const maxVerifiedChains = 8192

// verifiedChains verifies clients' certificates, and remembers those that were
// found good: a workstation connects often, and building its chain costs a
// signature's verification each time. It belongs to one set of roots, and is
// dropped with it. What a chain is good for ends with the first of its
// certificates, so that a remembered one is checked against the clock alone.
// That the client holds the key is proved in each handshake all the same, and
// whether the workstation is still sanctioned is not decided here.
type verifiedChains struct {
	roots *x509.CertPool

	mu   sync.RWMutex
	good map[[sha256.Size]byte]validity
}

// validity is when all certificates of a chain are valid, ends included.
type validity struct{ from, to time.Time }

func (v validity) at(now time.Time) bool { return !now.Before(v.from) && !now.After(v.to) }

// verify checks a client's chain, leaf first. None at all is good here:
// whether it may be missing was ClientAuth's to decide.
func (v *verifiedChains) verify(chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return nil
	}
	key := chainKey(chain)
	v.mu.RLock()
	known, ok := v.good[key]
	v.mu.RUnlock()
	if ok && known.at(now) {
		return nil
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	found, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         v.roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("client certificate %q: %w", chain[0].Subject, err)
	}
	v.remember(key, validityOf(found[0]))
	return nil
}

func (v *verifiedChains) remember(key [sha256.Size]byte, valid validity) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.good == nil || len(v.good) >= maxVerifiedChains {
		v.good = make(map[[sha256.Size]byte]validity)
	}
	v.good[key] = valid
}

// chainKey stands for what the client sent, to the octet: each certificate
// tells its own length.
func chainKey(chain []*x509.Certificate) (key [sha256.Size]byte) {
	h := sha256.New()
	for _, c := range chain {
		h.Write(c.Raw) // never fails
	}
	h.Sum(key[:0])
	return key
}

// validityOf returns when a whole chain is valid.
func validityOf(chain []*x509.Certificate) validity {
	valid := validity{chain[0].NotBefore, chain[0].NotAfter}
	for _, c := range chain[1:] {
		if c.NotBefore.After(valid.from) {
			valid.from = c.NotBefore
		}
		if c.NotAfter.Before(valid.to) {
			valid.to = c.NotAfter
		}
	}
	return valid
}
