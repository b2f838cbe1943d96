// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/x509"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/companyca/companycatest"
)

// TestCompanyCA: a machine that its company's CA gives one key after the other
// reads mail from Dovecot as one workstation, until the CA's list has it: that
// ends its IDLE, while a colleague's goes on.
func TestCompanyCA(t *testing.T) {
	const mailbox = "sales@acme.example"
	// The root stands nowhere in the configuration.
	root := companycatest.New(t, "Acme Root CA")
	ca, list := root.Below("Acme Issuing CA"), filepath.Join(t.TempDir(), "issuing-ca.crl")
	companycatest.Replace(t, list, ca.SignList(companycatest.List(1)))
	w := NewWorld(t, WorldOptions{Mailboxes: []string{mailbox}, Sealed: true, Postern: Options{Workstations: fmt.Sprintf(`  authorities:
    - name: acme
      ca_file: %q
      name_from: dns
      revocation:
        files: [%q]
`, ca.File(), list)}})
	w.Dovecot.Deliver(mailbox, "", []byte(message(buyer, mailbox, "the-question", "twelve pumps")))
	named := func(name string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames = []string{name} }
	}
	s := w.Seat(mailbox)
	w.Postern.CLI("workstation", "add", "pune-07", "--certificate-name", "PUNE-07.acme.example")
	w.Postern.CLI("workstation", "add", "goa-01", "--certificate-name", "goa-01.acme.example")

	first, renewed, colleague := ca.Issue(named("pune-07.acme.example")), ca.Issue(named("pune-07.acme.example")), ca.Issue(named("goa-01.acme.example"))
	idle := make(map[string]*Conn)
	for name, at := range map[string]*Seat{"first": s.with(first), "renewed": s.with(renewed), "colleague": s.with(colleague)} {
		c := at.IMAP(t)
		c.OK("SELECT INBOX")
		if got := strings.Join(c.OK("UID FETCH 1 BODY.PEEK[]"), "\n"); !strings.Contains(got, "twelve pumps") {
			t.Errorf("%s reads %q", name, got)
		}
		c.Send("i IDLE\r\n")
		if line := c.Line(); !strings.HasPrefix(line, "+ ") {
			t.Fatalf("%s: IDLE is answered with %q", name, line)
		}
		idle[name] = c
	}

	began := time.Now()
	companycatest.Replace(t, list, ca.SignList(companycatest.List(2, first.Leaf)))
	if rest := idle["first"].ExpectClosed(answerTimeout); !strings.Contains(rest, "* BYE ") {
		t.Errorf("the IDLE ended with %q", rest)
	}
	t.Logf("from the list's arrival to the closed connection: %s", time.Since(began))
	for _, name := range []string{"renewed", "colleague"} {
		idle[name].Send("DONE\r\n")
		if _, answer := idle[name].Answer("i"); !strings.HasPrefix(answer, "OK ") {
			t.Errorf("%s: IDLE ends with %q", name, answer)
		}
	}
	if _, answer := s.with(first).DialIMAP(t).Cmd("LOGIN %s %s", s.Mailbox, s.Token); !strings.HasPrefix(answer, "NO [AUTHENTICATIONFAILED]") {
		t.Errorf("the revoked certificate: %q", answer)
	}
	// A CA beside it, of the same root, names nobody: the handshake fails, or the
	// login does.
	stranger := root.Below("Acme Printers CA").Issue(named("pune-07.acme.example"))
	if c, err := w.Postern.TryDialTLS(t, w.Postern.IMAPSPort, stranger); err == nil {
		c.ExpectClosed(answerTimeout)
	}
	opened := s.AwaitEvents(3, broker.EventSessionOpen)
	stations := make(map[broker.ID]int)
	for _, e := range opened {
		stations[e.WorkstationID]++
	}
	if len(opened) != 3 || len(stations) != 2 {
		t.Errorf("on record are %d sessions, at %v", len(opened), stations)
	}
	w.CheckNothingLeaked()
}
