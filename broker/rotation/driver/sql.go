// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern-mail/postern/broker"
)

// SQL changes passwords in the database that a provider's mail server asks:
// one UPDATE in PostgreSQL, which must change one row.
type SQL struct{ config Config }

var _ broker.Driver = (*SQL)(nil)

const (
	defaultPostgreSQLPort = 5432
	defaultScheme         = "BLF-CRYPT"
)

// sqlProvider is the settings of a provider. They are no connection string:
// one could name files of Postern's machine, or switch TLS off.
type sqlProvider struct {
	Host     string `json:"host"`
	Port     uint16 `json:"port,omitempty"`
	Database string `json:"database"`
	CA       string `json:"ca,omitempty"`
	// Statement is an UPDATE with named parameters: see parseStatement.
	Statement string `json:"statement"`
	// Scheme is Dovecot's name of a password scheme; empty: BLF-CRYPT.
	Scheme string `json:"scheme,omitempty"`
}

// Check reports what is wrong with settings. A mailbox has none.
func (d *SQL) Check(provider, mailbox json.RawMessage) error {
	_, _, err := d.settings(provider, mailbox)
	return err
}

func (d *SQL) settings(provider, mailbox json.RawMessage) (*sqlProvider, *statement, error) {
	p := &sqlProvider{Port: defaultPostgreSQLPort, Scheme: defaultScheme}
	if err := decode(fieldProvider, provider, p); err != nil {
		return nil, nil, err
	}
	if err := decode(fieldMailbox, mailbox, &struct{}{}); err != nil {
		return nil, nil, err
	}
	for field, value := range map[string]string{"host": p.Host, "database": p.Database} {
		// A host with a slash is a socket of this machine, with a comma several.
		if value == "" || strings.ContainsAny(value, "/@,\x00") {
			return nil, nil, broker.InvalidField("provider."+field, "give one name")
		}
	}
	if !slices.Contains(schemes(), p.Scheme) {
		return nil, nil, broker.InvalidField("provider.scheme", "use one of %s", strings.Join(schemes(), ", "))
	}
	if _, err := d.config.tlsConfig("", p.CA); err != nil {
		return nil, nil, err
	}
	s, err := parseStatement(p.Statement)
	if err != nil {
		return nil, nil, broker.InvalidField("provider.statement", "%v", err)
	}
	return p, s, nil
}

// Set changes the password.
func (d *SQL) Set(ctx context.Context, c *broker.PasswordChange) error {
	a, err := newAttempt(c)
	defer a.done()
	if err != nil {
		return err
	}
	p, s, err := d.settings(c.Provider, c.Settings)
	if err != nil {
		return a.misconfigured(err)
	}
	account, err := a.account()
	if err != nil {
		return err
	}
	crypt, err := hash(p.Scheme, c.New)
	if err != nil {
		return a.misconfigured(err)
	}
	a.hide([]byte(crypt))
	ctx, cancel := context.WithTimeout(ctx, d.config.Timeout)
	defer cancel()
	conn, err := d.connect(ctx, p, account)
	if err != nil {
		return a.sqlFailed(ctx, "connect", err)
	}
	defer hangUp(ctx, conn)
	return a.update(ctx, conn, s, s.values(a.names, p.Scheme, crypt))
}

func (s *statement) values(names map[string]string, scheme, crypt string) []any {
	values := make([]any, len(s.params))
	for i, name := range s.params {
		switch name {
		case paramHash:
			values[i] = "{" + scheme + "}" + crypt
		case paramCrypt:
			values[i] = crypt
		default:
			values[i] = names[name]
		}
	}
	return values
}

func (d *SQL) connect(ctx context.Context, p *sqlProvider, account *broker.ProviderAccount) (*pgx.Conn, error) {
	// A configuration can be made by the parser alone, which reads the
	// environment: whatever it took from there is replaced.
	config, err := pgx.ParseConfig("host=127.0.0.1 port=5432 user=x password=x dbname=x sslmode=disable target_session_attrs=any")
	if err != nil {
		return nil, err
	}
	if config.TLSConfig, err = d.config.tlsConfig(p.Host, p.CA); err != nil {
		return nil, err
	}
	config.Host, config.Port, config.Database = p.Host, p.Port, p.Database
	config.User, config.Password = account.Username, string(account.Secret.Reveal())
	config.Fallbacks, config.ValidateConnect, config.AfterConnect = nil, nil, nil
	config.RuntimeParams = map[string]string{"application_name": "postern"}
	config.SSLNegotiation = ""
	config.ConnectTimeout = 0 // the context's
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.OnNotice = nil
	// The library cleans up behind an ended context, in a goroutine and over
	// connections of its own: with nothing to clean up over, that ends at once.
	config.DialFunc = func(dialled context.Context, network, address string) (net.Conn, error) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var dialer net.Dialer
		conn, err := dialer.DialContext(dialled, network, address)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { conn.Close() })
		return &boundedConn{Conn: conn, left: maxAnswer}, nil
	}
	return pgx.ConnectConfig(ctx, config)
}

// hangUp ends a connection and waits for whatever the library does then.
func hangUp(ctx context.Context, conn *pgx.Conn) {
	_ = conn.Close(ctx) // a goodbye, which changes nothing
	<-conn.PgConn().CleanupDone()
}

// update changes one row, or none. Until COMMIT is sent nothing can have
// changed: a server whose client is gone rolls back.
func (a *attempt) update(ctx context.Context, conn *pgx.Conn, s *statement, values []any) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return a.sqlFailed(ctx, "begin", err)
	}
	// What the server confirms must survive its power cut, and must not hang
	// behind somebody's lock for longer than anybody waits here.
	for _, setting := range []string{"SET LOCAL synchronous_commit = on", "SET LOCAL lock_timeout = '10s'", "SET LOCAL statement_timeout = '20s'"} {
		if _, err := tx.Exec(ctx, setting); err != nil {
			return a.sqlFailed(ctx, "set up", err)
		}
	}
	done, err := tx.Exec(ctx, s.text, values...)
	if err != nil {
		return a.sqlFailed(ctx, "update", err)
	}
	switch n := done.RowsAffected(); {
	case n == 0:
		return a.failed(broker.NotApplied, broker.DriverUnknownMailbox, "", errors.New("the statement changes no row"))
	case n > 1:
		return a.misconfigured(fmt.Errorf("the statement changes %d rows, and must change one", n))
	}
	err = tx.Commit(ctx)
	var answer *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrTxCommitRollback), errors.As(err, &answer) && answer.SeverityUnlocalized == "ERROR":
		return a.sqlFailed(ctx, "commit", err)
	}
	// A server that shuts down may have committed before it says so.
	return a.unanswered(ctx, fmt.Errorf("commit: %w", sqlCause(err)))
}

// sqlFailed is a failure that has changed nothing.
func (a *attempt) sqlFailed(ctx context.Context, doing string, err error) error {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return a.unreached(ctx, fmt.Errorf("%s: %w", doing, err))
	}
	return a.failed(broker.NotApplied, sqlReason(answer.Code), answer.Message, fmt.Errorf("%s: %w", doing, sqlCause(err)))
}

// sqlCause leaves out what else the server says: a row's contents among it.
func sqlCause(err error) error {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return fmt.Errorf("%s, SQLSTATE %s", answer.SeverityUnlocalized, answer.Code)
	}
	return err
}

// sqlReason sorts SQLSTATEs (PostgreSQL, appendix A).
func sqlReason(code string) broker.DriverReason {
	switch {
	case strings.HasPrefix(code, "28"), code == "42501": // authorization; insufficient privilege
		return broker.DriverAccountRefused
	case strings.HasPrefix(code, "23"), code == "P0001": // a constraint; RAISE in a trigger
		return broker.DriverPasswordPolicy
	case strings.HasPrefix(code, "22"), strings.HasPrefix(code, "42"), code == "3D000", code == "25006":
		return broker.DriverMisconfigured // data, syntax or names; no such database; read-only
	}
	return broker.DriverUnavailable
}
