// SPDX-License-Identifier: Apache-2.0

package drivertest

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/credentialstest"
	"github.com/postern-mail/postern/test/servers"
)

// Provider is a driver and a provider to run it against.
type Provider struct {
	Driver broker.Driver
	// CA issued the provider's certificate.
	CA *servers.CA
	// Mailbox adds a mailbox with a password there, and returns what asks for
	// another: a change that succeeds.
	Mailbox func(t *testing.T) *broker.PasswordChange
	// Opens reports whether a password opens the mailbox of a change.
	Opens func(t *testing.T, c *broker.PasswordChange, password string) bool
	// Refusals are changes that the provider refuses, by name.
	Refusals map[string]Refusal
	// InDoubt makes a change whose answer is lost after the provider was asked.
	InDoubt func(t *testing.T, c *broker.PasswordChange) error
	// At points a change at another address of the same host; nil where a
	// provider has none.
	At func(c *broker.PasswordChange, port uint16)
	// StartTLS is what a server says before TLS; nil: nothing.
	StartTLS func(net.Conn) error
	// Flood is how an answer without an end begins.
	Flood []byte
	// AskedAtOnce says that the first request is the one that changes, so that
	// whatever is wrong with its answer leaves an unknown outcome.
	AskedAtOnce bool
	// AnySettings says that a mailbox's settings are not the driver's to judge.
	AnySettings bool
	// OldNeeded says that a change needs the old password, and so succeeds once.
	OldNeeded bool
}

// Refusal is a change that the provider refuses.
type Refusal struct {
	// Alter makes the change one.
	Alter  func(t *testing.T, c *broker.PasswordChange)
	Reason broker.DriverReason
	// Words are among the provider's; empty: any.
	Words string
}

// Run checks what provider returns against the contract.
func Run(t *testing.T, provider func(t *testing.T) *Provider) {
	p := provider(t)
	for name, test := range map[string]func(*testing.T, *Provider){
		"sets the password":               sets,
		"refusals change nothing":         refusals,
		"settings that do not fit":        misfits,
		"a lost answer is unknown":        inDoubt,
		"a cancelled call asks nothing":   cancelled,
		"an empty password asks nothing":  emptyPassword,
		"nobody listens":                  nobodyListens,
		"a certificate that is not good":  badCertificates,
		"silence before TLS":              silence,
		"answers that cannot be answers":  nonsense,
		"what was asked comes back":       echo,
		"an answer without an end":        flood,
		"a connection that ends":          hangsUp,
		"silence where an answer belongs": silentAnswer,
	} {
		t.Run(name, func(t *testing.T) { test(t, p) })
	}
}

// set runs a change, and looks for secrets in its error.
func set(ctx context.Context, t *testing.T, p *Provider, c *broker.PasswordChange) error {
	t.Helper()
	err := p.Driver.Set(ctx, c)
	NoSecrets(t, err, c)
	return err
}

// NoSecrets fails when an error holds a secret of the change.
func NoSecrets(t *testing.T, err error, c *broker.PasswordChange) {
	t.Helper()
	if err == nil {
		return
	}
	secrets := []broker.Secret{c.Old, c.New}
	if c.Account != nil {
		secrets = append(secrets, c.Account.Secret)
	}
	for _, s := range secrets {
		if !s.Empty() {
			credentialstest.NoSecret(t, err, string(s.Reveal()))
		}
	}
}

// WantError fails unless err is a *broker.DriverError of that outcome, and, if
// given, that reason.
func WantError(t *testing.T, err error, outcome broker.DriverOutcome, reason broker.DriverReason) *broker.DriverError {
	t.Helper()
	var e *broker.DriverError
	if !errors.As(err, &e) {
		t.Fatalf("the error is %T: %v", err, err)
	}
	if e.Outcome != outcome || reason != "" && e.Reason != reason {
		t.Errorf("got %s, %s; want %s, %s: %v", e.Outcome, e.Reason, outcome, reason, err)
	}
	if len(e.Words) > broker.MaxDriverWords {
		t.Errorf("%d octets of words", len(e.Words))
	}
	return e
}

func (p *Provider) wantOpens(t *testing.T, c *broker.PasswordChange, password broker.Secret, want bool) {
	t.Helper()
	if got := p.Opens(t, c, string(password.Reveal())); got != want {
		t.Errorf("%s: opens is %v, want %v", c.Username, got, want)
	}
}

func sets(t *testing.T, p *Provider) {
	c := p.Mailbox(t)
	p.wantOpens(t, c, c.Old, true)
	if err := p.Driver.Check(c.Provider, c.Settings); err != nil {
		t.Fatalf("its settings: %v", err)
	}
	if err := set(t.Context(), t, p, c); err != nil {
		t.Fatal(err)
	}
	p.wantOpens(t, c, c.New, true)
	p.wantOpens(t, c, c.Old, false)
	// It may be asked again, since whoever asks cannot always know.
	err := set(t.Context(), t, p, c)
	if p.OldNeeded {
		WantError(t, err, broker.NotApplied, broker.DriverAccountRefused)
	} else if err != nil {
		t.Errorf("the same again: %v", err)
	}
	p.wantOpens(t, c, c.New, true)
}

func refusals(t *testing.T, p *Provider) {
	for name, refusal := range p.Refusals {
		t.Run(name, func(t *testing.T) {
			c := p.Mailbox(t)
			usual := *c
			refusal.Alter(t, c)
			e := WantError(t, set(t.Context(), t, p, c), broker.NotApplied, refusal.Reason)
			if !strings.Contains(e.Words, refusal.Words) {
				t.Errorf("the words are %q, want %q among them", e.Words, refusal.Words)
			}
			p.wantOpens(t, &usual, usual.Old, true)
			p.wantOpens(t, &usual, usual.New, false)
		})
	}
}

func misfits(t *testing.T, p *Provider) {
	const unknown = `{"no_such_setting": 1}`
	for _, settings := range []string{unknown, `[]`, `{`, `{} {}`} {
		c := p.Mailbox(t)
		if err := p.Driver.Check([]byte(settings), c.Settings); broker.CodeOf(err) != broker.Invalid {
			t.Errorf("%s of a provider: %v", settings, err)
		}
		if err := p.Driver.Check(c.Provider, []byte(settings)); broker.CodeOf(err) != broker.Invalid && !(p.AnySettings && settings == unknown) {
			t.Errorf("%s of a mailbox: %v", settings, err)
		}
		c.Provider = []byte(settings)
		WantError(t, set(t.Context(), t, p, c), broker.NotApplied, broker.DriverMisconfigured)
	}
}

func inDoubt(t *testing.T, p *Provider) {
	c := p.Mailbox(t)
	err := p.InDoubt(t, c)
	NoSecrets(t, err, c)
	WantError(t, err, broker.OutcomeUnknown, broker.DriverUnavailable)
}

func cancelled(t *testing.T, p *Provider) {
	c := p.Mailbox(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	WantError(t, set(ctx, t, p, c), broker.NotApplied, broker.DriverUnavailable)
	p.wantOpens(t, c, c.Old, true)
}

func emptyPassword(t *testing.T, p *Provider) {
	c := p.Mailbox(t)
	c.New = broker.Secret{}
	WantError(t, set(t.Context(), t, p, c), broker.NotApplied, broker.DriverMisconfigured)
	p.wantOpens(t, c, c.Old, true)
}
