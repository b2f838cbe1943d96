// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"crypto/x509"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/upstream"
	"github.com/postern-mail/postern/test/servers"
)

const (
	firstBox        = "one@firm.example"
	secondBox       = "two@firm.example"
	mailboxPassword = "upstream-password"
)

// realServer is a mail server that Postern is compared on.
type realServer struct {
	name string
	// start returns a gate to a mailbox, and one to another that is as empty.
	start func(*testing.T) (gate, other *fakeGate)
	// reserved are commands that it carries out for administrators alone.
	reserved []string
}

func dovecot() realServer {
	return realServer{name: "dovecot", start: func(t *testing.T) (gate, other *fakeGate) {
		d := servers.StartDovecot(t, servers.WithUser(firstBox, mailboxPassword), servers.WithUser(secondBox, mailboxPassword))
		return gatesTo(t, d.CA.Pool(), d.IMAP(broker.TLSImplicit))
	}}
}

func cyrus() realServer {
	return realServer{name: "cyrus", reserved: []string{"GETQUOTA"}, start: func(t *testing.T) (gate, other *fakeGate) {
		c := servers.StartCyrus(t, servers.WithCyrusUser(firstBox, mailboxPassword), servers.WithCyrusUser(secondBox, mailboxPassword))
		return gatesTo(t, c.CA.Pool(), c.IMAP(broker.TLSImplicit))
	}}
}

// onEachServer runs a test against all real servers.
func onEachServer(t *testing.T, run func(*testing.T, realServer)) {
	for _, s := range []realServer{dovecot(), cyrus()} {
		t.Run(s.name, func(t *testing.T) { run(t, s) })
	}
}

func gatesTo(t *testing.T, roots *x509.CertPool, endpoint broker.Endpoint) (gate, other *fakeGate) {
	dialer, err := upstream.New(upstream.Config{RootCAs: roots, Logger: zaptest.NewLogger(t), Hostname: "postern.test"})
	if err != nil {
		t.Fatal(err)
	}
	to := func(address string) *fakeGate {
		m := &broker.Mailbox{Address: address, IMAP: endpoint}
		return &fakeGate{dial: func(ctx context.Context) (*broker.IMAPConn, error) {
			return dialer.OpenIMAP(ctx, m, &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte(mailboxPassword))})
		}}
	}
	return to(firstBox), to(secondBox)
}
