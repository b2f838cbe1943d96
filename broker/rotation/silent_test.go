// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/sealed"
	"github.com/postern-mail/postern/broker/store"
)

// provider is a driver and the mail server behind it: what it sets, the server
// takes. One that is silent answers nothing until it is told to.
type provider struct {
	mu        sync.Mutex
	passwords map[broker.ID]string
	asked     map[string]int // those under way
	answer    chan struct{}
}

func (p *provider) Check(_, _ json.RawMessage) error { return nil }

func (p *provider) Set(ctx context.Context, c *broker.PasswordChange) error {
	var settings struct{ Name string }
	if err := json.Unmarshal(c.Provider, &settings); err != nil {
		return err
	}
	if settings.Name != "well" {
		p.mu.Lock()
		p.asked[settings.Name]++
		p.mu.Unlock()
		<-p.answer // whatever ctx says: the test ends it, and no clock
		return &broker.DriverError{Outcome: broker.OutcomeUnknown, Reason: broker.DriverUnavailable}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passwords[c.Mailbox.ID] = string(c.New.Reveal())
	return nil
}

func (p *provider) login(m *broker.Mailbox, c *broker.Credential) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.passwords[m.ID] != string(c.Secret.Reveal()) {
		return broker.Errorf(broker.CredentialRefused, "refused")
	}
	return nil
}

func (p *provider) OpenIMAP(_ context.Context, m *broker.Mailbox, c *broker.Credential) (*broker.IMAPConn, error) {
	if err := p.login(m, c); err != nil {
		return nil, err
	}
	return &broker.IMAPConn{Conn: closed()}, nil
}

func (p *provider) OpenSubmission(_ context.Context, m *broker.Mailbox, c *broker.Credential) (*broker.SubmissionConn, error) {
	if err := p.login(m, c); err != nil {
		return nil, err
	}
	return &broker.SubmissionConn{Conn: closed()}, nil
}

func (p *provider) Probe(_ context.Context, m *broker.Mailbox, c *broker.Credential) error {
	return p.login(m, c)
}

// TestSilentProvidersHoldNobody: providers that take what they are asked and never
// answer, more of them than rotations are worked on at once, do not keep another's
// from ending. All of theirs are begun first.
func TestSilentProvidersHoldNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	state, err := store.Open(ctx, store.Config{Path: filepath.Join(dir, "postern.db"), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := sealed.Create(sealed.Config{Path: filepath.Join(dir, "sealed"), IdentityFile: filepath.Join(dir, "identity"), WorkFactor: 4})
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	by := broker.Actor{Kind: string(broker.RoleAdmin), Name: "admin"}
	firm := &broker.Firm{Name: "Acme Pumps"}
	must(state.CreateFirm(ctx, by, firm))
	at := &provider{passwords: map[broker.ID]string{}, asked: map[string]int{}, answer: make(chan struct{})}
	var last *broker.Rotation
	begin := func(name string, mailboxes int) {
		x := &broker.Provider{FirmID: firm.ID, Name: name, Driver: "test", Settings: json.RawMessage(`{"name":"` + name + `"}`)}
		must(state.CreateProvider(ctx, by, x))
		for i := range mailboxes {
			m := &broker.Mailbox{
				FirmID: firm.ID, Address: fmt.Sprintf("%s%d@acme.example", name, i), Rotation: &broker.RotationMethod{ProviderID: x.ID},
				IMAP:       broker.Endpoint{Host: "imap.acme.example", Port: 993, TLS: broker.TLSImplicit},
				Submission: broker.Endpoint{Host: "smtp.acme.example", Port: 465, TLS: broker.TLSImplicit},
			}
			must(state.CreateMailbox(ctx, by, m))
			_, err := secrets.SetCredential(ctx, firm.ID, m.ID, &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte("old"))})
			must(err)
			at.passwords[m.ID] = "old"
			last = &broker.Rotation{MailboxID: m.ID, Cause: broker.RotateOnDemand}
			must(state.RequestRotation(ctx, by, last))
		}
	}
	const places, perProvider, silent = 2, 2, 5
	for i := range silent {
		begin(fmt.Sprintf("silent%d", i), perProvider+1)
	}
	begin("well", 1)
	r, err := New(Config{
		State: state, Secrets: secrets, Upstream: at, Drivers: map[string]broker.Driver{"test": at}, Node: "node",
		Concurrency: places, PerProvider: perProvider, Logger: zap.NewNop(),
	})
	must(err)
	var run sync.WaitGroup
	run.Go(func() { _ = r.Run(ctx) })
	defer func() {
		cancel()
		close(at.answer)
		run.Wait()
		must(state.Close())
	}()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		got, err := state.Rotation(ctx, last.ID)
		must(err)
		if got.State == broker.RotationEnded {
			if got.Outcome != broker.RotationDone || len(got.Unproved) != 1 { // whether sessions were ended
				t.Errorf("it ended as %s, unproved %v", got.Outcome, got.Unproved)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it stands at %s behind providers that are silent", got.State)
		}
	}
	at.mu.Lock()
	defer at.mu.Unlock()
	for name, n := range at.asked {
		if n > perProvider {
			t.Errorf("%s was asked by %d at once", name, n)
		}
	}
	if len(at.asked) != silent {
		t.Errorf("asked %v", at.asked)
	}
}

// TestProviderThatIsAwayIsAskedLessOften: the pauses between two asks grow, though
// the steps in between are taken.
func TestProviderThatIsAwayIsAskedLessOften(t *testing.T) {
	for _, said := range []broker.RotationSaid{broker.SaidUnknown, broker.SaidNotApplied} {
		m := &machine{Limits: Limits{}.withDefaults(), now: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), id: broker.NewID}
		r := broker.Rotation{State: broker.RotationPrepared, Pending: []broker.ID{broker.NewID()}, CreatedAt: m.now}
		var pauses []time.Duration
		for asks := 0; asks < 12; asks++ {
			r = m.after(r, stepAsk, finding{})
			r = m.after(r, stepSet, finding{said: said, reason: broker.DriverUnavailable})
			r = m.after(r, stepProveNew, finding{new: both{refused, refused}})
			r = m.after(r, stepProveOld, finding{old: both{accepted, accepted}})
			if r.State != broker.RotationPrepared {
				t.Fatalf("%s after %d asks: %+v", r.State, asks+1, r)
			}
			pauses = append(pauses, r.NextAt.Sub(m.now))
			m.now = r.NextAt
		}
		for i, p := range pauses {
			if want := min(time.Second<<i, 5*time.Minute); p != want {
				t.Errorf("%s: pauses %v, want %v after %d asks", said, pauses, want, i+1)
				break
			}
		}
	}
}
