// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/broker"
)

// Limits and times towards PostgreSQL.
const (
	// oldestPostgreSQL is the least server_version_num.
	oldestPostgreSQL = 130000
	// connectTimeout is for a connection, TLS and login included; a DSN may
	// have its own (connect_timeout).
	connectTimeout = 5 * time.Second
	// statementTimeout bounds a statement in the server, lockTimeout its wait
	// for a lock.
	statementTimeout = 10 * time.Second
	lockTimeout      = 8 * time.Second
	// idleTimeout ends a transaction whose node has stopped in the middle of
	// it: others wait for its locks.
	idleTimeout = 2 * time.Second
	// silence is how long a peer may leave octets unacknowledged.
	silence = 10 * time.Second
	// postgresReaders is the size of the pool that reads.
	postgresReaders = 8
	// maxPasswordFile bounds a password, in octets.
	maxPasswordFile = 4096
)

// PostgreSQL says where the database is.
type PostgreSQL struct {
	// DSN is a connection string of libpq's, as key=value or as a URL. It holds
	// no password. Unless the server is on this machine, it must ask for
	// sslmode=verify-full.
	DSN string
	// PasswordFile holds the password; it is read for each connection. Empty:
	// PGPASSWORD, PGPASSFILE, or none, as with libpq.
	PasswordFile string
}

// Check finds what is wrong with p without connecting. The error is Invalid.
func (p *PostgreSQL) Check() error {
	if _, err := p.parse(); err != nil {
		return err
	}
	if _, err := p.password(); err != nil {
		return broker.InvalidField("password_file", "%v", err)
	}
	return nil
}

// parse checks the DSN. The error is Invalid, and shows nothing of it.
func (p *PostgreSQL) parse() (*pgx.ConnConfig, error) {
	if holdsPassword(p.DSN) {
		return nil, broker.InvalidField("dsn", "it holds a password: put that into a file of its own, and name it with password_file")
	}
	c, err := pgx.ParseConfig(p.DSN)
	if err != nil {
		return nil, broker.InvalidField("dsn", "not a connection string such as \"host=db.example dbname=postern user=postern sslmode=verify-full sslrootcert=/etc/postern/db-ca.pem\"").WithCause(err)
	}
	hosts := []*pgconn.FallbackConfig{{Host: c.Host, TLSConfig: c.TLSConfig}}
	for _, h := range append(hosts, c.Fallbacks...) {
		if verified := h.TLSConfig != nil && !h.TLSConfig.InsecureSkipVerify; !verified && !isLocal(h.Host) {
			return nil, broker.InvalidField("dsn", "%s is not on this machine: say sslmode=verify-full, and sslrootcert=FILE where its CA is not the system's", h.Host)
		}
	}
	// A standby answers with what was true a while ago.
	c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	if c.ConnectTimeout == 0 || c.ConnectTimeout > connectTimeout {
		c.ConnectTimeout = connectTimeout
	}
	c.DialFunc = dialer().DialContext
	c.RuntimeParams["lock_timeout"] = milliseconds(lockTimeout)
	c.RuntimeParams["idle_in_transaction_session_timeout"] = milliseconds(idleTimeout)
	c.RuntimeParams["default_transaction_isolation"] = "read committed"
	// Compiling takes longer than what it is for: costs are mostly guessed too high.
	c.RuntimeParams["jit"] = "off"
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "postern"
	}
	return c, nil
}

// passwordKey finds a password, of the login or of a key, in a DSN.
var passwordKey = regexp.MustCompile(`(?i)password\s*=`)

// holdsPassword reports whether a DSN does: configurations end up in backups.
func holdsPassword(dsn string) bool {
	if passwordKey.MatchString(dsn) {
		return true
	}
	u, err := url.Parse(dsn)
	if err != nil || u.User == nil {
		return false
	}
	_, set := u.User.Password()
	return set
}

// isLocal reports whether the server can only be on this machine: a Unix
// socket or loopback (RFC 6761 §6.3 for the name).
func isLocal(host string) bool {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// dialer notices a peer that is gone without a word.
func dialer() *net.Dialer {
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silence / 2, Interval: silence / 5, Count: 3},
		Control: func(network, _ string, c syscall.RawConn) error {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			var err error
			return errors.Join(c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
			}), err)
		},
	}
}

// beforeConnect reads the password anew, so that it can be changed.
func (p *PostgreSQL) beforeConnect(_ context.Context, c *pgx.ConnConfig) error {
	if p.PasswordFile == "" {
		return nil
	}
	password, err := p.password()
	c.Password = password
	return err
}

func (p *PostgreSQL) password() (string, error) {
	if p.PasswordFile == "" {
		return "", nil
	}
	info, err := os.Stat(p.PasswordFile)
	if err != nil {
		return "", err
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return "", fmt.Errorf("%s has mode %04o: others could read or change the password; chmod 0600 it", p.PasswordFile, mode)
	}
	if info.Size() > maxPasswordFile {
		return "", fmt.Errorf("%s is longer than %d octets: it is no password", p.PasswordFile, maxPasswordFile)
	}
	b, err := os.ReadFile(p.PasswordFile)
	return strings.TrimRight(string(b), "\r\n"), err
}

// afterConnect refuses a server that does not keep what it commits, and holds
// this connection to what it found: the setting could be changed under it.
func afterConnect(ctx context.Context, conn *pgx.Conn) error {
	var version int
	var commit, fsync, pages, encoding string
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int,
		set_config('synchronous_commit', current_setting('synchronous_commit'), false),
		current_setting('fsync'), current_setting('full_page_writes'), current_setting('server_encoding')`).
		Scan(&version, &commit, &fsync, &pages, &encoding)
	switch {
	case err != nil:
		return err
	case version < oldestPostgreSQL:
		return broker.InvalidField("dsn", "the server is PostgreSQL %d: Postern needs %d or later", version/10000, oldestPostgreSQL/10000)
	case commit == "off":
		return broker.InvalidField("dsn", "the server has synchronous_commit = off, and would lose records that it has confirmed: set it to on")
	case fsync != "on" || pages != "on":
		return broker.InvalidField("dsn", "the server has fsync or full_page_writes off, and would lose records in a power cut: set both to on")
	case encoding != "UTF8":
		return broker.InvalidField("dsn", "the database has the encoding %s: make it with UTF8", encoding)
	}
	return nil
}

// pool returns a pool of n connections.
func (p *PostgreSQL) pool(c *pgx.ConnConfig, n int) *sql.DB {
	db := stdlib.OpenDB(*c, stdlib.OptionBeforeConnect(p.beforeConnect), stdlib.OptionAfterConnect(afterConnect))
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db
}

// openPostgreSQL opens the configured database, and begins to listen to the
// other nodes.
func (s *Store) openPostgreSQL(ctx context.Context) error {
	p := s.cfg.PostgreSQL
	s.dialect = &postgresDialect{timeout: s.cfg.WriteTimeout}
	c, err := p.parse()
	if err != nil {
		return err
	}
	// A migration may take its time.
	migrations := p.pool(c.Copy(), 2)
	if err := errors.Join(migratePostgreSQL(ctx, migrations), migrations.Close()); err != nil {
		return dbError(err)
	}
	c.RuntimeParams["statement_timeout"] = milliseconds(statementTimeout)
	s.writer.db, s.readers = p.pool(c, 1), p.pool(c, postgresReaders)
	l := &listener{config: c, server: p, notifier: s.notifier, now: s.now, log: s.log}
	if err := l.start(ctx); err != nil {
		return dbError(err)
	}
	s.release = l.close
	return nil
}
