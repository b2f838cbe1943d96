// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"go.uber.org/zap"
)

// login is one token. It is never changed: a renewal makes another login that
// shares the client.
type login struct {
	api *api.Client
	// since is when Postern logged in.
	since time.Time
	// expires is when the token ends; zero: never.
	expires   time.Time
	ttl       time.Duration
	renewable bool
}

func (l *login) expired(now time.Time) bool {
	return !l.expires.IsZero() && !now.Before(l.expires)
}

// identity is who Postern is in Vault. One goroutine, run, logs in; calls
// take the login that it holds, and wait for it when there is none yet.
//
// The library's LifetimeWatcher is not used: it takes no context, so that a
// Vault that hangs would hold its goroutine, and it ends without an error
// both when it was stopped and when the token is about to end.
type identity struct {
	name string
	auth authenticator
	conn *connector
	log  *zap.Logger

	mu      sync.Mutex // never held over I/O
	current *login
	// err is why there is no login; nil before the first try has ended.
	err     error
	changed chan struct{} // closed, and replaced, at every change

	// dropped wakes run when a call found the token dead.
	dropped chan struct{}
}

func newIdentity(name string, cfg Config, auth AuthConfig) (*identity, error) {
	conn, err := newConnector(cfg, auth.Certificate)
	if err != nil {
		return nil, err
	}
	log := cfg.Logger.With(zap.String("vault_identity", name))
	return &identity{
		name: name, auth: newAuthenticator(auth, log), conn: conn, log: log,
		changed: make(chan struct{}), dropped: make(chan struct{}, 1),
	}, nil
}

// get returns the login. It waits while one is being made for the first time
// or anew, and fails at once while logging in fails.
func (id *identity) get(ctx context.Context) (*login, error) {
	for {
		id.mu.Lock()
		held, err, changed := id.current, id.err, id.changed
		id.mu.Unlock()
		if held != nil && !held.expired(time.Now()) {
			return held, nil
		}
		if err != nil {
			return nil, &failure{err: unavailable(ReasonLogin, err)}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, &failure{err: unavailable(ReasonLogin, context.Cause(ctx))}
		}
	}
}

// drop forgets a login whose token has died, unless it was replaced already.
func (id *identity) drop(dead *login) {
	id.mu.Lock()
	if id.current != nil && id.current.api == dead.api {
		id.current, id.err = nil, nil
	}
	id.mu.Unlock()
	select {
	case id.dropped <- struct{}{}:
	default:
	}
}

// holds reports whether l is the login that calls are given.
func (id *identity) holds(l *login) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.current == l
}

// set tells the calls about a login or, when l is nil, why there is none; a
// login that still works stays.
func (id *identity) set(l *login, err error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if l != nil {
		id.current = l
	}
	id.err = err
	close(id.changed)
	id.changed = make(chan struct{})
}

// expiry is for the metrics: when the token ends; ok is false without one.
func (id *identity) expiry() (at time.Time, ok bool) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.current == nil {
		return time.Time{}, false
	}
	return id.current.expires, true
}

var errStopped = errors.New("the Vault client has stopped")

func (id *identity) run(ctx context.Context) {
	defer id.stop(ctx)
	wait := loginWaitMin
	for ctx.Err() == nil {
		l, err := id.logIn(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			id.log.Error("cannot log in to Vault", zap.Error(err))
			id.set(nil, err)
			pause(ctx, jitter(wait))
			wait = min(2*wait, loginWaitMax)
			continue
		}
		wait = loginWaitMin
		id.log.Info("logged in to Vault", zap.Duration("ttl", l.ttl), zap.Bool("renewable", l.renewable))
		id.set(l, nil)
		id.keep(ctx, l)
	}
}

func (id *identity) logIn(ctx context.Context) (*login, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	return id.auth.login(ctx, id.conn)
}

// keep renews l and returns when a new login is due: the token was dropped,
// cannot be renewed any longer, or its file has changed.
func (id *identity) keep(ctx context.Context, l *login) {
	full := l.ttl
	poll := time.NewTicker(filePoll)
	defer poll.Stop()
	due := dueTimer(l)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-id.dropped:
			if !id.holds(l) {
				return
			}
		case <-poll.C:
			if id.auth.stale() {
				return
			}
		case <-due.C:
			next, again := id.renew(ctx, l)
			if next == nil && !again {
				return
			}
			if next != nil {
				if next.ttl < full/2 {
					return // Vault caps it at the token's maximum: time for a new one
				}
				if !id.renewed(l, next) {
					return
				}
				l = next
			}
			due.Stop()
			due = dueTimer(l)
		}
	}
}

// dueTimer fires after two thirds of what is left of l's life, never for a
// token without an end.
func dueTimer(l *login) *time.Timer {
	if l.expires.IsZero() {
		t := time.NewTimer(time.Hour)
		t.Stop()
		return t
	}
	return time.NewTimer(max(jitter(time.Until(l.expires)*2/3), loginWaitMin))
}

// renewed puts next in l's place, unless a call has dropped l meanwhile.
func (id *identity) renewed(l, next *login) bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.current != l {
		return false
	}
	id.current = next
	return true
}

// renew returns l with a longer life; or nil, and whether to try again before
// logging in anew.
func (id *identity) renew(ctx context.Context, l *login) (next *login, again bool) {
	if !l.renewable {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	secret, err := l.api.Auth().Token().RenewSelfWithContext(ctx, 0)
	if err == nil && secret != nil && secret.Auth != nil {
		renewed := *l
		renewed.ttl = time.Duration(secret.Auth.LeaseDuration) * time.Second
		renewed.expires = time.Now().Add(renewed.ttl)
		renewed.renewable = secret.Auth.Renewable
		return &renewed, false
	}
	var answered *api.ResponseError
	refused := errors.As(err, &answered) && answered.StatusCode < http.StatusInternalServerError
	id.log.Warn("cannot renew Vault's token", zap.Error(spoken(err)))
	return nil, !refused && time.Until(l.expires) > l.ttl/10
}

// stop revokes the token, if it is Postern's own, and fails all calls.
func (id *identity) stop(ctx context.Context) {
	id.mu.Lock()
	l := id.current
	id.current = nil
	id.mu.Unlock()
	id.set(nil, errStopped)
	if l != nil && id.auth.owned() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
		defer cancel()
		if err := l.api.Auth().Token().RevokeSelfWithContext(ctx, ""); err != nil {
			id.log.Warn("cannot revoke Vault's token; it ends by itself", zap.Time("expires", l.expires), zap.Error(spoken(err)))
		}
	}
	id.conn.http.CloseIdleConnections()
}
