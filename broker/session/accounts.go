// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"crypto/x509"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// OffersExternal is described at broker.Gate. It goes by the last view, which
// may be a moment old: what it says decides nothing.
func (m *Manager) OffersExternal(ctx context.Context, certificate *x509.Certificate) bool {
	if len(m.certificateAlone) == 0 || certificate == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	a := &attempt{login: broker.Login{Certificate: certificate}, pin: broker.KeyPin(certificate)}
	if m.certify(a) != nil || a.unfit != "" {
		return false
	}
	w, err := m.viewAt(0).workstationOf(ctx, a.pin, a.company)
	f := facts{pin: a.pin, company: a.company}
	f.takeWorkstation(w)
	return err == nil && w != nil && w.AgentID != "" && slices.Contains(m.certificateAlone, f.workstation.Class)
}

// watchAccounts asks the directory, now and then, about the accounts of agents
// in session, until the returned function is called. A directory that cannot
// say ends nothing.
func (m *Manager) watchAccounts(ctx context.Context) (stop func()) {
	if m.directory == nil || m.directoryInterval == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(m.directoryInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				m.lookOnce(ctx)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// lookOnce asks about each agent once, however many his sessions.
func (m *Manager) lookOnce(ctx context.Context) {
	byAgent := make(map[broker.ID][]*live)
	for _, s := range m.sessions(nil) {
		byAgent[s.record.AgentID] = append(byAgent[s.record.AgentID], s)
	}
	for id, sessions := range byAgent {
		agent, err := m.viewAt(0).agent(ctx, id)
		if err != nil || agent == nil || agent.Authentication != broker.AuthLDAP {
			continue // who decides anew ends the sessions of one who is gone
		}
		err = m.look(ctx, agent)
		switch broker.CodeOf(err) {
		case "":
		case broker.Denied:
			m.guard.forget(ctx, id)
			for _, s := range sessions {
				s.kill(&broker.End{Reason: broker.EndRevoked, Text: advise(textAccount, s.contact), Detail: reasonOf(err)}, m.system())
			}
			m.logger.Warn("the directory no longer has an agent's account: his sessions end",
				zap.String("agent", agent.Name), zap.Int("sessions", len(sessions)), zap.Error(err))
		default:
			if ctx.Err() == nil {
				m.logger.Error("the directory cannot say whether agents in session are still its own", zap.Error(err))
			}
			return // the others at the next turn
		}
	}
}

func (m *Manager) look(ctx context.Context, agent *broker.Agent) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return m.directory.Look(ctx, agent.Account())
}
