// SPDX-License-Identifier: Apache-2.0

package session

import (
	"container/list"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/postern-mail/postern/broker"
)

// guard stands between logins and the directory. Directories lock an account
// after some wrong passwords; whoever can have wrong ones tried in a colleague's
// name could lock him out everywhere. So within a window the directory is asked
// about an account in vain limit times and no more, of which one source (a
// certificate, else an address) has all but one, so that nobody uses up alone
// what others have; and by one source, for all accounts together, sourceAccounts
// times as often.
//
// A client opens many connections at once. Questions about one account wait for
// one another, and the answer to the first is good for the others: a yes for
// seconds, and only while the policy is at the revision that it was at, so that
// it outlives no lock, revoke or other change; a no for a minute, so that a
// client that knows an old password does not use it all up.
//
// Of passwords it keeps an HMAC-SHA-256 under a key of the process's own, and
// counts what this node asked.
type guard struct {
	key    [32]byte
	limit  int
	window time.Duration

	// mu guards the rest, and is held for no question.
	mu        sync.Mutex
	accounts  map[broker.ID]*account
	strangers recent[*account]
	sources   recent[*tally]
}

// account is what is remembered of the questions about one.
type account struct {
	// turn is taken by who asks, and guards the rest.
	turn      chan struct{}
	good, bad memo
	failures  []failure
}

// failure is a question that was answered with no.
type failure struct {
	source string
	at     time.Time
}

// tally has the times of a source's questions, less those answered with yes.
type tally struct{ times []time.Time }

// memo is an answer about one password.
type memo struct {
	mac      [sha256.Size]byte
	at       time.Time // zero: there is none
	revision int64
	reason   string // a no's
}

func (m *memo) holds(mac *[sha256.Size]byte, now time.Time, lasts time.Duration) bool {
	return !m.at.IsZero() && hmac.Equal(m.mac[:], mac[:]) && now.Sub(m.at) >= 0 && now.Sub(m.at) < lasts
}

// question is a password that came from somewhere.
type question struct {
	source   string
	password []byte
	// revision is the policy's, while which a yes is good.
	revision int64
	now      time.Time
}

func newGuard(limit int, window time.Duration) *guard {
	g := &guard{limit: limit, window: window, accounts: make(map[broker.ID]*account)}
	rand.Read(g.key[:]) // it never fails (crypto/rand)
	return g
}

func newAccount() *account { return &account{turn: make(chan struct{}, 1)} }

// known returns the account of an agent. There are as many as agents, and
// nobody else's name pushes one out.
func (g *guard) known(agent broker.ID) *account {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.accounts[agent] == nil {
		g.accounts[agent] = newAccount()
	}
	return g.accounts[agent]
}

// stranger returns the account of a name that is no agent's of the directory.
func (g *guard) stranger(name string) *account {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.strangers.get(name, newAccount)
}

// forget voids what was remembered in an agent's favour.
func (g *guard) forget(ctx context.Context, agent broker.ID) {
	a := g.known(agent)
	if a.take(ctx) == nil {
		a.good = memo{}
		a.leave()
	}
}

func (a *account) take(ctx context.Context) error {
	select {
	case a.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return broker.Errorf(broker.Unavailable, textDirectory).WithCause(context.Cause(ctx))
	}
}

func (a *account) leave() { <-a.turn }

// check returns the directory's answer, or the one that is remembered. Its
// errors are those of broker.Directory.
func (g *guard) check(ctx context.Context, a *account, q question, ask func(context.Context) error) error {
	if err := a.take(ctx); err != nil {
		return err
	}
	defer a.leave()
	mac := g.mac(q.password)
	switch {
	case a.good.revision == q.revision && a.good.holds(&mac, q.now, goodFor):
		return nil
	case a.bad.holds(&mac, q.now, badFor):
		return notAsked(a.bad.reason)
	case !a.allows(q, g.limit, g.window), !g.reserve(q):
		return notAsked(reasonAttempts)
	}
	err := ask(ctx)
	switch broker.CodeOf(err) {
	case broker.Denied:
		a.good, a.bad = memo{}, memo{mac, q.now, q.revision, reasonOf(err)}
		a.failures = append(a.failures, failure{q.source, q.now})
		return err
	case "":
		a.good = memo{mac: mac, at: q.now, revision: q.revision}
		a.failures = slices.DeleteFunc(a.failures, func(f failure) bool { return f.source == q.source })
	}
	g.giveBack(q)
	return err
}

// allows reports whether the account may be asked for once more by a source.
func (a *account) allows(q question, limit int, window time.Duration) bool {
	a.failures = slices.DeleteFunc(a.failures, func(f failure) bool { return q.now.Sub(f.at) >= window })
	own := 0
	for _, f := range a.failures {
		if f.source == q.source {
			own++
		}
	}
	return len(a.failures) < limit && own < limit-1
}

// reserve counts a question before it is asked, since others are under way.
func (g *guard) reserve(q question) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.sources.get(q.source, func() *tally { return &tally{} })
	t.times = slices.DeleteFunc(t.times, func(at time.Time) bool { return q.now.Sub(at) >= g.window })
	if len(t.times) >= g.limit*sourceAccounts {
		return false
	}
	t.times = append(t.times, q.now)
	return true
}

func (g *guard) giveBack(q question) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.sources.get(q.source, func() *tally { return &tally{} })
	if i := slices.Index(t.times, q.now); i >= 0 {
		t.times = slices.Delete(t.times, i, i+1)
	}
}

func notAsked(reason string) error {
	err := broker.Errorf(broker.Denied, textDenied).WithCause(errors.New("the directory was not asked"))
	err.Reason = reason
	return err
}

func (g *guard) mac(password []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, g.key[:])
	h.Write(password)
	h.Sum(sum[:0])
	return sum
}

// recent is a table of the maxSources entries that were asked for last.
type recent[T any] struct {
	entries map[string]*list.Element
	order   list.List // of *entry[T]
}

type entry[T any] struct {
	key   string
	value T
}

// get returns the entry of a key, a new one if there is none.
func (r *recent[T]) get(key string, newValue func() T) T {
	if e := r.entries[key]; e != nil {
		r.order.MoveToFront(e)
		return e.Value.(*entry[T]).value
	}
	if r.entries == nil {
		r.entries = make(map[string]*list.Element)
	}
	value := newValue()
	r.entries[key] = r.order.PushFront(&entry[T]{key, value})
	if len(r.entries) > maxSources {
		delete(r.entries, r.order.Remove(r.order.Back()).(*entry[T]).key)
	}
	return value
}
