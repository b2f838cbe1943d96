// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy"
)

// Config is what a Gateway needs.
type Config struct {
	// Gate lets clients in. Required.
	Gate broker.Gate
	// Counts keeps what was sent within the hour, where that is limited.
	// Required.
	Counts broker.SendingCounts
	// Hostname is what the server calls itself. Required.
	Hostname string
	Limits   Limits
	// OfferBeforeLogin are extensions that every mailbox's server is known to
	// have, out of DSN and SMTPUTF8. What a mailbox's own server offers is
	// known after login only, and few clients say EHLO again then; without
	// this such a client sees neither. Where the server lacks one after all,
	// its parameter is refused with 555.
	OfferBeforeLogin []string
	// Correspondents answers what reply_only asks; nil: nobody can be written to
	// under it.
	Correspondents Correspondents
	// Sent settles unknown outcomes; nil: they stay unknown.
	Sent SentLookup
	// Logger may be nil, and so may Registerer.
	Logger     *zap.Logger
	Registerer prometheus.Registerer
	// Now is the clock that submissions are remembered by; nil: time.Now.
	Now func() time.Time
}

// Gateway is the submission service: a proxy.Handler. It may serve any
// number of connections at once.
type Gateway struct {
	gate           broker.Gate
	counts         broker.SendingCounts
	hostname       string
	limits         Limits
	offers         map[string]bool
	sent           SentLookup
	correspondents Correspondents
	log            *zap.Logger
	metrics        *metrics
	outcomes       *outcomes
	buffers        *sync.Pool // of *[]byte, bufferInData long
}

var _ proxy.Handler = (*Gateway)(nil)

// New makes a Gateway. It holds no resources between connections, so there is
// nothing to close. The error says which field of config is wrong.
func New(config Config) (*Gateway, error) {
	switch {
	case config.Gate == nil:
		return nil, broker.InvalidField("gate", "a gate is required")
	case config.Counts == nil:
		return nil, broker.InvalidField("counts", "counts are required")
	case !isHelloName(config.Hostname):
		return nil, broker.InvalidField("hostname", "not a host name")
	}
	g := &Gateway{
		gate:           config.Gate,
		counts:         config.Counts,
		hostname:       config.Hostname,
		limits:         config.Limits.withDefaults(),
		offers:         make(map[string]bool),
		sent:           config.Sent,
		correspondents: config.Correspondents,
		log:            config.Logger,
		buffers: &sync.Pool{New: func() any {
			b := make([]byte, bufferInData)
			return &b
		}},
	}
	for _, keyword := range config.OfferBeforeLogin {
		keyword = strings.ToUpper(keyword)
		if keyword != "DSN" && keyword != "SMTPUTF8" {
			return nil, broker.InvalidField("offer_before_login", "%q is not DSN or SMTPUTF8", keyword)
		}
		g.offers[keyword] = true
	}
	if g.log == nil {
		g.log = zap.NewNop()
	}
	now := config.Now
	if now == nil {
		now = time.Now
	}
	g.outcomes = newOutcomes(now)
	var err error
	g.metrics, err = newMetrics(config.Registerer)
	return g, err
}

// ServeConn serves one connection, and returns when it is over, when nothing
// that it started runs any more, and when its session is ended.
//
// The go-smtp server is made for this connection alone: what a server offers
// is a field of it, and what a session may offer depends on its upstream.
func (g *Gateway) ServeConn(ctx context.Context, c *proxy.Conn) {
	s := newSession(ctx, g, c)
	defer s.finish()
	stop := context.AfterFunc(ctx, func() {
		if s.wire.closing.Load() {
			return // closing it is what ended ctx; the upstream is still to be told QUIT
		}
		s.end(&broker.End{Reason: broker.EndDrain, Text: "the server is stopping"})
	})
	defer stop()

	server := smtp.NewServer(s)
	server.Domain = g.hostname
	server.ErrorLog = errorLog{g.log}
	// The wire enforces the limits of each kind of line. What go-smtp takes
	// for a client without TLS is our wire; authenticate looks for itself.
	server.MaxLineLength = maxAuthLine + 2
	server.AllowInsecureAuth = true
	if err := server.Serve(&oneConn{wire: s.wire}); !errors.Is(err, errServed) {
		g.log.Error("the SMTP server failed", zap.Error(err))
	}
	// Waits for go-smtp's goroutine, which ends when the wire is closed.
	if err := server.Shutdown(context.WithoutCancel(ctx)); err != nil && !errors.Is(err, errServed) {
		g.log.Error("the SMTP server did not stop", zap.Error(err))
	}
}

var errServed = errors.New("submission: the connection is over")

// oneConn is a listener that accepts one connection, and then waits for its
// end.
type oneConn struct {
	wire  *wire
	given bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if !l.given {
		l.given = true
		return l.wire, nil
	}
	<-l.wire.done
	return nil, errServed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.wire.LocalAddr() }

// errorLog takes what go-smtp reports: panics and read errors.
type errorLog struct{ log *zap.Logger }

func (l errorLog) Printf(format string, args ...any) { l.log.Error(fmt.Sprintf(format, args...)) }
func (l errorLog) Println(args ...any)               { l.log.Error(fmt.Sprintln(args...)) }
