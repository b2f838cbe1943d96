// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// TestQuestions has two agents at work in Dovecot's mailboxes, and asks the
// record about it.
func TestQuestions(t *testing.T) {
	w := NewWorld(t, WorldOptions{Mailboxes: []string{sales, support}, Sealed: true})
	w.Dovecot.Deliver(sales, "", []byte(message("buyer@market.example", sales, "first order", "twelve pumps")))
	reader := w.Seat(sales, "list", "headers", "read", "send")
	part := w.Seat(sales, "list", "headers", "read")

	imap := reader.DialIMAP(t)
	imap.OK("LOGIN %s %s", sales, reader.Token)
	imap.OK("SELECT INBOX")
	imap.OK("FETCH 1 (BODY[])")
	// Of a part alone the Message-ID is found out by Postern, before the session's
	// next command.
	other := part.DialIMAP(t)
	other.OK("LOGIN %s %s", sales, part.Token)
	other.OK("SELECT INBOX")
	other.OK("UID FETCH 1 (BODY[TEXT])")
	other.OK("NOOP")
	reader.AwaitEvents(1, broker.EventMessageOpen)
	part.AwaitEvents(1, broker.EventMessageIdentify)

	t.Run("Message", func(t *testing.T) {
		w := w.For(t)
		const id = "<first-order@client.example>"
		got := decodeCLI[httpapi.MessageAnswer](w.Postern, "ask", "message", id)
		if len(got.Items) != 2 || got.Items[0].AgentID != reader.AgentID || got.Items[1].AgentID != part.AgentID {
			t.Fatalf("who opened it: %+v", got.Items)
		}
		if o := got.Items[1].Opened; len(o) != 1 || o[0].Section != "BODY[TEXT]" || o[0].UID != 1 || o[0].Folder != "INBOX" {
			t.Fatalf("what was opened: %+v", o)
		}
		if len(got.Days) != 1 || got.Days[0].Activity != broker.ActivityRead || got.Days[0].Events != 2 {
			t.Fatalf("by day: %+v", got.Days)
		}
		table := w.Postern.CLI("ask", "message", "--mailbox", sales, "--folder", "INBOX", "--uid", "1",
			"--uidvalidity", fmt.Sprint(got.Items[0].Opened[0].UIDValidity), "--activity", "read", "--since", "2020-01-01")
		if strings.Count(table, sales) != 2 || !strings.Contains(table, "BODY[TEXT]") {
			t.Fatalf("by its place:\n%s", table)
		}
		if table := w.Postern.CLI("ask", "message", "<unknown@client.example>"); !strings.Contains(table, "no opening") {
			t.Errorf("of a message that nobody has:\n%s", table)
		}
	})
	t.Run("Agent", func(t *testing.T) {
		w := w.For(t)
		smtp := reader.Submission(t)
		smtp.Ask(250, "MAIL FROM:<%s>", sales)
		smtp.Ask(250, "RCPT TO:<%s>", support)
		smtp.Ask(354, "DATA")
		smtp.Send(message(sales, support, "an answer", "by courier") + ".\r\n")
		smtp.Want(250)
		smtp.Ask(221, "QUIT")
		reader.AwaitEvents(1, broker.EventSendResult)
		got := decodeCLI[httpapi.AgentAnswer](w.Postern, "ask", "agent", reader.Agent, "--since", "2020-01-01")
		var what []broker.Activity
		for _, x := range got.Items {
			what = append(what, x.Activity)
		}
		if want := []broker.Activity{broker.ActivityRead, broker.ActivitySubmit, broker.ActivitySent}; !slices.Equal(what, want) {
			t.Errorf("he did %v, want %v", what, want)
		}
		if len(got.Mailboxes) != 1 || got.Mailboxes[0].Read != 1 || got.Mailboxes[0].Sent != 1 || got.Mailboxes[0].Downloaded != 0 {
			t.Errorf("by mailbox: %+v", got.Mailboxes)
		}
	})
	t.Run("Export", func(t *testing.T) {
		w := w.For(t)
		w.Dovecot.Fill(support, "", 60, func(i int) []byte {
			return []byte(message("buyer@market.example", support, fmt.Sprint("order ", i), strings.Repeat("pumps ", 2000)))
		})
		s := w.Seat(support, "list", "headers", "read")
		imap := s.DialIMAP(t)
		imap.OK("LOGIN %s %s", support, s.Token)
		imap.OK("SELECT INBOX")
		for uid := range 60 { // as clients do that ask for one at a time
			imap.OK("UID FETCH %d (BODY.PEEK[])", uid+1)
		}
		imap.OK("LOGOUT")
		s.AwaitEvents(1, broker.EventSessionEnd)
		got := decodeCLI[httpapi.AgentAnswer](w.Postern, "ask", "agent", s.Agent)
		if len(got.Mailboxes) != 1 {
			t.Fatalf("by mailbox: %+v", got.Mailboxes)
		}
		u := got.Mailboxes[0]
		if u.Read+u.Downloaded != 60 || u.Downloaded < 60-broker.SyncMessages {
			t.Errorf("%d read, %d downloaded", u.Read, u.Downloaded)
		}
		at := decodeCLI[httpapi.WorkstationAnswer](w.Postern, "ask", "workstation", s.Workstation)
		if len(at.Items) != 1 || at.Items[0].Mailbox != support || at.Items[0].EndReason != string(broker.EndLogout) {
			t.Errorf("sessions: %+v", at.Items)
		}
	})
	t.Run("Mailbox", func(t *testing.T) {
		w := w.For(t)
		w.Postern.CLI("assignment", "revoke", string(part.Assignment))
		got := decodeCLI[httpapi.MailboxAnswer](w.Postern, "ask", "mailbox", sales)
		if len(got.Items) != 2 || len(got.Writers) != 1 {
			t.Fatalf("%+v", got)
		}
		for _, r := range got.Items {
			last := r.Stretches[len(r.Stretches)-1]
			if !r.CouldRead || !r.Used || (last.Refused == "revoked") != (r.AgentID == part.AgentID) {
				t.Errorf("%+v", r)
			}
		}
	})
}
