// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

const (
	// outageInterval is how often the server looks at what it needs, outageAfter
	// how long that must have been out of reach to be an outage.
	outageInterval = 20 * time.Second
	outageAfter    = time.Minute
	// outageTimeout bounds a record of one.
	outageTimeout = 10 * time.Second
)

// outages records when what readiness checks is out of reach, and when it is
// back. What cannot be recorded while it lasts is recorded after it.
type outages struct {
	checks []check
	log    broker.EventLog
	alerts broker.Alerts
	node   string
	logger *zap.Logger
	now    func() time.Time

	// of holds what is known of each check, by its name; it is Run's alone.
	of map[string]*outageState
}

// outageState is what is known of one component.
type outageState struct {
	since time.Time // when it failed first; zero: it works
	text  string
	told  bool // of the outage, in the log
	// settled says that it was seen to work, and that no alert of an earlier
	// process is left.
	settled bool
}

// Run looks until ctx ends.
func (o *outages) Run(ctx context.Context) error {
	tick := time.NewTicker(outageInterval)
	defer tick.Stop()
	for {
		o.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look asks each check once.
func (o *outages) look(ctx context.Context) {
	if o.of == nil {
		o.of = make(map[string]*outageState)
	}
	for _, c := range o.checks {
		if o.of[c.name] == nil {
			o.of[c.name] = new(outageState)
		}
		asked, cancel := context.WithTimeout(ctx, checkTimeout)
		err := c.run(asked)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			o.failed(ctx, c.name, err)
		} else {
			o.works(ctx, c.name)
		}
	}
}

func (o *outages) failed(ctx context.Context, name string, err error) {
	s := o.of[name]
	now := o.now().UTC()
	if s.since.IsZero() {
		s.since, s.text = now, broker.PublicText(err)
	}
	if !s.told && now.Sub(s.since) >= outageAfter {
		s.told = o.record(ctx, &broker.Outage{Node: o.node, Component: name, Since: s.since, Text: s.text})
	}
}

// works ends an outage, of this process or of the one before it.
func (o *outages) works(ctx context.Context, name string) {
	s := o.of[name]
	now := o.now().UTC()
	if !s.settled {
		left, err := o.left(ctx, name)
		if err != nil {
			return // the next look asks again
		}
		if left != nil {
			s.told = true
			if s.since.IsZero() {
				s.since = left.FirstSeen
			}
		}
		s.settled = true
	}
	if s.since.IsZero() {
		return
	}
	if s.told || now.Sub(s.since) >= outageAfter {
		if !o.record(ctx, &broker.Outage{Node: o.node, Component: name, Since: s.since, Until: now, Text: s.text}) {
			return
		}
	}
	*s = outageState{settled: true}
}

// left returns the alert of an outage that an earlier process has recorded.
func (o *outages) left(ctx context.Context, name string) (*broker.Alert, error) {
	all, err := o.alerts.Alerts(ctx, broker.AlertQuery{
		OwnOnly: true, Kind: broker.AlertOutage, States: []broker.AlertState{broker.AlertOpen, broker.AlertAcknowledged},
	})
	for _, a := range all {
		if a.Subject == name+"@"+o.node {
			return a, nil
		}
	}
	return nil, err
}

// record reports whether the event is in the log.
func (o *outages) record(ctx context.Context, data *broker.Outage) bool {
	ctx, cancel := context.WithTimeout(ctx, outageTimeout)
	defer cancel()
	err := o.log.Append(ctx, &broker.Event{Type: broker.EventOutage, Actor: broker.Actor{Kind: "system", Name: o.node}, Data: data})
	if err != nil {
		o.logger.Error("an outage could not be recorded yet", zap.String("component", data.Component), zap.Error(err))
	}
	return err == nil
}
