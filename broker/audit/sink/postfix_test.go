// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/emersion/go-message"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// TestMailThroughPostfix: alerts come to a mailbox through a submission server that
// is nobody's test, over TLS from the first octet and after STARTTLS, and wait
// while it is not there.
func TestMailThroughPostfix(t *testing.T) {
	const from, to, password = "postern@bpo.example", "oncall@bpo.example", "hunter2"
	ca := servers.NewCA(t)
	dovecot := servers.StartDovecot(t, servers.WithCA(ca), servers.WithUser(from, password), servers.WithUser(to, "another"))
	postfix := servers.StartPostfix(t, ca, dovecot, servers.WithSenderLogins(map[string]string{from: from, to: to}))
	w := newWorld(t, 1)
	inbox := func() []string { return dovecot.Messages(to, "INBOX", "ALL") }
	for i, server := range []struct {
		port     uint16
		startTLS bool
	}{{postfix.SubmissionsPort, false}, {postfix.SubmissionPort, true}} {
		m, err := NewMail(MailConfig{
			Server: fmt.Sprintf("127.0.0.1:%d", server.port), StartTLS: server.startTLS,
			TLS:      &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12},
			Username: from, Password: func() (broker.Secret, error) { return broker.NewSecret([]byte(password)), nil },
			From: from, To: []string{to}, Hostname: "mail.postern.example",
			Alert: w.store.Alert, Firm: func(context.Context, broker.ID) (*broker.Firm, error) {
				return &broker.Firm{Name: "Zo\u00eb & Co"}, nil
			},
		})
		must(t, err)
		postfix.Stop()
		for range 3 {
			w.alarm(w.firms[0], broker.NewID())
		}
		failed := make(chan struct{}, 1)
		_, stop := w.start("a", quick(), Sink{Name: fmt.Sprint("mail", i), Receiver: failing{m, failed}, FromStart: true, Filter: Filter{Alerts: true, Severity: broker.SeverityWarning}})
		<-failed
		postfix.Restart()
		soon(t, "a message", func() bool { return len(inbox()) > i })
		stop()
		uids := inbox()
		if len(uids) != i+1 {
			t.Fatalf("%d messages", len(uids))
		}
		e, err := message.Read(bytes.NewReader(dovecot.Message(to, "INBOX", uids[i])))
		must(t, err)
		body, err := io.ReadAll(e.Body)
		must(t, err)
		subject, err := e.Header.Text("Subject")
		must(t, err)
		alerts := 3 * (i + 1) // each sink begins with the first
		if !strings.HasPrefix(subject, "[Postern] critical: drift, Zo\u00eb & Co (raised), and ") || e.Header.Get("From") == "" ||
			strings.Count(string(body), "CRITICAL, raised: drift") != alerts || strings.Count(string(body), "Detail: NO changed  .  elsewhere") != alerts {
			t.Errorf("%q, of %d alerts:\n%s", subject, alerts, body)
		}
	}
}

// failing tells that a delivery was not taken.
type failing struct {
	*Mail
	failed chan<- struct{}
}

func (f failing) Deliver(ctx context.Context, events []*Event) (int, error) {
	n, err := f.Mail.Deliver(ctx, events)
	if err != nil {
		select {
		case f.failed <- struct{}{}:
		default:
		}
	}
	return n, err
}
