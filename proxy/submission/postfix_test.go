// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	provider "github.com/postern-mail/postern/broker/upstream"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/test/servers"
)

// deliveryTimeout is for a message to pass Postfix and Dovecot.
const deliveryTimeout = time.Minute

// TestNever8TermsBeforePostfix: what attachments, content and the hour forbid is
// queued by a real mail server neither whole nor in part, and what they allow
// arrives unaltered, in the same session.
func TestNever8TermsBeforePostfix(t *testing.T) {
	const customer = "bob@client.example"
	d := servers.StartDovecot(t, servers.WithUser(ownAddress, "secret"), servers.WithUser(customer, "secret"))
	p := servers.StartPostfix(t, d.CA, d, servers.WithSenderLogins(map[string]string{ownAddress: ownAddress}))
	dialer, err := provider.New(provider.Config{RootCAs: d.CA.Pool(), Logger: zapNop, Hostname: "postern.example"})
	if err != nil {
		t.Fatal(err)
	}
	gate := newGate()
	gate.dial = func(ctx context.Context) (*broker.SubmissionConn, error) {
		m := &broker.Mailbox{Address: ownAddress, Submission: p.Submission(broker.TLSImplicit)}
		return dialer.OpenSubmission(ctx, m, &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte("secret"))})
	}
	s := startCounted(t, gate, openCounts(t, filepath.Join(t.TempDir(), "postern.db")), policy.Sending{
		MessagesPerHour: 2, MaxRecipients: 1, MaxOctets: 1 << 20, NoAttachments: true, Content: secretRule,
	})
	c := s.login(t)
	_ = c.SetDeadline(time.Now().Add(3 * deliveryTimeout))
	filler := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 6000) // more than any buffer on the way
	message := func(id, body string) string {                      // with a Date, which Postfix would add
		return "Date: Mon, 2 Mar 2026 09:00:00 +0000\r\n" + strings.Replace(message1(body), messageID, "<"+id+"@own.example>", 1)
	}
	picture := func(id, body string) string {
		return strings.Replace(message(id, body), "Subject: x", "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b", 1)
	}
	first, second := message("first", "one\r\n.\r\n..two\r\n"), message("second", filler)
	for _, step := range []struct{ name, message, want, rule string }{
		{"a text that is blocked", message("a", "the confidential plan\r\n"), "550 5.7.1 ", ruleTermsContent},
		{"one, behind much else", message("b", filler+"confidential plan\r\n"), "550 5.7.1 ", ruleTermsContent},
		{"one in base64", strings.Replace(message("c", b64secret+"\r\n"), "Subject: x", "Content-Transfer-Encoding: base64", 1), "550 5.7.1 ", ruleTermsContent},
		{"a picture", picture("d", "--b\r\n\r\n"+filler+"--b\r\nContent-Type: image/png\r\n\r\nx\r\n--b--\r\n"), "550 5.7.1 ", ruleTermsAttachments},
		{"too many octets", message("e", strings.Repeat(filler, 3)), "552 5.3.4 ", ruleSize},
		{"what may be sent", first, "250 ", ""},
		{"another", second, "250 ", ""},
		{"one too many in the hour", message("third", "x\r\n"), "451 4.7.1 ", ruleTermsMessagesHour},
	} {
		answer := c.submitRaw(step.message)
		if !strings.HasPrefix(answer, step.want) || step.rule != "" && !strings.Contains(answer, step.rule) && step.rule != ruleSize {
			t.Errorf("%s: %q, want %s by %s", step.name, answer, step.want, step.rule)
		}
	}
	c.talk("C: MAIL FROM:<alice@own.example>\nS*250\nC: RCPT TO:<bob@client.example>\nS*250\nC: RCPT TO:<alice@own.example>\nS: 550 5.5.3")
	c.quit()
	servers.WaitFor(t, deliveryTimeout, func() bool { return len(d.Messages(customer, "INBOX", "ALL")) >= 2 }, "two messages to arrive")
	for id, want := range map[string]string{"first": first, "second": second} {
		uids := d.Messages(customer, "INBOX", "HEADER Message-ID <"+id+"@own.example>")
		if len(uids) != 1 {
			t.Errorf("%s arrived %d times", id, len(uids))
			continue
		}
		if got := d.Message(customer, "INBOX", uids[0]); !bytes.HasSuffix(got, []byte(want)) {
			t.Errorf("%s arrived altered", id)
		}
	}
	// Messages get into Postfix's queue one by one, these two behind all that
	// was refused but the last.
	log, err := os.ReadFile(p.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(log, []byte("nrcpt=")); n != 2 {
		t.Errorf("postfix queued %d messages", n)
	}
}
