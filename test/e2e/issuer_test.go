// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/workstationca"
	"github.com/postern-mail/postern/test/servers"
)

// TestWorkstationsOfVaultsPKI enrols, renews and withdraws workstations whose
// certificates Vault's PKI engine signs, with the identity and the role of
// deployments/vault.
func TestWorkstationsOfVaultsPKI(t *testing.T) {
	w := NewWorld(t, WorldOptions{Mailboxes: []string{buyer}, Postern: Options{Issuer: true}})
	s := w.Seat(buyer)
	if issuer := s.Certificate.Leaf.Issuer.CommonName; issuer != "Postern workstation CA" {
		t.Fatalf("the certificate was issued by %s", issuer)
	}
	s.IMAP(t).OK("SELECT INBOX")

	// Vault is down when a machine is enrolled: nothing is used up.
	code := decodeCLI[httpapi.EnrolmentCodeCreated](w.Postern, "workstation", "code", "goa-01").Code
	h := newHome(t)
	dir := h.path("enrolled")
	enrol := []string{
		"workstation", "enrol", "--dir", dir,
		"--server", fmt.Sprintf("localhost:%d", w.Postern.APIPort), "--ca", w.Postern.CAFile,
	}
	w.Vault.Kill()
	_, problems, err := h.try(code+"\n", w.Postern.Bin, enrol...)
	if err == nil || !strings.Contains(problems, "nothing was issued or used up") || strings.Contains(problems, "may exist") {
		t.Errorf("with Vault down: %v, %s", err, problems)
	}
	if left, err := filepath.Glob(h.path(".enrolling-*")); err != nil || len(left) > 0 {
		t.Errorf("what failed left %v, %v", left, err)
	}
	w.Vault.Restart()
	w.Vault.Unseal()
	servers.WaitFor(t, readyTimeout, func() bool {
		_, problems, err = h.try(code+"\n", w.Postern.Bin, enrol...)
		return err == nil
	}, "the same code to be redeemed when Vault is back")

	enrolled := func() tls.Certificate {
		t.Helper()
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	first := enrolled()
	authority := x509.NewCertPool()
	b, err := os.ReadFile(filepath.Join(w.Postern.Dir, "authority.pem"))
	if err != nil || !authority.AppendCertsFromPEM(b) {
		t.Fatal(err)
	}
	if _, err := first.Leaf.Verify(x509.VerifyOptions{Roots: authority, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	h.run("", w.Postern.Bin, "workstation", "refresh", "--dir", dir)
	second := enrolled()
	if second.Leaf.SerialNumber.Cmp(first.Leaf.SerialNumber) == 0 {
		t.Error("the certificate was not renewed")
	}
	at := *s
	at.Certificate = second
	at.IMAP(t).OK("SELECT INBOX")

	// A certificate that the embedded CA issued before is renewed by Vault.
	embedded, err := workstationca.Load(filepath.Join(w.Postern.Dir, "workstation-ca"), workstationca.Config{})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, second.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	request := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	before, err := embedded.Issue(t.Context(), request, &broker.Workstation{ID: broker.NewID(), Name: "goa-01"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "certificate.pem"), before, 0o600); err != nil {
		t.Fatal(err)
	}
	h.run("", w.Postern.Bin, "workstation", "refresh", "--dir", dir)
	if _, err := enrolled().Leaf.Verify(x509.VerifyOptions{Roots: authority, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("renewed, the embedded CA's certificate is not Vault's: %v", err)
	}

	// Removed, it opens nothing, and Vault has both its certificates as revoked.
	w.Postern.CLI("workstation", "remove", "goa-01")
	denied := at.DialIMAP(t)
	if _, answer := denied.Cmd("LOGIN %s %s", at.Mailbox, at.Token); !strings.HasPrefix(answer, "NO ") {
		t.Errorf("a removed workstation is answered %s", answer)
	}
	for _, c := range []*x509.Certificate{first.Leaf, second.Leaf} {
		found, err := w.Vault.Client().Logical().Read("postern-pki/cert/" + strings.ReplaceAll(broker.SerialNumber(c), ":", "-"))
		if err != nil || found == nil || fmt.Sprint(found.Data["revocation_time"]) == "0" {
			t.Errorf("Vault has %s: %v, %v", broker.SerialNumber(c), found, err)
		}
	}

	w.CheckNothingLeaked()
}
