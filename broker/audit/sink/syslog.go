// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

const (
	// DefaultSyslogOctets is what receivers should take of a message (RFC 5425
	// §4.3.1), MinSyslogOctets what they must.
	DefaultSyslogOctets = 8192
	MinSyslogOctets     = 2048
	// DefaultSyslogFacility is "log audit" (RFC 5424 §6.2.1).
	DefaultSyslogFacility = 13
	// maxChatter is how much is read of what a host sends, in octets.
	maxChatter = 64 << 10
	// syslogPace has a connection hold the events of a second.
	syslogPace = time.Second
	// structuredID names the elements of STRUCTURED-DATA. Postern has no number of
	// its own: this is the one for examples (RFC 5612).
	structuredID = "postern@32473"
)

// SyslogConfig is a log host that takes syslog over TLS (RFC 5425).
type SyslogConfig struct {
	// Address is host:port.
	Address string
	// TLS verifies the host, and shows it a certificate where it wants one.
	TLS *tls.Config
	// Hostname and Facility stand in messages. Octets is how long one may be; of a
	// longer one the event's data is left out.
	Hostname string
	Facility int
	Octets   int
	Format   Format
}

// Syslog sends events as messages of RFC 5424, counted in octets (RFC 5425 §4.3).
// The protocol has no answer to a message. So each delivery is a connection of its
// own, and is taken when the host has closed its side with nothing left unread, as
// far as TCP tells. What it makes of it from then on nobody can know.
type Syslog struct{ cfg SyslogConfig }

var _ Receiver = (*Syslog)(nil)

// NewSyslog makes a log host's receiver.
func NewSyslog(cfg SyslogConfig) (*Syslog, error) {
	if cfg.Address == "" || cfg.TLS == nil || cfg.Format == nil || cfg.Hostname == "" {
		return nil, errors.New("sink: a log host's address, TLS, a host name and a format are needed")
	}
	cfg.TLS = cfg.TLS.Clone()
	// Connections are many, and resume each other's sessions.
	cfg.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	return &Syslog{cfg}, nil
}

// Pace is the least time between two deliveries.
func (*Syslog) Pace() time.Duration { return syslogPace }

// Deliver is described at Receiver.
func (s *Syslog) Deliver(ctx context.Context, events []*Event) (n int, err error) {
	var frames bytes.Buffer
	for _, e := range events {
		m, err := s.message(e)
		if err != nil {
			return 0, &RefusedError{Events: 1, cause: err}
		}
		frames.WriteString(strconv.Itoa(len(m)))
		frames.WriteByte(' ')
		frames.Write(m)
	}
	dialled, err := new(net.Dialer).DialContext(ctx, "tcp", s.cfg.Address)
	if err != nil {
		return 0, err
	}
	raw, ok := dialled.(*net.TCPConn)
	if !ok {
		return 0, errors.Join(errors.New("not a TCP connection"), dialled.Close())
	}
	defer func() { _ = raw.Close() }() // what counts was read before
	if end, ok := ctx.Deadline(); ok {
		if err := raw.SetDeadline(end); err != nil {
			return 0, err
		}
	}
	defer context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })()
	conn := tls.Client(raw, s.cfg.TLS)
	if err := conn.HandshakeContext(ctx); err != nil {
		return 0, err
	}
	if _, err := conn.Write(frames.Bytes()); err != nil {
		return 0, err
	}
	if err := conn.CloseWrite(); err != nil {
		return 0, err
	}
	if err := confirm(conn, raw); err != nil {
		return 0, fmt.Errorf("it did not confirm that it has read everything: %w", err)
	}
	return len(events), nil
}

// confirm waits until the host has closed its side, and finds out whether it read
// everything before. Its close_notify (RFC 5425 §4.4) alone does not show that: it
// may have been on its way before the messages were, and crypto/tls takes the end of
// the connection for one.
func confirm(conn *tls.Conn, raw *net.TCPConn) error {
	if err := drain(conn); err != nil {
		return err
	}
	// What comes to a connection that was closed is not acknowledged.
	if err := acknowledged(raw); err != nil {
		return err
	}
	if err := raw.CloseWrite(); err != nil { // some wait for it
		return err
	}
	// A connection that is closed with something unread is reset, behind a
	// close_notify as well (RFC 1122 §4.2.2.13).
	return drain(raw)
}

// drain reads to the end. A log host has nothing to say.
func drain(from io.Reader) error {
	n, err := io.Copy(io.Discard, io.LimitReader(from, maxChatter))
	if err == nil && n == maxChatter {
		return errors.New("it does not stop sending")
	}
	return err
}

// Close is described at Receiver: nothing is held open.
func (*Syslog) Close() error { return nil }

// syslogSeverity is one of those of RFC 5424 §6.2.1.
func syslogSeverity(e *Event) int {
	const critical, warning, notice, informational = 2, 4, 5, 6
	switch {
	case !IsAlert(e.Type):
		return informational
	case e.Severity == broker.SeverityInfo:
		return notice
	case e.Severity == broker.SeverityWarning:
		return warning
	}
	return critical
}

// message makes an event's SYSLOG-MSG.
func (s *Syslog) message(e *Event) ([]byte, error) {
	text, err := s.cfg.Format(e)
	if err != nil {
		return nil, err
	}
	m := append(s.header(e, false), text...)
	if len(m) <= s.cfg.Octets {
		return m, nil
	}
	// Its data is in the log, which the event's firm and seq lead to. A format may
	// have attributes of it all the same, if there is room.
	short := *e
	short.Data = nil
	if short.Record, err = json.Marshal(short.Event); err != nil {
		return nil, err
	}
	for _, short.Data = range []any{e.Data, nil} {
		if text, err = s.cfg.Format(&short); err != nil {
			return nil, err
		}
		if m = append(s.header(e, true), text...); len(m) <= s.cfg.Octets {
			return m, nil
		}
	}
	return nil, fmt.Errorf("the message has %d octets, and may have %d", len(m), s.cfg.Octets)
}

func (s *Syslog) header(e *Event, shortened bool) []byte {
	log := string(e.FirmID)
	if log == "" {
		log = "bpo"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<%d>1 %s %s postern - %s [%s", s.cfg.Facility*8+syslogSeverity(e),
		e.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), nameASCII(s.cfg.Hostname, 255), nameASCII(string(e.Type), 32), structuredID)
	for _, param := range [][2]string{
		{"id", string(e.ID)},
		{"log", log},
		{"seq", strconv.FormatInt(e.Seq, 10)},
		{"severity", string(e.Severity)},
		{"mailbox", string(e.MailboxID)},
		{"agent", string(e.AgentID)},
		{"session", string(e.SessionID)},
	} {
		if param[1] != "" {
			fmt.Fprintf(&b, ` %s="%s"`, param[0], paramValue(param[1]))
		}
	}
	if shortened {
		b.WriteString(` shortened="yes"`)
	}
	b.WriteString("] ")
	return []byte(b.String())
}

// nameASCII makes what RFC 5424 §6 calls PRINTUSASCII, of limited length.
func nameASCII(s string, limit int) string {
	s = strings.Map(func(c rune) rune {
		if c < 33 || c > 126 {
			return '_'
		}
		return c
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), limit)]
}

// paramValue escapes what stands in quotes (RFC 5424 §6.3.3).
func paramValue(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(strings.ToValidUTF8(s, "?"))
}
