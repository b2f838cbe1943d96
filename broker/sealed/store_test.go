// SPDX-License-Identifier: Apache-2.0

package sealed_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"go.uber.org/goleak"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/credentialstest"
	"github.com/postern-mail/postern/broker/sealed"
)

func config(t *testing.T) sealed.Config {
	t.Helper()
	dir := t.TempDir()
	return sealed.Config{Path: filepath.Join(dir, "credentials.age"), IdentityFile: filepath.Join(dir, "identity"), WorkFactor: 4}
}

func withPassphrase(cfg sealed.Config, passphrase string) sealed.Config {
	cfg.Passphrase = func() ([]byte, error) { return []byte(passphrase), nil }
	return cfg
}

func create(t *testing.T, cfg sealed.Config) *sealed.Store {
	t.Helper()
	s, err := sealed.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *sealed.Store, secret string) (firm, mailbox broker.ID) {
	t.Helper()
	firm, mailbox = broker.NewID(), broker.NewID()
	if _, err := s.SetCredential(t.Context(), firm, mailbox, credentialstest.Password(secret, 0)); err != nil {
		t.Fatal(err)
	}
	return firm, mailbox
}

func wantError(t *testing.T, err error, code broker.Code, reason string) {
	t.Helper()
	var e *broker.Error
	if !errors.As(err, &e) || e.Code != code || e.Reason != reason {
		t.Errorf("error %v, want code %s, reason %q", err, code, reason)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestContract(t *testing.T) {
	t.Run("identity file", func(t *testing.T) {
		credentialstest.Run(t, func(t *testing.T) broker.Credentials { return create(t, config(t)) })
	})
	t.Run("passphrase, opened again", func(t *testing.T) {
		credentialstest.Run(t, func(t *testing.T) broker.Credentials {
			cfg := withPassphrase(config(t), "correct horse")
			create(t, cfg)
			s, err := sealed.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
	})
	goleak.VerifyNone(t)
}

func TestFilesOfTheirOwn(t *testing.T) {
	cfg := config(t)
	s := create(t, cfg)
	firm, mailbox := put(t, s, "marked-5ecret")
	for _, path := range []string{cfg.Path, cfg.IdentityFile} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", path, info.Mode(), err)
		}
	}
	for _, hidden := range []string{"marked-5ecret", "bWFya2VkLTVlY3JldA", string(mailbox)} {
		if bytes.Contains(read(t, cfg.Path), []byte(hidden)) {
			t.Errorf("the file shows %q", hidden)
		}
	}
	if _, err := os.Stat(cfg.Path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a temporary file is left: %v", err)
	}

	// In an emergency, age's own tools open it.
	identities, err := age.ParseIdentities(bytes.NewReader(read(t, cfg.IdentityFile)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(read(t, cfg.Path)), identities...)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	want := `{"format":1,"entries":{"` + string(firm) + "/" + string(mailbox) + `":{"version":1,"kind":"password","secret":"bWFya2VkLTVlY3JldA=="}}}`
	if err != nil || string(plain) != want {
		t.Errorf("decrypted %s, %v; want %s", plain, err, want)
	}
}

func TestCreateLeavesFilesAlone(t *testing.T) {
	cfg := config(t)
	create(t, cfg)
	file, identity := read(t, cfg.Path), read(t, cfg.IdentityFile)
	_, err := sealed.Create(cfg)
	wantError(t, err, broker.Conflict, "")
	if err := os.Remove(cfg.Path); err != nil {
		t.Fatal(err)
	}
	_, err = sealed.Create(cfg)
	wantError(t, err, broker.Conflict, "")
	if !bytes.Equal(identity, read(t, cfg.IdentityFile)) {
		t.Error("the identity was replaced: whatever it opened is lost")
	}
	write(t, cfg.Path, file)
	if _, err := sealed.Open(cfg); err != nil {
		t.Error(err)
	}
}

func TestCreateCleansUpAfterItself(t *testing.T) {
	cfg := config(t)
	if err := os.MkdirAll(filepath.Join(cfg.Path+".new", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := sealed.Create(cfg)
	wantError(t, err, broker.Unavailable, sealed.ReasonFile)
	if _, err := os.Stat(cfg.IdentityFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an identity that opens nothing is left: %v", err)
	}
}

func TestIdentityOthersMayReadIsRefused(t *testing.T) {
	cfg := config(t)
	create(t, cfg)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601, 0o666} {
		if err := os.Chmod(cfg.IdentityFile, mode); err != nil {
			t.Fatal(err)
		}
		_, err := sealed.Open(cfg)
		wantError(t, err, broker.Unavailable, sealed.ReasonIdentity)
	}
	if err := os.Chmod(cfg.IdentityFile, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := sealed.Open(cfg); err != nil {
		t.Errorf("mode 0400: %v", err)
	}
}

func TestIdentities(t *testing.T) {
	plain, locked := config(t), withPassphrase(config(t), "right")
	firm, mailbox := put(t, create(t, plain), "kept")
	create(t, locked)
	for name, test := range map[string]struct {
		cfg    sealed.Config
		code   broker.Code
		reason string
	}{
		"no passphrase":          {sealed.Config{Path: locked.Path, IdentityFile: locked.IdentityFile}, broker.Unavailable, sealed.ReasonIdentity},
		"wrong passphrase":       {withPassphrase(locked, "wrong"), broker.Unavailable, sealed.ReasonIdentity},
		"empty passphrase":       {withPassphrase(locked, ""), broker.Invalid, ""},
		"passphrase not needed":  {withPassphrase(plain, "right"), broker.Unavailable, sealed.ReasonIdentity},
		"of another file":        {sealed.Config{Path: locked.Path, IdentityFile: plain.IdentityFile}, broker.Unavailable, sealed.ReasonIdentity},
		"no file":                {sealed.Config{Path: plain.Path, IdentityFile: plain.Path + ".none"}, broker.Unavailable, sealed.ReasonMissing},
		"no credentials file":    {sealed.Config{Path: plain.Path + ".none", IdentityFile: plain.IdentityFile}, broker.Unavailable, sealed.ReasonMissing},
		"no path":                {sealed.Config{IdentityFile: plain.IdentityFile}, broker.Invalid, ""},
		"no identity path":       {sealed.Config{Path: plain.Path}, broker.Invalid, ""},
		"one file for both":      {sealed.Config{Path: plain.Path, IdentityFile: plain.Path}, broker.Invalid, ""},
		"an absurd work factor":  {sealed.Config{Path: plain.Path, IdentityFile: plain.IdentityFile, WorkFactor: 40}, broker.Invalid, ""},
		"the passphrase is late": {sealed.Config{Path: locked.Path, IdentityFile: locked.IdentityFile, Passphrase: sealed.PassphraseFile("/nowhere")}, broker.Unavailable, sealed.ReasonIdentity},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := sealed.Open(test.cfg)
			wantError(t, err, test.code, test.reason)
			if s != nil {
				t.Error("it was opened")
			}
			credentialstest.NoSecret(t, err, "right")
		})
	}
	for name, content := range map[string]string{
		"empty": "", "a page": "<html>", "two": strings.Repeat(string(read(t, plain.IdentityFile)), 2), "AGE-SECRET-KEY": "AGE-SECRET-KEY-1MARKED",
	} {
		t.Run("identity file: "+name, func(t *testing.T) {
			cfg := plain
			cfg.IdentityFile = filepath.Join(t.TempDir(), "identity")
			write(t, cfg.IdentityFile, []byte(content))
			_, err := sealed.Open(cfg)
			wantError(t, err, broker.Unavailable, sealed.ReasonIdentity)
			credentialstest.NoSecret(t, err, "1MARKED")
		})
	}
	s, err := sealed.Open(plain)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := s.Credential(t.Context(), firm, mailbox); err != nil || string(c.Secret.Reveal()) != "kept" {
		t.Errorf("%v, %v", c, err)
	}
}

func TestPassphraseFile(t *testing.T) {
	cfg := config(t)
	path := filepath.Join(t.TempDir(), "passphrase")
	write(t, path, []byte("correct horse\r\nsecond line\n"))
	cfg.Passphrase = sealed.PassphraseFile(path)
	create(t, cfg)
	if _, err := sealed.Open(withPassphrase(cfg, "correct horse")); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := sealed.Open(cfg)
	wantError(t, err, broker.Unavailable, sealed.ReasonIdentity)
}

// TestDamagedFileIsNeverReplaced: cut short anywhere or with any octet
// changed, the file is not taken for what it was, and no write touches it.
func TestDamagedFileIsNeverReplaced(t *testing.T) {
	cfg := config(t)
	s := create(t, cfg)
	firm, mailbox := put(t, s, "kept")
	whole := read(t, cfg.Path)
	damaged := func(t *testing.T, b []byte) {
		t.Helper()
		write(t, cfg.Path, b)
		_, getErr := s.Credential(t.Context(), firm, mailbox)
		_, setErr := s.SetCredential(t.Context(), firm, mailbox, credentialstest.Password("new", 1))
		_, openErr := sealed.Open(cfg)
		for _, err := range []error{getErr, setErr, openErr, s.DeleteCredential(t.Context(), firm, mailbox), s.Ready(t.Context())} {
			var e *broker.Error
			if !errors.As(err, &e) || e.Reason != sealed.ReasonDamaged && e.Reason != sealed.ReasonIdentity {
				t.Fatalf("error %v", err)
			}
			credentialstest.NoSecret(t, err, "kept")
		}
		if !bytes.Equal(b, read(t, cfg.Path)) {
			t.Fatal("the damaged file was replaced")
		}
	}
	for n := range whole {
		damaged(t, whole[:n])
	}
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x20
		damaged(t, b)
	}
	damaged(t, append(bytes.Clone(whole), 'x'))
	write(t, cfg.Path, whole)
	if c, err := s.Credential(t.Context(), firm, mailbox); err != nil || string(c.Secret.Reveal()) != "kept" {
		t.Errorf("the whole file: %v, %v", c, err)
	}
}

// TestForeignContents: what decrypts well and is not ours is refused, with a
// text that quotes none of it.
func TestForeignContents(t *testing.T) {
	cfg := config(t)
	s := create(t, cfg)
	identities, err := age.ParseIdentities(bytes.NewReader(read(t, cfg.IdentityFile)))
	if err != nil {
		t.Fatal(err)
	}
	id := string(broker.NewID())
	entry := func(key, value string) string { return `{"format":1,"entries":{"` + key + `":` + value + `}}` }
	for name, plain := range map[string]string{
		"empty": "", "text": "marked-5ecret", "an array": `["marked-5ecret"]`, "no format": `{"entries":{}}`, "no entries": `{"format":1}`,
		"newer":          `{"format":3,"entries":{}}`,
		"null entry":     entry(id+"/"+id, `null`),
		"bad key":        entry(id+"/../"+id, `{"version":1,"kind":"password","secret":"bWFya2VkLTVlY3JldA=="}`),
		"one id":         entry(id, `{"version":1,"kind":"password","secret":"bWFya2VkLTVlY3JldA=="}`),
		"no version":     entry(id+"/"+id, `{"kind":"password","secret":"bWFya2VkLTVlY3JldA=="}`),
		"unknown kind":   entry(id+"/"+id, `{"version":1,"kind":"psychic","secret":"bWFya2VkLTVlY3JldA=="}`),
		"not base64":     entry(id+"/"+id, `{"version":1,"kind":"password","secret":"marked-5ecret"}`),
		"number":         entry(id+"/"+id, `{"version":1,"kind":"password","secret":5550199}`),
		"trailing":       `{"format":1,"entries":{}}marked-5ecret`,
		"login CRLF":     entry(id+"/"+id, `{"version":1,"kind":"password","username":"a\r\nb","secret":"bWFya2VkLTVlY3JldA=="}`),
		"version is not": entry(id+"/"+id, `{"version":5550199.5,"kind":"password","secret":"bWFya2VkLTVlY3JldA=="}`),
	} {
		t.Run(name, func(t *testing.T) {
			var file bytes.Buffer
			w, err := age.Encrypt(&file, identities[0].(*age.X25519Identity).Recipient())
			if err != nil {
				t.Fatal(err)
			}
			if _, err = io.WriteString(w, plain); errors.Join(err, w.Close()) != nil {
				t.Fatal(err)
			}
			write(t, cfg.Path, file.Bytes())
			_, err = s.SetCredential(t.Context(), broker.NewID(), broker.NewID(), credentialstest.Password("x", 0))
			wantError(t, err, broker.Invalid, sealed.ReasonDamaged)
			credentialstest.NoSecret(t, err, "marked-5ecret")
			credentialstest.NoSecret(t, err, "5550199")
			if !bytes.Equal(file.Bytes(), read(t, cfg.Path)) {
				t.Error("the file was replaced")
			}
		})
	}
}
