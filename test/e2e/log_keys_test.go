// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// TestLogKeys has a key in a file and one in Vault's Transit engine sign, as where
// one takes the other's place: whoever holds either can check the log. With Vault
// down sessions go on, and the log is signed when it is back.
func TestLogKeys(t *testing.T) {
	const mailbox = "sales@client.example"
	dir := t.TempDir()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "log.key")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	v := servers.StartVault(t)
	for _, step := range []string{"transit", "policies", "approle"} {
		v.Setup(step)
	}
	secretID := filepath.Join(dir, "secret-id")
	if err := os.WriteFile(secretID, []byte(v.Setup("secret-id", "postern-transit")), 0o600); err != nil {
		t.Fatal(err)
	}
	w := NewWorld(t, WorldOptions{Mailboxes: []string{mailbox}, Sealed: true, Postern: Options{Config: fmt.Sprintf(`checkpoints:
  keys:
    - file: %q
    - vault:
        address: %s
        ca_file: %q
        auth:
          approle:
            role_id: %s
            secret_id_file: %q
            wrapped: true
            secret_id_state_file: %q
`, file, v.Addr, v.CAFile, v.Setup("role-id", "postern-transit"), secretID, secretID+".state")}})
	p, s := w.Postern, w.Seat(mailbox, "all")
	visit := func() {
		t.Helper()
		imap := s.DialIMAP(t)
		imap.OK("LOGIN %s %s", mailbox, s.Token)
		imap.OK("SELECT INBOX")
		imap.OK("LOGOUT")
	}
	visit()
	var keys []string
	servers.WaitFor(t, eventTimeout, func() bool { // until Postern has logged in to Vault
		out, _, code := p.TryCLI("", "log", "key", "--firm", FirmName)
		keys = strings.Fields(out)
		return code == 0
	}, "the log's keys")
	if len(keys) != 2 {
		t.Fatalf("the log's keys are %q", keys)
	}
	// pull brings both copies up to date until they hold all that is recorded.
	pull := func() {
		t.Helper()
		size := len(p.Events(FirmName))
		for i, key := range keys {
			copied, known := filepath.Join(dir, fmt.Sprintf("copy-%d", i)), filepath.Join(dir, fmt.Sprintf("key-%d", i))
			p.write(known, key+"\n")
			servers.WaitFor(t, eventTimeout, func() bool {
				_, stderr, code := p.TryCLI("", "log", "pull", copied, "--firm", FirmName, "--keys", known)
				if strings.Contains(stderr, "TAMPERED") {
					t.Fatalf("with key %d: %s", i, stderr)
				}
				return code == 0 && held(t, copied) >= size
			}, "a checkpoint of all events")
			if out, problems, code := p.TryCLI("", "log", "verify", copied, "--keys", known); code != 0 || !strings.Contains(out, "nothing was changed") {
				t.Errorf("with key %d: %d\n%s%s", i, code, out, problems)
			}
		}
	}
	s.AwaitEvents(1, broker.EventSessionEnd)
	pull()
	v.Seal()
	visit() // nothing of it needs the key
	s.AwaitEvents(2, broker.EventSessionEnd)
	v.Unseal()
	pull()
}
