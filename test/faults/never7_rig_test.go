// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/broker/upstream"
	"github.com/postern-mail/postern/broker/vault"
	"github.com/postern-mail/postern/test/servers"
)

const (
	initialPassword = "initial-5ecret"
	accountSecret   = "account-5ecret"
)

// rotated is a provider with mailboxes in a database and in a directory, a
// Vault, and a server's state, with gates before all that a rotator talks to.
type rotated struct {
	t        *testing.T
	dir      string
	vault    *servers.Vault
	gate     *servers.VaultGate
	ca       *servers.CA
	postgres *servers.PostgreSQL
	accounts *servers.Database // the provider's
	dovecot  *servers.Dovecot
	postfix  *servers.Postfix
	state    *store.Store
	raw      *sql.DB           // the state's, where it is SQLite's
	database *servers.Database // the state's, where it is not
	secrets  *vault.Client
	upstream broker.Upstream
	binary   string
	// concurrency is a rotator's.
	concurrency int
	// log is the last rotator's.
	log       string
	starts    int
	mailboxes []*rotatedMailbox
}

// rotatedMailbox is one with gates of its own. Its provider is its own too, so
// that a request for the provider account is this mailbox's.
type rotatedMailbox struct {
	*broker.Mailbox
	driver                     string
	imap, submission, provider *servers.Gate
	// before is the password that opened it before the round; journal the
	// round's; sweep the points it is yet to die at.
	before  string
	journal broker.ID
	sweep   []point
	hurried bool
}

var rotatedBy = broker.Actor{Kind: "admin", Name: "test"}

// newRotated starts them. The state is in SQLite, or in the PostgreSQL that is
// the provider's as well.
func newRotated(t *testing.T, postgreSQL bool) *rotated {
	t.Helper()
	r := &rotated{t: t, dir: servers.TempDir(t), vault: servers.StartVault(t), binary: servers.BuildPostern(t), concurrency: rotatedMailboxes}
	r.gate = r.vault.NewGate()
	if postgreSQL {
		r.postgres = servers.StartPostgreSQL(t) // which has to be durable
		r.database = r.postgres.NewDatabase()
	} else {
		r.postgres = servers.StartPostgreSQL(t, "fsync = off")
	}
	postgres, db := r.postgres, r.postgres.NewDatabase()
	r.accounts = db
	directory := servers.StartSlapd(t)
	ca := servers.NewCA(t)
	r.dovecot = servers.StartDovecot(t, servers.WithCA(ca), servers.WithPostgreSQL(db), servers.WithSlapd(directory))
	r.postfix = servers.StartPostfix(t, ca, r.dovecot)
	const role = "postern_rotator"
	postgres.Exec(db.Name, "CREATE ROLE "+role+" LOGIN PASSWORD '"+accountSecret+"'",
		"GRANT SELECT (username), UPDATE (password) ON mailboxes TO "+role)

	for _, step := range []string{"engine", "policies", "approle"} {
		r.vault.Setup(step)
	}
	r.open(ca)
	firm := &broker.Firm{Name: "Firm"}
	r.must(r.state.CreateFirm(t.Context(), rotatedBy, firm))
	for i := range rotatedMailboxes {
		address := fmt.Sprintf("desk%d@firm.example", i)
		if i%2 == 0 {
			postgres.Exec(db.Name, "INSERT INTO mailboxes VALUES ('"+address+"', '{PLAIN}"+initialPassword+"')")
			gate := servers.NewGate(t, postgres.Port)
			r.mailbox(firm, address, "sql", gate, map[string]any{
				"host": "localhost", "port": gate.Port, "database": db.Name, "ca": string(postgres.CA.PEM),
				"statement": "UPDATE mailboxes SET password = :hash WHERE username = :username", "scheme": "SHA512-CRYPT",
			}, role, accountSecret)
		} else {
			directory.AddPerson(fmt.Sprintf("desk%d", i), initialPassword, map[string][]string{"mail": {address}})
			gate := servers.NewGate(t, directory.Port)
			r.mailbox(firm, address, "ldap", gate, map[string]any{
				"url": fmt.Sprintf("ldaps://localhost:%d", gate.Port), "ca": string(directory.CA.PEM),
				"search": map[string]string{"base": directory.Suffix, "filter": "(mail={username})"},
			}, directory.AdminDN, directory.AdminPassword)
		}
	}
	return r
}

func (r *rotated) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// open opens what the test and the rotators share.
func (r *rotated) open(ca *servers.CA) {
	t := r.t
	r.ca = ca
	var err error
	r.state, err = store.Open(t.Context(), r.where())
	r.must(err)
	t.Cleanup(func() {
		if err := r.state.Close(); err != nil {
			t.Error(err)
		}
	})
	if r.database == nil {
		r.raw, err = sql.Open("sqlite", "file:"+r.where().Path+"?mode=rw&_busy_timeout=60000")
		r.must(err)
		t.Cleanup(func() { r.raw.Close() })
	}
	token := filepath.Join(r.dir, "test.token")
	r.must(os.WriteFile(token, []byte(r.vault.RootToken), 0o600))
	r.secrets, err = vault.New(vault.Config{Address: r.vault.Addr, CACert: r.vault.CAFile, Auth: vault.AuthConfig{TokenFile: token}, Timeout: 30 * time.Second})
	r.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.secrets.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r.upstream, err = upstream.New(upstream.Config{RootCAs: ca.Pool()})
	r.must(err)
}

func (r *rotated) where() store.Config {
	if r.database == nil {
		return store.Config{Path: filepath.Join(r.dir, "postern.db"), Logger: zap.NewNop()}
	}
	return store.Config{PostgreSQL: &store.PostgreSQL{DSN: r.database.DSN(0), PasswordFile: r.database.PasswordFile}, Logger: zap.NewNop()}
}

// configure writes a rotator's configuration, once, and returns the file's path.
func (r *rotated) configure(node string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, node+".yaml")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	secretID := filepath.Join(r.dir, node+".secret-id")
	r.must(os.WriteFile(secretID, []byte(r.vault.SecretID("postern-rotator")), 0o600))
	identity := fmt.Sprintf("{approle: {role_id: %s, secret_id_file: %s}}", r.vault.Setup("role-id", "postern-rotator"), secretID)
	state := fmt.Sprintf("{sqlite: %q}", r.where().Path)
	if d := r.database; d != nil {
		state = fmt.Sprintf("{postgresql: {dsn: %q, password_file: %q}}", d.DSN(0), d.PasswordFile)
	}
	r.must(os.WriteFile(path, fmt.Appendf(nil, `data_dir: .
hostname: localhost
node: %s
listeners: {imaps: "127.0.0.1:0"}
tls: {certificate: none.pem, key: none.key}
workstations: {embedded_ca: none}
state: %s
upstream: {ca_file: %q}
credentials:
  vault:
    address: %s
    ca_file: %q
    timeout: 30s
    auth: %[6]s
    rotator_auth: %[6]s
rotation: {separate: true, concurrency: %d, per_provider: 2}
log: {level: debug}
`, node, state, r.ca.File, r.gate.Addr, r.vault.CAFile, identity, r.concurrency), 0o600))
	return path
}

// mailbox adds one that is rotated by a provider behind a gate.
func (r *rotated) mailbox(firm *broker.Firm, address, driver string, gate *servers.Gate, settings map[string]any, username, secret string) {
	r.t.Helper()
	b, err := json.Marshal(settings)
	r.must(err)
	p := &broker.Provider{FirmID: firm.ID, Name: "of " + address, Driver: driver, Settings: b}
	r.must(r.state.CreateProvider(r.t.Context(), rotatedBy, p))
	_, err = r.secrets.SetProviderAccount(r.t.Context(), firm.ID, p.ID, &broker.ProviderAccount{
		Username: username, Secret: broker.NewSecret([]byte(secret)),
	})
	r.must(err)
	m := &rotatedMailbox{
		driver: driver, provider: gate,
		imap: servers.NewGate(r.t, r.dovecot.IMAPSPort), submission: servers.NewGate(r.t, r.postfix.Submission(broker.TLSImplicit).Port),
	}
	m.Mailbox = &broker.Mailbox{
		FirmID: firm.ID, Address: address,
		IMAP:       broker.Endpoint{Host: "127.0.0.1", Port: m.imap.Port, TLS: broker.TLSImplicit},
		Submission: broker.Endpoint{Host: "127.0.0.1", Port: m.submission.Port, TLS: broker.TLSImplicit},
		Rotation:   &broker.RotationMethod{ProviderID: p.ID},
	}
	r.must(r.state.CreateMailbox(r.t.Context(), rotatedBy, m.Mailbox))
	_, err = r.secrets.SetCredential(r.t.Context(), firm.ID, m.ID, password(initialPassword))
	r.must(err)
	r.must(r.upstream.Probe(r.t.Context(), m.Mailbox, password(initialPassword)))
	r.mailboxes = append(r.mailboxes, m)
}

func password(secret string) *broker.Credential {
	return &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte(secret))}
}

// stored is the password in Vault.
func (r *rotated) stored(m *rotatedMailbox) string {
	r.t.Helper()
	c, err := r.secrets.Credential(r.t.Context(), m.FirmID, m.ID)
	r.must(err)
	return string(c.Secret.Reveal())
}

// start starts a rotator.
func (r *rotated) start() *servers.Child { r.t.Helper(); return r.startNode("never7") }

// startNode starts the rotator of a node.
func (r *rotated) startNode(node string) *servers.Child {
	r.t.Helper()
	r.starts++
	log := filepath.Join(r.dir, fmt.Sprintf("rotator.%d.log", r.starts))
	r.log = log
	child, err := servers.StartChild(log, nil, r.binary, "rotator", "--config", r.configure(node))
	r.must(err)
	r.t.Cleanup(func() {
		if !child.Ended() {
			_ = child.Kill()
		}
		if b, err := os.ReadFile(log); err == nil && r.t.Failed() && log == r.log {
			r.t.Logf("the last rotator's log:\n%s", b)
		}
	})
	return child
}

// rotating reports whether the rotator has begun its work.
func (r *rotated) rotating() bool {
	b, err := os.ReadFile(r.log)
	return err == nil && bytes.Contains(b, []byte(`"msg":"rotating"`))
}

// journal is the round's of a mailbox; nil: it cannot be read.
func (r *rotated) journal(m *rotatedMailbox) *broker.Rotation {
	j, err := r.state.Rotation(context.Background(), m.journal)
	if err != nil {
		r.t.Errorf("the journal of %s: %v", m.Address, err)
		return nil
	}
	return j
}

// lock takes the state's write lock: from now on no journal gets an entry.
func (r *rotated) lock() (unlock func()) {
	r.t.Helper()
	c, err := r.raw.Conn(r.t.Context())
	r.must(err)
	_, err = c.ExecContext(r.t.Context(), "BEGIN IMMEDIATE")
	r.must(err)
	return func() {
		r.t.Helper()
		_, err := c.ExecContext(r.t.Context(), "ROLLBACK")
		r.must(err)
		r.must(c.Close())
	}
}

// hurry has what an ended rotation keeps destroyed now, and not in three days.
func (r *rotated) hurry(m *rotatedMailbox) {
	r.t.Helper()
	if !m.hurried {
		r.now(m)
	}
	m.hurried = true
}

// now has a rotation that waits for its time, or for the time of cleaning, go
// on: as if it were later.
func (r *rotated) now(m *rotatedMailbox) {
	r.t.Helper()
	_, err := r.raw.ExecContext(r.t.Context(), "UPDATE rotations SET due_at = 0 WHERE id = $1 AND due_at IS NOT NULL", string(m.journal))
	r.must(err)
}
