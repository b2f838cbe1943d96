// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Limits and times.
const (
	// batchEvents and batchOctets bound what a sink has in hand.
	batchEvents = 500
	batchOctets = 4 << 20
	// claimTime is how long a sink stays its holder's without a word, claimEvery
	// how often others ask for it, renewEvery how often the holder keeps it.
	claimTime  = 30 * time.Second
	claimEvery = 5 * time.Second
	renewEvery = 5 * time.Second
	// keepEvery is how often positions are stored while events flow: a commit a
	// second, however many events they are.
	keepEvery = time.Second
	// lookEvery is how often other processes' events are looked for.
	lookEvery = 3 * time.Second
	// deliverTimeout bounds one delivery: with renewEvery it is within claimTime.
	deliverTimeout = 20 * time.Second
	// gatherTime is what events wait at most while others come: a delivery costs
	// as much for one as for many.
	gatherTime = 200 * time.Millisecond
	// firstPause and lastPause are the pauses after failures, doubled from one to
	// the other.
	firstPause = time.Second
	lastPause  = 5 * time.Minute
	// maxRefusals is how often one event is offered that the receiver refuses. Then
	// of the probeEvents of which it is the first each is tried, and probesAfar that
	// stand anywhere, other ones each time.
	maxRefusals = 5
	probeEvents = 50
	probesAfar  = 10
	// stalledAfter is for how long a receiver must have taken nothing to be an
	// outage that is recorded.
	stalledAfter = 15 * time.Minute
	// storeTimeout bounds what is asked of the database.
	storeTimeout = 10 * time.Second
)

// Receiver takes events. Its methods are called one at a time.
type Receiver interface {
	// Deliver hands events over, in their order, and returns how many the receiver
	// has taken, from the first on. None at all comes with an error: an outage,
	// which may pass, or a *RefusedError about the first that was not taken. An
	// error with all of them says what people should mend all the same.
	Deliver(ctx context.Context, events []*Event) (taken int, err error)
	// Close lets go of what the receiver holds open. It may be used again.
	Close() error
}

// RefusedError says that the receiver will not take what it was given, as it is.
type RefusedError struct {
	// Events is how many of those that were not taken it was given at once.
	Events int
	cause  error
}

func (e *RefusedError) Error() string { return e.cause.Error() }
func (e *RefusedError) Unwrap() error { return e.cause }

// Sink is one sink's configuration.
type Sink struct {
	// Name is its own, and stays: its place in the logs goes with it.
	Name string
	// Kind and Target say what it is, to people; Target holds no secret.
	Kind, Target string
	Filter       Filter
	// FromStart has a new sink begin at the logs' first events.
	FromStart bool
	// Pace is the least time between two deliveries, in which events gather.
	Pace     time.Duration
	Receiver Receiver
}

// Store is what sinks need of broker/store.
type Store interface {
	broker.Sinks
	LogEntries(ctx context.Context, firm broker.ID, first int64, limit int) ([]*broker.LogEntry, error)
}

// Config is what New needs.
type Config struct {
	Sinks []Sink
	// Store, Log and Logger are required.
	Store  Store
	Log    broker.EventLog
	Logger *zap.Logger
	// Node is this process's.
	Node string
	// Registerer takes the metrics; nil: there are none to see.
	Registerer prometheus.Registerer
	// Now is the clock; nil: time.Now.
	Now func() time.Time

	// times are a test's; nil: the constants.
	times *times
}

// times are those of the constants that tests shorten.
type times struct{ claim, claimEvery, renew, keep, look, gather, first, last, stalled time.Duration }

// Sinks delivers to all sinks.
type Sinks struct {
	cfg    Config
	times  times
	holder broker.ID
	sinks  []*runner
}

// New makes what delivers.
func New(cfg Config) (*Sinks, error) {
	if cfg.Store == nil || cfg.Log == nil || cfg.Logger == nil || cfg.Node == "" {
		return nil, errors.New("sink: a store, a log, a logger and a node's name are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Sinks{
		cfg: cfg, holder: broker.NewID(),
		times: times{claimTime, claimEvery, renewEvery, keepEvery, lookEvery, gatherTime, firstPause, lastPause, stalledAfter},
	}
	if cfg.times != nil {
		s.times = *cfg.times
	}
	names := make(map[string]bool)
	for _, x := range cfg.Sinks {
		if x.Name == "" || x.Receiver == nil || names[x.Name] {
			return nil, fmt.Errorf("sink: %q needs a name of its own and a receiver", x.Name)
		}
		names[x.Name] = true
		s.sinks = append(s.sinks, newRunner(s, x))
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(collector{s}); err != nil {
			return nil, fmt.Errorf("sink: %w", err)
		}
	}
	return s, nil
}

// Run delivers until ctx ends. It returns nil.
func (s *Sinks) Run(ctx context.Context) error {
	if len(s.sinks) == 0 {
		<-ctx.Done()
		return nil
	}
	cancel := s.cfg.Store.SubscribeAppends(func(log broker.ID) {
		for _, r := range s.sinks {
			r.grown(log)
		}
	})
	defer cancel()
	// What a process of this name held that was killed.
	s.release(ctx)
	var wg sync.WaitGroup
	for _, r := range s.sinks {
		wg.Go(func() { r.run(ctx) })
	}
	wg.Wait()
	s.release(context.WithoutCancel(ctx))
	return nil
}

func (s *Sinks) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := s.cfg.Store.ReleaseSinks(ctx, s.cfg.Node); err != nil {
		s.cfg.Logger.Warn("sinks were not let go of; others wait until the claim is over", zap.Error(err))
	}
}

// Reopen closes what receivers hold open, before their next delivery, and has
// those that wait after a failure try again.
func (s *Sinks) Reopen() {
	for _, r := range s.sinks {
		r.reopen.Store(true)
		r.wakeUp()
	}
}

// Status is a sink as it stands.
type Status struct {
	Sink
	State broker.SinkState
	Lag   broker.SinkLag
}

// List returns all sinks of the configuration, as the database has them: another
// node may deliver. What was delivered in the last second may not show.
func (s *Sinks) List(ctx context.Context) ([]Status, error) {
	states, err := s.cfg.Store.SinkStates(ctx)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]*broker.SinkState)
	for _, x := range states {
		byName[x.Sink] = x
	}
	all := make([]Status, 0, len(s.sinks))
	for _, r := range s.sinks {
		x := Status{Sink: r.Sink, State: broker.SinkState{Sink: r.Name}}
		if state := byName[r.Name]; state != nil { // else it begins in a moment
			x.State = *state
			if x.Lag, err = s.cfg.Store.SinkLag(ctx, r.Name, r.Filter.Firm); err != nil {
				return nil, err
			}
		}
		all = append(all, x)
	}
	return all, nil
}

// Test delivers an event of the type sink.test, which stands in no log, from this
// node. NotFound: there is no such sink. Unavailable says what the receiver did.
func (s *Sinks) Test(ctx context.Context, name string, by broker.Actor) error {
	for _, r := range s.sinks {
		if r.Name == name {
			return r.test(ctx, by)
		}
	}
	return broker.Errorf(broker.NotFound, "no such sink: they are in the server's configuration")
}
