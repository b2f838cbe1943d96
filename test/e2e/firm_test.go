// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/servers"
)

// TestFirmRevokesFromAnotherShell: a firm's admin, who is known by a token and
// comes over TLS, has delegated a mailbox and withdraws it while its agent is
// in the middle of things.
func TestFirmRevokesFromAnotherShell(t *testing.T) {
	w := NewWorld(t, WorldOptions{Mailboxes: []string{sales, support}, Sealed: true})
	w.Dovecot.Fill(sales, "", 48, func(int) []byte {
		return []byte(message("buyer@market.example", sales, "bulk", strings.Repeat(strings.Repeat("x", 70)+"\r\n", 7000)))
	})
	// The firm takes over what the BPO made for it.
	s := w.Seat(sales)
	token := filepath.Join(servers.TempDir(t), "firm.token")
	firm := func(args ...string) (stdout, stderr string, code int) {
		t.Helper()
		return w.Postern.Remote(token, "", args...)
	}
	claim := decodeCLI[httpapi.ClaimCreated](w.Postern, "firm", "claim", FirmName).Claim
	stdout, stderr, code := w.Postern.Remote("", claim, "claim", "--name", "priya", "--save", token)
	if code != 0 || !strings.Contains(stdout, "1 mailbox and 1 delegation") {
		t.Fatalf("claim: exit code %d: %s%s", code, stdout, stderr)
	}
	if _, stderr, code := w.Postern.TryCLI("", "delegation", "revoke", string(s.Delegation)); code != 3 || !strings.Contains(stderr, "only its own admins") {
		t.Errorf("the BPO revokes for the firm: exit code %d: %s", code, stderr)
	}

	idle := s.IMAP(t)
	idle.OK("SELECT INBOX")
	idle.Send("i IDLE\r\n")
	idle.Expect(`\+ .*`)
	fetching := s.IMAP(t)
	if tcp, ok := fetching.Conn.(*tls.Conn).NetConn().(*net.TCPConn); ok {
		if err := tcp.SetReadBuffer(16 << 10); err != nil {
			t.Fatal(err)
		}
	}
	fetching.OK("SELECT INBOX")
	fetching.Send("f FETCH 1:* (UID BODY.PEEK[])\r\n")
	fetching.Expect(`\* 1 FETCH .*`) // and it reads no more
	data := s.Submission(t)
	data.Ask(250, "MAIL FROM:<%s>", sales)
	data.Ask(250, "RCPT TO:<%s>", support)
	data.Ask(354, "DATA")
	data.Send("%s", message(sales, support, "half", "half of it"))

	idleClosed, dataClosed := idle.UntilClosed(answerTimeout), data.UntilClosed(answerTimeout)
	watch := servers.StartStopwatch(t)
	stdout, stderr, code = firm("--json", "delegation", "revoke", sales)
	var ended httpapi.Ended
	if err := json.Unmarshal([]byte(stdout), &ended); err != nil || code != 0 {
		t.Fatalf("revoke: exit code %d: %s%s", code, stdout, stderr)
	}
	// The FETCH is in the answer as well: no session is left that could go on.
	if len(ended.EndedSessions) != 3 || len(ended.OpenSessions) != 0 {
		t.Errorf("ended %+v", ended)
	}
	// The assignment falls in the same transaction.
	revoked := s.Events("assignment.revoked")
	if len(revoked) != 1 {
		t.Fatalf("%d revokes on record", len(revoked))
	}
	if by := revoked[0].Actor; by.Kind != string(broker.RoleFirmAdmin) || by.Name != "priya" || by.TokenID == "" {
		t.Errorf("revoked by %+v", by)
	}
	const told = "The firm has withdrawn access to this mailbox. Ask " + FirmContact + "."
	for name, closed := range map[string]<-chan Closed{"IDLE": idleClosed, "half-sent DATA": dataClosed} {
		end := <-closed
		if end.Err != nil {
			t.Errorf("%s lives on: %v", name, end.Err)
			continue
		}
		watch.Took(t, name+" ended", end.At.Sub(revoked[0].Time), time.Second)
		if !strings.Contains(end.Said, told) {
			t.Errorf("%s was told %q", name, end.Said)
		}
	}
	fetching.ExpectClosed(answerTimeout)
	again := s.DialIMAP(t)
	if _, answer := again.Cmd("LOGIN %s %s", sales, s.Token); !regexp.MustCompile(`^NO \[AUTHORIZATIONFAILED\] ` + regexp.QuoteMeta(told) + `$`).MatchString(answer) {
		t.Errorf("the next login: %s", answer)
	}
	smtp := s.DialSubmission(t)
	if reply := smtp.Ask(535, "AUTH PLAIN %s", s.SASLPlain()); !strings.Contains(reply, told) {
		t.Errorf("the next login for submission: %s", reply)
	}
	if got := w.Dovecot.Messages(support, "INBOX", "SUBJECT half"); len(got) != 0 {
		t.Error("the half message was sent")
	}
}
