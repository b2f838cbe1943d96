// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

func withGuardrails(t *testing.T, text string) func(*Config) {
	t.Helper()
	g, err := policy.ParseGuardrails("guardrails.cedar", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Guardrails = g }
}

// TestGuardrailsStandAboveDelegations: what they look at is what is known of
// the session, and the agent is told their message.
func TestGuardrailsStandAboveDelegations(t *testing.T) {
	w := newWorld(t, withGuardrails(t, `
		@message("Nobody sends from a software key.")
		forbid (principal, action == Action::"session", resource)
		when { context.protocol == "submission" && context.workstation_class == "software" && context.site != ""
			&& principal.name == "anna" && resource.address == "Info@firm.example" };
		forbid (principal, action == Action::"delete", resource);`))
	w.run(t)
	s := w.open(t)
	if got := s.Decision().Actions; got != policy.All&^policy.Delete {
		t.Errorf("actions %v", got)
	}
	login := w.login()
	login.Protocol = broker.ProtocolSubmission
	_, err := w.manager.Open(context.Background(), login)
	if refused := (*broker.Error)(nil); !errors.As(err, &refused) || refused.Code != broker.Refused ||
		refused.Reason != policy.ReasonGuardrail || !strings.Contains(refused.Public, "Nobody sends from a software key. Ask Priya") {
		t.Errorf("Open: %v", err)
	}
	// A change decides anew under the same guardrails: the session lives on.
	w.set(broker.Change{Kind: "agent", ID: w.agent.ID}, func() {})
	if err := s.Check(context.Background()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// TestNever4GuardrailOverTime: a session ends when a guardrail begins to forbid
// it.
func TestNever4GuardrailOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Now().UTC().Truncate(15 * time.Minute).Add(time.Hour)
		w := newWorld(t, withGuardrails(t, `forbid (principal, action == Action::"session", resource)
			when { context.time >= datetime("`+at.Format("2006-01-02T15:04:05Z")+`") };`))
		w.run(t)
		s := w.open(t)
		time.Sleep(time.Until(at) - 1)
		alive(t, s)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if end := ended(t, s); end.Reason != broker.EndExpired {
			t.Errorf("end %+v", end)
		}
		if _, err := w.manager.Open(context.Background(), w.login()); broker.CodeOf(err) != broker.Refused {
			t.Errorf("Open: %v", err)
		}
	})
}
