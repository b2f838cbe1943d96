// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// screenTimeout is how long a terminal may take to show what it must.
const screenTimeout = 30 * time.Second

// testNeomutt reads, answers, flags and deletes in a terminal, as a person
// does.
func testNeomutt(t *testing.T, w *World, mailbox string) {
	s, h := w.Seat(mailbox), newHome(t)
	worksInNeomutt(t, w, s, h, straightWay(w, s, h))
}

// straightWay is neomutt's way to Postern, with the workstation's key in files.
func straightWay(w *World, s *Seat, h *home) string {
	both := append(readFile(h.t, s.CertFile), readFile(h.t, s.KeyFile)...)
	return fmt.Sprintf(`set ssl_ca_certificates_file="%s" ssl_starttls=yes ssl_force_tls=yes
set certificate_file="%s" ssl_client_cert="%s"
set folder="imaps://localhost:%d/"
set smtp_url="smtps://%s@localhost:%d/"
`, w.Postern.CAFile, h.path("certificates"), h.write("workstation.pem", string(both)),
		w.Postern.IMAPSPort, strings.ReplaceAll(s.Mailbox, "@", "%40"), w.Postern.SubmissionsPort)
}

// worksInNeomutt does a person's work, over the connections that way sets up.
func worksInNeomutt(t *testing.T, w *World, s *Seat, h *home, way string) {
	mailbox := s.Mailbox
	w.Dovecot.Deliver(mailbox, "", []byte(message(buyer, mailbox, "neomutt-order", "We need twelve pumps.")))
	w.Dovecot.Deliver(mailbox, "", []byte(message(buyer, mailbox, "neomutt-junk", "Win a prize.")))
	term := startNeomutt(t, s, h, way)
	term.await("neomutt-junk")
	term.await("neomutt-order")
	term.keys("1", "Enter", "Enter") // the first message, open
	term.await("We need twelve pumps.")
	term.keys("r")
	term.await("y:Send")
	term.keys("y")
	sent := w.AwaitMail(buyer, "INBOX", "neomutt-order")
	if !strings.Contains(string(sent), "They leave tomorrow.") || !strings.Contains(string(sent), "In-Reply-To: <neomutt-order@client.example>") {
		t.Errorf("the answer: %q", sent)
	}
	term.await("twelve pumps") // back in the pager
	term.keys("i", "1", "Enter", "F", "2", "Enter", "d", "$")
	servers.WaitFor(t, screenTimeout, func() bool {
		return len(w.Dovecot.Messages(mailbox, "INBOX", "ALL")) == 1
	}, "the second message to be deleted")
	if got := w.Dovecot.Messages(mailbox, "INBOX", "SEEN ANSWERED FLAGGED SUBJECT neomutt-order"); len(got) != 1 {
		t.Errorf("the first message is not seen, answered and flagged: %s", w.Dovecot.Doveadm("fetch", "-u", mailbox, "uid flags hdr.subject", "mailbox", "INBOX"))
	}
	if got := w.Dovecot.Messages(mailbox, "Sent", "SUBJECT neomutt-order"); len(got) != 1 {
		t.Errorf("%d copies in Sent", len(got))
	}
	term.keys("q")
	term.awaitEnd()
	if got := openedUIDs(t, s, "INBOX"); len(got) != 1 || got[0] != 1 {
		t.Errorf("on record as opened: %v", got)
	}
	if got := s.AwaitEvents(1, broker.EventSendResult); Decode[broker.SendResult](t, got[0]).Outcome != "accepted" {
		t.Errorf("on record as sent: %s", got[0].Data)
	}
}

// startNeomutt starts neomutt in a terminal, at INBOX, over the connections that
// way sets up.
func startNeomutt(t *testing.T, s *Seat, h *home, way string) *terminal {
	t.Helper()
	editor := h.write("editor", "#!/bin/sh\necho 'They leave tomorrow.' >> \"$1\"\n")
	if err := os.Chmod(editor, 0o700); err != nil {
		t.Fatal(err)
	}
	rc := h.write("neomuttrc", way+fmt.Sprintf(`set spoolfile="+INBOX" record="+Sent" postponed="+Drafts"
set imap_user="%[1]s" imap_pass="%[2]s" imap_idle=yes smtp_pass="%[2]s"
set from="%[1]s" use_from=yes use_envelope_from=yes realname="Sales"
set editor="%[3]s" fast_reply=yes include=no abort_unmodified=no recall=no
set delete=yes quit=yes confirmappend=no confirmcreate=no mark_old=no sleep_time=0 wait_key=no copy=yes
set sort=date mail_check=60
`, s.Mailbox, s.Token, editor))
	return startTerminal(t, h, "neomutt", "-n", "-F", rc)
}

// terminal is a program in a terminal of its own.
type terminal struct {
	t      *testing.T
	h      *home
	socket string
}

// startTerminal starts a program in a tmux server of its own.
func startTerminal(t *testing.T, h *home, command ...string) *terminal {
	t.Helper()
	term := &terminal{t, h, h.path("tmux")}
	h.run("", "tmux", append([]string{
		"-S", term.socket, "-f", "/dev/null", "new-session", "-d", "-x", "140", "-y", "40",
	}, command...)...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the terminal shows:\n%s", term.screen())
		}
		// It is gone already when its program has ended.
		_, _, _ = h.try("", "tmux", "-S", term.socket, "kill-server")
	})
	return term
}

// screen returns what the terminal shows.
func (term *terminal) screen() string {
	out, problems, err := term.h.try("", "tmux", "-S", term.socket, "capture-pane", "-p")
	if err != nil {
		return "nothing: " + problems
	}
	return out
}

// await waits until the terminal shows a text.
func (term *terminal) await(text string) {
	term.t.Helper()
	servers.WaitFor(term.t, screenTimeout, func() bool { return strings.Contains(term.screen(), text) },
		fmt.Sprintf("the terminal to show %q", text))
}

// keys types; names such as Enter are keys.
func (term *terminal) keys(keys ...string) {
	term.t.Helper()
	term.h.run("", "tmux", append([]string{"-S", term.socket, "send-keys"}, keys...)...)
}

// awaitEnd waits until the program has ended.
func (term *terminal) awaitEnd() {
	term.t.Helper()
	servers.WaitFor(term.t, screenTimeout, func() bool {
		_, _, err := term.h.try("", "tmux", "-S", term.socket, "has-session")
		return err != nil
	}, "the program to end")
}
