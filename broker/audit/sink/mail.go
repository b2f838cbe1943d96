// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/postern-mail/postern/broker"
)

// DefaultMailPace is the least time between two messages: alerts that are raised
// within it are one message.
const DefaultMailPace = 5 * time.Minute

// mailTimeout bounds a command of the submission, and the message.
const mailTimeout = 15 * time.Second

// maxPutOff is for how long a message waits for a recipient that the server puts off.
const maxPutOff = 10 * time.Minute

// MailConfig is a submission server that takes mail to people.
type MailConfig struct {
	// Server is host:port; StartTLS says that TLS begins after the greeting.
	Server   string
	StartTLS bool
	TLS      *tls.Config
	// Username and Password log in; no user name: nobody does.
	Username string
	Password func() (broker.Secret, error)
	From     string
	To       []string
	// Hostname is Postern's own.
	Hostname string
	// Alert and Firm look up what messages tell of.
	Alert func(ctx context.Context, id broker.ID) (*broker.Alert, error)
	Firm  func(ctx context.Context, id broker.ID) (*broker.Firm, error)
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Mail tells people of alerts, all of a delivery in one message.
type Mail struct {
	cfg MailConfig
	// putOff is since when the server puts recipients off.
	putOff map[string]time.Time
}

var _ Receiver = (*Mail)(nil)

// NewMail makes a receiver of mail.
func NewMail(cfg MailConfig) (*Mail, error) {
	if cfg.Server == "" || cfg.TLS == nil || cfg.From == "" || len(cfg.To) == 0 || cfg.Hostname == "" {
		return nil, errors.New("sink: a server, TLS, a sender, recipients and a host name are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Mail{cfg, make(map[string]time.Time)}, nil
}

// Deliver is described at Receiver.
func (m *Mail) Deliver(ctx context.Context, events []*Event) (int, error) {
	message, err := m.message(ctx, events)
	if err != nil {
		return 0, err
	}
	client, err := m.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = client.Close() }() // what counts was answered before
	defer context.AfterFunc(ctx, func() { _ = client.Close() })()
	if err := m.login(client); err != nil {
		return 0, err
	}
	if err := client.Mail(m.cfg.From, nil); err != nil {
		return 0, err
	}
	left, err := m.address(client)
	if err != nil {
		return 0, err
	}
	data, err := client.Data()
	if err != nil {
		return 0, err
	}
	if _, err := data.Write(message); err != nil {
		return 0, err
	}
	if err := data.Close(); err != nil {
		var answer *smtp.SMTPError
		if errors.As(err, &answer) && answer.Code/100 == 5 {
			return 0, &RefusedError{Events: len(events), cause: err}
		}
		return 0, err
	}
	_ = client.Quit() // the message is taken
	return len(events), left
}

// address names the recipients, and returns who is left out, for people. Whom the
// server refuses does not keep the message from the others, nor does one whom it
// puts off for longer than maxPutOff.
func (m *Mail) address(client *smtp.Client) (left, err error) {
	var answers []error
	accepted, wait := false, false
	for _, to := range m.cfg.To {
		err := client.Rcpt(to, nil)
		if err == nil {
			accepted = true
			delete(m.putOff, to)
			continue
		}
		err = fmt.Errorf("%s: %w", to, err)
		var answer *smtp.SMTPError
		if !errors.As(err, &answer) || answer.Code == 421 { // it is about all (RFC 5321 §3.8)
			return nil, err
		}
		answers = append(answers, err)
		if answer.Code/100 != 5 {
			since, known := m.putOff[to]
			if !known {
				since = m.cfg.Now()
				m.putOff[to] = since
			}
			wait = wait || m.cfg.Now().Sub(since) < maxPutOff
		}
	}
	left = errors.Join(answers...)
	if !accepted || wait {
		return nil, left
	}
	return left, nil
}

func (m *Mail) dial(ctx context.Context) (*smtp.Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", m.cfg.Server)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(m.cfg.Now().Add(mailTimeout)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	var client *smtp.Client
	if m.cfg.StartTLS {
		client, err = smtp.NewClientStartTLS(conn, m.cfg.TLS)
	} else {
		secure := tls.Client(conn, m.cfg.TLS)
		if err = secure.HandshakeContext(ctx); err == nil {
			client = smtp.NewClient(secure)
		}
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	client.CommandTimeout, client.SubmissionTimeout = mailTimeout, mailTimeout
	if err := client.Hello(m.cfg.Hostname); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

func (m *Mail) login(client *smtp.Client) error {
	if m.cfg.Username == "" {
		return nil
	}
	password, err := m.cfg.Password()
	if err != nil {
		return err
	}
	defer password.Wipe()
	if err := client.Auth(sasl.NewPlainClient("", m.cfg.Username, string(password.Reveal()))); err != nil {
		// What it says may repeat what it was told.
		var answer *smtp.SMTPError
		if errors.As(err, &answer) {
			return fmt.Errorf("it answers %d to the sign-in", answer.Code)
		}
		return errors.New("the sign-in failed")
	}
	return nil
}

// Close is described at Receiver: nothing is held open.
func (*Mail) Close() error { return nil }

// notice is what a message says of one event.
type notice struct {
	severity broker.Severity
	subject  string
	text     string
}

// message makes the message of some events. Its Message-ID is made of theirs, so that
// one that comes twice can be known.
func (m *Mail) message(ctx context.Context, events []*Event) ([]byte, error) {
	var body strings.Builder
	var worst notice
	for i, e := range events {
		n, err := m.notice(ctx, e)
		if err != nil {
			return nil, err
		}
		if i == 0 || n.severity.Above(worst.severity) {
			worst = *n
		}
		body.WriteString(n.text + "\n\n")
	}
	subject := "[Postern] " + worst.subject
	if len(events) > 1 {
		subject += fmt.Sprintf(", and %d more", len(events)-1)
	}
	var b bytes.Buffer
	for _, field := range [][2]string{
		{"From", (&mail.Address{Address: m.cfg.From}).String()},
		{"To", recipients(m.cfg.To)},
		{"Subject", mime.QEncoding.Encode("utf-8", subject)},
		{"Date", m.cfg.Now().Format(time.RFC1123Z)},
		{"Message-ID", fmt.Sprintf("<%s@%s>", batchID(events), m.cfg.Hostname)},
		{"Auto-Submitted", "auto-generated"}, // RFC 3834 §5: answer it with nothing
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
	} {
		b.WriteString(field[0] + ": " + field[1] + "\r\n")
	}
	b.WriteString("\r\n")
	text := quotedprintable.NewWriter(&b)
	if _, err := text.Write([]byte(strings.ReplaceAll(body.String(), "\n", "\r\n"))); err != nil {
		return nil, err
	}
	return b.Bytes(), text.Close()
}

func recipients(to []string) string {
	all := make([]string, len(to))
	for i, a := range to {
		all[i] = (&mail.Address{Address: a}).String()
	}
	return strings.Join(all, ",\r\n ")
}

// notice says in words what an event tells.
func (m *Mail) notice(ctx context.Context, e *Event) (*notice, error) {
	if !IsAlert(e.Type) {
		return &notice{e.Severity, string(e.Type), fmt.Sprintf("%s at %s, which stands in no alert.", e.Type, e.Time.UTC().Format(time.RFC3339))}, nil
	}
	var data struct {
		AlertID broker.ID        `json:"alert_id"`
		Kind    broker.AlertKind `json:"kind"`
		Note    string           `json:"note"`
	}
	raw, _ := e.Data.(json.RawMessage)
	if err := json.Unmarshal(raw, &data); err != nil {
		return nil, &RefusedError{Events: 1, cause: err}
	}
	whose := "the BPO"
	if e.FirmID != "" {
		whose = string(e.FirmID)
		firm, err := m.cfg.Firm(ctx, e.FirmID)
		if err == nil {
			whose = firm.Name
		} else if broker.CodeOf(err) != broker.NotFound {
			return nil, err
		}
	}
	verb := strings.TrimPrefix(string(e.Type), "alert.")
	spec := broker.AlertKindSpec(data.Kind)
	var text strings.Builder
	fmt.Fprintf(&text, "%s, %s: %s, %s\n", strings.ToUpper(string(e.Severity)), verb, data.Kind, printable(whose))
	fmt.Fprintf(&text, "  %s\n", spec.Meaning)
	alert, err := m.cfg.Alert(ctx, data.AlertID)
	switch {
	case err == nil && alert.FirmID == e.FirmID:
		if alert.Detail != "" {
			fmt.Fprintf(&text, "  Detail: %s\n", printable(alert.Detail))
		}
	case err != nil && broker.CodeOf(err) != broker.NotFound:
		return nil, err
	}
	if data.Note != "" {
		fmt.Fprintf(&text, "  Note: %s\n", printable(data.Note))
	}
	if e.Type == broker.EventAlertRaised && spec.Action != "" {
		fmt.Fprintf(&text, "  To do: %s\n", spec.Action)
	}
	fmt.Fprintf(&text, "  At %s; postern alert show %s", e.Time.UTC().Format(time.RFC3339), data.AlertID)
	return &notice{e.Severity, fmt.Sprintf("%s: %s, %s (%s)", e.Severity, data.Kind, printable(whose), verb), text.String()}, nil
}
