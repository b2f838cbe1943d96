// SPDX-License-Identifier: Apache-2.0

package silence

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

const (
	// interval is how often the witnesses are looked at.
	interval = time.Second
	// roundTimeout bounds one look.
	roundTimeout = 10 * time.Second
)

// Config is what New needs. All but Registerer and Now are required.
type Config struct {
	Witnesses broker.Witnesses
	Logs      broker.Logs
	// Node is who records a silence.
	Node   string
	Logger *zap.Logger
	// Registerer takes the metrics; nil: there are none to see.
	Registerer prometheus.Registerer
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Watch looks at the witnesses. Stopped may be called from any goroutine.
type Watch struct {
	cfg     Config
	metrics *metrics
	started time.Time
	// stops holds by firm when sessions stop, of the witnesses as they were read
	// last; nil: they were not yet.
	stops atomic.Pointer[map[broker.ID]time.Time]
}

type metrics struct {
	events, seconds, silent prometheus.Gauge
}

// New makes a watch, which counts from now on.
func New(cfg Config) (*Watch, error) {
	if cfg.Witnesses == nil || cfg.Logs == nil || cfg.Logger == nil || cfg.Node == "" {
		return nil, errors.New("silence: witnesses, logs, a logger and the node's name are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	w := &Watch{cfg: cfg, started: cfg.Now(), metrics: &metrics{
		events:  gauge("postern_log_unwitnessed_events", "Events of logs that have witnesses, which none of them has cosigned yet."),
		seconds: gauge("postern_log_unwitnessed_seconds", "Of the logs that have such events, the longest time since a witness was heard."),
		silent:  gauge("postern_log_witnesses_silent", "Witnesses that were not heard for longer than they may be silent."),
	}}
	if cfg.Registerer == nil {
		return w, nil
	}
	for _, c := range []prometheus.Collector{w.metrics.events, w.metrics.seconds, w.metrics.silent} {
		if err := cfg.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("silence: %w", err)
		}
	}
	return w, nil
}

// Stopped reports whether a witness of the firm's log that stops its sessions is
// silent, as far as is known: before the first Look any may be.
func (w *Watch) Stopped(firm broker.ID) bool {
	stops := w.stops.Load()
	if stops == nil {
		return true
	}
	at, ok := (*stops)[firm]
	return ok && w.cfg.Now().After(at)
}

// Run looks until ctx ends. It returns nil.
func (w *Watch) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if err := w.Look(ctx); err != nil && ctx.Err() == nil {
			w.cfg.Logger.Error("the witnesses of the logs cannot be looked at", zap.Error(err))
		}
	}
}

// Look reads the witnesses once, and records which fell silent.
func (w *Watch) Look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	all, err := w.cfg.Witnesses.AllWitnesses(ctx)
	if err != nil {
		return err
	}
	now := w.cfg.Now()
	stops := make(map[broker.ID]time.Time)
	var silent []*broker.WitnessStanding
	for _, x := range all {
		until := w.until(x)
		if now.After(until) {
			silent = append(silent, x)
		}
		if earliest, ok := stops[x.FirmID]; x.Rule == broker.WitnessStop && (!ok || until.Before(earliest)) {
			stops[x.FirmID] = until
		}
	}
	w.stops.Store(&stops)
	w.metrics.silent.Set(float64(len(silent)))
	errs := []error{w.window(ctx, now, all)}
	for _, x := range silent {
		if x.SilentSince.IsZero() {
			w.cfg.Logger.Warn("a witness of a log is silent", zap.String("firm", string(x.FirmID)), zap.String("witness", x.Name), zap.Time("heard", x.HeardAt))
			errs = append(errs, w.cfg.Witnesses.RecordSilence(ctx, broker.Actor{Kind: "system", Name: w.cfg.Node}, x.ID, x.HeardAt))
		}
	}
	return errors.Join(errs...)
}

// until is when a witness that is not heard any more becomes silent.
func (w *Watch) until(x *broker.WitnessStanding) time.Time {
	from := x.HeardAt
	if x.SilentSince.IsZero() && from.Before(w.started) {
		from = w.started
	}
	return from.Add(time.Duration(x.Silence) * time.Second)
}

// window measures what no witness has cosigned, by the best one of each log.
func (w *Watch) window(ctx context.Context, now time.Time, all []*broker.WitnessStanding) error {
	best := make(map[broker.ID]*broker.WitnessStanding)
	for _, x := range all {
		if b := best[x.FirmID]; b == nil || x.HeardAt.After(b.HeardAt) {
			best[x.FirmID] = x
		}
	}
	var events int64
	var longest time.Duration
	for firm, x := range best {
		h, err := w.cfg.Logs.LogHead(ctx, firm)
		if err != nil {
			return err
		}
		size := x.Size
		if x.Epoch != h.Epoch {
			size = 0
		}
		if h.Size > size {
			events += h.Size - size
			longest = max(longest, now.Sub(x.HeardAt))
		}
	}
	w.metrics.events.Set(float64(events))
	w.metrics.seconds.Set(longest.Seconds())
	return nil
}
