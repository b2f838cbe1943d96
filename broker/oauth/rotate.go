// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"bytes"
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Refresh tokens that follow each other
//
// An issuer may answer with a new refresh token and end the old one at once or
// after a while (RFC 6749 §6, RFC 9700 §4.14.2). The exchange at the issuer and
// the store in Vault are two steps, and no order of them is safe against
// everything:
//
//   - Before the exchange the newest refresh token is read from the storage, and
//     the version is asked for by the identity that writes: who cannot store
//     does not exchange.
//   - After the answer nothing comes before the store: no login, no caller that
//     left, no stop of the server, which waits. It is tried for storeTimeout;
//     should the storage be away for longer, the new token is kept in memory,
//     and stored as soon as it can be, before another exchange at the latest.
//   - Two nodes may exchange the same token. The one whose store comes second
//     finds that the version has moved, and leaves what the first stored: both
//     come from the same consent. One whose token the issuer refuses, because
//     the other's exchange ended it, gives the other time to store, reads again,
//     and goes on with what it finds.
//   - What is left: a process that dies between the issuer's answer and the
//     store, and an answer that is lost on its way. The stored token has then
//     been used. An issuer that lets it be used again (Microsoft; others within
//     a grace period) gives a new one; one that does not ends the consent, and
//     the firm must consent again, which it is told.

// pending is a document that could not be stored yet.
type pending struct {
	want *want
	// version is what it is to be stored over.
	version int
	// encoded is guarded by Upstream.mu; nil: it is stored, or void.
	encoded []byte
}

// mint gets a token.
func (u *Upstream) mint(w *want, e *entry) (*grant, error) {
	if w.kind == broker.KindOAuth2Refresh {
		return u.exchange(w, e)
	}
	return u.ask(w, w.document)
}

func (u *Upstream) ask(w *want, d *Document) (*grant, error) {
	ctx, cancel := context.WithTimeout(context.Background(), u.timeout)
	defer cancel()
	return u.issuers.ask(ctx, w.kind, d, w.subject)
}

// source is where a refresh token comes from.
type source struct {
	document *Document
	// version is the stored one's; stored is false for a credential that is
	// being tried before it is stored.
	version int
	stored  bool
	// username is the stored credential's.
	username string
}

// exchange gets a token for a refresh token, and stores the one that comes
// with it.
func (u *Upstream) exchange(w *want, e *entry) (*grant, error) {
	from, err := u.source(w, e)
	if err != nil {
		return nil, err
	}
	defer func() { from.document.Wipe() }()
	g, err := u.ask(w, from.document)
	if err != nil && reasonOf(err) == broker.ReasonConsent && from.stored {
		// Another node may have exchanged it and be about to store.
		time.Sleep(rivalPause)
		newer, again := u.source(w, e)
		if again != nil {
			return nil, again
		}
		same := bytes.Equal(newer.document.RefreshToken.Reveal(), from.document.RefreshToken.Reveal())
		from.document.Wipe()
		from = newer
		if !same {
			g, err = u.ask(w, from.document)
		}
	}
	if err != nil {
		return nil, err
	}
	if g.refresh.Empty() || bytes.Equal(g.refresh.Reveal(), from.document.RefreshToken.Reveal()) {
		g.refresh.Wipe()
		u.know(w, e, from.document)
		return g, nil
	}
	next := from.document.clone()
	defer next.Wipe()
	next.RefreshToken.Wipe()
	next.RefreshToken = g.refresh
	if next.ID == "" {
		next.ID = string(broker.NewID())
	}
	u.know(w, e, next)
	if !from.stored {
		u.mu.Lock()
		defer u.mu.Unlock()
		clear(e.unstored)
		e.unstored = next.Encode(w.kind)
		return g, nil
	}
	if err := u.keep(w, e, &pending{want: w.keep(from.username), version: from.version, encoded: next.Encode(w.kind)}); err != nil {
		g.wipe()
		return nil, err
	}
	return g, nil
}

// know notes the newest document of a consent, and files the entry under its
// fingerprint too where that is another: a document without an id gets one.
func (u *Upstream) know(w *want, e *entry, d *Document) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e.current = u.exactPrintOf(w, d)
	if w.document.ID == "" {
		u.entries[index{w.mailbox, u.printOf(w, d)}] = e
	}
}

// refile has those who come after a probe that went well find what it got.
func (u *Upstream) refile(w *want, d *Document) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e := u.entries[index{w.mailbox, w.print}]; e != nil {
		u.entries[index{w.mailbox, u.printOf(w, d)}] = e
	}
}

// keep returns w for later: without the document, with the name that is stored.
func (w *want) keep(username string) *want {
	kept := *w
	kept.document, kept.username = nil, username
	return &kept
}

// source finds the newest refresh token of w's consent, and makes sure that
// another could be stored over it.
func (u *Upstream) source(w *want, e *entry) (*source, error) {
	ctx, cancel := context.WithTimeout(context.Background(), u.timeout)
	defer cancel()
	if err := u.storeFirst(ctx, e); err != nil {
		return nil, err
	}
	stored, err := u.credentials.Credential(ctx, w.firm, w.mailbox)
	switch {
	case broker.CodeOf(err) == broker.NotFound:
		return u.unstored(w, e, 0)
	case err != nil:
		return nil, unavailable(ReasonStore, err)
	}
	defer stored.Secret.Wipe()
	d, err := Parse(stored.Kind, stored.Secret.Reveal())
	if err != nil || stored.Kind != w.kind || !u.isOf(w, e, d) {
		return u.unstored(w, e, stored.Version)
	}
	version, err := u.credentials.CredentialVersion(ctx, w.firm, w.mailbox)
	if err != nil {
		d.Wipe()
		return nil, unavailable(ReasonStore, err)
	}
	if version != stored.Version {
		d.Wipe()
		return nil, unavailable(ReasonChanged, errors.New("another version was stored at the same time"))
	}
	return &source{document: d, version: version, stored: true, username: stored.Username}, nil
}

// isOf reports whether a stored document is of w's consent, or exactly the one
// that w tries.
func (u *Upstream) isOf(w *want, e *entry, d *Document) bool {
	stable := u.printOf(w, d)
	if w.print == stable || w.print == u.exactPrintOf(w, d) {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.entries[index{w.mailbox, stable}] == e
}

// unstored is for a credential that is not what is stored as version: right for
// one that is being tried before it takes that one's place, and not for one that
// was read before another did.
func (u *Upstream) unstored(w *want, e *entry, version int) (*source, error) {
	if !w.probe || w.version != version {
		return nil, unavailable(ReasonChanged, errors.New("the credential is no longer the stored one"))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if e.unstored != nil {
		if d, err := Parse(w.kind, e.unstored); err == nil {
			return &source{document: d}, nil
		}
	}
	return &source{document: w.document.clone()}, nil
}

// keep stores what came, for as long as that may take; then it is pending. The
// failure is that another credential took the place of w's.
func (u *Upstream) keep(w *want, e *entry, p *pending) error {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	for {
		err := u.storeOnce(ctx, p)
		if err == nil || reasonOf(err) == ReasonChanged {
			u.forget(e, p)
			return err
		}
		select {
		case <-time.After(storePause):
			continue
		case <-ctx.Done():
		}
		u.log.Error("a new refresh token could not be stored: it is kept in memory, and lost if this process ends before the storage is back",
			zap.String("firm_id", string(w.firm)), zap.String("mailbox_id", string(w.mailbox)), zap.Error(err))
		u.mu.Lock()
		defer u.mu.Unlock()
		e.pending = p
		return nil
	}
}

// storeOnce stores by check-and-set. That somebody else stored a token of the
// same consent meanwhile is no failure.
func (u *Upstream) storeOnce(ctx context.Context, p *pending) error {
	w := p.want
	u.mu.Lock()
	encoded := bytes.Clone(p.encoded)
	u.mu.Unlock()
	if encoded == nil {
		return nil
	}
	c := &broker.Credential{Kind: w.kind, Username: w.username, Secret: broker.NewSecret(encoded), Version: p.version}
	defer c.Secret.Wipe()
	_, err := u.credentials.SetCredential(ctx, w.firm, w.mailbox, c)
	switch broker.CodeOf(err) {
	case "":
		return nil
	case broker.Conflict:
	default:
		return unavailable(ReasonStore, err)
	}
	stored, err := u.credentials.Credential(ctx, w.firm, w.mailbox)
	if broker.CodeOf(err) == broker.NotFound {
		return unavailable(ReasonChanged, errors.New("the credential was removed at the same time"))
	}
	if err != nil {
		return unavailable(ReasonStore, err)
	}
	defer stored.Secret.Wipe()
	theirs, err := Parse(stored.Kind, stored.Secret.Reveal())
	if err != nil {
		return unavailable(ReasonChanged, err)
	}
	defer theirs.Wipe()
	ours, err := Parse(w.kind, encoded)
	if err != nil {
		return err
	}
	defer ours.Wipe()
	if stored.Kind != w.kind || u.printOf(w, theirs) != u.printOf(w, ours) {
		return unavailable(ReasonChanged, errors.New("another credential was stored at the same time"))
	}
	return nil
}

// forget ends p's being pending.
func (u *Upstream) forget(e *entry, p *pending) {
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(p.encoded)
	p.encoded = nil
	if e.pending == p {
		e.pending = nil
	}
}

// storeFirst stores what could not be stored before, or fails.
func (u *Upstream) storeFirst(ctx context.Context, e *entry) error {
	u.mu.Lock()
	p := e.pending
	u.mu.Unlock()
	if p == nil {
		return nil
	}
	err := u.storeOnce(ctx, p)
	if err == nil || reasonOf(err) == ReasonChanged {
		u.forget(e, p)
		return nil
	}
	return err
}

// storePending tries what could not be stored before.
func (u *Upstream) storePending(ctx context.Context) {
	u.mu.Lock()
	var left []*entry
	for _, e := range u.entries {
		if e.pending != nil && e.flight == nil { // one under way stores by itself
			left = append(left, e)
		}
	}
	u.mu.Unlock()
	for _, e := range left {
		if ctx.Err() != nil {
			return
		}
		if err := u.storeFirst(ctx, e); err != nil {
			u.log.Warn("a new refresh token still cannot be stored", zap.Error(err))
		}
	}
}
