// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/redact"
)

// worker does the steps of one rotation. It holds secrets only from asking to
// setting, two entries of the journal apart.
type worker struct {
	*Rotator
	journal broker.Rotation
	// claimed is when the last entry was about to be written, which prolonged the
	// claim.
	claimed time.Time
	// change is what the journal has just said that the provider is asked for;
	// nil: another process wrote that, and may have asked.
	change *broker.PasswordChange
}

func (w *worker) forget() {
	if w.change == nil {
		return
	}
	w.change.Old.Wipe()
	w.change.New.Wipe()
	if w.change.Account != nil {
		w.change.Account.Secret.Wipe()
	}
	w.change = nil
}

// do does one step.
func (w *worker) do(ctx context.Context, s step) finding {
	if s == stepName {
		return finding{}
	}
	if s == stepClean {
		return w.clean(ctx)
	}
	mailbox, err := w.State.Mailbox(ctx, w.journal.MailboxID)
	if broker.CodeOf(err) == broker.NotFound {
		return finding{impossible: "the mailbox is gone"}
	}
	if err != nil {
		return w.blocked("the state cannot be read", err)
	}
	switch s {
	case stepStore:
		return w.store(ctx, mailbox)
	case stepAsk:
		return w.ask(ctx, mailbox)
	case stepSet:
		return w.set(ctx, mailbox)
	case stepProveNew:
		return w.proveNew(ctx, mailbox)
	case stepProveOld:
		return w.proveOld(ctx, mailbox)
	case stepProveDead:
		return w.proveDead(ctx, mailbox)
	case stepCommit:
		return w.commit(ctx, mailbox)
	default:
		return w.drain(ctx, mailbox)
	}
}

func (w *worker) blocked(what string, err error) finding {
	w.Logger.Error(what, zap.String("rotation", string(w.journal.ID)), zap.Error(err))
	return finding{blocked: what}
}

// unread is what a new password that could not be read comes to.
func (w *worker) unread(err error) finding {
	if broker.CodeOf(err) == broker.NotFound {
		return finding{gone: true}
	}
	return w.blocked(secretsBlocked, err)
}

const secretsBlocked = "the credential storage is out of reach"

// old returns the mailbox's credential; nil: none is stored.
func (w *worker) old(ctx context.Context) (*broker.Credential, error) {
	c, err := w.Secrets.Credential(ctx, w.journal.FirmID, w.journal.MailboxID)
	if broker.CodeOf(err) == broker.NotFound {
		return nil, nil
	}
	return c, err
}

func (w *worker) pending(ctx context.Context) (*broker.Credential, error) {
	return w.Secrets.PendingCredential(ctx, w.journal.FirmID, w.journal.MailboxID, w.journal.PendingID())
}

// store makes the new password. Where it is there already, an earlier try has
// stored it.
func (w *worker) store(ctx context.Context, m *broker.Mailbox) finding {
	old, err := w.old(ctx)
	if err != nil {
		return w.blocked(secretsBlocked, err)
	}
	f := finding{}
	made := &broker.Credential{Kind: broker.KindPassword}
	if old != nil {
		defer old.Secret.Wipe()
		if old.Kind != broker.KindPassword {
			return finding{impossible: "the mailbox's credential is no password"}
		}
		f.oldVersion, made.Username = old.Version, old.Username
	}
	if w.journal.Entered {
		entered, err := w.pending(ctx)
		switch {
		case err == nil:
			defer entered.Secret.Wipe()
			if old != nil && bytes.Equal(old.Secret.Reveal(), entered.Secret.Reveal()) {
				// It would be taken, and refused as the old one never.
				return finding{impossible: "the password that was entered is the one that is stored: change it at the provider first"}
			}
			return f
		case broker.CodeOf(err) != broker.NotFound:
			return w.blocked(secretsBlocked, err)
		case w.Now().Sub(w.journal.CreatedAt) > time.Minute:
			return finding{impossible: "the password that was entered did not arrive: enter it again"}
		}
		return finding{blocked: "the password that was entered has not arrived"}
	}
	provider, driver, f2 := w.driver(ctx)
	if driver == nil {
		return f2
	}
	var policy broker.PasswordPolicy
	if rules, ok := driver.(broker.PasswordRules); ok {
		policy = rules.PasswordPolicy(provider.Settings, settingsOf(m))
	}
	made.Secret = generate(policy)
	defer made.Secret.Wipe()
	err = w.Secrets.SetPendingCredential(ctx, w.journal.FirmID, w.journal.MailboxID, w.journal.PendingID(), made)
	if err != nil && broker.CodeOf(err) != broker.Conflict {
		return w.blocked(secretsBlocked, err)
	}
	return f
}

func settingsOf(m *broker.Mailbox) json.RawMessage {
	if m.Rotation == nil {
		return nil
	}
	return m.Rotation.Settings
}

// driver returns the provider and its driver, or what was found instead.
func (w *worker) driver(ctx context.Context) (*broker.Provider, broker.Driver, finding) {
	provider, err := w.State.Provider(ctx, w.journal.ProviderID)
	if broker.CodeOf(err) == broker.NotFound {
		return nil, nil, finding{impossible: "the provider is gone"}
	}
	if err != nil {
		return nil, nil, w.blocked("the state cannot be read", err)
	}
	if provider.Driver == ManualDriver {
		return nil, nil, finding{impossible: "a person changes this password at the provider, and enters it"}
	}
	driver, ok := w.Drivers[provider.Driver]
	if !ok {
		return nil, nil, finding{impossible: "there is no driver " + provider.Driver + " here"}
	}
	return provider, driver, finding{}
}

// ManualDriver is the driver of providers that a person changes passwords at.
const ManualDriver = "manual"

// ask reads all that the driver needs, before the journal says that the
// provider may have been asked.
func (w *worker) ask(ctx context.Context, m *broker.Mailbox) finding {
	w.forget()
	if w.journal.Entered {
		return finding{}
	}
	change, f := w.newChange(ctx, m)
	w.change = change
	return f
}

// newChange reads what a driver is given; nil: what was found instead.
func (w *worker) newChange(ctx context.Context, m *broker.Mailbox) (*broker.PasswordChange, finding) {
	provider, driver, f := w.driver(ctx)
	if driver == nil {
		return nil, f
	}
	pending, err := w.pending(ctx)
	if err != nil {
		return nil, w.unread(err)
	}
	change := &broker.PasswordChange{
		Mailbox: m, Username: m.LoginName(pending), New: pending.Secret,
		Provider: provider.Settings, Settings: settingsOf(m),
	}
	old, err := w.old(ctx)
	if err == nil && old != nil {
		change.Old = old.Secret
	}
	if err == nil {
		change.Account, err = w.Secrets.ProviderAccount(ctx, w.journal.FirmID, w.journal.ProviderID)
		if broker.CodeOf(err) == broker.NotFound {
			change.Account, err = nil, nil
		}
	}
	if err != nil {
		change.New.Wipe()
		change.Old.Wipe()
		return nil, w.blocked(secretsBlocked, err)
	}
	return change, finding{}
}

// set asks the provider. A rotation that another process has left here may have
// been asked for. So may one whose claim has lapsed, since this process stood still:
// to set its password late would take away what another has proved.
func (w *worker) set(ctx context.Context, _ *broker.Mailbox) finding {
	defer w.forget()
	cutOff := finding{said: broker.SaidUnknown, words: "cut off while the provider was asked"}
	if w.change == nil {
		return cutOff
	}
	_, driver, f := w.driver(ctx)
	if driver == nil {
		// It was there a moment ago; the journal says asking, which is resolved by
		// looking.
		return finding{said: broker.SaidNotApplied, reason: broker.DriverMisconfigured, words: f.impossible + f.blocked}
	}
	if lapsed(w.claimed, w.Now()) {
		return cutOff
	}
	ctx, cancel := context.WithTimeout(ctx, setTime)
	defer cancel()
	return said(driver.Set(ctx, w.change), w.change)
}

// lapsed reports whether a claim may end before a provider that is asked now has
// answered. The wall clock is looked at as well: the monotonic one stands still while
// a machine is suspended.
func lapsed(claimed, now time.Time) bool {
	return max(now.Sub(claimed), now.Round(0).Sub(claimed.Round(0))) > claimTime-setTime
}

// said is what the provider said.
func said(err error, change *broker.PasswordChange) finding {
	if err == nil {
		return finding{said: broker.SaidDone}
	}
	var e *broker.DriverError
	if !errors.As(err, &e) {
		// Not what the contract says: nothing is known.
		return finding{said: broker.SaidUnknown, reason: broker.DriverUnavailable}
	}
	f := finding{said: broker.SaidUnknown, reason: e.Reason, words: e.Words}
	if e.Outcome == broker.NotApplied {
		f.said = broker.SaidNotApplied
	}
	// Drivers clean their words; what goes into a log for ever is looked at twice.
	secrets := [][]byte{change.New.Reveal(), change.Old.Reveal()}
	if change.Account != nil {
		secrets = append(secrets, change.Account.Secret.Reveal())
	}
	var forms [][]byte
	for _, secret := range secrets {
		forms = append(forms, redact.Forms(secret)...)
	}
	f.words = redact.Words([]byte(f.words), broker.MaxDriverWords, forms)
	for _, form := range forms {
		clear(form)
	}
	return f
}

// login tries a credential on IMAP and on submission.
func (w *worker) login(ctx context.Context, m *broker.Mailbox, c *broker.Credential) both {
	ctx, cancel := context.WithTimeout(ctx, loginsTime/2)
	defer cancel()
	var v both
	var wait sync.WaitGroup
	wait.Go(func() {
		conn, err := w.Upstream.OpenIMAP(ctx, m, c)
		v.imap = w.verdict(broker.ProtocolIMAP, err)
		if err == nil {
			leave(conn, "logout LOGOUT\r\n")
		}
	})
	wait.Go(func() {
		conn, err := w.Upstream.OpenSubmission(ctx, m, c)
		v.submission = w.verdict(broker.ProtocolSubmission, err)
		if err == nil {
			leave(conn, "QUIT\r\n")
		}
	})
	wait.Wait()
	return v
}

// leave ends a connection, in an orderly way if the server listens.
func leave(c io.WriteCloser, goodbye string) {
	_, _ = io.WriteString(c, goodbye) // what was to be known is known
	_ = c.Close()
}

func (w *worker) verdict(p broker.Protocol, err error) verdict {
	if err == nil {
		return accepted
	}
	w.Logger.Info("a login of a rotation failed", zap.String("rotation", string(w.journal.ID)), zap.String("protocol", string(p)), zap.Error(err))
	switch broker.CodeOf(err) {
	case broker.CredentialRefused:
		return refused
	case broker.Invalid: // no login can carry it, so none is let in with it
		return refused
	}
	return unreached
}

func (w *worker) proveNew(ctx context.Context, m *broker.Mailbox) finding {
	pending, err := w.pending(ctx)
	if err != nil {
		return w.unread(err)
	}
	defer pending.Secret.Wipe()
	return finding{new: w.login(ctx, m, pending)}
}

// proveOld tries what is the mailbox's credential; without one nothing works.
func (w *worker) proveOld(ctx context.Context, m *broker.Mailbox) finding {
	old, err := w.old(ctx)
	if err != nil {
		return w.blocked(secretsBlocked, err)
	}
	if old == nil {
		return finding{old: both{refused, refused}}
	}
	defer old.Secret.Wipe()
	return finding{old: w.login(ctx, m, old)}
}

// proveDead tries the old password, and the new one again where it is refused:
// a server that refuses everything has proved nothing.
func (w *worker) proveDead(ctx context.Context, m *broker.Mailbox) finding {
	old, err := w.old(ctx)
	if err != nil {
		return w.blocked(secretsBlocked, err)
	}
	if old == nil {
		return finding{old: both{refused, refused}, new: both{accepted, accepted}}
	}
	defer old.Secret.Wipe()
	pending, err := w.pending(ctx)
	if err != nil {
		return w.unread(err)
	}
	defer pending.Secret.Wipe()
	if bytes.Equal(old.Secret.Reveal(), pending.Secret.Reveal()) {
		// A person has stored the new one meanwhile, or entered the same again.
		return finding{old: both{refused, refused}, new: both{accepted, accepted}}
	}
	f := finding{old: w.login(ctx, m, old)}
	if f.old.imap == refused && f.old.submission == refused {
		f.new = w.login(ctx, m, pending)
	}
	return f
}

// commit makes the new password the mailbox's credential. What an earlier try
// has done is recognised.
func (w *worker) commit(ctx context.Context, m *broker.Mailbox) finding {
	pending, err := w.pending(ctx)
	if err != nil {
		return w.unread(err)
	}
	defer pending.Secret.Wipe()
	pending.Version = w.journal.OldVersion
	version, err := w.Secrets.SetCredential(ctx, w.journal.FirmID, w.journal.MailboxID, pending)
	if err == nil {
		return finding{version: version}
	}
	if broker.CodeOf(err) != broker.Conflict {
		return w.blocked(secretsBlocked, err)
	}
	stored, err := w.old(ctx)
	if err != nil {
		return w.blocked(secretsBlocked, err)
	}
	if stored == nil {
		return finding{oldVersion: 0}
	}
	defer stored.Secret.Wipe()
	if stored.Kind == pending.Kind && bytes.Equal(stored.Secret.Reveal(), pending.Secret.Reveal()) {
		return finding{version: stored.Version}
	}
	switch w.login(ctx, m, stored).imap {
	case accepted:
		return finding{superseded: true}
	case refused:
		return finding{oldVersion: stored.Version}
	}
	return finding{blocked: "somebody stored another credential, and the mailbox's IMAP server is out of reach"}
}

// drain waits until no session is left that was opened before the commit,
// unless its node was cut off: then its lease is over.
func (w *worker) drain(ctx context.Context, m *broker.Mailbox) finding {
	if w.Now().Before(w.journal.CommittedAt.Add(w.SessionsEnd + drainPoll)) {
		live, err := w.State.FirmSessions(ctx, w.journal.FirmID, true, 0)
		if err != nil {
			return w.blocked("the state cannot be read", err)
		}
		for _, s := range live {
			if s.MailboxID == m.ID && s.OpenedAt.Before(w.journal.CommittedAt) {
				return finding{blocked: "sessions on the old password are ending"}
			}
		}
	}
	if w.journal.Entered {
		return finding{}
	}
	change, f := w.newChange(ctx, m)
	if change == nil {
		if f.impossible != "" || f.gone { // the new password is committed
			return finding{}
		}
		return f
	}
	w.change = change
	defer w.forget()
	_, driver, _ := w.driver(ctx)
	stop := ctx
	ctx, cancel := context.WithTimeout(ctx, setTime)
	defer cancel()
	if kicker, ok := driver.(broker.Kicker); ok {
		err := kicker.Kick(ctx, change)
		f.kicked = w.note("the provider did not end its sessions", err)
		f.unheard = err != nil && said(err, change).reason == broker.DriverUnavailable
	}
	if inspector, ok := driver.(broker.Inspector); ok && !f.unheard {
		found, err := inspector.Inspect(ctx, change)
		if w.note("the provider could not be inspected", err) {
			f.inspection = found
		}
	}
	if stop.Err() != nil {
		return finding{blocked: "cut off while the provider was asked to end its sessions"}
	}
	return f
}

// clean destroys what an ended rotation has kept. Where one of its passwords may
// be the mailbox's yet, it does so only once nobody needs them.
func (w *worker) clean(ctx context.Context) finding {
	if j := &w.journal; j.Outcome == broker.RotationKeptOld || j.Outcome == broker.RotationLost || len(j.Pending) > 1 {
		if f := w.needed(ctx); f.blocked != "" || f.keep != "" {
			return f
		}
	}
	if w.journal.Outcome == broker.RotationDone {
		if err := w.Secrets.DestroyCredentialsBefore(ctx, w.journal.FirmID, w.journal.MailboxID, w.journal.NewVersion); err != nil {
			return w.blocked(secretsBlocked, err)
		}
	}
	for _, id := range w.journal.Pending {
		if err := w.Secrets.DeletePendingCredential(ctx, w.journal.FirmID, w.journal.MailboxID, id); err != nil {
			return w.blocked(secretsBlocked, err)
		}
	}
	return finding{}
}

// needed looks whether a password that a rotation has made may be what opens the
// mailbox. It is not where IMAP and submission take the mailbox's credential.
func (w *worker) needed(ctx context.Context) finding {
	ctx, cancel := context.WithTimeout(ctx, loginsTime)
	defer cancel()
	m, err := w.State.Mailbox(ctx, w.journal.MailboxID)
	if broker.CodeOf(err) == broker.NotFound {
		return finding{}
	}
	if err != nil {
		return w.blocked("the state cannot be read", err)
	}
	f := w.proveOld(ctx, m)
	switch {
	case f.blocked != "":
		return f
	case f.old == both{accepted, accepted}:
		return finding{}
	case f.old.imap != refused && f.old.submission != refused:
		return finding{blocked: "a server is out of reach, and the mailbox's credential cannot be tried"}
	}
	return w.tryKept(ctx, m, f.old)
}

// tryKept tries the passwords that were made, the latest first, at a mailbox whose
// credential is refused by one service or by both.
func (w *worker) tryKept(ctx context.Context, m *broker.Mailbox, old both) finding {
	const unopened = "the mailbox's credential does not open it, "
	f := finding{}
	for _, id := range slices.Backward(w.journal.Pending) {
		pending, err := w.Secrets.PendingCredential(ctx, w.journal.FirmID, w.journal.MailboxID, id)
		if broker.CodeOf(err) == broker.NotFound {
			continue
		}
		if err != nil {
			return w.blocked(secretsBlocked, err)
		}
		v := w.login(ctx, m, pending)
		pending.Secret.Wipe()
		switch {
		case old.imap == refused && v.imap == accepted, old.submission == refused && v.submission == accepted:
			return w.setLate(ctx, m)
		case v.imap == unreached, v.submission == unreached:
			return finding{keep: unopened + "and a new password could not be tried"}
		}
		f = finding{keep: unopened + "and neither does a new password", shut: old.imap == refused}
	}
	return f
}

// setLate begins a rotation of a mailbox whose provider has set a password after
// the rotation that had asked for it.
func (w *worker) setLate(ctx context.Context, m *broker.Mailbox) finding {
	again := &broker.Rotation{MailboxID: m.ID, Cause: broker.RotateOnDrift}
	err := w.State.RequestRotation(ctx, broker.Actor{Kind: "system", Name: w.Node}, again)
	switch broker.CodeOf(err) {
	case "", broker.Conflict, broker.Limit: // one is under way, or has just ended
		return finding{keep: "the provider has set a new password after all: a rotation by drift follows"}
	case broker.Refused:
		return finding{keep: "the provider has set a new password after all, and the mailbox has no way of rotating it: set another there, and store that"}
	}
	return w.blocked("the state cannot be written", err)
}
