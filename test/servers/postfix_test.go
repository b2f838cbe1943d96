// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

func submit(p *Postfix, port uint16, d *Dovecot, user, from, to string, b []byte) error {
	c, err := smtp.Dial(address(port))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Auth(sasl.NewPlainClient("", user, d.Password(user))); err != nil {
		return err
	}
	return c.SendMail(from, []string{to}, strings.NewReader(string(b)))
}

func TestPostfixDelivers(t *testing.T) {
	const other = "orders@client.example"
	ca := NewCA(t)
	d := StartDovecot(t, WithCA(ca), WithUser(sales, "one"), WithUser(other, "two"))
	p := StartPostfix(t, ca, d, WithSenderLogins(map[string]string{sales: sales}))
	for round, restart := range []func(){func() {}, func() { p.Kill(); p.Restart() }} {
		restart()
		if err := submit(p, p.PlainPort, d, sales, sales, other, message("sent")); err != nil {
			t.Fatal(err)
		}
		WaitFor(t, 10*time.Second, func() bool {
			return len(d.Messages(other, "INBOX", "HEADER Message-ID <sent@client.example>")) == round+1
		}, "the message to arrive")
	}
	for name, refused := range map[string]error{
		"unknown recipient": submit(p, p.PlainPort, d, sales, sales, "nobody@client.example", message("x")),
		"sender of another": submit(p, p.PlainPort, d, other, sales, other, message("x")),
	} {
		if refused == nil || !strings.Contains(refused.Error(), "SMTP error 55") {
			t.Errorf("%s: %v", name, refused)
		}
	}
	d.SetPassword(other, "three")
	if err := submit(p, p.PlainPort, d, other, other, sales, message("x")); err == nil {
		t.Error("a foreign sender passed")
	}
	if err := submit(p, p.SubmissionPort, d, sales, sales, other, message("x")); err == nil {
		t.Error("the submission port takes AUTH without TLS")
	}
	c, err := tls.Dial("tcp", address(p.SubmissionsPort), &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
	if err != nil {
		t.Fatalf("the submissions port: %v", err)
	}
	c.Close()
}
