// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/postern-mail/postern/test/servers"
)

// sink takes submissions after AUTH PLAIN and forgets them, so that a
// provider's disk and queue do not stand between the proxies.
type sink struct {
	plainPort, tlsPort uint16
	// messages and octets count what was taken.
	messages, octets atomic.Int64
}

func startSink(h *harness, ca *servers.CA) *sink {
	s := &sink{}
	for _, l := range []struct {
		port   *uint16
		config *tls.Config
	}{
		{&s.plainPort, nil},
		{&s.tlsPort, &tls.Config{Certificates: []tls.Certificate{ca.Issue().TLS}}},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			h.Fatal(err)
		}
		*l.port = uint16(listener.Addr().(*net.TCPAddr).Port)
		server := smtp.NewServer(s)
		server.Domain, server.AllowInsecureAuth, server.TLSConfig = "localhost", true, l.config
		if l.config != nil {
			listener = tls.NewListener(listener, l.config)
		}
		done := make(chan error, 1)
		go func() { done <- server.Serve(listener) }()
		h.Cleanup(func() {
			_, _ = server.Close(), listener.Close() // Close does not know of it before Serve has begun
			<-done
		})
	}
	return s
}

// NewSession is go-smtp's way to ask for a Session.
func (s *sink) NewSession(*smtp.Conn) (smtp.Session, error) { return &sinkSession{sink: s}, nil }

type sinkSession struct {
	sink     *sink
	loggedIn bool
}

var errNotLoggedIn = errors.New("not logged in")

func (*sinkSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *sinkSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, _, _ string) error {
		s.loggedIn = true
		return nil
	}), nil
}

func (s *sinkSession) Mail(string, *smtp.MailOptions) error {
	if !s.loggedIn {
		return errNotLoggedIn
	}
	return nil
}

func (*sinkSession) Rcpt(string, *smtp.RcptOptions) error { return nil }

func (s *sinkSession) Data(r io.Reader) error {
	n, err := io.Copy(io.Discard, r)
	if err == nil {
		s.sink.messages.Add(1)
		s.sink.octets.Add(n)
	}
	return err
}

func (*sinkSession) Reset()        {}
func (*sinkSession) Logout() error { return nil }
