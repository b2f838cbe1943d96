// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/upstream"
	"github.com/postern-mail/postern/test/servers"
)

const (
	// watchInterval is how often the sentinel of these tests looks, foundWithin
	// how long a loaded machine may take to find something all the same.
	watchInterval = "2s"
	foundWithin   = 2 * time.Minute
)

// TestDriftIsFoundAndRepaired: a password that is changed behind Postern's back
// is alerted on by the sentinel's own look, without a session, and replaced
// through a driver; an outage in between is no drift.
func TestDriftIsFoundAndRepaired(t *testing.T) {
	const address, account, secret = "orders@acme.example", "postern_rotator", "account-5ecret"
	postgres := servers.StartPostgreSQL(t, "fsync = off")
	db := postgres.NewDatabase()
	w := NewWorld(t, WorldOptions{
		Sealed:  true,
		Dovecot: []servers.DovecotOption{servers.WithPostgreSQL(db)},
		Postern: Options{Config: "sentinel:\n  interval: " + watchInterval + "\n"},
	})
	w.passwords[address] = markedPassword(t)
	postgres.Exec(db.Name, "CREATE ROLE "+account+" LOGIN PASSWORD '"+secret+"'",
		"GRANT SELECT (username), UPDATE (password) ON mailboxes TO "+account,
		"INSERT INTO mailboxes VALUES ('"+address+"', '{PLAIN}"+w.passwords[address]+"')")
	w.AddMailbox(address)
	settings := filepath.Join(servers.TempDir(t), "settings.json")
	b, err := json.Marshal(map[string]any{
		"host": "localhost", "port": postgres.Port, "database": db.Name, "ca": string(postgres.CA.PEM),
		"statement": "UPDATE mailboxes SET password = :hash WHERE username = :username", "scheme": "SHA512-CRYPT",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(settings, b, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Postern.CLI("provider", "add", "database", "--firm", FirmName, "--driver", "sql", "--settings", settings)
	w.Postern.CLIInput(secret+"\n", "provider", "set-account", "database", "--username", account)
	w.Postern.CLI("rotation", "set", address, "--provider", "database", "--on", "drift")

	found := func(o broker.WatchOutcome, since time.Time) {
		t.Helper()
		servers.WaitFor(t, foundWithin, func() bool {
			got := decodeCLI[httpapi.Watch](w.Postern, "sentinel", "status", address)
			return got.Outcome == o && got.ProbedAt.After(since)
		}, "the sentinel to find "+string(o))
	}
	drifts := func() int { return len(w.Postern.Events(FirmName, "--type", string(broker.EventDrift))) }
	found(broker.WatchOK, time.Time{})

	w.Dovecot.Stop()
	found(broker.WatchUnavailable, time.Now())
	w.Dovecot.Restart()
	found(broker.WatchOK, time.Now())
	if n := drifts(); n != 0 {
		t.Fatalf("%d drifts while the provider was down", n)
	}

	const intruders = "the-intruders-0wn"
	postgres.Exec(db.Name, fmt.Sprintf("UPDATE mailboxes SET password = '{PLAIN}%s' WHERE username = '%s'", intruders, address))
	servers.WaitFor(t, foundWithin, func() bool { return drifts() > 0 }, "the alarm")
	changed := time.Now()
	found(broker.WatchOK, changed)
	events := w.Postern.Events(FirmName, "--type", string(broker.EventDrift))
	if len(events) != 1 {
		t.Errorf("alerted %d times", len(events))
	}
	if d := Decode[broker.Drift](t, events[0]); !d.Probe || d.Protocol != broker.ProtocolIMAP || events[0].Actor.Kind != "system" {
		t.Errorf("the alarm: %+v by %+v", d, events[0].Actor)
	}
	rotations := decodeCLI[httpapi.List[*httpapi.Rotation]](w.Postern, "rotation", "list", "--mailbox", address)
	if len(rotations.Items) != 1 || rotations.Items[0].Cause != broker.RotateOnDrift || rotations.Items[0].Outcome != broker.RotationDone {
		t.Errorf("rotations: %+v", rotations.Items)
	}

	// The intruder is out, as is whoever had the password before.
	dialer, err := upstream.New(upstream.Config{RootCAs: w.CA.Pool(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	m := decodeCLI[httpapi.Mailbox](w.Postern, "mailbox", "show", address)
	for _, password := range []string{intruders, w.passwords[address]} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		conn, err := dialer.OpenIMAP(ctx, &m.Mailbox, &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte(password))})
		cancel()
		if err == nil {
			_ = conn.Close()
		}
		if broker.CodeOf(err) != broker.CredentialRefused {
			t.Errorf("a password from before: %v", err)
		}
	}
	w.CheckNothingLeaked()
}
