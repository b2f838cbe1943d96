// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/google/go-cmp/cmp"
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
	if d := Decode[broker.Drift](t, events[0]); !d.Probe || events[0].Actor.Kind != "system" {
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

// outside is a mail client that has a mailbox's password and no need of Postern.
func (w *World) outside(t *testing.T, address string) *imapclient.Client {
	t.Helper()
	client, err := imapclient.DialTLS(fmt.Sprintf("127.0.0.1:%d", w.Dovecot.IMAPSPort), &imapclient.Options{
		TLSConfig: &tls.Config{RootCAs: w.CA.Pool(), ServerName: "127.0.0.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if err := client.Login(address, w.Password(address)).Wait(); err != nil {
		t.Fatal(err)
	}
	return client
}

func letter(id, subject string) []byte {
	return fmt.Appendf(nil, "From: <someone@outside.example>\r\nTo: <sales@acme.example>\r\nSubject: %s\r\nMessage-ID: <%s>\r\n\r\nText.\r\n", subject, id)
}

// look has the sentinel look at a mailbox, and waits until it has.
func (w *World) look(t *testing.T, address string) *httpapi.Watch {
	t.Helper()
	var got *httpapi.Watch
	probe := func() time.Time { return decodeCLI[httpapi.Watch](w.Postern, "sentinel", "probe", address).ProbedAt }
	since := probe()
	servers.WaitFor(t, foundWithin, func() bool {
		got = decodeCLI[httpapi.Watch](w.Postern, "sentinel", "status", address)
		if got.ProbedAt.After(since) && got.Outcome != broker.WatchOK { // a machine that is busy
			since = probe()
			return false
		}
		return got.ProbedAt.After(since)
	}, "the sentinel to look")
	return got
}

// settled has the sentinel look until nothing waits to be explained.
func (w *World) settled(t *testing.T, address string) {
	t.Helper()
	servers.WaitFor(t, foundWithin, func() bool { return len(w.look(t, address).Suspects) == 0 }, "all to be explained or found")
}

// bypasses are what was found, in short.
func (w *World) bypasses(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, e := range w.Postern.Events(FirmName, "--type", string(broker.EventBypassed)) {
		b := Decode[broker.Bypassed](t, e)
		s := b.String() + " " + b.UIDs
		for _, m := range b.Messages {
			s += " " + m.MessageID
		}
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// TestBypassIsReported: what an outside client does to a mailbox is reported
// with the messages' ids, and what agents do there at the same time is not.
func TestBypassIsReported(t *testing.T) {
	const address = "sales@acme.example"
	w := NewWorld(t, WorldOptions{
		Sealed: true, Mailboxes: []string{address},
		Postern: Options{Config: "sentinel:\n  interval: 24h\n"}, // it looks when it is asked
	})
	const messages = 20
	w.Dovecot.Fill(address, "", messages, func(i int) []byte { return letter(fmt.Sprintf("m%d@outside.example", i+1), "m") })
	seat := w.Seat(address)
	w.look(t, address)

	agent := seat.IMAP(t)
	agent.OK("SELECT INBOX")
	agent.OK("UID FETCH 11 (BODY[])")
	agent.OK("UID FETCH 12 (BODY[HEADER])") // sets \Seen, and opens nothing
	agent.OK(`UID STORE 13 +FLAGS (\Flagged)`)
	agent.OK("UID MOVE 14 Archive")
	agent.OK(`UID STORE 15 +FLAGS.SILENT (\Deleted)`)
	agent.OK("EXPUNGE")
	agent.OK("UID COPY 16 Sent")

	client := w.outside(t, address)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := client.Select("INBOX", nil).Wait()
	must(err)
	must(client.Fetch(imap.UIDSetNum(1, 2), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{{}}}).Close())
	must(client.Store(imap.UIDSetNum(3), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{"$Known"}}, nil).Close())
	_, err = client.Move(imap.UIDSetNum(4), "Archive").Wait()
	must(err)
	must(client.Store(imap.UIDSetNum(5), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close())
	must(client.UIDExpunge(imap.UIDSetNum(5)).Close())
	sent := letter("forged@outside.example", "as if from sales")
	appending := client.Append("Sent", int64(len(sent)), nil)
	_, err = appending.Write(sent)
	must(err)
	must(appending.Close())
	_, err = appending.Wait()
	must(err)
	// What only looks with PEEK leaves nothing that could be found.
	must(client.Fetch(imap.UIDSetNum(6), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{{Peek: true}}}).Close())
	must(client.Logout().Wait())

	if n := len(w.look(t, address).Suspects); n == 0 {
		t.Fatal("nothing is suspect")
	}
	w.settled(t, address)
	want := []string{
		"added: 1 in Sent 2 <forged@outside.example>",
		"flags: 1 in INBOX ($known) 3 <m3@outside.example>",
		"removed: 2 in INBOX, now in Archive 4:5 <m5@outside.example> <m4@outside.example>",
		`seen: 2 in INBOX (\seen) 1:2 <m2@outside.example> <m1@outside.example>`,
	}
	if diff := cmp.Diff(want, w.bypasses(t)); diff != "" {
		t.Errorf("found (+) is not what was done (-):\n%s", diff)
	}

	// What the firm has declared is not reported.
	exceptions := filepath.Join(servers.TempDir(t), "exceptions.json")
	must(os.WriteFile(exceptions, []byte(`[{"folders":["INBOX"],"changes":["seen"],"note":"our own staff reads along"}]`), 0o600))
	w.Postern.CLI("sentinel", "set", address, "--exceptions", exceptions)
	client = w.outside(t, address)
	_, err = client.Select("INBOX", nil).Wait()
	must(err)
	must(client.Fetch(imap.UIDSetNum(7), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{{}}}).Close())
	must(client.Logout().Wait())
	w.settled(t, address)
	if diff := cmp.Diff(want, w.bypasses(t)); diff != "" {
		t.Errorf("after the exception found (+) is not what was done (-):\n%s", diff)
	}
}
