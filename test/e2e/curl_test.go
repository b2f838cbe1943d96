// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// testCurl lists, searches, fetches, flags, appends and sends.
func testCurl(t *testing.T, w *World, mailbox string) {
	first := message(buyer, mailbox, "curl-one", "twelve pumps")
	w.Dovecot.Deliver(mailbox, "", []byte(first))
	w.Dovecot.Deliver(mailbox, "", []byte(message(buyer, mailbox, "curl-two", "a question")))
	s, h := w.Seat(mailbox), newHome(t)
	imaps := fmt.Sprintf("imaps://localhost:%d/", w.Postern.IMAPSPort)
	curl := func(args ...string) string {
		t.Helper()
		return h.run("", "curl", append([]string{
			"--silent", "--show-error", "--max-time", "60",
			"--cacert", w.Postern.CAFile, "--cert", s.CertFile, "--key", s.KeyFile,
			"--user", mailbox + ":" + s.Token,
		}, args...)...)
	}

	if got := curl(imaps); !strings.Contains(got, "INBOX") || !strings.Contains(got, `\Sent`) {
		t.Errorf("LIST: %q", got)
	}
	if got := curl(imaps + "INBOX?SUBJECT%20curl-two"); !strings.Contains(got, "* SEARCH 2") {
		t.Errorf("SEARCH: %q", got)
	}
	if got := curl(imaps + "INBOX;UID=1"); !strings.HasSuffix(got, first) {
		t.Errorf("FETCH: %q", got)
	}
	if got := curl("--login-options", "AUTH=LOGIN", imaps+"INBOX;UID=2;SECTION=HEADER.FIELDS%20(SUBJECT)"); !strings.Contains(got, "Subject: curl-two") {
		t.Errorf("FETCH of a header: %q", got)
	}
	curl(imaps+"INBOX", "--request", `STORE 2 +FLAGS (\Flagged \Answered)`)
	if got := w.Dovecot.Messages(mailbox, "INBOX", "FLAGGED ANSWERED"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("flagged at the provider: %v", got)
	}
	draft := message(mailbox, buyer, "curl-draft", "to be finished")
	curl("--upload-file", h.write("draft", draft), imaps+"Drafts")
	if got := w.AwaitMail(mailbox, "Drafts", "curl-draft"); string(got) != draft {
		t.Errorf("the draft at the provider: %q", got)
	}

	sent := message(mailbox, buyer, "curl-sent", "by courier")
	curl("--upload-file", h.write("sent", sent), "--mail-from", mailbox, "--mail-rcpt", buyer,
		fmt.Sprintf("smtps://localhost:%d/client.example", w.Postern.SubmissionsPort))
	if got := w.AwaitMail(buyer, "INBOX", "curl-sent"); !strings.HasSuffix(string(got), sent) {
		t.Errorf("what arrived: %q", got)
	}
	opened := s.AwaitEvents(1, broker.EventMessageOpen)
	if m := Decode[broker.MessageOpen](t, opened[0]).Messages; len(opened) != 1 || len(m) != 1 || m[0].UID != 1 || m[0].MessageID != "<curl-one@client.example>" {
		t.Errorf("opened: %v", opened)
	}
	withoutCertificate(t, w, h, s, imaps)
}

// withoutCertificate: an app password alone opens nothing.
func withoutCertificate(t *testing.T, w *World, h *home, s *Seat, url string) {
	t.Helper()
	out, _, err := h.try("", "curl", "--silent", "--show-error", "--max-time", "60",
		"--cacert", w.Postern.CAFile, "--user", s.Mailbox+":"+s.Token, url)
	if err == nil || strings.Contains(out, "LIST") {
		t.Errorf("let in without a certificate: %v, %q", err, out)
	}
}
