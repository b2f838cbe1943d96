// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Limits and times.
const (
	// DefaultInterval is the time between two looks at a mailbox: at most, since
	// up to a tenth is taken off by chance, so that they do not all come together.
	DefaultInterval = 10 * time.Minute
	MinInterval     = time.Second
	// DefaultConcurrency is how many mailboxes are looked at at once.
	DefaultConcurrency = 4
	// patience is how long a look keeps its place while it waits for a server, for a
	// login as for what it reads: then another takes it, so that silent servers keep
	// nobody from the others. It has one again before it judges what it has read.
	// maxWaiting bounds all looks, and maxOfFirm those at one firm's mailboxes, so
	// that its servers keep nobody from another's: as multiples of Concurrency.
	patience   = 2 * time.Second
	maxWaiting = 16
	maxOfFirm  = 4
	// DefaultSettle is how much later what nothing explains is a finding.
	DefaultSettle = 20 * time.Second
	// pollInterval is how often it is asked which are due, prepareInterval how
	// often for mailboxes that are new.
	pollInterval    = time.Second
	prepareInterval = 5 * time.Second
	// lookTime bounds one look, claimTime is for how long a mailbox is a
	// process's: both with time left to write down what was found.
	lookTime   = 2 * time.Minute
	writeTime  = 15 * time.Second
	claimTime  = lookTime + 2*writeTime
	rotateTime = 30 * time.Second // to look again at one that is being rotated
	// maxRefusals is how often a refused credential is tried at the interval;
	// then it is once in refusedPause.
	maxRefusals  = 3
	refusedPause = 24 * time.Hour
)

// State is what a Sentinel needs to know and to write.
type State interface {
	broker.Watches
	Events(ctx context.Context, q broker.EventQuery) ([]*broker.StoredEvent, error)
	LogEnd(ctx context.Context, firm broker.ID) (int64, error)
	Mailbox(ctx context.Context, id broker.ID) (*broker.Mailbox, error)
	PendingRotation(ctx context.Context, mailbox broker.ID) (*broker.Rotation, error)
	RequestRotation(ctx context.Context, by broker.Actor, r *broker.Rotation) error
}

// Config is what a Sentinel stands on.
type Config struct {
	State       State
	Credentials broker.Credentials
	Upstream    broker.Upstream
	// Node is this process's name: no two live sentinels may share it.
	Node string
	// Interval and Concurrency replace the defaults when they are not 0.
	Interval    time.Duration
	Concurrency int
	// Settle is how long a change may wait for the record that explains it; 0:
	// DefaultSettle. It is longer than it takes to notice that a node died.
	Settle time.Duration
	Logger *zap.Logger
	// Registerer takes the metrics; nil: nobody reads them.
	Registerer prometheus.Registerer
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Sentinel looks at mailboxes. Make it with New.
type Sentinel struct {
	Config
	holder  broker.ID
	metrics *metrics
	freed   chan struct{}
	// places holds one for each look that has its place.
	places chan struct{}

	mu sync.Mutex
	// looks are those under way, firms how many there are of each firm.
	looks int
	firms map[broker.ID]int
}

// New makes a Sentinel.
func New(c Config) (*Sentinel, error) {
	if c.State == nil || c.Credentials == nil || c.Upstream == nil || c.Logger == nil || c.Node == "" {
		return nil, errors.New("sentinel: State, Credentials, Upstream, Logger and Node are needed")
	}
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Interval < MinInterval {
		return nil, errors.New("sentinel: the interval is too short")
	}
	if c.Concurrency == 0 {
		c.Concurrency = DefaultConcurrency
	}
	if c.Settle == 0 {
		c.Settle = DefaultSettle
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, err
	}
	return &Sentinel{
		Config: c, holder: broker.NewID(), metrics: m, freed: make(chan struct{}, 1),
		places: make(chan struct{}, c.Concurrency), firms: make(map[broker.ID]int),
	}, nil
}

func (s *Sentinel) claim() broker.WatchClaim {
	return broker.WatchClaim{Node: s.Node, Holder: s.holder, Lasts: claimTime}
}

// room returns what to claim for another look; not ok: there are enough.
func (s *Sentinel) room() (c broker.WatchClaim, ok bool) {
	c = s.claim()
	s.mu.Lock()
	defer s.mu.Unlock()
	for firm, n := range s.firms {
		if n >= s.Concurrency*maxOfFirm {
			c.Without = append(c.Without, firm)
		}
	}
	slices.Sort(c.Without)
	return c, s.looks < s.Concurrency*maxWaiting
}

// Run looks at mailboxes until ctx ends; looks under way are then cut short.
// What an earlier process of this node had claimed is taken over at once.
func (s *Sentinel) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var prepared time.Time
	for released := false; ; {
		if !released {
			released = s.note("claims of a dead process cannot be released", s.State.ReleaseWatches(ctx, s.Node))
		}
		if now := s.Now(); released && now.Sub(prepared).Abs() >= prepareInterval {
			if s.note("watches cannot be prepared", s.State.PrepareWatches(ctx, s.Interval)) {
				prepared = now
			}
		}
		for released && s.startOne(ctx, &workers) {
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-s.freed:
		}
	}
}

func (s *Sentinel) note(what string, err error) (ok bool) {
	if err != nil && !errors.Is(err, context.Canceled) {
		s.Logger.Error(what, zap.Error(err))
	}
	return err == nil
}

// startOne begins to look at one mailbox that is due, if there is one and room
// for it.
func (s *Sentinel) startOne(ctx context.Context, workers *sync.WaitGroup) bool {
	claim, ok := s.room()
	if !ok || ctx.Err() != nil {
		return false
	}
	select {
	case s.places <- struct{}{}:
	default:
		return false
	}
	w, err := s.State.ClaimWatch(ctx, claim)
	if !s.note("watches cannot be claimed", err) || w == nil {
		<-s.places
		return false
	}
	s.count(w.FirmID, 1)
	workers.Go(func() {
		defer s.count(w.FirmID, -1)
		defer func() { <-s.places }()
		s.work(ctx, w)
	})
	return true
}

// patiently does what may take long to be answered, and lets another have the
// place meanwhile.
func (s *Sentinel) patiently(do func()) {
	timer := time.AfterFunc(patience, func() {
		<-s.places
		s.free()
	})
	do()
	if !timer.Stop() {
		s.places <- struct{}{} // before any look that has not begun: those only try
	}
}

// free has it looked whether another look can begin.
func (s *Sentinel) free() {
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

func (s *Sentinel) count(firm broker.ID, n int) {
	s.mu.Lock()
	s.looks += n
	if s.firms[firm] += n; s.firms[firm] == 0 {
		delete(s.firms, firm)
	}
	s.mu.Unlock()
	if n < 0 {
		s.free()
	}
}

// work looks at one mailbox and writes down what it found.
func (s *Sentinel) work(ctx context.Context, w *broker.Watch) {
	l := s.look(ctx, *w)
	if ctx.Err() != nil {
		// Cut short by the stop, which says nothing of the mailbox.
		l.result = broker.WatchResult{Watch: *w}
		l.result.Watch.NextAt = s.Now()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	if !s.note("what the sentinel found cannot be written", s.State.FinishWatch(ctx, s.claim(), &l.result)) {
		return
	}
	for _, what := range l.findings {
		s.metrics.findings.WithLabelValues(string(what)).Inc()
	}
	s.metrics.looks.WithLabelValues(string(l.result.Watch.Outcome)).Inc()
	if l.mend {
		s.mend(ctx, l.mailbox)
	}
}

// next is when to look again after d, less up to a tenth.
func (s *Sentinel) next(d time.Duration) time.Time {
	return s.Now().UTC().Add(d - time.Duration(rand.Int64N(int64(d)/10+1)))
}
