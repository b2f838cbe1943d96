// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"context"
	"testing"
	"time"
)

// TestVaultBuilds builds vaultd and nothing else: what takes minutes from a
// cold cache can be done first, with a time limit of its own.
func TestVaultBuilds(t *testing.T) {
	if _, err := buildVault(t); err != nil {
		t.Fatal(err)
	}
}

func TestVault(t *testing.T) {
	v := StartVault(t)
	v.Setup("engine")
	ctx := context.Background()
	if _, err := v.Client().KVv2("postern").Put(ctx, "a", map[string]any{"marked": "kept-over-a-kill"}); err != nil {
		t.Fatal(err)
	}
	get := func() (any, error) {
		s, err := v.Client().KVv2("postern").Get(ctx, "a")
		if err != nil {
			return nil, err
		}
		return s.Data["marked"], nil
	}
	want := func(state string) {
		t.Helper()
		if got, err := get(); err != nil || got != "kept-over-a-kill" {
			t.Errorf("%s: %v, %v", state, got, err)
		}
	}
	want("at first")
	v.Seal()
	if _, err := get(); err == nil {
		t.Error("a sealed Vault answered")
	}
	v.Unseal()
	want("unsealed")
	v.Kill()
	if _, err := get(); err == nil {
		t.Error("a killed Vault answered")
	}
	v.Restart()
	if health, err := v.Client().Sys().Health(); err != nil || !health.Sealed {
		t.Errorf("after a restart: %+v, %v; it must be sealed", health, err)
	}
	v.Unseal()
	want("restarted")
	v.Slow(300 * time.Millisecond)
	start := time.Now()
	want("slow")
	if took := time.Since(start); took < 300*time.Millisecond {
		t.Errorf("slow: answered in %v", took)
	}
	v.Slow(0)
	if v.Holds([]byte("kept-over-a-kill")) {
		t.Error("the storage holds a secret in the clear")
	}
}
