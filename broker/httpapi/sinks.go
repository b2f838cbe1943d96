// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/sink"
)

// Sinks deliver events to others: broker/audit/sink.
type Sinks interface {
	List(ctx context.Context) ([]sink.Status, error)
	Test(ctx context.Context, name string, by broker.Actor) error
}

// Sink is where events are sent.
type Sink struct {
	Name   string `json:"name"`
	Kind   string `json:"kind" enum:"file,syslog,webhook,mail"`
	Target string `json:"target"`
	Firm   string `json:"firm" doc:"Whose log it is given: a firm's id, bpo for the BPO's own, all."`
	Behind int64  `json:"behind" doc:"How many events it has not passed yet."`
	// Oldest is the time of the first of them.
	Oldest       *time.Time `json:"oldest,omitempty" doc:"The time of the oldest of them."`
	Node         string     `json:"node,omitempty" doc:"The node that delivers; none: nobody does at the moment."`
	FailingSince *time.Time `json:"failing_since,omitempty"`
	Failure      string     `json:"failure,omitempty" doc:"What the receiver said last."`
}

func (a *api) registerSinks() {
	route(a, http.MethodGet, "/v1/sinks", "list-sinks", "List where events are sent", a.listSinks)
	route(a, http.MethodPost, "/v1/sinks/{sink}/test", "test-sink", "Deliver a test event", a.testSink)
}

func (a *api) listSinks(ctx context.Context, _ *none) (*answer[List[*Sink]], error) {
	all, err := a.sinks(ctx)
	if err != nil {
		return nil, err
	}
	return listOf(all), nil
}

func (a *api) sinks(ctx context.Context) ([]*Sink, error) {
	all, err := a.Sinks.List(ctx)
	if err != nil {
		return nil, err
	}
	shown := make([]*Sink, 0, len(all))
	for _, s := range all {
		x := &Sink{
			Name: s.Name, Kind: s.Kind, Target: s.Target, Firm: "all", Behind: s.Lag.Events, Node: s.State.Node, Failure: s.State.Failure,
			Oldest: some(s.Lag.Oldest), FailingSince: some(s.State.FailingSince),
		}
		if of := s.Filter.Firm; of != nil {
			if x.Firm = string(*of); *of == "" {
				x.Firm = "bpo"
			}
		}
		shown = append(shown, x)
	}
	return shown, nil
}

// some is a time that may not be there.
func some(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (a *api) testSink(ctx context.Context, in *struct {
	Sink string `path:"sink" doc:"The sink's name."`
},
) (*answer[*Sink], error) {
	if err := a.Sinks.Test(ctx, in.Sink, principal(ctx).Actor); err != nil {
		return nil, err
	}
	all, err := a.sinks(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.Name == in.Sink {
			return &answer[*Sink]{s}, nil
		}
	}
	return nil, broker.Errorf(broker.NotFound, "no such sink")
}
