// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/credentialstest"
	"github.com/postern-mail/postern/broker/vault"
	"github.com/postern-mail/postern/test/servers"
)

// rotator is a client with the rotator's identity alone, as deployed.
func rotator(t *testing.T, v *servers.Vault) *vault.Client {
	t.Helper()
	cfg := standard(t, v)
	cfg.Auth, cfg.Writer = appRole(t, v, "postern-rotator", "postern-rotator", time.Hour, time.Hour), nil
	client, _ := start(t, cfg)
	return client
}

// storeOver stores a credential over one version after another.
func storeOver(t *testing.T, c *vault.Client, firm, mailbox broker.ID, secrets ...string) (version int) {
	t.Helper()
	for _, secret := range secrets {
		var err error
		if version, err = c.SetCredential(t.Context(), firm, mailbox, credentialstest.Password(secret, version)); err != nil {
			t.Fatal(err)
		}
	}
	return version
}

// TestOldVersionsAreDestroyed: those before the one that is named, and no others.
func TestOldVersionsAreDestroyed(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	client := rotator(t, v)
	firm, mailbox := broker.NewID(), broker.NewID()
	version := storeOver(t, client, firm, mailbox, "first", "second", "third")
	if err := client.DestroyCredentialsBefore(t.Context(), firm, mailbox, version-1); err != nil {
		t.Fatal(err)
	}
	wantSecret(t, client, firm, mailbox, "third")
	about, err := v.Client().Logical().Read("postern/metadata/firms/" + string(firm) + "/mailboxes/" + string(mailbox))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(about.Data["versions"])
	if err != nil {
		t.Fatal(err)
	}
	var versions map[string]struct{ Destroyed bool }
	if err := json.Unmarshal(b, &versions); err != nil {
		t.Fatal(err)
	}
	if !versions["1"].Destroyed || versions["2"].Destroyed || versions["3"].Destroyed || len(versions) != 3 {
		t.Errorf("versions: %+v", versions)
	}
}

// TestNever7CleaningSparesACredentialStoredAnew: a mailbox whose endpoint changes
// after a rotation loses its credential and gets another, which Vault counts from 1
// again. When the rotation is cleaned, that one is no old version.
func TestNever7CleaningSparesACredentialStoredAnew(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	client := rotator(t, v)
	writer, _ := start(t, standard(t, v))
	firm, mailbox := broker.NewID(), broker.NewID()
	rotated := storeOver(t, client, firm, mailbox, "old", "older", "rotated")
	if err := writer.DeleteCredential(t.Context(), firm, mailbox); err != nil {
		t.Fatal(err)
	}
	storeOver(t, writer, firm, mailbox, "stored anew")
	if err := client.DestroyCredentialsBefore(t.Context(), firm, mailbox, rotated); err != nil {
		t.Fatal(err)
	}
	wantSecret(t, client, firm, mailbox, "stored anew")
}
