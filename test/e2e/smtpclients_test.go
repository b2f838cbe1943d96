// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// testMsmtp sends over both ports, and is refused a sender of somebody
// else's.
func testMsmtp(t *testing.T, w *World, mailbox string) {
	s, h := w.Seat(mailbox), newHome(t)
	rc := h.write("msmtprc", fmt.Sprintf(`defaults
host localhost
tls on
tls_trust_file %s
tls_cert_file %s
tls_key_file %s
auth plain
user %s
password %s
from %[4]s
account implicit
port %[6]d
tls_starttls off
account starttls
port %[7]d
tls_starttls on
`, w.Postern.CAFile, s.CertFile, s.KeyFile, mailbox, s.Token, w.Postern.SubmissionsPort, w.Postern.SubmissionPort))
	for _, account := range []string{"implicit", "starttls"} {
		sent := message(mailbox, buyer, "msmtp-"+account, "by courier\r\n.\r\n..two dots")
		h.run(strings.ReplaceAll(sent, "\r\n", "\n"), "msmtp", "-C", rc, "-a", account, buyer)
		if got := w.AwaitMail(buyer, "INBOX", "msmtp-"+account); !strings.HasSuffix(string(got), sent) {
			t.Errorf("what arrived: %q", got)
		}
	}
	forged := message("boss@client.example", buyer, "msmtp-forged", "pay at once")
	_, problems, err := h.try(forged, "msmtp", "-C", rc, "-a", "implicit", "--from", "boss@client.example", buyer)
	if err == nil || !strings.Contains(problems, "550") {
		t.Errorf("sent as somebody else: %v\n%s", err, problems)
	}
	if got := s.AwaitEvents(2, broker.EventSendResult); len(got) != 2 {
		t.Errorf("%d messages on record as sent", len(got))
	}
	if got := s.AwaitEvents(1, broker.EventSendRefused); Decode[broker.SendRefused](t, got[0]).Rule != "own-address" {
		t.Errorf("the refusal on record: %s", got[0].Data)
	}
}

// testSwaks logs in by each mechanism, over each port.
func testSwaks(t *testing.T, w *World, mailbox string) {
	s, h := w.Seat(mailbox), newHome(t)
	ports := []struct {
		name, tls string
		port      uint16
	}{
		{"implicit", "--tls-on-connect", w.Postern.SubmissionsPort},
		{"starttls", "--tls", w.Postern.SubmissionPort},
	}
	sent := 0
	for _, p := range ports {
		for _, mechanism := range []string{"PLAIN", "LOGIN"} {
			subject := "swaks-" + p.name + "-" + mechanism
			out := h.run("", "swaks", "--server", "localhost", "--port", fmt.Sprint(p.port), p.tls,
				"--tls-cert", s.CertFile, "--tls-key", s.KeyFile, "--tls-verify", "--tls-ca-path", w.Postern.CAFile,
				"--auth", mechanism, "--auth-user", mailbox, "--auth-password", s.Token,
				"--from", mailbox, "--to", buyer, "--h-Subject", subject, "--body", "by courier")
			if !strings.Contains(out, "=== TLS started") {
				t.Errorf("no TLS:\n%s", out)
			}
			w.AwaitMail(buyer, "INBOX", subject)
			sent++
		}
	}
	out, _, err := h.try("", "swaks", "--server", "localhost", "--port", fmt.Sprint(w.Postern.SubmissionPort),
		"--auth", "PLAIN", "--auth-user", mailbox, "--auth-password", s.Token, "--from", mailbox, "--to", buyer)
	if err == nil || strings.Contains(out, "AUTH PLAIN") {
		t.Errorf("a login without TLS was offered: %v\n%s", err, out)
	}
	if got := s.AwaitEvents(sent, broker.EventSendResult); len(got) != sent {
		t.Errorf("%d messages on record as sent", len(got))
	}
}
