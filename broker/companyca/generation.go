// SPDX-License-Identifier: Apache-2.0

package companyca

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/postern-mail/postern/broker"
)

// maxRemembered bounds what a generation remembers of certificates: a
// workstation connects often, and to verify a signature costs a tenth of a
// millisecond.
const maxRemembered = 8192

// issuer is one CA, by its name and key.
type issuer struct {
	authority *Authority
	id        [sha256.Size]byte
	// certificates are those that it has had, as the file has them.
	certificates []*x509.Certificate
}

// generation is what one state of the files says.
type generation struct {
	// bySubject are issuers by their name, which several keys may share.
	bySubject map[string][]*issuer
	byID      map[[sha256.Size]byte]*issuer

	mu   sync.RWMutex
	good map[[sha256.Size]byte]*broker.CompanyCertificate
}

// newGeneration reads files, in the order of CAs.paths.
func newGeneration(config *Config, files [][]byte) (*generation, error) {
	g := &generation{bySubject: make(map[string][]*issuer), byID: make(map[[sha256.Size]byte]*issuer)}
	for n := range config.Authorities {
		a := &config.Authorities[n]
		certificates, err := parseCAs(files[n])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.CAFile, err)
		}
		for _, c := range certificates {
			if err := g.add(a, c); err != nil {
				return nil, fmt.Errorf("%s: %w", a.CAFile, err)
			}
		}
	}
	for n, own := range files[len(config.Authorities):] {
		certificates, err := parseCAs(own)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", config.OwnFiles[n], err)
		}
		for _, c := range certificates {
			if i := g.byID[issuerID(c)]; i != nil {
				return nil, fmt.Errorf("%s: %q issues certificates for Postern, and cannot be an authority of its own", i.authority.CAFile, c.Subject)
			}
		}
	}
	return g, nil
}

// add takes a CA in.
func (g *generation) add(a *Authority, c *x509.Certificate) error {
	constrained := slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidNameConstraints) })
	switch {
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("%q may not sign certificates", c.Subject)
	case len(c.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("%q has a critical extension that is not known here: %v", c.Subject, c.UnhandledCriticalExtensions[0])
	case constrained && a.Rule == RuleSubjectCN:
		// They would not be enforced: no constraint is on common names.
		return fmt.Errorf("%q has name constraints, which say nothing about common names: go by dns, uri or email", c.Subject)
	}
	id := issuerID(c)
	i := g.byID[id]
	if i == nil {
		i = &issuer{authority: a, id: id}
		g.byID[id] = i
		g.bySubject[string(c.RawSubject)] = append(g.bySubject[string(c.RawSubject)], i)
	}
	if i.authority != a {
		return fmt.Errorf("%q is one of %s already: a CA belongs to one authority", c.Subject, i.authority.Name)
	}
	i.certificates = append(i.certificates, c)
	return nil
}

// identify is CAs.Identify.
func (g *generation) identify(c *x509.Certificate, now time.Time) (*broker.CompanyCertificate, error) {
	candidates := g.bySubject[string(c.RawIssuer)]
	if len(candidates) == 0 {
		return nil, nil
	}
	key := sha256.Sum256(c.Raw)
	g.mu.RLock()
	known := g.good[key]
	g.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	for _, i := range candidates {
		if c.CheckSignatureFrom(i.certificates[0]) != nil {
			continue // by another of that name
		}
		found, err := i.judge(c, now)
		if err != nil {
			return nil, denied(reasonUnfit, "a certificate of %s: %v", i.authority.Name, err)
		}
		g.remember(key, found)
		return found, nil
	}
	return nil, nil
}

func (g *generation) remember(key [sha256.Size]byte, c *broker.CompanyCertificate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.good == nil || len(g.good) >= maxRemembered {
		g.good = make(map[[sha256.Size]byte]*broker.CompanyCertificate)
	}
	g.good[key] = c
}

// judge checks a certificate that the issuer signed.
func (i *issuer) judge(c *x509.Certificate, now time.Time) (*broker.CompanyCertificate, error) {
	switch {
	case c.IsCA:
		return nil, errors.New("it is a CA's own")
	case !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		// RFC 5280 takes one that says nothing for good for everything.
		return nil, errors.New("its extended key usage does not say that it is a client's")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return nil, errors.New("its key usage does not let it sign")
	}
	roots := x509.NewCertPool()
	for _, ca := range i.certificates {
		roots.AddCert(ca)
	}
	chains, err := c.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	found := &broker.CompanyCertificate{
		Authority: i.authority.Name, Class: i.authority.Class, Issuer: i.id, Serial: string(c.SerialNumber.Bytes()),
	}
	found.Name, found.Unnamed = i.authority.Rule.nameOf(c)
	// Of the CA's certificates that make it good, the one that does for longest.
	for _, chain := range chains {
		from, to := c.NotBefore, c.NotAfter
		for _, above := range chain[1:] {
			if above.NotBefore.After(from) {
				from = above.NotBefore
			}
			if above.NotAfter.Before(to) {
				to = above.NotAfter
			}
		}
		if to.After(found.NotAfter) {
			found.NotBefore, found.NotAfter = from, to
		}
	}
	return found, nil
}

// parseCAs reads a PEM bundle, which must hold CAs' certificates and nothing
// else.
func parseCAs(b []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s; only CERTIFICATE blocks belong here", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if !c.BasicConstraintsValid || !c.IsCA {
			return nil, fmt.Errorf("the certificate of %q is not a CA's", c.Subject)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("holds no certificate in PEM form")
	}
	return all, nil
}
