// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// testFetchmail hands every message to a local delivery agent and deletes it
// at the provider.
func testFetchmail(t *testing.T, w *World, mailbox string) {
	const n = 25
	subject := func(i int) string { return fmt.Sprintf("fetched-%02d", i) }
	w.Dovecot.Fill(mailbox, "", n, func(i int) []byte {
		return []byte(message(buyer, mailbox, subject(i), strings.Repeat("line\r\n.\r\n", 1+i*i)))
	})
	s, h := w.Seat(mailbox), newHome(t)
	inbox := h.path("inbox")
	if err := os.Mkdir(inbox, 0o700); err != nil {
		t.Fatal(err)
	}
	deliver := h.write("deliver", "#!/bin/sh\nexec cat > \"$(mktemp \""+inbox+"/XXXXXXXX\")\"\n")
	if err := os.Chmod(deliver, 0o700); err != nil {
		t.Fatal(err)
	}
	rc := h.write("fetchmailrc", fmt.Sprintf(`poll localhost protocol IMAP port %d auth password
  user "%s" password "%s"
  ssl sslproto "TLS1.2+" sslcertck sslcertfile "%s" sslcert "%s" sslkey "%s"
  folder INBOX fetchall nokeep no rewrite mda "%s"
`, w.Postern.IMAPSPort, mailbox, s.Token, w.Postern.CAFile, s.CertFile, s.KeyFile, deliver))
	h.run("", "fetchmail", "--fetchmailrc", rc, "--pidfile", h.path("pid"), "--nodetach", "--nosyslog")

	var got []string
	files, err := os.ReadDir(inbox)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text := string(readFile(t, h.path("inbox", f.Name())))
		for i := range n {
			if strings.Contains(text, "Subject: "+subject(i)) {
				got = append(got, subject(i))
				if lines := strings.Count(text, "line\n.\n"); lines != 1+i*i {
					t.Errorf("%s has %d lines", subject(i), lines)
				}
			}
		}
	}
	slices.Sort(got)
	want := make([]string, n)
	for i := range want {
		want[i] = subject(i)
	}
	if !slices.Equal(got, want) {
		t.Errorf("delivered: %v", got)
	}
	if left := w.Dovecot.Messages(mailbox, "INBOX", "ALL"); len(left) != 0 {
		t.Errorf("left at the provider: %v", left)
	}
	s.AwaitEvents(1, broker.EventSessionEnd)
	if got := openedUIDs(t, s, "INBOX"); len(got) != n {
		t.Errorf("on record as opened: %v", got)
	}
	if s.Events(broker.EventMessageExpunge) == nil {
		t.Error("the deletion is not on record")
	}
}

// openedUIDs returns the UIDs of messages of a folder that are on record as
// opened.
func openedUIDs(t *testing.T, s *Seat, folder string) []uint32 {
	t.Helper()
	var uids []uint32
	for _, e := range s.Events(broker.EventMessageOpen) {
		opened := Decode[broker.MessageOpen](t, e)
		if opened.Folder != folder {
			continue
		}
		for _, m := range opened.Messages {
			if !slices.Contains(uids, m.UID) {
				uids = append(uids, m.UID)
			}
		}
	}
	slices.Sort(uids)
	return uids
}
