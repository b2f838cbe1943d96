// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

const (
	// interval is how often the logs are looked at.
	interval = 10 * time.Minute
	// step is how far the time that pruning goes by moves in an interval at most:
	// while the clock is years ahead for a week, records are pruned a week too
	// early, and after the server was off for a week it is a week late.
	step = 2 * interval
	// pause is the least between two transactions.
	pause = 20 * time.Millisecond
)

// Config is what New needs.
type Config struct {
	// Store, Node and Logger are required. Node is who records what was pruned.
	Store  broker.Retentions
	Node   string
	Logger *zap.Logger
	// Registerer takes the metrics; nil: there are none to see.
	Registerer prometheus.Registerer
	// Now is the clock of the metrics; nil: time.Now. What is due the store says.
	Now func() time.Time
	// Interval is how often it looks; 0: ten minutes.
	Interval time.Duration
}

// Pruner prunes the logs.
type Pruner struct {
	cfg              Config
	pruned, failures prometheus.Counter
	finished, behind prometheus.Gauge
}

// New makes a pruner.
func New(cfg Config) (*Pruner, error) {
	if cfg.Store == nil || cfg.Node == "" || cfg.Logger == nil {
		return nil, errors.New("retention: a store, the node's name and a logger are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Interval <= 0 {
		cfg.Interval = interval
	}
	p := &Pruner{
		cfg: cfg,
		pruned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postern_log_pruned_total", Help: "Records that this node has pruned when the time to keep them was over.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postern_log_prune_failures_total", Help: "Rounds of pruning that ended early.",
		}),
		finished: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "postern_log_prune_last_timestamp_seconds", Help: "When this node last found nothing left to prune.",
		}),
		behind: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "postern_log_prune_behind_seconds", Help: "How far the time that pruning goes by is behind the clock, which has jumped or was not looked at.",
		}),
	}
	if cfg.Registerer == nil {
		return p, nil
	}
	for _, c := range []prometheus.Collector{p.pruned, p.failures, p.finished, p.behind} {
		if err := cfg.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("retention: %w", err)
		}
	}
	return p, nil
}

// Run prunes until ctx ends. It returns nil.
func (p *Pruner) Run(ctx context.Context) error {
	ticker := time.NewTicker(p.cfg.Interval)
	defer ticker.Stop()
	for {
		if _, err := p.Round(ctx); err != nil && ctx.Err() == nil {
			p.failures.Inc()
			p.cfg.Logger.Error("the logs were not pruned to the end", zap.Error(err))
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Round prunes what is due, and returns how many records it were.
func (p *Pruner) Round(ctx context.Context) (total int64, err error) {
	at, clock, err := p.cfg.Store.PruneTime(ctx, step)
	if err != nil {
		return 0, err
	}
	p.behind.Set(clock.Sub(at).Seconds())
	if clock.Sub(at) > 24*time.Hour {
		p.cfg.Logger.Warn("the clock is far ahead of the time up to which records were looked at: unless no server ran for so long, set the clock right before records are destroyed too early",
			zap.Time("clock", clock), zap.Time("looked_at", at), zap.Duration("step", step), zap.Duration("each", p.cfg.Interval))
	}
	tasks, err := p.cfg.Store.PruneTasks(ctx, at)
	if err != nil {
		return 0, err
	}
	for _, task := range tasks {
		n, err := p.prune(ctx, task)
		if total += n; err != nil {
			return total, err
		}
		if n > 0 {
			p.cfg.Logger.Info("records were pruned", zap.String("firm", string(task.FirmID)), zap.Int64("records", n))
		}
	}
	p.finished.Set(float64(p.cfg.Now().Unix()))
	return total, nil
}

// prune does one task, in as many transactions as it takes.
func (p *Pruner) prune(ctx context.Context, task broker.PruneTask) (total int64, err error) {
	by := broker.Actor{Kind: "system", Name: p.cfg.Node}
	for task.From < task.To {
		began := time.Now()
		n, next, err := p.cfg.Store.Prune(ctx, by, task)
		if err != nil {
			return total, err
		}
		total += n
		p.pruned.Add(float64(n))
		if task.From = next; n == 0 {
			continue // it only looked
		}
		timer := time.NewTimer(max(pause, time.Since(began)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return total, context.Cause(ctx)
		}
	}
	return total, nil
}
