// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/postern-mail/postern/broker"
)

// Defaults and limits of an Issuer.
const (
	// DefaultIssuerMount and DefaultIssuerRole are what setup.sh makes.
	DefaultIssuerMount = "postern-pki"
	DefaultIssuerRole  = "workstation"
	// clockSkew is by how much Vault's clock may differ from Postern's.
	clockSkew = 5 * time.Minute
	// maxSaid bounds what is logged of Vault's words, in octets.
	maxSaid = 300
)

// IssuerConfig says which PKI engine signs workstations' certificates.
type IssuerConfig struct {
	// Vault is where the engine is and who Postern is there. Its Mount is the
	// engine's (empty: DefaultIssuerMount); it has no Writer.
	Vault Config
	// Role is the engine's; empty: DefaultIssuerRole.
	Role string
	// AuthorityFile is a PEM bundle with the certificates of the CAs that the
	// engine signs with. What is signed by any other is not believed, whatever
	// Vault says of its own authority.
	AuthorityFile string
	// Validity is asked for; Vault may give less.
	Validity time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Issuer has Vault's PKI engine sign workstations' certificates. Its methods may
// be called from any goroutine; Issue and Revoke need Run.
type Issuer struct {
	*caller
	identity    *identity
	mount, role string
	validity    time.Duration
	now         func() time.Time
	authorities []*x509.Certificate
	bundle      []byte
}

// NewIssuer checks cfg and makes an issuer; it does not talk to Vault. The
// error is Invalid, its Field a name within the configuration's section or an
// environment variable's.
func NewIssuer(cfg IssuerConfig) (*Issuer, error) {
	if cfg.Vault.Mount == "" {
		cfg.Vault.Mount = DefaultIssuerMount
	}
	common, err := cfg.Vault.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.Role == "" {
		cfg.Role = DefaultIssuerRole
	}
	// A role is one step of a path.
	if _, err := checkMount("role", cfg.Role, ""); err != nil || strings.Contains(cfg.Role, "/") {
		return nil, broker.InvalidField("role", "must consist of letters, digits, - and _")
	}
	if cfg.Validity < time.Hour {
		return nil, broker.InvalidField("validity", "must be an hour or more")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	i := &Issuer{mount: common.Mount, role: cfg.Role, validity: cfg.Validity, now: cfg.Now}
	if i.bundle, err = os.ReadFile(cfg.AuthorityFile); err != nil {
		return nil, broker.InvalidField("authority_file", "cannot be read").WithCause(err)
	}
	if i.authorities, err = parseAuthorities(i.bundle); err != nil {
		return nil, broker.InvalidField("authority_file", "%s %v", cfg.AuthorityFile, err)
	}
	if i.identity, err = newIdentity("pki", common, common.Auth); err != nil {
		return nil, err
	}
	i.caller, err = newCaller("vault-pki", "postern_vault_pki", common.Timeout, common.Logger, common.Registerer, i.identity)
	return i, err
}

func parseAuthorities(bundle []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		switch {
		case block.Type != "CERTIFICATE" || err != nil:
			return nil, errors.New("holds what is no certificate")
		case !c.IsCA:
			return nil, fmt.Errorf("holds the certificate of %q, which is no CA's", c.Subject)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("holds no certificate in PEM")
	}
	return all, nil
}

// CertificatePEM returns the authorities' certificates.
func (i *Issuer) CertificatePEM() []byte { return i.bundle }

// Verify checks that one of the authorities signed a client certificate, which
// is valid now.
func (i *Issuer) Verify(c *x509.Certificate) error {
	roots := x509.NewCertPool()
	for _, a := range i.authorities {
		roots.AddCert(a)
	}
	_, err := c.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: i.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// Issue has Vault sign a client certificate for w from a certificate request,
// of which only the key counts, and checks that it is what was asked for. The
// error is Invalid, with the field "csr", when the request is not good;
// otherwise Unavailable: nothing was issued that opens anything.
func (i *Issuer) Issue(ctx context.Context, csrPEM []byte, w *broker.Workstation) (certPEM []byte, err error) {
	uri, err := w.URI()
	if err != nil {
		return nil, err
	}
	csr, err := broker.ParseCertificateRequest(csrPEM)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{
		"csr": string(csrPEM), "common_name": w.Name, "uri_sans": uri.String(),
		"exclude_cn_from_sans": true, "format": "pem", "ttl": i.validity.String(),
	})
	if err != nil {
		return nil, broker.Errorf(broker.Internal, "the request to Vault cannot be encoded").WithCause(err)
	}
	err = i.call(ctx, i.identity, "sign", func(ctx context.Context, client *api.Client) error {
		answer, err := readAnswer(client.Logical().WriteRawWithContext(ctx, i.mount+"/sign/"+i.role, body))
		if err != nil {
			return refusal(err)
		}
		var a struct {
			Data struct {
				Certificate string `json:"certificate"`
			} `json:"data"`
		}
		if json.Unmarshal(answer, &a) != nil {
			return &failure{err: unavailable(ReasonAnswer, errors.New("the answer to sign is not a PKI engine's"))}
		}
		c, err := i.believe([]byte(a.Data.Certificate), csr, w, uri.String())
		if err != nil {
			return &failure{err: unavailable(ReasonAnswer, fmt.Errorf("vault's PKI engine answered with another certificate than was asked for: %w", err))}
		}
		certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		return nil
	})
	if err != nil {
		return nil, notIssued(err)
	}
	return certPEM, nil
}

// refusal keeps Vault's words where it refuses to sign: they tell an operator
// what is wrong with the role, and a PKI engine's hold no secret.
func refusal(err error) error {
	var said *api.ResponseError
	if !errors.As(err, &said) || said.StatusCode != http.StatusBadRequest {
		return err
	}
	text := strings.Join(said.Errors, "; ")
	if len(text) > maxSaid {
		text = text[:maxSaid]
	}
	return &failure{err: unavailable(ReasonRefused, fmt.Errorf("vault refuses to sign: %q", text))}
}

// notIssued tells a person at a workstation what an outage means to him.
func notIssued(err error) error {
	var e *broker.Error
	if !errors.As(err, &e) {
		return err
	}
	told := broker.Errorf(broker.Unavailable, "the authority that signs certificates cannot be used at the moment: nothing was issued or used up; try again later").WithCause(e)
	told.Reason = e.Reason
	return told
}

// believe reads Vault's certificate, and checks it against what was asked for.
func (i *Issuer) believe(certPEM []byte, csr *x509.CertificateRequest, w *broker.Workstation, uri string) (*x509.Certificate, error) {
	block, rest := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("it is not one certificate in PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	now := i.now()
	switch {
	case string(c.RawSubjectPublicKeyInfo) != string(csr.RawSubjectPublicKeyInfo):
		return nil, errors.New("its key is another")
	case len(c.Subject.Names) != 1 || c.Subject.CommonName != w.Name:
		return nil, fmt.Errorf("its subject is %q", c.Subject)
	case len(c.URIs) != 1 || c.URIs[0].String() != uri || len(c.DNSNames)+len(c.EmailAddresses)+len(c.IPAddresses) > 0:
		return nil, fmt.Errorf("its alternative names are %v %q %q %v", c.URIs, c.DNSNames, c.EmailAddresses, c.IPAddresses)
	case c.IsCA || c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return nil, errors.New("it is a CA's")
	case c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return nil, errors.New("its key may not sign")
	case len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || len(c.UnknownExtKeyUsage) > 0:
		return nil, errors.New("it is for something else than a TLS client")
	case c.NotAfter.After(now.Add(i.validity + clockSkew)):
		return nil, fmt.Errorf("it is valid until %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if err := i.Verify(c); err != nil {
		return nil, err
	}
	return c, nil
}

// Revoke puts a certificate onto Vault's revocation list. One of another
// authority is left alone, and one that Vault does not know is no error.
// Postern itself does not need it: it goes by the keys that it has pinned.
func (i *Issuer) Revoke(ctx context.Context, c *broker.WorkstationCertified) error {
	ours := false
	for _, a := range i.authorities {
		ours = ours || a.Subject.String() == c.Issuer
	}
	if !ours {
		return nil
	}
	body, err := json.Marshal(map[string]string{"serial_number": c.Serial})
	if err != nil {
		return broker.Errorf(broker.Internal, "the request to Vault cannot be encoded").WithCause(err)
	}
	return i.call(ctx, i.identity, "revoke", func(ctx context.Context, client *api.Client) error {
		_, err := readAnswer(client.Logical().WriteRawWithContext(ctx, i.mount+"/revoke", body))
		var said *api.ResponseError
		if errors.As(err, &said) && said.StatusCode == http.StatusBadRequest && strings.Contains(strings.Join(said.Errors, " "), "not found") {
			return nil
		}
		return refusal(err)
	})
}
