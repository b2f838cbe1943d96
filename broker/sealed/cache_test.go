// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

func cached(t *testing.T) (s *Store, firm, mailbox broker.ID) {
	t.Helper()
	dir := t.TempDir()
	s, err := Create(Config{Path: filepath.Join(dir, "credentials.age"), IdentityFile: filepath.Join(dir, "identity")})
	if err != nil {
		t.Fatal(err)
	}
	firm, mailbox = broker.NewID(), broker.NewID()
	set(t, s, firm, mailbox, 0, "first-secret")
	return s, firm, mailbox
}

func set(t *testing.T, s *Store, firm, mailbox broker.ID, version int, secret string) {
	t.Helper()
	c := &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte(secret)), Version: version}
	if _, err := s.SetCredential(context.Background(), firm, mailbox, c); err != nil {
		t.Fatal(err)
	}
}

// old makes the file look as old as it must be to be kept.
func old(t *testing.T, s *Store, by time.Duration) {
	t.Helper()
	at := time.Now().Add(-by)
	if err := os.Chtimes(s.path, at, at); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, s *Store, firm, mailbox broker.ID, secret string) {
	t.Helper()
	c, err := s.Credential(context.Background(), firm, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(c.Secret.Reveal()); got != secret {
		t.Errorf("the secret is %q, want %q", got, secret)
	}
	clear(c.Secret.Reveal()) // what a login does with it
}

// TestNever1KeptCredentialsAreNotInTheClear: what stays in memory between
// logins is encrypted, and wiping what a login was given leaves it as it is.
func TestNever1KeptCredentialsAreNotInTheClear(t *testing.T) {
	s, firm, mailbox := cached(t)
	old(t, s, time.Hour)
	for range 3 {
		want(t, s, firm, mailbox, "first-secret")
	}
	if len(s.cache.entries) != 1 {
		t.Fatalf("%d entries are kept", len(s.cache.entries))
	}
	for _, e := range s.cache.entries {
		if bytes.Contains(e.Secret, []byte("first")) {
			t.Error("the secret is kept in the clear")
		}
	}
}

// TestAReplacedFileIsReadAgain, by whoever it was replaced.
func TestAReplacedFileIsReadAgain(t *testing.T) {
	s, firm, mailbox := cached(t)
	other := &Store{path: s.path, identity: s.identity, cache: newCache()}
	old(t, s, time.Hour)
	want(t, s, firm, mailbox, "first-secret")
	set(t, other, firm, mailbox, 1, "other-secret")
	want(t, s, firm, mailbox, "other-secret")
	old(t, s, time.Hour)
	want(t, s, firm, mailbox, "other-secret")
	if err := other.DeleteCredential(context.Background(), firm, mailbox); err != nil {
		t.Fatal(err)
	}
	old(t, s, time.Hour)
	for range 2 {
		if _, err := s.Credential(context.Background(), firm, mailbox); broker.CodeOf(err) != broker.NotFound {
			t.Errorf("%v", err)
		}
	}
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Credential(context.Background(), firm, mailbox); broker.CodeOf(err) != broker.Unavailable {
		t.Errorf("without a file: %v", err)
	}
}

// TestAFreshFileIsNotKept: two replacements within one tick of the file
// system's clock could look alike.
func TestAFreshFileIsNotKept(t *testing.T) {
	s, firm, mailbox := cached(t)
	want(t, s, firm, mailbox, "first-secret")
	if s.cache.of != nil {
		t.Error("it is kept")
	}
}
