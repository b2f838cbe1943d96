// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker/companyca/companycatest"
)

// startRevoking runs a server with one authority whose list is in a file.
func startRevoking(t *testing.T, whenStale string) (r *running, ca *companycatest.CA, file, token string) {
	t.Helper()
	ca, file = companycatest.New(t, "Issuing CA"), filepath.Join(t.TempDir(), "ca.crl")
	companycatest.Replace(t, file, ca.SignList(companycatest.List(1)))
	r = startServer(t, func(c *Config) {
		c.Workstations.Authorities = []AuthorityConfig{{
			Name: "head-office", CAFile: ca.File(), NameFrom: "dns", Class: "software",
			Revocation: &RevocationConfig{Files: []string{file}, WhenStale: whenStale},
		}}
	})
	token = r.assign(upstreamIMAP(t, "sales@acme.example", "upstream secret"), "upstream secret")
	for _, name := range []string{"pune-07", "goa-01"} {
		r.command("workstation", "add", name, "--certificate-name", name+".corp.example")
	}
	return r, ca, file, token
}

// TestRevokedCertificateEndsItsSessions: when the CA's list names a certificate,
// its sessions end, and nobody else's; and it opens nothing from then on, by its
// name or by a key that is pinned.
func TestRevokedCertificateEndsItsSessions(t *testing.T) {
	r, ca, file, token := startRevoking(t, staleRefuse)
	lost, kept := ca.Issue(dnsName("pune-07.corp.example")), ca.Issue(dnsName("goa-01.corp.example"))
	_, ended := r.logIn(r.clientTLS(lost), token)
	other, lines := r.logIn(r.clientTLS(kept), token)
	pinned := ca.Issue(dnsName("nobody.corp.example"))
	r.command("workstation", "add", "laptop-3", "--certificate", companycatest.PEMFile(t, pinned.Leaf))
	_, byKey := r.logIn(r.clientTLS(pinned), token)

	began := time.Now()
	companycatest.Replace(t, file, ca.SignList(companycatest.List(2, lost.Leaf, pinned.Leaf)))
	for name, session := range map[string]io.Reader{"named": ended, "pinned": byKey} {
		rest, err := io.ReadAll(session)
		if err != nil || !strings.Contains(string(rest), "* BYE ") || !strings.Contains(string(rest), "may no longer be used") {
			t.Errorf("%s: the session ended with %q, %v", name, rest, err)
		}
	}
	t.Logf("from the list's arrival to the closed connections: %s", time.Since(began))
	fmt.Fprint(other, "b NOOP\r\n")
	if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "b OK ") {
		t.Errorf("the other workstation's session: %q, %v", line, err)
	}
	for name, c := range map[string]tls.Certificate{"named": lost, "pinned": pinned} {
		if imap, submission := r.answers(c, token); !strings.HasPrefix(imap, "NO [AUTHENTICATIONFAILED]") || strings.HasPrefix(submission, "235 ") {
			t.Errorf("%s: %s%s", name, imap, submission)
		}
	}
	// The machine's next certificate, of a new key, is its own again.
	r.logIn(r.clientTLS(ca.Issue(dnsName("pune-07.corp.example"))), token)
	r.eventually("it is on record", func() bool {
		failed := r.command("log", "events", "--firm", "Acme", "--type", "auth.failed", "--json")
		taken := r.command("log", "events", "--type", "authority.list", "--json")
		astray := r.command("log", "events", "--firm", "Acme", "--type", "app-password.astray", "--json")
		ends := r.command("log", "events", "--firm", "Acme", "--type", "session.end", "--json")
		return strings.Contains(failed, `"cause":"revoked-certificate"`) && strings.Contains(astray, `"cause":"revoked-certificate"`) &&
			strings.Contains(taken, `"number":"2"`) &&
			strings.Count(ends, `"detail":"revoked-certificate"`) == 2
	})
}

// TestListOutOfDateShutsTheAuthorityOut: with a list that is over, certificates
// are refused as an outage, which no client takes for a wrong password, and
// sessions end; unless the configuration says otherwise.
func TestListOutOfDateShutsTheAuthorityOut(t *testing.T) {
	over := func(rl *x509.RevocationList) *x509.RevocationList {
		rl.NextUpdate = time.Now().Add(-time.Second)
		return rl
	}
	t.Run(staleRefuse, func(t *testing.T) {
		r, ca, file, token := startRevoking(t, staleRefuse)
		c := ca.Issue(dnsName("pune-07.corp.example"))
		_, ended := r.logIn(r.clientTLS(c), token)
		companycatest.Replace(t, file, ca.SignList(over(companycatest.List(2))))
		if rest, err := io.ReadAll(ended); err != nil || !strings.Contains(string(rest), "cannot check this workstation's certificate") {
			t.Errorf("the session ended with %q, %v", rest, err)
		}
		if imap, submission := r.answers(c, token); !strings.HasPrefix(imap, "NO [UNAVAILABLE]") || !strings.HasPrefix(submission, "454 ") {
			t.Errorf("%s%s", imap, submission)
		}
		// Postern's own CA goes on.
		if imap, _ := r.answers(r.workstation("laptop-3"), token); !strings.HasPrefix(imap, "OK ") {
			t.Errorf("a workstation of Postern's own: %s", imap)
		}
		companycatest.Replace(t, file, ca.SignList(companycatest.List(3)))
		r.eventually("a new list lets it in", func() bool {
			imap, _ := r.answers(c, token)
			return strings.HasPrefix(imap, "OK ")
		})
		r.eventually("the alert is over", func() bool {
			alerts := r.command("alert", "list", "--all", "--json")
			return strings.Contains(alerts, `"kind":"revocation-list"`) && !strings.Contains(r.command("alert", "list", "--json"), `"kind":"revocation-list"`)
		})
	})
	t.Run(staleAllow, func(t *testing.T) {
		r, ca, file, token := startRevoking(t, staleAllow)
		c, lost := ca.Issue(dnsName("pune-07.corp.example")), ca.Issue(dnsName("goa-01.corp.example"))
		_, ended := r.logIn(r.clientTLS(lost), token)
		companycatest.Replace(t, file, ca.SignList(over(companycatest.List(2, lost.Leaf))))
		if rest, err := io.ReadAll(ended); err != nil || !strings.Contains(string(rest), "* BYE ") {
			t.Errorf("the session ended with %q, %v", rest, err)
		}
		if imap, _ := r.answers(c, token); !strings.HasPrefix(imap, "OK ") {
			t.Errorf("%s", imap)
		}
	})
}
