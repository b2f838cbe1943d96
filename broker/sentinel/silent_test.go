// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/sealed"
	"github.com/postern-mail/postern/broker/store"
)

// servers are mail servers: those whose mailboxes are called silent answer when
// they are told to, the others refuse the password at once.
type servers struct {
	broker.Upstream
	answer chan struct{}
	// welcome says that the silent ones let everybody in first.
	welcome bool
}

func (s *servers) OpenIMAP(_ context.Context, m *broker.Mailbox, _ *broker.Credential) (*broker.IMAPConn, error) {
	if strings.HasPrefix(m.Address, "silent") {
		if s.welcome {
			client, server := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, server) }() // until the look hangs up
			return &broker.IMAPConn{Conn: client}, nil
		}
		<-s.answer // whatever ctx says: the test ends it, and no clock
		return nil, broker.Errorf(broker.Unavailable, "no answer")
	}
	return nil, broker.Errorf(broker.CredentialRefused, "refused")
}

func (s *servers) OpenSubmission(context.Context, *broker.Mailbox, *broker.Credential) (*broker.SubmissionConn, error) {
	return nil, broker.Errorf(broker.Unavailable, "no answer")
}

// TestSilentServersHoldNobody: mailboxes at servers that do not answer, more than
// are looked at at once, do not keep another's password that was changed from being
// found. All of theirs are due first.
func TestSilentServersHoldNobody(t *testing.T) {
	const places = 2
	t.Run("before the login", func(t *testing.T) {
		silentServersHoldNobody(t, &servers{answer: make(chan struct{})}, places, 3*places, false)
	})
	t.Run("after it", func(t *testing.T) {
		silentServersHoldNobody(t, &servers{answer: make(chan struct{}), welcome: true}, places, 3*places, false)
	})
	t.Run("more than may wait", func(t *testing.T) {
		silentServersHoldNobody(t, &servers{answer: make(chan struct{})}, 1, 2*maxWaiting, true)
	})
}

// silentServersHoldNobody has one firm's silent mailboxes looked at, and one of that
// firm or of another whose password was changed.
func silentServersHoldNobody(t *testing.T, at *servers, places, silent int, another bool) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state, err := store.Open(ctx, store.Config{Path: filepath.Join(dir, "postern.db"), Logger: zap.NewNop()})
	must(err)
	secrets, err := sealed.Create(sealed.Config{Path: filepath.Join(dir, "sealed"), IdentityFile: filepath.Join(dir, "identity"), WorkFactor: 4})
	must(err)
	by := broker.Actor{Kind: string(broker.RoleAdmin), Name: "admin"}
	firm := &broker.Firm{Name: "Acme Pumps"}
	must(state.CreateFirm(ctx, by, firm))
	add := func(firm *broker.Firm, address string) broker.ID {
		m := &broker.Mailbox{
			FirmID: firm.ID, Address: address,
			IMAP:       broker.Endpoint{Host: "imap.acme.example", Port: 993, TLS: broker.TLSImplicit},
			Submission: broker.Endpoint{Host: "smtp.acme.example", Port: 465, TLS: broker.TLSImplicit},
		}
		must(state.CreateMailbox(ctx, by, m))
		_, err := secrets.SetCredential(ctx, firm.ID, m.ID, &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte("old"))})
		must(err)
		return m.ID
	}
	for i := range silent {
		add(firm, fmt.Sprintf("silent%d@acme.example", i))
	}
	must(state.PrepareWatches(ctx, -time.Hour))
	if another {
		firm = &broker.Firm{Name: "Bolt"}
		must(state.CreateFirm(ctx, by, firm))
	}
	changed := add(firm, "sales@acme.example")
	must(state.PrepareWatches(ctx, -time.Minute))
	s, err := New(Config{
		State: state, Credentials: secrets, Upstream: at, Node: "node", Interval: time.Hour, Concurrency: places, Logger: zap.NewNop(),
	})
	must(err)
	var run sync.WaitGroup
	run.Go(func() { _ = s.Run(ctx) })
	defer func() {
		cancel()
		close(at.answer)
		run.Wait()
		if n := len(s.places); n != 0 {
			t.Errorf("%d places are taken when all has ended", n)
		}
		must(state.Close())
	}()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		w, err := state.Watch(ctx, changed)
		must(err)
		if w.Outcome == broker.WatchDrift {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the password that was changed is not found behind servers that are silent")
		}
	}
}
