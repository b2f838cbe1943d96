// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/credentialstest"
	"github.com/postern-mail/postern/broker/vault"
)

// slack is what a call may take over its time limit on a busy machine.
const slack = 15 * time.Second

func TestSealed(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	client, _ := start(t, standard(t, v))
	firm, mailbox := put(t, client, "kept")
	v.Seal()
	_, err := client.Credential(t.Context(), firm, mailbox)
	wantReason(t, err, vault.ReasonSealed)
	_, err = client.SetCredential(t.Context(), firm, mailbox, credentialstest.Password("lost", 1))
	wantReason(t, err, vault.ReasonSealed)
	wantReason(t, client.Ready(t.Context()), vault.ReasonSealed)
	v.Unseal()
	eventually(t, "a credential can be read after the unsealing", func() error {
		_, err := client.Credential(t.Context(), firm, mailbox)
		return err
	})
	wantSecret(t, client, firm, mailbox, "kept")
	if err := client.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

func TestKilled(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	client, _ := start(t, standard(t, v))
	firm, mailbox := put(t, client, "kept")
	v.Kill()
	for range 8 { // more than the breaker takes
		begun := time.Now()
		_, err := client.Credential(t.Context(), firm, mailbox)
		wantReason(t, err, vault.ReasonUnreachable, vault.ReasonBreaker)
		if took := time.Since(begun); took > 3*time.Second+slack {
			t.Errorf("the refusal took %v", took)
		}
	}
	if err := client.Ready(t.Context()); err == nil {
		t.Error("ready without a Vault")
	}
	v.Restart()
	eventually(t, "Vault is found sealed", func() error {
		if _, err := client.Credential(t.Context(), firm, mailbox); err.(*broker.Error).Reason != vault.ReasonSealed {
			return err
		}
		return nil
	})
	v.Unseal()
	eventually(t, "a credential can be read after the restart", func() error {
		_, err := client.Credential(t.Context(), firm, mailbox)
		return err
	})
	wantSecret(t, client, firm, mailbox, "kept")
}

// TestKilledBeforeTheLogin: Postern may start before Vault does.
func TestKilledBeforeTheLogin(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	cfg := standard(t, v)
	v.Restart() // and sealed
	client, _ := start(t, cfg)
	_, err := client.Credential(t.Context(), broker.NewID(), broker.NewID())
	wantReason(t, err, vault.ReasonLogin)
	v.Unseal()
	eventually(t, "Postern logs in", func() error { return client.Ready(t.Context()) })
}

func TestSlow(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	registry := prometheus.NewRegistry()
	cfg := standard(t, v)
	cfg.Timeout, cfg.Registerer = 3*time.Second, registry
	client, _ := start(t, cfg)
	firm, mailbox := put(t, client, "kept")
	v.Slow(time.Minute)
	for range 5 {
		begun := time.Now()
		_, err := client.Credential(t.Context(), firm, mailbox)
		wantReason(t, err, vault.ReasonTimeout)
		if took := time.Since(begun); took > cfg.Timeout+slack {
			t.Errorf("a call of at most %v took %v", cfg.Timeout, took)
		}
	}
	connections := v.Connections()
	_, err := client.Credential(t.Context(), firm, mailbox)
	wantReason(t, err, vault.ReasonBreaker)
	if n := v.Connections() - connections; n != 0 {
		t.Errorf("with the breaker open a call made %d connections", n)
	}
	if got := metric(t, registry, "postern_vault_breaker_state"); got != 2 {
		t.Errorf("the breaker's metric is %v, want 2", got)
	}
	v.Slow(0)
	eventually(t, "the breaker closes", func() error {
		_, err := client.Credential(t.Context(), firm, mailbox)
		return err
	})
	wantSecret(t, client, firm, mailbox, "kept")
	for outcome, want := range map[string]float64{vault.ReasonTimeout: 5, "ok": 2} {
		if got := metric(t, registry, "postern_vault_requests_total", "op", "get", "outcome", outcome); got != want {
			t.Errorf("%v calls counted as %s, want %v", got, outcome, want)
		}
	}
	if ttl := metric(t, registry, "postern_vault_token_ttl_seconds", "identity", "proxy"); ttl < 3000 || ttl > 3600 {
		t.Errorf("the token's life is told as %v s", ttl)
	}
}

// TestImpatientCallersDoNotOpenTheBreaker: clients that vanish in their login
// must not keep others out.
func TestImpatientCallersDoNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	client, _ := start(t, standard(t, v))
	firm, mailbox := put(t, client, "kept")
	v.Slow(time.Minute)
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := client.Credential(ctx, firm, mailbox)
		cancel()
		wantReason(t, err, vault.ReasonTimeout)
	}
	v.Slow(0)
	wantSecret(t, client, firm, mailbox, "kept")
}

// TestConcurrentReads: one slow answer does not hold up the next call.
func TestConcurrentReads(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	cfg := standard(t, v)
	cfg.Timeout = 20 * time.Second
	client, _ := start(t, cfg)
	firm, mailbox := put(t, client, "kept")
	const delay, readers = 300 * time.Millisecond, 30
	v.Slow(delay)
	begun := time.Now()
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			if _, err := client.Credential(t.Context(), firm, mailbox); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(begun); took > readers*delay/2 {
		t.Errorf("%d reads of %v each took %v: they queue", readers, delay, took)
	}
}

// TestLostAnswerToAWrite: a write that was done, and whose answer was lost,
// comes back as a conflict when it is tried again; it is none.
func TestLostAnswerToAWrite(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	client, _ := start(t, standard(t, v))
	firm, mailbox := put(t, client, "old") // the connection has been used
	connections := v.Connections()
	v.CutAnswer()
	version, err := client.SetCredential(t.Context(), firm, mailbox, credentialstest.Password("new", 1))
	if err != nil || version != 2 {
		t.Fatalf("set: version %d, %v; want 2", version, err)
	}
	if v.Connections() == connections {
		t.Fatal("no connection was cut: the test shows nothing")
	}
	wantSecret(t, client, firm, mailbox, "new")
	if now, err := client.CredentialVersion(t.Context(), firm, mailbox); now != 2 || err != nil {
		t.Errorf("version %d, %v: it was written twice", now, err)
	}
}

// TestLostAnswerToADeletion: deleting twice is deleting once.
func TestLostAnswerToADeletion(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	client, _ := start(t, standard(t, v))
	firm, mailbox := put(t, client, "old")
	v.CutAnswer()
	if err := client.DeleteCredential(t.Context(), firm, mailbox); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Credential(t.Context(), firm, mailbox); broker.CodeOf(err) != broker.NotFound {
		t.Errorf("get: %v, want NotFound", err)
	}
}
