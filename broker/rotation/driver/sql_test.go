// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/rotation/driver"
	"github.com/postern-mail/postern/broker/rotation/driver/drivertest"
	"github.com/postern-mail/postern/test/servers"
)

const (
	sqlRole     = "postern_rotator"
	sqlPassword = "rotator-5ecret-of-the-database"
	// heldBack is a lock of the database that a COMMIT waits for.
	heldBack = "4711"
)

// sqlProvider is a PostgreSQL that a Dovecot asks for users.
type sqlProvider struct {
	server  *servers.PostgreSQL
	db      *servers.Database
	dovecot *servers.Dovecot
}

// startSQLProvider starts both. The rotator may find a mailbox by its name and
// set its password, and nothing else.
func startSQLProvider(t *testing.T) *sqlProvider {
	t.Helper()
	server := servers.StartPostgreSQL(t, "fsync = off")
	db := server.NewDatabase()
	p := &sqlProvider{server: server, db: db, dovecot: servers.StartDovecot(t, servers.WithPostgreSQL(db))}
	server.Exec(db.Name,
		"CREATE ROLE "+sqlRole+" LOGIN PASSWORD '"+sqlPassword+"'",
		"GRANT SELECT (username), UPDATE (password) ON mailboxes TO "+sqlRole,
		"CREATE ROLE postern_nobody LOGIN PASSWORD '"+sqlPassword+"'",
		`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not %, it was used before', NEW.password; END $$`,
		`CREATE TRIGGER refuse BEFORE UPDATE ON mailboxes FOR EACH ROW WHEN (NEW.username LIKE 'refused%') EXECUTE FUNCTION refuse()`,
		`CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(`+heldBack+`); RETURN NULL; END $$`,
		`CREATE CONSTRAINT TRIGGER hold AFTER UPDATE ON mailboxes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.username LIKE 'held%') EXECUTE FUNCTION hold()`,
	)
	return p
}

func (p *sqlProvider) add(username string) {
	p.server.Exec(p.db.Name, "INSERT INTO mailboxes VALUES ('"+username+"', '{PLAIN}"+oldPassword+"')")
}

// opens logs in to Dovecot.
func (p *sqlProvider) opens(t *testing.T, username, password string) bool {
	t.Helper()
	return opensIMAP(t, p.dovecot, username, password)
}

func opensIMAP(t *testing.T, d *servers.Dovecot, username, password string) bool {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(d.IMAPPort))))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	client := imapclient.New(conn, nil)
	defer client.Close()
	err = client.Login(username, password).Wait()
	if refused := (*imap.Error)(nil); err != nil && !errors.As(err, &refused) {
		t.Fatalf("dovecot does not answer: %v", err)
	}
	return err == nil
}

const updateByName = "UPDATE mailboxes SET password = :hash WHERE username = :username"

func (p *sqlProvider) settings(t testing.TB) json.RawMessage {
	return encode(t, map[string]any{
		"host": "localhost", "port": p.server.Port, "database": p.db.Name, "ca": string(p.server.CA.PEM), "statement": updateByName,
	})
}

func sqlAccount() *broker.ProviderAccount {
	return &broker.ProviderAccount{Username: sqlRole, Secret: secret(sqlPassword)}
}

func (p *sqlProvider) mailbox(t testing.TB) *broker.PasswordChange {
	c := newChange()
	p.add(c.Username)
	c.Account, c.Provider = sqlAccount(), p.settings(t)
	return c
}

func statement(text string) func(*testing.T, *broker.PasswordChange) {
	return func(t *testing.T, c *broker.PasswordChange) { c.Provider = with(t, c.Provider, "statement", text) }
}

func TestSQL(t *testing.T) {
	p := startSQLProvider(t)
	t.Run("contract", p.contract)
	t.Run("ignores the environment", p.ignoresTheEnvironment)
	t.Run("schemes", p.schemes)
	t.Run("errors at COMMIT", p.errorsAtCommit)
}

func (p *sqlProvider) contract(t *testing.T) {
	d := newDriver(t, driver.NameSQL, driver.Config{})
	renamed := func(prefix string) func(*testing.T, *broker.PasswordChange) {
		return func(_ *testing.T, c *broker.PasswordChange) {
			c.Username = prefix + c.Username
			p.add(c.Username)
		}
	}
	drivertest.Run(t, func(t *testing.T) *drivertest.Provider {
		return &drivertest.Provider{
			Driver:  d,
			CA:      p.server.CA,
			Mailbox: func(t *testing.T) *broker.PasswordChange { return p.mailbox(t) },
			Opens: func(t *testing.T, c *broker.PasswordChange, password string) bool {
				return p.opens(t, c.Username, password)
			},
			Refusals: map[string]drivertest.Refusal{
				"the account's password": {Reason: broker.DriverAccountRefused, Words: "authentication failed", Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.Account.Secret = secret("not-the-5ecret-of-the-database")
				}},
				"the account's rights": {Reason: broker.DriverAccountRefused, Words: "permission denied", Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.Account.Username = "postern_nobody"
				}},
				"no account":      {Reason: broker.DriverMisconfigured, Alter: func(_ *testing.T, c *broker.PasswordChange) { c.Account = nil }},
				"no such mailbox": {Reason: broker.DriverUnknownMailbox, Alter: func(_ *testing.T, c *broker.PasswordChange) { c.Username = "nobody@firm.example" }},
				"a trigger":       {Reason: broker.DriverPasswordPolicy, Words: "not {BLF-CRYPT}[redacted], it was used before", Alter: renamed("refused")},
				"all rows": {Reason: broker.DriverMisconfigured, Alter: func(t *testing.T, c *broker.PasswordChange) {
					p.add("another-of-" + c.Username)
					statement("UPDATE mailboxes SET password = :hash WHERE username LIKE '%' || :username")(t, c)
				}},
				"no such table":    {Reason: broker.DriverMisconfigured, Words: "does not exist", Alter: statement("UPDATE users SET password = :hash WHERE username = :username")},
				"no such database": {Reason: broker.DriverMisconfigured, Alter: func(t *testing.T, c *broker.PasswordChange) { c.Provider = with(t, c.Provider, "database", "away") }},
				"a name that is SQL": {Reason: broker.DriverUnknownMailbox, Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.Username = "' OR username LIKE '%"
				}},
			},
			InDoubt: func(t *testing.T, c *broker.PasswordChange) error {
				renamed("held")(t, c)
				return p.cutAtCommit(t, d, c)
			},
			At: func(c *broker.PasswordChange, port uint16) { c.Provider = with(t, c.Provider, "port", port) },
			// A client asks for TLS in eight octets.
			StartTLS: func(conn net.Conn) error {
				if _, err := io.ReadFull(conn, make([]byte, 8)); err != nil {
					return err
				}
				_, err := conn.Write([]byte("S"))
				return err
			},
			Flood: []byte("R\x7f\xff\xff\xff"),
		}
	})
}

// cutAtCommit gives a change up while the server is at its COMMIT.
func (p *sqlProvider) cutAtCommit(t *testing.T, d broker.Driver, c *broker.PasswordChange) error {
	t.Helper()
	release := p.hold(t)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.Set(ctx, c) }()
	p.waitFor(t, "SELECT count(*) FROM pg_stat_activity WHERE usename = '"+sqlRole+"' AND query ILIKE 'commit%' AND wait_event_type = 'Lock'")
	cancel()
	return <-done
}

// hold keeps COMMITs of held mailboxes waiting until release.
func (p *sqlProvider) hold(t *testing.T) (release func()) {
	t.Helper()
	conn := p.server.Connect(p.db.Name)
	if _, err := conn.Exec(t.Context(), "SELECT pg_advisory_lock("+heldBack+")"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// waitFor waits until a query counts one.
func (p *sqlProvider) waitFor(t *testing.T, query string) {
	t.Helper()
	conn := p.server.Connect(p.db.Name)
	defer conn.Close(context.Background())
	servers.WaitFor(t, time.Minute, func() bool {
		var n int
		if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 1
	}, query)
}

// ignoresTheEnvironment: what libpq would take from there could lead a
// password elsewhere, or past TLS.
func (p *sqlProvider) ignoresTheEnvironment(t *testing.T) {
	c := p.mailbox(t)
	for name, value := range map[string]string{
		"PGHOST": "elsewhere.example", "PGPORT": "1", "PGDATABASE": "elsewhere", "PGUSER": "somebody", "PGPASSWORD": "wrong",
		"PGSSLMODE": "disable", "PGOPTIONS": "-c default_transaction_read_only=on", "PGTARGETSESSIONATTRS": "standby", "PGCONNECT_TIMEOUT": "1",
	} {
		t.Setenv(name, value)
	}
	if err := newDriver(t, driver.NameSQL, driver.Config{}).Set(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if !p.opens(t, c.Username, newPassword) {
		t.Error("it was not changed")
	}
}

// schemes: Dovecot itself checks what each scheme makes.
func (p *sqlProvider) schemes(t *testing.T) {
	d := newDriver(t, driver.NameSQL, driver.Config{})
	for _, scheme := range []string{"BLF-CRYPT", "SHA512-CRYPT", "ARGON2ID", "SSHA512"} {
		t.Run(scheme, func(t *testing.T) {
			c := p.mailbox(t)
			c.Provider = with(t, c.Provider, "scheme", scheme)
			for _, password := range []string{newPassword, "ümlaut & \"quotes\" \\ 'too' ", strings.Repeat("x", 72)} {
				c.New = secret(password)
				if err := d.Set(t.Context(), c); err != nil {
					t.Fatal(err)
				}
				var stored string
				conn := p.server.Connect(p.db.Name)
				if err := conn.QueryRow(t.Context(), "SELECT password FROM mailboxes WHERE username = $1", c.Username).Scan(&stored); err != nil {
					t.Fatal(err)
				}
				if err := conn.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(stored, "{"+scheme+"}") {
					t.Errorf("stored is %q", stored)
				}
				if out := p.dovecot.Doveadm("pw", "-t", stored, "-p", password); !strings.Contains(out, "(verified)") {
					t.Errorf("doveadm says %q of %q", out, stored)
				}
			}
			c.New = secret(newPassword)
			if err := d.Set(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if !p.opens(t, c.Username, newPassword) || p.opens(t, c.Username, oldPassword) {
				t.Error("Dovecot takes the old one, or not the new one")
			}
		})
	}
	t.Run("longer than bcrypt reads", func(t *testing.T) {
		c := p.mailbox(t)
		c.New = secret(strings.Repeat("x", 73))
		drivertest.WantError(t, d.Set(t.Context(), c), broker.NotApplied, broker.DriverMisconfigured)
	})
}

// errorsAtCommit: an error at COMMIT is a refusal, a server that goes is not.
func (p *sqlProvider) errorsAtCommit(t *testing.T) {
	d := newDriver(t, driver.NameSQL, driver.Config{})
	c := p.mailbox(t)
	c.Username = "held" + c.Username
	p.add(c.Username)
	end := func(how string) error {
		release := p.hold(t)
		defer release()
		done := make(chan error, 1)
		go func() { done <- d.Set(t.Context(), c) }()
		const waiting = " FROM pg_stat_activity WHERE usename = '" + sqlRole + "' AND query ILIKE 'commit%' AND wait_event_type = 'Lock'"
		p.waitFor(t, "SELECT count(*)"+waiting)
		p.server.Exec(p.db.Name, "SELECT "+how+"(pid)"+waiting)
		return <-done
	}
	drivertest.WantError(t, end("pg_cancel_backend"), broker.NotApplied, broker.DriverUnavailable)
	if !p.opens(t, c.Username, oldPassword) {
		t.Error("what was refused was changed")
	}
	drivertest.WantError(t, end("pg_terminate_backend"), broker.OutcomeUnknown, broker.DriverUnavailable)
}

func TestSQLStatements(t *testing.T) {
	d := newDriver(t, driver.NameSQL, driver.Config{})
	settings := func(statement string) json.RawMessage {
		return encode(t, map[string]any{"host": "db.example", "database": "mail", "statement": statement})
	}
	for _, good := range []string{
		updateByName,
		"update mail.users set pw = :crypt, changed = now()::timestamptz where local = :local and domain = :domain",
		`UPDATE "odd "" table" SET "pass:word" = '{BLF-CRYPT}' || :crypt WHERE lower(email) = lower(:address) AND note <> 'it''s :new'`,
	} {
		if err := d.Check(settings(good), nil); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "SELECT 1", "DELETE FROM mailboxes WHERE username = :username AND password = :hash",
		"UPDATE mailboxes SET password = :hash", "UPDATE mailboxes SET password = 'x' WHERE username = :username",
		updateByName + "; DROP TABLE mailboxes", updateByName + " -- all", "UPDATE mailboxes /* x */ SET password = :hash WHERE username = :username",
		"UPDATE mailboxes SET password = :password WHERE username = :username", "UPDATE mailboxes SET password = :hash WHERE username = $1",
		"UPDATE mailboxes SET password = :hash WHERE username = $$x$$ || :username", "UPDATE mailboxes SET password = E'\\'' || :hash WHERE username = :username",
		"UPDATE mailboxes SET password = :hash WHERE username = ':username", "UPDATE mailboxes SET password = :hash2 WHERE username = :username",
	} {
		wantField(t, d.Check(settings(bad), nil), "provider.statement", bad)
	}
	for name, value := range map[string]string{
		"host": "/run/postgresql", "database": "", "scheme": "PLAIN", "ca": "x",
	} {
		wantField(t, d.Check(with(t, settings(updateByName), name, value), nil), "provider."+name, value)
	}
}
