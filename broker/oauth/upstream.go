// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Limits and times.
const (
	// DefaultTimeout bounds one request to an issuer. Config.Timeout may be
	// minTimeout to maxTimeout.
	DefaultTimeout = 10 * time.Second
	minTimeout     = 100 * time.Millisecond
	maxTimeout     = time.Minute
	// dialTimeout bounds connecting, and the TLS handshake, each.
	dialTimeout = 5 * time.Second
	// maxAnswer and maxHeader bound an issuer's answer, in octets.
	maxAnswer = 128 << 10
	maxHeader = 32 << 10

	// renewAt is the part of its life after which a token is renewed, less up
	// to renewJitter of it, so that the tokens of one morning do not end
	// together. endSlack before its end it serves no more: a login takes time.
	renewAt     = 0.8
	renewJitter = 0.2
	endSlack    = 30 * time.Second
	// defaultLife is a token's whose issuer does not tell; maxLife cuts what
	// it tells.
	defaultLife = 5 * time.Minute
	maxLife     = 24 * time.Hour
	// renewPause is how long after a token was replaced because the upstream
	// had refused it the next one is not.
	renewPause = 15 * time.Second

	// skewBorne is a difference of clocks that assertions bear by themselves.
	skewBorne = assertionSlack - 5*time.Second
	maxSkews  = 1024

	// refusalMemory is how long an issuer's refusal is taken for its answer to
	// the next who ask. An outage is remembered for firstWait, each time twice
	// as long, up to longestOwnWait, or as long as the issuer asks, up to
	// longestWait.
	refusalMemory  = 5 * time.Minute
	firstWait      = time.Second
	longestOwnWait = 30 * time.Second
	longestWait    = 5 * time.Minute

	// storeTimeout bounds storing a new refresh token, with all tries;
	// storePause is between two. What it did not store is tried again each
	// keepInterval, and before each use.
	storeTimeout = 15 * time.Second
	storePause   = 500 * time.Millisecond
	keepInterval = 5 * time.Second
	// rivalPause is how long another node has to store what it got in exchange
	// for a refresh token, before a refusal of that token is believed.
	rivalPause = 2 * time.Second

	// sweepInterval is how often what nobody uses is forgotten, unusedTime
	// after its last use.
	sweepInterval = time.Minute
	unusedTime    = 15 * time.Minute
)

// Config is what an Upstream stands on.
type Config struct {
	// Upstream logs in, with passwords and with access tokens.
	Upstream broker.Upstream
	// Credentials keep refresh tokens.
	Credentials broker.Credentials
	// RootCAs verify issuers' certificates; nil: the system's.
	RootCAs *x509.CertPool
	// Networks are where issuers may be beside public addresses.
	Networks []netip.Prefix
	// Timeout bounds one request to an issuer; 0: DefaultTimeout.
	Timeout time.Duration
	// Logger is told of refusals and outages; nil: nobody is.
	Logger *zap.Logger
	// Registerer takes the metrics; nil: they are kept and not shown.
	Registerer prometheus.Registerer
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

var _ broker.Upstream = (*Upstream)(nil)

// Upstream is a broker.Upstream that mints access tokens. Its methods may be
// called from any goroutine; they need Run.
type Upstream struct {
	inner       broker.Upstream
	credentials broker.Credentials
	issuers     *issuers
	timeout     time.Duration
	log         *zap.Logger
	now         func() time.Time
	requests    *prometheus.CounterVec
	// fingerprints is the key of the fingerprints.
	fingerprints []byte

	// mu guards what follows, and what is in the entries. It is never held
	// across I/O.
	mu      sync.Mutex
	entries map[index]*entry
	stopped bool
	// flights are the requests under way.
	flights sync.WaitGroup
}

// outcomeOK is a request that brought a token; the others are the reasons.
const outcomeOK = "ok"

// New makes an Upstream; a wrong setting is Invalid.
func New(c Config) (*Upstream, error) {
	if c.Upstream == nil || c.Credentials == nil {
		return nil, errors.New("oauth: Upstream and Credentials are needed")
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Timeout < minTimeout || c.Timeout > maxTimeout {
		return nil, broker.InvalidField("timeout", "must be %v to %v", minTimeout, maxTimeout)
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	u := &Upstream{
		inner: c.Upstream, credentials: c.Credentials, timeout: c.Timeout, log: c.Logger, now: c.Now,
		issuers:      &issuers{client: newClient(c.RootCAs, c.Networks, c.Now), now: c.Now},
		fingerprints: make([]byte, 32),
		entries:      make(map[index]*entry),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "postern", Name: "token_requests_total",
			Help: "Requests for access tokens, by kind of credential and outcome: ok, or the reason of the failure.",
		}, []string{"kind", "outcome"}),
	}
	// So that each is there as 0: the first increase of what was not there is
	// none to Prometheus.
	for _, kind := range []broker.CredentialKind{broker.KindOAuth2Client, broker.KindOAuth2Refresh, broker.KindGoogleServiceAccount} {
		for _, outcome := range []string{
			outcomeOK, broker.ReasonConsent, ReasonClient, ReasonEndpoint, ReasonAddress, ReasonBusy, ReasonRequest, ReasonChanged, ReasonStore,
		} {
			u.requests.WithLabelValues(string(kind), outcome)
		}
	}
	if _, err := rand.Read(u.fingerprints); err != nil {
		return nil, err
	}
	if c.Registerer != nil {
		if err := c.Registerer.Register(u.requests); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// Run forgets what nobody uses and stores what could not be stored, until ctx
// is done; then it waits for the requests under way, stores what they brought,
// and wipes the tokens.
func (u *Upstream) Run(ctx context.Context) error {
	sweep, keep := time.NewTicker(sweepInterval), time.NewTicker(keepInterval)
	defer sweep.Stop()
	defer keep.Stop()
	for {
		select {
		case <-sweep.C:
			u.sweep()
		case <-keep.C:
			u.storePending(ctx)
		case <-ctx.Done():
			u.stop()
			return nil
		}
	}
}

func (u *Upstream) stop() {
	u.mu.Lock()
	u.stopped = true
	u.mu.Unlock()
	u.flights.Wait()
	last, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	u.storePending(last)
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, e := range u.entries {
		e.wipe()
		delete(u.entries, i)
	}
	u.issuers.client.CloseIdleConnections()
}

// OpenIMAP logs in to the mailbox's IMAP service.
func (u *Upstream) OpenIMAP(ctx context.Context, m *broker.Mailbox, c *broker.Credential) (*broker.IMAPConn, error) {
	return login(ctx, u, m, c, false, u.inner.OpenIMAP)
}

// OpenSubmission logs in to the mailbox's submission service.
func (u *Upstream) OpenSubmission(ctx context.Context, m *broker.Mailbox, c *broker.Credential) (*broker.SubmissionConn, error) {
	return login(ctx, u, m, c, false, u.inner.OpenSubmission)
}

// Probe logs in to both and out again, with one token. c need not be what is
// stored, but c.Version must be the stored version: a refresh token that came in
// exchange for its own is put into it.
func (u *Upstream) Probe(ctx context.Context, m *broker.Mailbox, c *broker.Credential) error {
	_, err := login(ctx, u, m, c, true, func(ctx context.Context, m *broker.Mailbox, c *broker.Credential) (*struct{}, error) {
		return nil, u.inner.Probe(ctx, m, c)
	})
	return err
}

// login opens with a token, and once more with a new one when a token that was
// kept is refused.
func login[C any](ctx context.Context, u *Upstream, m *broker.Mailbox, c *broker.Credential, probe bool,
	open func(context.Context, *broker.Mailbox, *broker.Credential) (*C, error),
) (*C, error) {
	if !c.Kind.MintsTokens() {
		return open(ctx, m, c)
	}
	w, err := u.want(m, c, probe)
	if err != nil {
		return nil, err
	}
	defer w.document.Wipe()
	defer u.handBack(w, c)
	var refused uint64
	for {
		t, err := u.token(ctx, w, refused)
		if err != nil {
			return nil, err
		}
		conn, err := open(ctx, m, &broker.Credential{Kind: broker.KindAccessToken, Username: c.Username, Secret: t.secret})
		t.secret.Wipe()
		err = withoutTokens(err)
		if err == nil && probe {
			u.refile(w, w.document)
		}
		if err == nil || broker.CodeOf(err) != broker.CredentialRefused || t.minted || refused != 0 || !u.mayReplace(w, t.serial) {
			return conn, err
		}
		refused = t.serial
	}
}

// want is what a login wants a token for.
type want struct {
	firm, mailbox broker.ID
	kind          broker.CredentialKind
	// subject is the login name.
	subject  string
	username string
	document *Document
	print    print
	// probe says that the credential need not be the stored one; version is then
	// the stored one's, which it is to take the place of.
	probe   bool
	version int
}

func (u *Upstream) want(m *broker.Mailbox, c *broker.Credential, probe bool) (*want, error) {
	d, err := Parse(c.Kind, c.Secret.Reveal())
	if err != nil {
		return nil, err
	}
	w := &want{
		firm: m.FirmID, mailbox: m.ID, kind: c.Kind, subject: m.LoginName(c), document: d, probe: probe, version: c.Version,
	}
	w.print = u.printOf(w, d)
	// What a probe is given it tries, though another refresh token of the same
	// name be known.
	if exact := u.exactPrintOf(w, d); probe && exact != w.print {
		u.mu.Lock()
		defer u.mu.Unlock()
		if e := u.entries[index{w.mailbox, w.print}]; e == nil || e.current != exact {
			w.print = exact
		}
	}
	return w, nil
}

// printOf is one for all refresh tokens of a consent, exactPrintOf one for each.
func (u *Upstream) printOf(w *want, d *Document) print {
	return d.fingerprint(u.fingerprints, w.kind, w.subject)
}

func (u *Upstream) exactPrintOf(w *want, d *Document) print {
	exact := *d
	exact.ID = ""
	return exact.fingerprint(u.fingerprints, w.kind, w.subject)
}

// handBack puts the refresh token that came for an unstored credential into it.
func (u *Upstream) handBack(w *want, c *broker.Credential) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e := u.entries[index{w.mailbox, w.print}]
	if !w.probe || e == nil || e.unstored == nil {
		return
	}
	c.Secret.Wipe()
	c.Secret = broker.NewSecret(bytes.Clone(e.unstored))
}
