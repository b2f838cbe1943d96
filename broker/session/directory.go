// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"

	"github.com/postern-mail/postern/broker"
)

// reasonAttempts is the cause of a denial without asking the directory: it was
// asked in vain too often of late.
const reasonAttempts = "directory-attempts"

// answered settles, once, what an attempt needs the directory for. The finding
// is made anew then. It waits for the directory alone, and before the session
// is registered: the decision comes after the last word of it.
func (m *Manager) answered(ctx context.Context, v *view, a *attempt, f *finding) (*finding, *broker.Error, error) {
	if f.cause != causeUnverified || a.asked {
		return f, nil, nil
	}
	a.asked = true
	var err error
	if f.method == broker.AuthCertificate {
		// No password is there to be checked: the account must be in order.
		err = m.directory.Look(ctx, f.agent.Account())
	} else {
		err = m.guard.check(ctx, m.guard.known(f.agent.ID), m.question(v, a), func(ctx context.Context) error {
			return m.directory.Check(ctx, f.agent.Account(), a.login.Token)
		})
	}
	switch broker.CodeOf(err) {
	case "":
		a.verified = f.agent.ID
	case broker.Denied:
		a.verdict = reasonOf(err)
	default:
		return nil, directoryDown(err), nil
	}
	f, err = m.identify(ctx, v, a)
	return f, nil, err
}

func (m *Manager) question(v *view, a *attempt) question {
	return question{
		source: a.source(), password: a.login.Token.Reveal(),
		revision: v.revision, now: m.now(),
	}
}

func reasonOf(err error) string {
	var e *broker.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func directoryDown(err error) *broker.Error {
	down := broker.Errorf(broker.Unavailable, textDirectory).WithCause(err)
	down.Reason = "directory"
	return down
}

// pretend has the directory asked for nobody, where a login named an agent who
// is none of its, or may not do what he asks: so that an answer's time, and an
// outage, do not tell which agents have their password there. Strangers cause
// no such questions.
func (m *Manager) pretend(ctx context.Context, v *view, a *attempt, f *finding) *broker.Error {
	if m.directory == nil || a.asked || a.login.External || a.login.Token.Empty() ||
		a.claimed == "" || f.password != nil || f.machineDenial() != "" {
		return nil
	}
	a.asked = true
	err := m.guard.check(ctx, m.guard.stranger(a.claimed), m.question(v, a), func(ctx context.Context) error {
		var nobody [16]byte
		rand.Read(nobody[:]) // it never fails (crypto/rand)
		name := hex.EncodeToString(nobody[:])
		err := m.directory.Check(ctx, "nobody-"+name, broker.NewSecret([]byte(name)))
		if err == nil {
			// A directory that takes anything is no proof of anybody.
			return broker.Errorf(broker.Unavailable, "the directory let nobody in").WithCause(errors.New("an account that does not exist has a password"))
		}
		return err
	})
	if broker.CodeOf(err) == broker.Denied {
		return nil
	}
	if err != nil {
		return directoryDown(err)
	}
	return nil
}
