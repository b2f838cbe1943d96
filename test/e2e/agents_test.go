// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/servers"
)

// TestAgentsWithoutAppPasswords: an agent whose password is the directory's, and
// one who has nothing but the certificate of his own workstation, read and send
// mail with curl.
func TestAgentsWithoutAppPasswords(t *testing.T) {
	const mailbox = "sales@acme.example"
	slapd := servers.StartSlapd(t)
	account := slapd.AddPerson("arao", "Marked?directory", map[string][]string{"userAccountControl": {"512"}})
	searcher := slapd.AddPerson("postern", "Marked?searcher", nil)
	h := newHome(t)
	passwordFile := h.write("password", "Marked?searcher\n")
	w := NewWorld(t, WorldOptions{Mailboxes: []string{mailbox, buyer}, Sealed: true, Postern: Options{Config: fmt.Sprintf(`directory:
  urls: [%q]
  ca_file: %q
  search:
    base: %q
    filter: "(&(objectClass=inetOrgPerson)(uid={account}))"
    bind_name: %q
    password_file: %q
  timeout: 10s
  check_interval: 1s
`, slapd.URL(), slapd.CA.File, slapd.Suffix, searcher, passwordFile), Workstations: "  certificate_alone: [software]\n"}})
	w.Dovecot.Deliver(mailbox, "", []byte(message(buyer, mailbox, "the-question", "twelve pumps")))
	s := w.Seat(mailbox)
	curl := func(user string, args ...string) (string, error) {
		t.Helper()
		out, problem, err := h.try("", "curl", append([]string{
			"--silent", "--show-error", "--max-time", "60", "--cacert", w.Postern.CAFile,
			"--cert", s.CertFile, "--key", s.KeyFile, "--user", user,
		}, args...)...)
		return out + problem, err
	}
	inbox := fmt.Sprintf("imaps://localhost:%d/INBOX;UID=1", w.Postern.IMAPSPort)
	reads := func(what, user string, args ...string) {
		t.Helper()
		if out, err := curl(user, append(args, inbox)...); err != nil || !strings.Contains(out, "twelve pumps") {
			t.Errorf("%s: %v: %q", what, err, out)
		}
	}
	refused := func(what, user string, args ...string) {
		t.Helper()
		if out, err := curl(user, append(args, inbox)...); err == nil || strings.Contains(out, "twelve pumps") {
			t.Errorf("%s: %q", what, out)
		}
	}

	w.Postern.CLI("agent", "update", s.Agent, "--authentication", "ldap", "--directory-account", "arao")
	named := s.Agent + "/" + mailbox
	reads("the directory's password", named+":Marked?directory")
	reads("by LOGIN", named+":Marked?directory", "--login-options", "AUTH=LOGIN")
	refused("a wrong one", named+":Marked?wrong")
	refused("none", named+":")
	sent := h.write("sent", message(mailbox, buyer, "the-answer", "by courier"))
	if out, err := curl(named+":Marked?directory", "--upload-file", sent, "--mail-from", mailbox, "--mail-rcpt", buyer,
		fmt.Sprintf("smtps://localhost:%d/client.example", w.Postern.SubmissionsPort)); err != nil {
		t.Errorf("submission: %v: %s", err, out)
	}
	w.AwaitMail(buyer, "INBOX", "the-answer")

	// The account is disabled: who is in is out, and cannot come back.
	idle := s.DialIMAP(t)
	idle.OK("LOGIN %s %s", named, "Marked?directory")
	idle.Send("i IDLE\r\n")
	idle.Expect(`\+ .*`)
	slapd.Replace(account, "userAccountControl", "514")
	if bye := idle.ExpectClosed(time.Minute); !strings.Contains(bye, "your company's directory") {
		t.Errorf("the goodbye is %q", bye)
	}
	refused("a disabled account", named+":Marked?directory")
	slapd.Replace(account, "userAccountControl", "512")

	// With the directory down it is told as an outage.
	slapd.Stop()
	if out, err := curl(named+":Marked?other", "--verbose", inbox); err == nil || !strings.Contains(out, "NO [UNAVAILABLE]") {
		t.Errorf("with the directory down: %v: %s", err, out)
	}

	certificateAlone(t, w, s, reads, refused)
	sessions := w.Postern.CLI("--json", "session", "list", "--all")
	var list httpapi.List[*httpapi.Session]
	if err := json.Unmarshal([]byte(sessions), &list); err != nil {
		t.Fatal(err)
	}
	methods := make(map[broker.Authentication]bool)
	for _, x := range list.Items {
		methods[x.Authentication] = true
	}
	if !methods[broker.AuthLDAP] || !methods[broker.AuthCertificate] {
		t.Errorf("sessions were opened by %v", methods)
	}
	for _, leak := range []string{"Marked?directory", "Marked?searcher", "Marked?wrong"} {
		if strings.Contains(string(w.Postern.Logs()), leak) || strings.Contains(w.Postern.CLI("log", "events"), leak) {
			t.Errorf("%q stands in a log", leak)
		}
	}
}

// certificateAlone makes the workstation the agent's own.
func certificateAlone(t *testing.T, w *World, s *Seat, reads, refused func(what, user string, args ...string)) {
	t.Helper()
	external := []string{"--login-options", "AUTH=EXTERNAL"}
	w.Postern.CLI("agent", "update", s.Agent, "--authentication", "app-password")
	refused("before it is his", s.Mailbox+":", external...)
	w.Postern.CLI("workstation", "update", s.Workstation, "--agent", s.Agent)
	reads("by certificate alone", s.Mailbox+":", external...)
	reads("with an initial response", s.Mailbox+":", "--login-options", "AUTH=EXTERNAL", "--sasl-ir")
	refused("another agent's name", "somebody/"+s.Mailbox+":", external...)
	identity := base64.StdEncoding.EncodeToString([]byte(s.Mailbox))
	c := s.DialSubmission(t)
	if offers := c.Ask(250, "EHLO client.example"); !strings.Contains(offers, " EXTERNAL") {
		t.Errorf("EXTERNAL is not offered: %q", offers)
	}
	c.Ask(235, "AUTH EXTERNAL %s", identity)
	c.Ask(250, "MAIL FROM:<%s>", s.Mailbox)
	c.Ask(221, "QUIT")
	c = s.DialSubmission(t)
	c.Ask(334, "AUTH EXTERNAL")
	c.Ask(235, "%s", identity)
	w.Postern.CLI("delegation", "update", string(s.Delegation), "--needs-password")
	refused("where terms demand a password", s.Mailbox+":", external...)
	w.Postern.CLI("delegation", "update", string(s.Delegation), "--needs-password=false")
	reads("where they no longer do", s.Mailbox+":", external...)
	w.Postern.CLI("workstation", "update", s.Workstation, "--agent", "")
	refused("when it is nobody's", s.Mailbox+":", external...)
}
