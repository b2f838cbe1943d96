// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/test/servers"
)

const (
	sales   = "sales@client.example"
	support = "support@client.example"
)

func message(from, to, subject, body string) string {
	return fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: %s\r\nMessage-ID: <%s@client.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\n%s\r\n",
		from, to, subject, strings.ReplaceAll(subject, " ", "-"), body)
}

// TestThinLine is one agent's day, over raw connections: every command that
// he may give does what it does at the provider, is on record, and ends with
// his assignment.
func TestThinLine(t *testing.T) {
	w := NewWorld(t, WorldOptions{Mailboxes: []string{sales, support}})
	w.Dovecot.Deliver(sales, "", []byte(message("buyer@market.example", sales, "first order", "twelve pumps")))
	s := w.Seat(sales, "list", "headers", "read", "flag", "file", "send")

	imap := s.DialIMAP(t)
	if _, answer := imap.Cmd("LOGIN %s not-the-app-password", sales); !strings.HasPrefix(answer, "NO [AUTHENTICATIONFAILED] ") {
		t.Fatalf("login with a wrong app password: %s", answer)
	}
	if _, answer := imap.Cmd("LOGIN %s %s", sales, w.Password(sales)); !strings.HasPrefix(answer, "NO [AUTHENTICATIONFAILED] ") {
		t.Fatalf("login with the mailbox's own password: %s", answer)
	}
	imap.OK("LOGIN %s %s", sales, s.Token)
	wantLine(t, imap.OK(`LIST "" *`), `\* LIST \([^)]*\\Sent\) "." "?Sent"?`)
	wantLine(t, imap.OK("SELECT INBOX"), `\* 1 EXISTS`)
	wantLine(t, imap.OK("FETCH 1 (BODY[])"), `(?s)\* 1 FETCH \(.*twelve pumps.*\)`)
	imap.OK(`STORE 1 +FLAGS (\Flagged)`)
	draft := message(sales, "buyer@market.example", "a draft", "to be finished")
	imap.OK("APPEND Drafts {%d+}\r\n%s", len(draft), draft)
	if _, answer := imap.Cmd("CREATE Elsewhere"); !strings.HasPrefix(answer, `NO [NOPERM] CREATE needs the action "folders"`) {
		t.Fatalf("a command that was not granted: %s", answer)
	}

	if got := w.Dovecot.Messages(sales, "INBOX", "FLAGGED SEEN"); len(got) != 1 {
		t.Errorf("the message is not flagged and seen at the provider")
	}
	if got := w.Dovecot.Messages(sales, "Drafts", "SUBJECT draft"); len(got) != 1 {
		t.Errorf("the draft is not at the provider")
	}

	smtp := s.Submission(t)
	sent := message(sales, support, "an answer", "by courier")
	smtp.Ask(250, "MAIL FROM:<%s>", sales)
	smtp.Ask(250, "RCPT TO:<%s>", support)
	smtp.Ask(354, "DATA")
	smtp.Send(sent + ".\r\n")
	smtp.Want(250)
	smtp.Ask(221, "QUIT")
	servers.WaitFor(t, 20*time.Second, func() bool {
		return len(w.Dovecot.Messages(support, "INBOX", "HEADER Message-ID an-answer")) == 1
	}, "the message to arrive")
	uid := w.Dovecot.Messages(support, "INBOX", "ALL")[0]
	if got := w.Dovecot.Message(support, "INBOX", uid); !strings.HasSuffix(string(got), sent) {
		t.Errorf("the message was altered on its way:\n%s", got)
	}

	revokeCutsIdle(t, w, s, imap)
	checkRecord(t, s)
	w.CheckNothingLeaked(imap, smtp)
}

// revokeCutsIdle revokes the assignment while the client waits in IDLE.
func revokeCutsIdle(t *testing.T, w *World, s *Seat, imap *Conn) {
	t.Helper()
	imap.Send("i1 IDLE\r\n")
	imap.Expect(`\+ .*`)
	w.Dovecot.Deliver(sales, "", []byte(message("buyer@market.example", sales, "second order", "more")))
	imap.Expect(`\* 2 EXISTS`)
	closed := imap.UntilClosed(answerTimeout)
	watch := servers.StartStopwatch(t)
	w.Postern.CLI("assignment", "revoke", string(s.Assignment))
	end := <-closed
	if end.Err != nil {
		t.Fatalf("the session lives on: %v", end.Err)
	}
	// From the moment that the revoke itself has on record: starting the
	// command line takes time too.
	revoked := s.Events("assignment.revoked")
	if len(revoked) != 1 {
		t.Fatalf("%d revokes on record", len(revoked))
	}
	watch.Took(t, "the session's end", end.At.Sub(revoked[0].Time), time.Second)
	const told = "You are no longer assigned to this mailbox. Ask " + FirmContact + "."
	if !regexp.MustCompile(`(?m)^\* BYE .*` + regexp.QuoteMeta(told) + `\r$`).MatchString(end.Said) {
		t.Errorf("the client was told %q", end.Said)
	}
	again := s.DialIMAP(t)
	if _, answer := again.Cmd("LOGIN %s %s", sales, s.Token); !regexp.MustCompile(`^NO \[[A-Z]+\] ` + regexp.QuoteMeta(told) + `$`).MatchString(answer) {
		t.Errorf("the next login: %s", answer)
	}
	smtp := s.DialSubmission(t)
	if reply := smtp.Ask(535, "AUTH PLAIN %s", s.SASLPlain()); !strings.Contains(reply, told) {
		t.Errorf("the next login for submission: %s", reply)
	}
}

// checkRecord holds the firm's log against what the agent did.
func checkRecord(t *testing.T, s *Seat) {
	t.Helper()
	var types []broker.EventType
	byType := make(map[broker.EventType][]Event)
	s.AwaitEvents(2, broker.EventSessionEnd)
	for _, e := range s.Events() {
		types = append(types, e.Type)
		byType[e.Type] = append(byType[e.Type], e)
	}
	want := []broker.EventType{
		"assignment.created",
		broker.EventSessionOpen, broker.EventMessageOpen, broker.EventMessageFlag, broker.EventMessageAppend, broker.EventCommandRefused,
		broker.EventSessionOpen, broker.EventSendIntent, broker.EventSendResult, broker.EventSessionEnd,
		"assignment.revoked", broker.EventSessionEnd, broker.EventSessionRefused, broker.EventSessionRefused,
	}
	for _, w := range want {
		if !slices.Contains(types, w) {
			t.Errorf("there is no event %s; there are %v", w, types)
		}
	}
	if t.Failed() {
		return
	}
	opened := Decode[broker.MessageOpen](t, byType[broker.EventMessageOpen][0])
	if len(opened.Messages) != 1 || opened.Folder != "INBOX" || opened.Messages[0].UID != 1 || opened.Messages[0].MessageID != "<first-order@client.example>" {
		t.Errorf("message.open: %+v", opened)
	}
	if refused := Decode[broker.CommandRefused](t, byType[broker.EventCommandRefused][0]); refused.Command != "CREATE" || refused.Needs != policy.Folders {
		t.Errorf("command.refused: %+v", refused)
	}
	intent := Decode[broker.SendIntent](t, byType[broker.EventSendIntent][0])
	if intent.MailFrom != sales || intent.HeaderFrom != sales || !slices.Equal(intent.Recipients, []string{support}) || intent.MessageID != "<an-answer@client.example>" {
		t.Errorf("send.intent: %+v", intent)
	}
	if result := Decode[broker.SendResult](t, byType[broker.EventSendResult][0]); result.Intent != intent.Intent || result.Outcome != "accepted" {
		t.Errorf("send.result: %+v", result)
	}
	var reasons []broker.EndReason
	for _, e := range byType[broker.EventSessionEnd] {
		reasons = append(reasons, Decode[broker.SessionEnd](t, e).Reason)
	}
	if !slices.Equal(reasons, []broker.EndReason{broker.EndLogout, broker.EndRevoked}) {
		t.Errorf("the sessions ended by %v", reasons)
	}
}

// wantLine fails the test unless one line matches the whole pattern.
func wantLine(t *testing.T, lines []string, pattern string) {
	t.Helper()
	match := regexp.MustCompile("^(?:" + pattern + ")$")
	if !slices.ContainsFunc(lines, match.MatchString) {
		t.Errorf("no line is %s:\n%s", pattern, strings.Join(lines, "\n"))
	}
}
