// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy"
)

// Config is what a Filter depends on.
type Config struct {
	// Gate lets clients in.
	Gate broker.Gate
	// Counts keeps what was opened, where there are quotas; nil: nobody is let
	// in who has one.
	Counts broker.OpeningCounts
	// Hostname is named in the greeting.
	Hostname string
	// StartTLS offers STARTTLS on connections that are not encrypted.
	StartTLS bool
	// MaxSwallow is how many octets of a refused message Postern reads past
	// before it cuts the client off; 0: 50 MB.
	MaxSwallow int64
	Logger     *zap.Logger
	// Registerer takes the metrics; nil: there are none.
	Registerer prometheus.Registerer
}

// Filter speaks IMAP to clients and lets through what their decisions allow.
type Filter struct {
	gate       broker.Gate
	counts     broker.OpeningCounts
	hostname   string
	startTLS   bool
	maxSwallow int64
	log        *zap.Logger
	table      map[string]*command
	buffers    bufferPool
	metrics    *metrics
	unmatched  unmatched

	// Times of limits.go; shorter in tests.
	silence, listenAfter            time.Duration
	reIdle, reIdleJitter, stillHere time.Duration
}

var _ proxy.Handler = (*Filter)(nil)

// New returns a Filter. It fails when Gate or Logger is missing, or the
// metrics are registered already.
func New(c Config) (*Filter, error) {
	if c.Gate == nil || c.Logger == nil {
		return nil, errors.New("imapfilter: Gate and Logger are needed")
	}
	table := newTable()
	m, err := newMetrics(c.Registerer, table)
	if err != nil {
		return nil, err
	}
	if c.MaxSwallow == 0 {
		c.MaxSwallow = 50 << 20
	}
	return &Filter{
		gate: c.Gate, counts: c.Counts, hostname: c.Hostname, startTLS: c.StartTLS, maxSwallow: c.MaxSwallow,
		log: c.Logger, table: table, metrics: m,
		silence: silence, listenAfter: listenAfter,
		reIdle: reIdle, reIdleJitter: reIdleJitter, stillHere: stillHere,
	}, nil
}

// ServeConn speaks IMAP on a connection until it is over.
func (f *Filter) ServeConn(ctx context.Context, c *proxy.Conn) {
	var in *admitted
	// The login's memory, the app password in it, is not kept for the session.
	proxy.Aside(func() {
		l := login{f: f, conn: c, lines: newLineReader(c)}
		in = l.run(ctx)
	})
	if in == nil {
		return
	}
	c.Authenticated()
	in.relay.run()
}

// admitted is a login that succeeded: the client has its tagged OK.
type admitted struct{ relay *relay }

// newRelay puts a session together. lines holds what the client sent behind
// its login.
func (f *Filter) newRelay(s broker.LiveSession, c *proxy.Conn, up *broker.IMAPConn, lines *lineReader, prefix string, special specialFolders, v *view) *relay {
	r := &relay{
		f: f, session: s, decision: s.Decision(), down: c, up: up, prefix: prefix, special: special,
		view:   v,
		signal: make(chan struct{}, 1),
		over:   make(chan struct{}),
	}
	r.client = clientSide{r: r, lines: lines}
	u := &r.upstream
	u.r = r
	u.buf = u.small[:]
	if n := len(up.Buffered); n > len(u.buf) {
		u.buf = make([]byte, max(n, bigBuffer))
	}
	u.end = copy(u.buf, up.Buffered)
	up.Buffered = nil
	u.offers = offersOf(up.Capabilities)
	if s.Decision().Sending.ReplyOnly {
		// What is catenated out of other messages cannot be known again: filing.
		u.offers &^= offersCatenate
	}
	return r
}

// extensions returns what the session is offered of what its upstream has.
func (r *relay) extensions() []string {
	list := r.view.extensions()
	if r.decision.Sending.ReplyOnly {
		list = slices.DeleteFunc(slices.Clone(list), func(e string) bool { return e == "CATENATE" || e == "URL-PARTIAL" })
	}
	return list
}

// newPrefix returns the beginning of the tags of Postern's own commands: 50
// random bits, which no client can guess.
func newPrefix() string { return "pn" + strings.ToLower(rand.Text()[:10]) + "-" }

// offered returns the capabilities that a client is told after login, which are
// those that are on the list.
func offered(list, capabilities []string) string {
	return strings.TrimPrefix(string(appendOffered(nil, list, []byte(strings.Join(capabilities, " ")))), " ")
}
