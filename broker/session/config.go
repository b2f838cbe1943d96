// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// Limits and times.
const (
	// DefaultConnections is a mailbox's budget of upstream IMAP connections
	// when the mailbox does not say.
	DefaultConnections = 10
	// DefaultReserved are those of the budget that sessions leave free, for
	// probes and for a connection whose end the upstream has not yet noticed.
	DefaultReserved = 1
	// DefaultSubmissions is how many submission sessions a mailbox may have.
	DefaultSubmissions = 10
	// LeaseTime is how long sessions outlive the last time that the state
	// could be read, and the node's lease prolonged (design, section 3), when
	// the configuration does not say. MinLeaseTime leaves room for a few
	// attempts.
	LeaseTime    = 15 * time.Second
	MinLeaseTime = 4 * time.Second
	// renewals is how often a lease is prolonged while it lasts.
	renewals = 5
	// PollInterval is how often the policy revision is read: notices can be
	// lost. The half of a second leaves the other half for what follows.
	PollInterval = 500 * time.Millisecond

	// tokenKeySize is the HMAC-SHA-256 key's size in octets.
	tokenKeySize = 32
	// readTimeout bounds reading the policy revision; passTimeout one pass
	// over all sessions.
	readTimeout = 2 * time.Second
	passTimeout = 5 * time.Second
	// killTogether is for how long sessions that a change ends are gathered.
	killTogether = 5 * time.Millisecond
	// openTimeout bounds what Open reads and records, back-off excluded.
	openTimeout = 15 * time.Second
	// startTimeout is how long Open waits for Run to have read the state.
	startTimeout = 3 * time.Second
	// handoverTimeout is how long Open waits for the end of the session whose
	// place it takes: sessions close within a second of their end.
	handoverTimeout = time.Second
	// maxDecideAttempts is how often Open decides again because the policy
	// changed meanwhile.
	maxDecideAttempts = 10
	// maxNotices is how many changes are remembered singly; with more, every
	// session is decided anew.
	maxNotices = 1024
	// maxUnrecorded is how many session.end events wait for a log that failed.
	maxUnrecorded = 100_000

	// The back-off after failures: the first delay, the longest, how long one
	// failure is remembered, and how many sources are.
	firstDelay     = 250 * time.Millisecond
	longestDelay   = 8 * time.Second
	forgetInterval = time.Minute
	maxSources     = 16384

	// DirectoryFailures are how often the directory is asked about one account in
	// vain within DirectoryWindow, when the configuration does not say: fewer
	// than lock an account in most. MinDirectoryFailures leaves one for who uses
	// up his own.
	DirectoryFailures    = 4
	MinDirectoryFailures = 2
	DirectoryWindow      = 30 * time.Minute
	// sourceAccounts is how many accounts' share one source has.
	sourceAccounts = 5
	// goodFor and badFor are how long the directory's answers are remembered.
	goodFor = 10 * time.Second
	badFor  = time.Minute
	// lookTimeout bounds the question whether an account is still there.
	lookTimeout = 30 * time.Second

	// maxUsername and maxAnswer cut what strangers and upstreams wrote, in
	// octets, before it is recorded; maxText each part of
	// what an agent is told.
	maxUsername = 256
	maxAnswer   = 200
	maxText     = 500
)

// Config is what a Manager stands on.
type Config struct {
	State       broker.State
	Log         broker.EventLog
	Credentials broker.Credentials
	Upstream    broker.Upstream
	// Rotations and Pending are looked at when the upstream refuses a credential;
	// nil: Postern rotates none.
	Rotations Rotations
	Pending   broker.PendingCredentials
	// TokenKey is the HMAC key of app passwords: 32 octets. With another one,
	// no app password is known any more.
	TokenKey broker.Secret
	// Node is this process's name in records; no two live ones may share it.
	Node string
	// Connections, Reserved and Submissions replace the defaults of the
	// budgets when they are not 0. A negative Reserved reserves none. A
	// mailbox has at least one connection whatever is reserved.
	Connections int
	Reserved    int
	Submissions int
	// Leases keep the nodes' leases where several share the state; nil: this
	// node is alone, and that it can read the state is its lease.
	Leases broker.Leases
	// Lease takes the place of LeaseTime; 0: LeaseTime.
	Lease time.Duration
	// Guardrails forbid above all delegations; nil: nothing.
	Guardrails *policy.Guardrails
	// Witnesses say for which firms no session is opened since their log's witness
	// is silent; nil: for none.
	Witnesses Witnesses
	// Directory checks the passwords of agents who have none of Postern's; nil:
	// they cannot log in.
	Directory broker.Directory
	// DirectoryFailures and DirectoryWindow replace the defaults when they are
	// not 0.
	DirectoryFailures int
	DirectoryWindow   time.Duration
	// DirectoryInterval is how often the directory is asked whether the accounts
	// of agents in session are still there and enabled; 0: never.
	DirectoryInterval time.Duration
	// CertificateAlone are the classes of workstations whose certificate may be
	// all that lets their own agent in; empty: none.
	CertificateAlone []broker.WorkstationClass
	// CompanyCAs know workstations by certificates of a company's own CAs; nil:
	// they are known by their keys alone.
	CompanyCAs broker.CompanyCAs
	Logger     *zap.Logger
	// Registerer takes the metrics; nil: they are kept and not shown.
	Registerer prometheus.Registerer
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Witnesses are those of the transparency logs: broker/audit/silence.
type Witnesses interface {
	// Stopped reports whether a firm's witness that stops its sessions is silent.
	// It does not wait.
	Stopped(firm broker.ID) bool
}

// Rotations tell of the rotation that may have changed a mailbox's password, and
// begin one where drift is to be mended.
type Rotations interface {
	PendingRotation(ctx context.Context, mailbox broker.ID) (*broker.Rotation, error)
	RequestRotation(ctx context.Context, by broker.Actor, r *broker.Rotation) error
}

// Manager is the broker.Gate. Its methods may be called from any goroutine.
type Manager struct {
	state       broker.State
	log         broker.EventLog
	credentials broker.Credentials
	upstream    broker.Upstream
	rotations   Rotations
	pending     broker.PendingCredentials
	logger      *zap.Logger
	now         func() time.Time
	node        string
	connections int
	reserved    int
	submissions int
	guardrails  *policy.Guardrails
	witnesses   Witnesses
	leases      broker.Leases
	lease       time.Duration
	// directory is nil where there is none; guard stands before it.
	directory         broker.Directory
	guard             *guard
	directoryInterval time.Duration
	certificateAlone  []broker.WorkstationClass
	companyCAs        broker.CompanyCAs

	tokens  tokens
	metrics *metrics
	budget  budget
	backoff *backoff
	notices notices
	unsaved unsaved

	// zones are those that the terms' hours name.
	zones policy.Zones

	// view holds what was read of the state at one policy revision.
	view atomic.Pointer[view]

	// followed is the revision by which every session was decided.
	followed atomic.Int64

	// ready is closed when the state was read for the first time.
	ready   chan struct{}
	running atomic.Bool

	// mu guards the table of sessions and what says that none may enter. It
	// is never held across I/O.
	mu       sync.Mutex
	live     map[broker.ID]*live
	draining bool
	lapsed   bool
}

var _ broker.Gate = (*Manager)(nil)

// New makes a Manager. It lets nobody in until Run has read the state.
func New(c Config) (*Manager, error) {
	switch {
	case c.State == nil || c.Log == nil || c.Credentials == nil || c.Upstream == nil || c.Logger == nil:
		return nil, errors.New("session: State, Log, Credentials, Upstream and Logger are needed")
	case len(c.TokenKey.Reveal()) != tokenKeySize:
		return nil, errors.New("session: the token key must have 32 octets")
	case c.Node == "":
		return nil, errors.New("session: the node has no name")
	case c.Lease != 0 && c.Lease < MinLeaseTime:
		return nil, errors.New("session: the lease is too short")
	case c.DirectoryFailures != 0 && c.DirectoryFailures < MinDirectoryFailures || c.DirectoryWindow < 0 || c.DirectoryInterval < 0:
		return nil, errors.New("session: the directory's limits are too small")
	case c.Connections < 0 || c.Submissions < 0:
		return nil, errors.New("session: a budget is negative")
	}
	if (c.Rotations == nil) != (c.Pending == nil) {
		return nil, errors.New("session: Rotations and Pending belong together")
	}
	m := &Manager{
		state: c.State, log: c.Log, credentials: c.Credentials, upstream: c.Upstream,
		rotations: c.Rotations, pending: c.Pending,
		logger: c.Logger, now: c.Now, node: c.Node,
		connections: orDefault(c.Connections, DefaultConnections),
		reserved:    max(orDefault(c.Reserved, DefaultReserved), 0),
		submissions: orDefault(c.Submissions, DefaultSubmissions),
		guardrails:  c.Guardrails,
		witnesses:   c.Witnesses,
		leases:      c.Leases,
		lease:       orDefault(c.Lease, LeaseTime),
		directory:   c.Directory,
		guard: newGuard(orDefault(c.DirectoryFailures, DirectoryFailures),
			orDefault(c.DirectoryWindow, DirectoryWindow)),
		directoryInterval: c.DirectoryInterval,
		certificateAlone:  slices.Clone(c.CertificateAlone),
		companyCAs:        c.CompanyCAs,
		tokens:            newTokens(c.TokenKey),
		ready:             make(chan struct{}),
		live:              make(map[broker.ID]*live),
	}
	if m.now == nil {
		m.now = time.Now
	}
	m.notices.wake = make(chan struct{}, 1)
	m.backoff = newBackoff()
	m.budget.pools = make(map[pool]map[*live]struct{})
	var err error
	if m.metrics, err = newMetrics(c.Registerer); err != nil {
		return nil, err
	}
	return m, nil
}

func orDefault[T int | time.Duration](n, otherwise T) T {
	if n == 0 {
		return otherwise
	}
	return n
}
