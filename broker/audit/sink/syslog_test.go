// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// logHost takes syslog over TLS exactly as RFC 5425 and RFC 5424 have it.
type logHost struct {
	t        testing.TB
	ca       *servers.CA
	config   *tls.Config
	listener net.Listener
	wait     sync.WaitGroup

	mu sync.Mutex
	// fail, where set, is asked of each connection: after how many messages it is
	// broken off, and whether with a reset; -1: it is not.
	fail   func(n int) int
	rude   bool // it closes without a close_notify
	asked  int
	took   []broker.Event
	params []map[string]string
	wrong  []string
}

func newLogHost(t testing.TB) *logHost {
	t.Helper()
	h := &logHost{t: t, ca: servers.NewCA(t)}
	own := h.ca.Issue("localhost", "127.0.0.1")
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	h.config = &tls.Config{
		Certificates: []tls.Certificate{own.TLS}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: h.ca.Pool(), MinVersion: tls.VersionTLS12,
	}
	h.listener = tls.NewListener(plain, h.config)
	h.wait.Go(h.run)
	t.Cleanup(func() {
		_ = plain.Close()
		h.wait.Wait()
	})
	return h
}

func (h *logHost) run() {
	for {
		conn, err := h.listener.Accept()
		if err != nil {
			return
		}
		h.wait.Go(func() { h.serve(conn.(*tls.Conn)) })
	}
}

func (h *logHost) serve(conn *tls.Conn) {
	raw := conn.NetConn().(*net.TCPConn)
	defer raw.Close()
	if err := errors.Join(raw.SetDeadline(time.Now().Add(patience)), conn.Handshake()); err != nil {
		return
	}
	h.mu.Lock()
	h.asked++
	left := -1
	if h.fail != nil {
		left = h.fail(h.asked)
	}
	rude := h.rude
	h.mu.Unlock()
	in := bufio.NewReader(conn)
	var got []broker.Event
	var params []map[string]string
	for ; left != 0; left-- {
		e, p, err := readSyslog(in)
		if errors.Is(err, io.EOF) {
			h.mu.Lock()
			h.took, h.params = append(h.took, got...), append(h.params, params...)
			h.mu.Unlock()
			if !rude {
				_ = conn.CloseWrite()
			}
			return
		}
		if err != nil {
			h.mu.Lock()
			h.wrong = append(h.wrong, err.Error())
			h.mu.Unlock()
			return
		}
		got, params = append(got, *e), append(params, p)
	}
	_ = raw.SetLinger(0) // what it has read is lost with it
}

// SYSLOG-MSG as RFC 5424 §6 has it, with one element of STRUCTURED-DATA.
var syslogMessage = regexp.MustCompile(`(?s)^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) \[([!-<>-\[^-~]{1,32})((?: [!-<>-\[^-~]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*)\] (.*)$`)

var syslogParam = regexp.MustCompile(` ([^ =]+)="((?:[^"\\\]]|\\["\\\]])*)"`)

// readSyslog reads one frame: MSG-LEN SP SYSLOG-MSG. The end before a frame is
// io.EOF.
func readSyslog(in *bufio.Reader) (*broker.Event, map[string]string, error) {
	length, err := in.ReadString(' ')
	if err != nil {
		if length == "" {
			return nil, nil, io.EOF
		}
		return nil, nil, fmt.Errorf("a length that ends: %q", length)
	}
	n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
	if err != nil || n < 1 || n > DefaultSyslogOctets || length[0] == '0' {
		return nil, nil, fmt.Errorf("the length %q", length)
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(in, frame); err != nil {
		return nil, nil, err
	}
	parts := syslogMessage.FindSubmatch(frame)
	if parts == nil {
		return nil, nil, fmt.Errorf("not of RFC 5424: %q", frame)
	}
	params := map[string]string{"priority": string(parts[1]), "hostname": string(parts[3])}
	for _, p := range syslogParam.FindAllSubmatch(parts[8], -1) {
		params[string(p[1])] = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\]`, `]`).Replace(string(p[2]))
	}
	e := new(broker.Event)
	if err := json.Unmarshal(parts[9], e); err != nil {
		return nil, nil, err
	}
	if params["id"] != string(e.ID) || params["seq"] != strconv.FormatInt(e.Seq, 10) || string(parts[6]) != string(e.Type) || string(parts[7]) != structuredID {
		return nil, nil, fmt.Errorf("the header is another's: %q", frame)
	}
	return e, params, nil
}

func (h *logHost) all() []broker.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.wrong) > 0 {
		h.t.Errorf("it was sent: %v", h.wrong)
		h.wrong = nil
	}
	return slices.Clone(h.took)
}

// syslog makes a receiver for it.
func (h *logHost) syslog() *Syslog {
	h.t.Helper()
	own := h.ca.IssueClient("postern")
	s, err := NewSyslog(SyslogConfig{
		Address: h.listener.Addr().String(), Hostname: "mail.postern.example", Facility: DefaultSyslogFacility, Octets: DefaultSyslogOctets, Format: JSON,
		TLS: &tls.Config{RootCAs: h.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{own.TLS}, MinVersion: tls.VersionTLS12},
	})
	must(h.t, err)
	return s
}

// TestSyslog: a host that dies in the middle, however it ends connections, gets
// every event, and nothing counts as taken that it did not read.
func TestSyslog(t *testing.T) {
	for name, rude := range map[string]bool{"with close_notify": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			h := newLogHost(t)
			h.rude = rude
			h.fail = func(n int) int {
				switch n % 4 {
				case 1:
					return 0
				case 2:
					return 7
				}
				return -1
			}
			w := newWorld(t, 2)
			for _, log := range w.firms {
				w.append(log, numbered(`x"]\`+"\u00e9", 20)...)
			}
			w.start("a", quick(), Sink{Name: "loghost", Receiver: h.syslog(), FromStart: true})
			for _, log := range w.firms {
				soon(t, "delivered", func() bool { return len(firstIDs(h.all(), log)) == 20 })
				w.append(log, numbered("y", 10)...)
			}
			for _, log := range w.firms {
				soon(t, "delivered", func() bool { return len(firstIDs(h.all(), log)) == 30 })
				if got, want := firstIDs(h.all(), log), w.ids(log); !slices.Equal(got, want) {
					t.Errorf("the order of a log: %v, not %v", got, want)
				}
			}
		})
	}
}

// TestSyslogHostThatDidNotRead: one that ends the connection before it has read what
// is on its way or in its kernel has taken nothing, however it ends it.
func TestSyslogHostThatDidNotRead(t *testing.T) {
	for name, test := range map[string]struct {
		room int // in its kernel, in octets; 0: as is usual
		end  func(conn *tls.Conn, raw *net.TCPConn) error
	}{
		// As when it is killed: not all has come to its kernel, and TCP's end is all
		// that it sends.
		"a FIN":                    {1, func(_ *tls.Conn, raw *net.TCPConn) error { return raw.CloseWrite() }},
		"a close_notify too early": {1, func(conn *tls.Conn, _ *net.TCPConn) error { return conn.CloseWrite() }},
		"a close_notify, then a reset": {0, func(conn *tls.Conn, raw *net.TCPConn) error {
			_, err := raw.Read(make([]byte, 1)) // there is something
			return errors.Join(err, conn.CloseWrite(), raw.Close())
		}},
		"chatter": {0, func(conn *tls.Conn, _ *net.TCPConn) error {
			_, err := conn.Write(make([]byte, maxChatter+1))
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newLogHost(t)
			config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (failed error) {
				return errors.Join(c.Control(func(fd uintptr) {
					if test.room > 0 {
						failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, test.room)
					}
				}), failed)
			}}
			l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
			must(t, err)
			served := make(chan error, 1)
			over := make(chan struct{})
			go func() {
				plain, err := l.Accept()
				if err != nil {
					served <- err
					return
				}
				defer plain.Close()
				conn := tls.Server(plain, h.config)
				if err = conn.Handshake(); err == nil {
					err = test.end(conn, plain.(*net.TCPConn))
				}
				<-over
				served <- err
			}()
			s := h.syslog()
			s.cfg.Address = l.Addr().String()
			n, err := s.Deliver(ctx, some(t, 50))
			close(over)
			if n != 0 || err == nil {
				t.Errorf("%d were taken, %v", n, err)
			}
			must(t, errors.Join(<-served, l.Close()))
		})
	}
}

// firstIDs are the ids of a log's events as each came first.
func firstIDs(events []broker.Event, log broker.ID) (ids []broker.ID) {
	for _, e := range events {
		if e.FirmID == log && !slices.Contains(ids, e.ID) {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// TestSyslogMessages: priorities, escapes, and what is too long.
func TestSyslogMessages(t *testing.T) {
	h := newLogHost(t)
	s := h.syslog()
	long := some(t, 1)[0]
	long.Record = []byte(strings.Replace(string(long.Record), `"seq"`, `"data":{"x":"`+strings.Repeat("y", 9000)+`"},"seq"`, 1))
	grave := some(t, 1)[0]
	grave.Type, grave.Severity = broker.EventAlertRaised, broker.SeverityCritical
	grave.Record = []byte(strings.Replace(string(grave.Record), string(broker.EventAuthFailed), string(grave.Type), 1))
	deliver(t, s, []*Event{some(t, 1)[0], long, grave})
	if got := h.all(); len(got) != 3 || got[1].ID != long.ID {
		t.Fatalf("%+v", got)
	}
	if h.params[0]["priority"] != "110" || h.params[2]["priority"] != "106" || h.params[1]["shortened"] != "yes" || h.params[0]["shortened"] != "" ||
		h.params[0]["hostname"] != "mail.postern.example" || h.params[0]["log"] != "bpo" {
		t.Errorf("%v", h.params)
	}
	if got := paramValue("a\"b]c\\d\xff"); got != `a\"b\]c\\d?` {
		t.Errorf("escaped: %s", got)
	}
}

// TestSyslogMessageTooLongForOCSF: what is left of one that is too long is of that
// format as well, with the attributes that have room.
func TestSyslogMessageTooLongForOCSF(t *testing.T) {
	s := newLogHost(t).syslog()
	s.cfg.Format = OCSF
	for name, test := range map[string]struct{ data, from string }{
		"what has no attribute": {`"x":"` + strings.Repeat("y", 9000) + `"`, "own@acme.example"},
		"what has":              {`"recipients":["a@b.example"` + strings.Repeat(`,"a@b.example"`, 900) + `]`, unknownAddress},
	} {
		e := broker.Event{ID: broker.NewID(), Seq: 3, Type: broker.EventSendIntent, Version: 1, Data: json.RawMessage(`{"header_from":"own@acme.example",` + test.data + `}`)}
		record, err := json.Marshal(e)
		must(t, err)
		parsed, err := parse(&broker.LogEntry{Seq: 3, Record: record})
		must(t, err)
		m, err := s.message(parsed)
		must(t, err)
		header, text, _ := strings.Cut(string(m), "] ")
		var x ocsfEvent
		if err := json.Unmarshal([]byte(text), &x); err != nil || len(m) > DefaultSyslogOctets || !strings.Contains(header, `shortened="yes"`) ||
			x.ClassUID != classEmail || x.Email == nil || x.Email.From != test.from || x.Metadata.UID != e.ID || len(x.Unmapped) == 0 {
			t.Errorf("%s: %v %s", name, err, m)
		}
	}
}

// TestSyslogChecksItsHost: another CA's certificate, another name, and a host that
// is not shown a certificate.
func TestSyslogChecksItsHost(t *testing.T) {
	h := newLogHost(t)
	for name, change := range map[string]func(*tls.Config){
		"another CA":     func(c *tls.Config) { c.RootCAs = servers.NewCA(t).Pool() },
		"another name":   func(c *tls.Config) { c.ServerName = "other.example" },
		"no certificate": func(c *tls.Config) { c.Certificates = nil },
	} {
		s := h.syslog()
		change(s.cfg.TLS)
		if n, err := s.Deliver(ctx, some(t, 3)); n != 0 || err == nil {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	if got := h.all(); len(got) != 0 {
		t.Errorf("it took %d", len(got))
	}
}
