// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// sitesInterval is how often the sites are read without a change being heard
// of.
const sitesInterval = 5 * time.Second

// networkOnly knows the networks whose clients may come without a
// certificate. It only saves a handshake the certificate: whether the login is
// let in is decided from the state, then.
type networkOnly struct {
	state    broker.State
	logger   *zap.Logger
	prefixes atomic.Pointer[[]netip.Prefix]
}

func newNetworkOnly(state broker.State, logger *zap.Logger) *networkOnly {
	n := &networkOnly{state: state, logger: logger}
	n.prefixes.Store(&[]netip.Prefix{})
	return n
}

// contains reports whether addr lies in a network-only site.
func (n *networkOnly) contains(addr netip.Addr) bool {
	for _, p := range *n.prefixes.Load() {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Run keeps the networks current until ctx ends. While the state cannot be
// read the last ones stay.
func (n *networkOnly) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	cancel := n.state.Subscribe(func(c broker.Change) {
		if c.Kind == "site" || c.Kind == "" {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	})
	defer cancel()
	ticker := time.NewTicker(sitesInterval)
	defer ticker.Stop()
	for {
		if err := n.read(ctx); err != nil && ctx.Err() == nil {
			n.logger.Warn("the sites cannot be read; those read before still hold", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-ticker.C:
		}
	}
}

func (n *networkOnly) read(ctx context.Context) error {
	sites, err := n.state.Sites(ctx)
	if err != nil {
		return err
	}
	prefixes := []netip.Prefix{}
	for _, s := range sites {
		if s.NetworkOnly {
			prefixes = append(prefixes, s.Networks...)
		}
	}
	n.prefixes.Store(&prefixes)
	return nil
}
