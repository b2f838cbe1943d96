// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/postern-mail/postern/broker/workstationca"
)

// demoProvider is the mail provider of the demo: an IMAP server in memory and
// a submission server that keeps what it is given.
type demoProvider struct {
	imap, submission string // host:port
	caFile           string
	imapServer       *imapserver.Server
	smtpServer       *smtp.Server
	running          sync.WaitGroup
	password         string

	mu   sync.Mutex
	sent []demoMessage
}

// demoMessage is one message that was submitted.
type demoMessage struct {
	from string
	to   []string
	body []byte
}

var demoMail = []string{
	`From: Ravi Menon <ravi@customer.example>
To: Sales <sales@acme.example>
Subject: Two pumps for Kochi
Message-ID: <kochi-1@customer.example>
Date: Mon, 02 Nov 2026 09:12:00 +0530

Hello,

we need two P-40 pumps in Kochi by the end of the month. What would they cost?

Ravi
`,
	`From: Lena Ortiz <lena@supplier.example>
To: Sales <sales@acme.example>
Subject: Seals are late
Message-ID: <seals-7@supplier.example>
Date: Tue, 03 Nov 2026 14:40:00 +0100

The seals leave our works on Friday, three days late. Sorry for that.
`,
}

// startDemoProvider makes a CA and both servers, on free ports of loopback.
func startDemoProvider(dir, password string, leak bool) (*demoProvider, error) {
	p := &demoProvider{password: password}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	ca, err := workstationca.Create(dir, workstationca.Config{})
	if err != nil {
		return nil, err
	}
	p.caFile = filepath.Join(dir, workstationca.CertificateFile)
	certificate, key, err := ca.IssueServer([]string{"127.0.0.1"})
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	mail := demoMail
	if leak {
		mail = append([]string{"From: a@b.example\nSubject: oops\n\nThe password is " + password + "\n"}, mail...)
	}
	if err := p.startIMAP(config, mail); err != nil {
		return nil, err
	}
	if err := p.startSMTP(config); err != nil {
		return nil, errors.Join(err, p.imapServer.Close())
	}
	return p, nil
}

func (p *demoProvider) startIMAP(config *tls.Config, mail []string) error {
	user := imapmemserver.NewUser(demoMailbox, p.password)
	for _, f := range []struct {
		name string
		use  imap.MailboxAttr
	}{
		{name: "INBOX"},
		{"Sent", imap.MailboxAttrSent},
		{"Drafts", imap.MailboxAttrDrafts},
		{"Trash", imap.MailboxAttrTrash},
	} {
		options := &imap.CreateOptions{}
		if f.use != "" {
			options.SpecialUse = []imap.MailboxAttr{f.use}
		}
		if err := user.Create(f.name, options); err != nil {
			return err
		}
	}
	for i, text := range mail {
		text = strings.ReplaceAll(text, "\n", "\r\n")
		if _, err := user.Append("INBOX", literalReader{strings.NewReader(text)}, &imap.AppendOptions{
			Time: time.Date(2026, time.November, 2+i, 9, 0, 0, 0, time.UTC),
		}); err != nil {
			return err
		}
	}
	mem := imapmemserver.New()
	mem.AddUser(user)
	p.imapServer = imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return mem.NewSession(), nil, nil
		},
		Caps: imap.CapSet{
			imap.CapIMAP4rev1: {}, imap.CapUIDPlus: {}, imap.CapMove: {}, imap.CapNamespace: {}, imap.CapESearch: {},
			imap.CapSpecialUse: {}, imap.CapListExtended: {}, imap.CapListStatus: {}, imap.CapLiteralPlus: {},
		},
		Logger: log.New(io.Discard, "", 0),
	})
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return err
	}
	p.imap = l.Addr().String()
	p.serve(l, p.imapServer.Serve)
	return nil
}

func (p *demoProvider) startSMTP(config *tls.Config) error {
	p.smtpServer = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &demoSubmission{provider: p}, nil
	}))
	p.smtpServer.Domain = "submission.provider.example"
	p.smtpServer.ErrorLog = log.New(io.Discard, "", 0)
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return err
	}
	p.submission = l.Addr().String()
	p.serve(l, p.smtpServer.Serve)
	return nil
}

func (p *demoProvider) serve(l net.Listener, serve func(net.Listener) error) {
	// It ends with an error when the server is closed, which is its only end.
	p.running.Go(func() { _ = serve(l) })
}

func (p *demoProvider) close() {
	_ = p.imapServer.Close()
	_ = p.smtpServer.Close()
	p.running.Wait()
}

// received returns what was submitted.
func (p *demoProvider) received() []demoMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

// demoSubmission takes messages from whoever knows the mailbox's password.
type demoSubmission struct {
	provider *demoProvider
	allowed  bool
	message  demoMessage
}

var _ smtp.AuthSession = (*demoSubmission)(nil)

func (s *demoSubmission) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *demoSubmission) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		if username != demoMailbox || subtle.ConstantTimeCompare([]byte(password), []byte(s.provider.password)) != 1 {
			return smtp.ErrAuthFailed
		}
		s.allowed = true
		return nil
	}), nil
}

func (s *demoSubmission) Mail(from string, _ *smtp.MailOptions) error {
	if !s.allowed {
		return smtp.ErrAuthRequired
	}
	s.message = demoMessage{from: from}
	return nil
}

func (s *demoSubmission) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.message.to = append(s.message.to, to)
	return nil
}

func (s *demoSubmission) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.message.body = b
	s.provider.mu.Lock()
	s.provider.sent = append(s.provider.sent, s.message)
	s.provider.mu.Unlock()
	return nil
}

func (s *demoSubmission) Reset()        { s.message = demoMessage{} }
func (s *demoSubmission) Logout() error { return nil }

// literalReader is a string as imapserver wants it.
type literalReader struct{ *strings.Reader }

func (l literalReader) Size() int64 { return l.Reader.Size() }

// firstWords shortens what is printed.
func firstWords(b []byte) string {
	line, _, more := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	text := printable(string(bytes.TrimSpace(line)), false)
	if more || len(text) > 100 {
		text = fmt.Sprintf("%.100s …", text)
	}
	return text
}
