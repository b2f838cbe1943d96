// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/e2e"
)

// staff are many agents, made over the management API, which takes a hundredth
// of the time of as many commands.
type staff struct {
	t     testing.TB
	world *e2e.World
	api   *http.Client
	roots *x509.CertPool
	// made counts, for names.
	made int
}

// worker is an agent at a workstation, assigned to a mailbox.
type worker struct {
	staff                *staff
	name, mailbox, token string
	certificate          tls.Certificate
	// id and password are the agent's and the app password's.
	id, password broker.ID
	// startTLS makes his mail program use the ports that begin in plain text.
	startTLS bool
}

func newStaff(t testing.TB, w *e2e.World) *staff {
	socket := w.Postern.Socket
	s := &staff{t: t, world: w, roots: w.Postern.Roots(), api: &http.Client{
		Timeout: patience,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}},
	}}
	t.Cleanup(s.api.CloseIdleConnections)
	return s
}

// mailboxAt adds a mailbox that the provider has, with a delegation of it.
func (s *staff) mailboxAt(address string) {
	s.t.Helper()
	s.world.AddMailbox(address)
	must[httpapi.Delegation](s, "delegations", httpapi.DelegationInput{Mailbox: address})
}

// hire adds an agent with a workstation and an app password.
func (s *staff) hire(mailbox string) *worker {
	s.t.Helper()
	s.made++
	w := &worker{staff: s, mailbox: mailbox, name: fmt.Sprintf("worker-%d", s.made)}
	w.id = must[broker.Agent](s, "agents", httpapi.AgentInput{Name: w.name}).ID
	must[httpapi.Assignment](s, "assignments", httpapi.AssignmentInput{Agent: w.name, Mailbox: mailbox})
	created := must[httpapi.AppPasswordCreated](s, "app-passwords", httpapi.AppPasswordInput{Agent: w.name})
	w.token, w.password = created.Token, created.AppPassword.ID
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		s.t.Fatal(err)
	}
	made := must[httpapi.WorkstationCreated](s, "workstations", httpapi.WorkstationInput{
		Name: "desk-" + w.name, Class: broker.ClassSoftware,
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	})
	block, _ := pem.Decode([]byte(made.Certificate))
	if block == nil {
		s.t.Fatalf("not a certificate: %q", made.Certificate)
	}
	w.certificate = tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
	return w
}

// must makes something over the management API.
func must[T any](s *staff, kind string, in any) *T {
	s.t.Helper()
	out := new(T)
	if err := s.request(http.MethodPost, kind, in, out); err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *staff) request(method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, "http://postern/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.api.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s /v1/%s: %s: %s", method, path, resp.Status, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

func (w *worker) tls() *tls.Config {
	return &tls.Config{RootCAs: w.staff.roots, ServerName: "localhost", Certificates: []tls.Certificate{w.certificate}}
}

func (w *worker) saslPlain() string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + w.mailbox + "\x00" + w.token))
}

// imap connects and logs in.
func (w *worker) imap() (*line, error) {
	p := w.staff.world.Postern
	port := p.IMAPSPort
	if w.startTLS {
		port = p.IMAPPort
	}
	c, err := w.dial(port, "* OK", func(c *line) error {
		if err := c.send("s STARTTLS\r\n"); err != nil {
			return err
		}
		return c.until("s OK")
	})
	if err != nil {
		return nil, err
	}
	return c.checked(c.imap("LOGIN %s %s", w.mailbox, w.token))
}

// smtp connects, says EHLO and logs in.
func (w *worker) smtp() (*line, error) {
	p := w.staff.world.Postern
	port := p.SubmissionsPort
	if w.startTLS {
		port = p.SubmissionPort
	}
	c, err := w.dial(port, "220", func(c *line) error {
		if err := c.smtp("250", "EHLO client.example"); err != nil {
			return err
		}
		return c.smtp("220", "STARTTLS")
	})
	if err != nil {
		return nil, err
	}
	if err := c.smtp("250", "EHLO client.example"); err != nil {
		return c.checked(err)
	}
	return c.checked(c.smtp("235", "AUTH PLAIN %s", w.saslPlain()))
}

// dial connects, reads the greeting and has TLS; with startTLS in that order.
func (w *worker) dial(port uint16, greeting string, startTLS func(*line) error) (*line, error) {
	raw, err := dialFrom("127.0.0.1", port)
	if err != nil {
		return nil, err
	}
	c := newLine(raw)
	if w.startTLS {
		if err := c.until(greeting); err != nil {
			return c.checked(err)
		}
		if err := startTLS(c); err != nil {
			return c.checked(err)
		}
	}
	secured := tls.Client(raw, w.tls())
	if err := secured.Handshake(); err != nil {
		return c.checked(err)
	}
	c.Conn = secured
	c.in.Reset(secured)
	if w.startTLS {
		return c, nil
	}
	return c.checked(c.until(greeting))
}

// dialFrom connects from one of loopback's addresses.
func dialFrom(from string, port uint16) (net.Conn, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}
