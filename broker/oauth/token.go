// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// index is what a token is kept under.
type index struct {
	mailbox broker.ID
	print   print
}

// entry is what is known of one credential.
type entry struct {
	// token is empty when there is none; serial tells one from the next.
	token          broker.Secret
	serial         uint64
	renew, expires time.Time
	// failure is what the issuer answered last, in place of a token, until
	// when it is the answer to others. told says that somebody was told of a
	// consent that is gone; outages counts those in a row.
	failure *broker.Error
	until   time.Time
	told    bool
	outages int
	// flight is the request under way; nil: none.
	flight *flight
	// replacing is the token that was last replaced because the upstream had
	// refused it, replaced the instant.
	replacing uint64
	replaced  time.Time
	used      time.Time
	// pending is a document with a refresh token that could not be stored over
	// version yet; unstored one that came for a credential that is not stored.
	pending  *pending
	unstored []byte
	// current tells the newest document that is known of the consent.
	current print
}

// wipe needs Upstream.mu.
func (e *entry) wipe() {
	e.token.Wipe()
	clear(e.unstored)
	if e.pending != nil {
		clear(e.pending.encoded)
	}
}

// flight is one request; done is closed when its outcome is in the entry, and
// in failure what came in place of a token.
type flight struct {
	done    chan struct{}
	failure *broker.Error
}

// loan is a copy of a token, which the borrower wipes.
type loan struct {
	secret broker.Secret
	serial uint64
	// minted says that it was not kept, but came for this login.
	minted bool
}

// token returns a token of the credential, other than the refused one (0: any).
func (u *Upstream) token(ctx context.Context, w *want, refused uint64) (*loan, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e := u.entry(w)
	waited := false
	for {
		now := u.now()
		e.used = now
		// Whoever waited takes what came, however short it lives.
		if !e.token.Empty() && e.serial != refused && (waited || now.Before(e.expires)) {
			if !waited && !now.Before(e.renew) && e.flight == nil && !now.Before(e.until) {
				u.start(w, e)
			}
			return &loan{broker.NewSecret(bytes.Clone(e.token.Reveal())), e.serial, waited}, nil
		}
		if e.failure != nil && now.Before(e.until) {
			return nil, e.tell(e.failure, w)
		}
		if e.flight == nil && !u.start(w, e) {
			return nil, &broker.Error{Code: broker.Unavailable, Public: publicStopping}
		}
		f := e.flight
		u.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
		}
		u.mu.Lock()
		select {
		case <-f.done:
		default:
			return nil, unavailable(ReasonEndpoint, context.Cause(ctx))
		}
		if f.failure != nil {
			return nil, e.tell(f.failure, w)
		}
		waited = true
	}
}

// tell returns a failure to one of those whom it concerns. The first login that
// is told of a consent that is gone is told that it is news; a probe has its own
// use for that, and leaves the news to the others.
func (e *entry) tell(failure *broker.Error, w *want) error {
	copied := *failure
	if w.probe {
		return &copied
	}
	if copied.Reason == broker.ReasonConsent && e.told {
		copied.Reason = broker.ReasonConsentKnown
	}
	e.told = true
	return &copied
}

// entry returns the credential's; u.mu is held.
func (u *Upstream) entry(w *want) *entry {
	i := index{w.mailbox, w.print}
	e := u.entries[i]
	if e == nil {
		e = &entry{}
		u.entries[i] = e
	}
	return e
}

// mayReplace reports whether a token that was refused may be replaced: once,
// for all who were refused with it, and not again soon.
func (u *Upstream) mayReplace(w *want, serial uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	e, now := u.entry(w), u.now()
	if e.serial != serial || e.replacing == serial {
		return true
	}
	if !e.replaced.IsZero() && now.Sub(e.replaced) < renewPause {
		return false
	}
	e.replacing, e.replaced = serial, now
	return true
}

// start begins a request; u.mu is held. It reports whether there is one: none
// is begun any more once Run ends.
func (u *Upstream) start(w *want, e *entry) bool {
	if u.stopped {
		return false
	}
	f := &flight{done: make(chan struct{})}
	e.flight = f
	own := *w
	own.document = w.document.clone()
	// Not the caller's context: others wait for it too, and between an answer
	// and its storing nothing may end it.
	u.flights.Go(func() { u.fly(&own, e, f) })
	return true
}

func (u *Upstream) fly(w *want, e *entry, f *flight) {
	defer w.document.Wipe()
	g, err := u.mint(w, e)
	outcome := outcomeOK
	if err != nil {
		outcome = reasonOf(err)
	}
	u.requests.WithLabelValues(string(w.kind), outcome).Inc()
	u.mu.Lock()
	defer u.mu.Unlock()
	e.flight = nil
	if err == nil {
		e.take(g, u.now())
	} else {
		e.fail(err, u.now())
		f.failure = e.failure
		u.report(w, e.failure, e.until)
	}
	close(f.done)
}

// take keeps a token.
func (e *entry) take(g *grant, now time.Time) {
	e.token.Wipe()
	e.token, e.expires = g.token, g.expires.Add(-endSlack)
	life := g.expires.Sub(g.issued)
	e.renew = g.issued.Add(time.Duration(float64(life) * (renewAt - renewJitter*rand.Float64())))
	e.serial++
	e.failure, e.until, e.told, e.outages = nil, time.Time{}, false, 0
	e.used = now
}

// fail remembers a failure.
func (e *entry) fail(err error, now time.Time) {
	e.failure = known(err)
	var wait time.Duration
	var said *refusal
	if errors.As(err, &said) {
		wait = said.wait
	}
	if e.failure.Code == broker.CredentialRefused {
		// A token that is left would be good for what the firm took back.
		e.token.Wipe()
		e.token, e.outages, e.told = broker.Secret{}, 0, false
		wait = max(wait, refusalMemory)
	} else {
		own := min(firstWait<<min(e.outages, 10), longestOwnWait)
		wait = max(wait, own-time.Duration(rand.Float64()*0.3*float64(own)))
		e.outages++
	}
	e.until = now.Add(wait)
}

func known(err error) *broker.Error {
	var e *broker.Error
	if errors.As(err, &e) {
		return e
	}
	return broker.Errorf(broker.Internal, "no access token could be got").WithCause(err)
}

func reasonOf(err error) string {
	if e := known(err); e.Reason != "" {
		return e.Reason
	}
	return string(broker.CodeOf(err))
}

func (u *Upstream) report(w *want, err *broker.Error, until time.Time) {
	fields := []zap.Field{
		zap.String("firm_id", string(w.firm)), zap.String("mailbox_id", string(w.mailbox)), zap.String("kind", string(w.kind)),
		zap.String("issuer", w.document.host()), zap.String("reason", err.Reason), zap.Time("not_asked_until", until), zap.Error(err),
	}
	if err.Code == broker.CredentialRefused {
		u.log.Warn("the issuer of access tokens refused the credential", fields...)
		return
	}
	u.log.Error("no access token could be got", fields...)
}

// sweep forgets tokens that have ended and entries that nobody uses, unless
// there is something to store.
func (u *Upstream) sweep() {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	for i, e := range u.entries {
		switch {
		case e.flight != nil || e.pending != nil:
		case now.Sub(e.used) >= unusedTime:
			e.wipe()
			delete(u.entries, i)
		case !now.Before(e.expires):
			e.token.Wipe()
			e.token = broker.Secret{}
		}
	}
}
