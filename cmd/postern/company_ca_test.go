// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker/httpapi"
)

// company is a CA of the company's own, with a branch's below it.
type company struct {
	t           *testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	made        int64
}

func newCompany(t *testing.T) *company {
	t.Helper()
	c := &company{t: t}
	root := c.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Company CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	c.certificate, c.key = root.Leaf, root.PrivateKey.(*ecdsa.PrivateKey)
	return c
}

// sign makes a key and a certificate for it, the first by itself.
func (c *company) sign(template *x509.Certificate) tls.Certificate {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	c.made++
	template.SerialNumber = big.NewInt(c.made)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if !template.IsCA {
		template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	issuer, signer := c.certificate, c.key
	if issuer == nil {
		issuer, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		c.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// answers logs in over IMAP and over submission, and returns what they say.
func (r *running) answers(certificate tls.Certificate, token string) (imap, submission string) {
	r.t.Helper()
	config := r.clientTLS()
	// Shown whatever CAs the server names: a hostile client need not ask.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
	ask := func(addr net.Addr, command, prefix string) string {
		c, err := tls.Dial("tcp", addr.String(), config)
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * patience))
		lines := bufio.NewReader(c)
		greeting, err := lines.ReadString('\n')
		if err != nil {
			return err.Error()
		}
		if strings.HasPrefix(greeting, "220 ") {
			fmt.Fprint(c, "EHLO client.example\r\n")
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return err.Error()
				}
				if strings.HasPrefix(line, "250 ") {
					break
				}
			}
		}
		fmt.Fprint(c, command+"\r\n")
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return err.Error()
			}
			if strings.HasPrefix(line, prefix) {
				return strings.TrimPrefix(line, prefix)
			}
		}
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00sales@acme.example\x00" + token))
	return ask(r.IMAPSAddr(), "a LOGIN sales@acme.example "+token, "a "), ask(r.SubmissionsAddr(), "AUTH PLAIN "+plain, "")
}

// TestCompanyCAImpersonatesNobody: of a certificate of a company's own CA
// nothing counts but the key that an admin has pinned. What it says of itself,
// whatever that resembles, makes it nobody's workstation.
func TestCompanyCAImpersonatesNobody(t *testing.T) {
	ca := newCompany(t)
	file := filepath.Join(t.TempDir(), "company.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startServer(t, func(c *Config) { c.Workstations.CAFiles = []string{file} })
	token := r.assign(upstreamIMAP(t, "sales@acme.example", "upstream secret"), "upstream secret")
	own := r.workstation("pune-07")
	var victim httpapi.Workstation
	if err := json.Unmarshal([]byte(r.command("workstation", "show", "pune-07", "--json")), &victim); err != nil {
		t.Fatal(err)
	}
	id, err := url.Parse("urn:uuid:" + string(victim.ID))
	if err != nil {
		t.Fatal(err)
	}
	named := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	}
	everything := named("pune-07")
	everything.URIs, everything.DNSNames, everything.EmailAddresses = []*url.URL{id}, []string{"pune-07", "pune-07.acme.example"}, []string{"pune-07@acme.example"}
	twice := named("pune-07")
	twice.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 3}, Value: "goa-01"}, {Type: []int{2, 5, 4, 3}, Value: "pune-07"}}
	uri := named("goa-01")
	uri.URIs = []*url.URL{id}

	// A branch's CA that may name hosts of its branch alone names another.
	branch := ca.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Branch CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{"branch.example"},
	})
	below := &company{t: t, certificate: branch.Leaf, key: branch.PrivateKey.(*ecdsa.PrivateKey), made: 100}
	constrained := below.sign(named("pune-07"))
	constrained.Certificate = append(constrained.Certificate, branch.Certificate[0])
	outside := named("pune-07")
	outside.DNSNames = []string{"pune-07.acme.example"}
	forbidden := below.sign(outside)
	forbidden.Certificate = append(forbidden.Certificate, branch.Certificate[0])

	// The enrolled workstation's own key, certified by the company, without it.
	stolen := tls.Certificate{Certificate: own.Certificate, PrivateKey: ca.sign(named("pune-07")).PrivateKey}

	for name, c := range map[string]tls.Certificate{
		"the name":                      ca.sign(named("pune-07")),
		"the name in another case":      ca.sign(named("PUNE-07")),
		"the name and a NUL":            ca.sign(named("pune-07\x00.evil.example")),
		"the name and another":          ca.sign(twice),
		"the id":                        ca.sign(uri),
		"all names there are":           ca.sign(everything),
		"no name":                       ca.sign(named("")),
		"of a constrained CA":           constrained,
		"of a CA that may not name it":  forbidden,
		"the certificate, not its key":  stolen,
		"the CA's own, as a client's":   {Certificate: [][]byte{ca.certificate.Raw}, PrivateKey: ca.key},
		"the branch's, as a client's":   {Certificate: branch.Certificate, PrivateKey: branch.PrivateKey},
		"of a CA of the company's name": newCompany(t).sign(named("pune-07")),
	} {
		imap, submission := r.answers(c, token)
		if strings.HasPrefix(imap, "OK ") || strings.HasPrefix(submission, "235 ") {
			t.Errorf("%s: %s%s", name, imap, submission)
		}
	}

	// What an admin registered is let in, as what he registered.
	mine := ca.sign(named("whatever"))
	registered := filepath.Join(t.TempDir(), "mine.pem")
	if err := os.WriteFile(registered, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: mine.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	r.command("workstation", "add", "goa-01", "--certificate", registered)
	config := r.clientTLS(mine)
	r.logIn(config, token)
	for name, c := range map[string]tls.Certificate{"registered": mine, "enrolled": own} {
		if imap, _ := r.answers(c, token); !strings.HasPrefix(imap, "OK ") {
			t.Errorf("%s: %s", name, imap)
		}
	}
	sessions := r.command("log", "events", "--firm", "Acme", "--type", "session.open", "--json")
	var goa httpapi.Workstation
	if err := json.Unmarshal([]byte(r.command("workstation", "show", "goa-01", "--json")), &goa); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(sessions, string(goa.ID)) {
		t.Errorf("on record is %s", sessions)
	}
}
