// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/companyca/companycatest"
	"github.com/postern-mail/postern/broker/httpapi"
)

func dnsName(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = []string{name} }
}

// startNamed runs a server that knows workstations by the certificates of two
// authorities, head-office and branch.
func startNamed(t *testing.T, class string) (r *running, head, branch *companycatest.CA, token string) {
	t.Helper()
	head, branch = companycatest.New(t, "Head Office Issuing CA"), companycatest.New(t, "Branch Issuing CA")
	r = startServer(t, func(c *Config) {
		c.Workstations.Authorities = []AuthorityConfig{
			{Name: "head-office", CAFile: head.File(), NameFrom: "dns", Class: class},
			{Name: "branch", CAFile: branch.File(), NameFrom: "dns", Class: "software"},
		}
		c.Workstations.CertificateAlone = []string{"hardware"}
	})
	return r, head, branch, r.assign(upstreamIMAP(t, "sales@acme.example", "upstream secret"), "upstream secret")
}

func (r *running) shown(name string) (w httpapi.Workstation) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.command("workstation", "show", name, "--json")), &w); err != nil {
		r.t.Fatal(err)
	}
	return w
}

// TestCompanyCertificatesByRule: whatever key a company's CA gives a machine, it
// is the workstation that the certificate names; and nobody else's certificate
// is, though it says so.
func TestCompanyCertificatesByRule(t *testing.T) {
	r, head, branch, token := startNamed(t, "software")
	own := r.workstation("laptop-3")
	r.command("workstation", "add", "pune-07", "--authority", "head-office", "--certificate-name", "PUNE-07.corp.example")
	r.command("workstation", "add", "goa-01", "--authority", "branch", "--certificate-name", "goa-01.corp.example")
	if n := r.shown("pune-07").CertificateName; n == nil || *n != (broker.CertificateName{Authority: "head-office", Name: "pune-07.corp.example"}) {
		t.Fatalf("its name is %+v", n)
	}
	good := func(c tls.Certificate, name string) {
		t.Helper()
		config := r.clientTLS()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
		conn, _ := r.logIn(config, token)
		defer conn.Close()
		live := r.manager.Live()
		if len(live) == 0 || live[len(live)-1].WorkstationID != r.shown(name).ID {
			t.Errorf("sessions %+v, want one of %s", live, name)
		}
		_ = conn.Close()
		r.eventually("the session is over", func() bool { return r.manager.Count() == 0 })
	}
	good(head.Issue(dnsName("pune-07.corp.example")), "pune-07")
	good(head.Issue(dnsName("PUNE-07.CORP.EXAMPLE")), "pune-07") // renewed, with a new key
	good(branch.Issue(dnsName("goa-01.corp.example")), "goa-01")

	// A CA below the head office's, with its certificate in the chain.
	printers := head.Below("Printers CA")
	below := printers.Issue(dnsName("pune-07.corp.example"))
	below.Certificate = append(below.Certificate, printers.Certificate.Raw)
	// The branch's CA, certified by the head office as well.
	crossed := branch.Issue(dnsName("pune-07.corp.example"))
	crossed.Certificate = append(crossed.Certificate, head.Certify("Branch Issuing CA", branch.Key).Raw)
	both := func(c *x509.Certificate) { c.DNSNames = []string{"pune-07.corp.example", "goa-01.corp.example"} }
	common := func(c *x509.Certificate) { c.Subject.CommonName = "pune-07.corp.example" }
	for name, c := range map[string]tls.Certificate{
		"the other authority's":              branch.Issue(dnsName("pune-07.corp.example")),
		"the other authority's, cross-wise":  head.Issue(dnsName("goa-01.corp.example")),
		"of a CA below":                      below,
		"of a cross-signed CA":               crossed,
		"with two names":                     head.Issue(both),
		"with the name elsewhere":            head.Issue(common),
		"a workstation's of Postern's own":   head.Issue(dnsName("laptop-3")),
		"named by what records call it":      head.Issue(dnsName("pune-07")),
		"a server's":                         head.Issue(dnsName("pune-07.corp.example"), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"the certificate, and another's key": {Certificate: head.Issue(dnsName("pune-07.corp.example")).Certificate, PrivateKey: head.Issue().PrivateKey},
	} {
		imap, submission := r.answers(c, token)
		if strings.HasPrefix(imap, "OK ") || strings.HasPrefix(submission, "235 ") {
			t.Errorf("%s: %s%s", name, imap, submission)
		}
	}
	if imap, _ := r.answers(own, token); !strings.HasPrefix(imap, "OK ") {
		t.Errorf("the workstation of Postern's own CA: %s", imap)
	}
	// The record says what a refused certificate is called, for whoever looks why.
	if failed := r.command("log", "events", "--firm", "Acme", "--type", "auth.failed", "--json"); !strings.Contains(failed, `"certificate_name":{"authority":"branch","name":"pune-07.corp.example"}`) {
		t.Errorf("on record is %s", failed)
	}
}

// TestCompanyNameIsTakenAway: a name that an administrator takes away, or gives
// another workstation, ends the sessions that rest on it.
func TestCompanyNameIsTakenAway(t *testing.T) {
	r, head, _, token := startNamed(t, "software")
	c := head.Issue(dnsName("pune-07.corp.example"))
	r.command("workstation", "add", "pune-07", "--authority", "head-office", "--certificate-name", "pune-07.corp.example")
	if code, _, stderr := postern(t, "workstation", "add", "twin", "--authority", "head-office", "--certificate-name", "PUNE-07.corp.example", "--socket", r.Socket()); code == exitOK || !strings.Contains(stderr, "another workstation has the name") {
		t.Errorf("a second one of that name: exit code %d: %s", code, stderr)
	}
	if code, _, stderr := postern(t, "workstation", "update", "pune-07", "--certificate-name", "*.corp.example", "--authority", "head-office", "--socket", r.Socket()); code == exitOK || !strings.Contains(stderr, "no host's name") {
		t.Errorf("a pattern: exit code %d: %s", code, stderr)
	}
	r.logIn(r.clientTLS(c), token)
	r.command("workstation", "update", "pune-07", "--certificate-name", "")
	if n := r.manager.Count(); n != 0 {
		t.Errorf("%d sessions live on", n)
	}
	if imap, _ := r.answers(c, token); !strings.HasPrefix(imap, "NO ") {
		t.Errorf("without the name: %s", imap)
	}
	r.command("workstation", "add", "twin", "--authority", "head-office", "--certificate-name", "pune-07.corp.example")
	r.logIn(r.clientTLS(c), token)
	r.command("workstation", "remove", "twin")
	if n := r.manager.Count(); n != 0 {
		t.Errorf("%d sessions live on", n)
	}
	r.command("workstation", "update", "pune-07", "--authority", "head-office", "--certificate-name", "pune-07.corp.example")
	r.logIn(r.clientTLS(c), token)
}

// TestCompanyCertificatesClass: a workstation passes for what its authority's
// certificates pass for, whatever its record says.
func TestCompanyCertificatesClass(t *testing.T) {
	r, head, branch, token := startNamed(t, "hardware")
	if code, _, stderr := postern(t, "workstation", "add", "goa-01", "--class", "hardware", "--authority", "branch", "--certificate-name", "goa-01.corp.example", "--socket", r.Socket()); code == exitOK || !strings.Contains(stderr, "of class software") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	r.command("workstation", "add", "pune-07", "--class", "hardware", "--agent", "asha", "--authority", "head-office", "--certificate-name", "pune-07.corp.example")
	// As though the branch's were of class hardware when it was added.
	w := &broker.Workstation{
		Name: "goa-01", Class: broker.ClassHardware, AgentID: r.shown("pune-07").AgentID,
		CertificateName: &broker.CertificateName{Authority: "branch", Name: "goa-01.corp.example"},
	}
	if err := r.store.CreateWorkstation(t.Context(), broker.Actor{Kind: "system"}, w); err != nil {
		t.Fatal(err)
	}
	external := func(c tls.Certificate) string {
		config := r.clientTLS(c)
		conn, err := tls.Dial("tcp", r.IMAPSAddr().String(), config)
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(2 * patience))
		fmt.Fprintf(conn, "a AUTHENTICATE EXTERNAL %s\r\n", base64.StdEncoding.EncodeToString([]byte("sales@acme.example")))
		for lines := bufio.NewReader(conn); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				return err.Error()
			}
			if answer, ours := strings.CutPrefix(line, "a "); ours {
				return answer
			}
		}
	}
	if answer := external(head.Issue(dnsName("pune-07.corp.example"))); !strings.HasPrefix(answer, "OK ") {
		t.Errorf("by a certificate of class hardware alone: %s", answer)
	}
	if answer := external(branch.Issue(dnsName("goa-01.corp.example"))); strings.HasPrefix(answer, "OK ") {
		t.Errorf("by a certificate of class software alone: %s", answer)
	}
	if imap, _ := r.answers(branch.Issue(dnsName("goa-01.corp.example")), token); !strings.HasPrefix(imap, "OK ") {
		t.Errorf("with an app password: %s", imap)
	}
}

// TestImportWorkstationsByName: a file gives thousands of machines their names,
// and makes no codes for them.
func TestImportWorkstationsByName(t *testing.T) {
	r, head, _, token := startNamed(t, "hardware")
	file := filepath.Join(t.TempDir(), "pune.csv")
	text := "name,class,authority,certificate_name,agent\n" +
		"pune-01,hardware,head-office,PUNE-01.corp.example,asha\n" +
		"goa-01,software,branch,goa-01.corp.example,\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 workstations added, 0 there already", "0 workstations added, 2 there already"} {
		if out := r.command("import", "workstations", file); !strings.Contains(out, want) {
			t.Errorf("%s, want %q", out, want)
		}
	}
	if w := r.shown("pune-01"); w.Agent != "asha" || w.CertificateName == nil || w.CertificateName.Name != "pune-01.corp.example" {
		t.Errorf("%+v", w)
	}
	r.logIn(r.clientTLS(head.Issue(dnsName("pune-01.corp.example"))), token)
	for row, want := range map[string]string{
		"pune-01,hardware,branch,pune-01.corp.example,":      "line 2, class",
		"pune-01,hardware,head-office,pune-02.corp.example,": "line 2, certificate_name",
		"pune-03,hardware,nowhere,pune-03.corp.example,":     "line 2, authority",
		"pune-03,hardware,head-office,,":                     "line 2, authority",
		"pune-03,hardware,head-office,pune_3.corp.example,x": "line 2, agent",
	} {
		if err := os.WriteFile(file, []byte("name,class,authority,certificate_name,agent\n"+row+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := postern(t, "import", "workstations", file, "--socket", r.Socket()); code == exitOK || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d, want %q: %s", row, code, want, stderr)
		}
	}
}
