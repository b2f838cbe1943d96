// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgreSQL is a running PostgreSQL on loopback, which lets nobody in without
// TLS and a password.
type PostgreSQL struct {
	// CA issued its certificate.
	CA *CA
	// Port is where it listens.
	Port uint16
	// LogFile is its log.
	LogFile string

	t        testing.TB
	dir      string
	bin      string
	password string
	owner    *syscall.Credential
	process  *process
	made     int
}

// Database is one database of a PostgreSQL, owned by a role of its own.
type Database struct {
	// Name is the database's.
	Name string
	// PasswordFile holds the owner's password.
	PasswordFile string
	server       *PostgreSQL
	owner        string
}

// DSN is a connection string without the password; port 0 is the server's.
func (d *Database) DSN(port uint16) string {
	if port == 0 {
		port = d.server.Port
	}
	return fmt.Sprintf("host=localhost port=%d dbname=%s user=%s sslmode=verify-full sslrootcert=%s", port, d.Name, d.owner, d.server.CA.File)
}

// Copy makes another database of the same content and owner. Nobody may be
// connected to the first one.
func (d *Database) Copy() *Database {
	d.server.t.Helper()
	c := &Database{Name: d.server.newName(), PasswordFile: d.PasswordFile, server: d.server, owner: d.owner}
	d.server.Exec(postgresSuperuser, fmt.Sprintf("CREATE DATABASE %s OWNER %s TEMPLATE %s", c.Name, c.owner, d.Name))
	return c
}

// postgresSuperuser is the role that initdb makes.
const postgresSuperuser = "postgres"

// StartPostgreSQL starts PostgreSQL as the user of Debian's package, since it
// refuses to run as root, and returns when it answers. settings are lines of
// postgresql.conf; what it commits is durable unless they say otherwise.
func StartPostgreSQL(t testing.TB, settings ...string) *PostgreSQL {
	t.Helper()
	p := &PostgreSQL{t: t, bin: postgresPrograms(t), CA: NewCA(t), password: randomPassword(t)}
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal("a user is missing: install [postgresql]")
		}
		p.owner = &syscall.Credential{Uid: uint32(number(t, u.Uid)), Gid: uint32(number(t, u.Gid))}
	}
	p.dir = tempDir(t)
	p.LogFile = filepath.Join(p.dir, "postgresql.log")
	p.initialise(settings)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("postgresql's log:\n%s", logTail(p.LogFile))
		}
	})
	t.Cleanup(p.Kill) // nobody needs what it would write to the disk now
	// Another program may have taken the port between the choice and the start.
	const attempts = 3
	for attempt := 1; ; attempt++ {
		p.Port = FreePort(t)
		if p.start() {
			return p
		}
		if attempt == attempts || !strings.Contains(logTail(p.LogFile), "Address already in use") {
			t.Fatalf("postgresql does not start:\n%s", logTail(p.LogFile))
		}
	}
}

// postgresPrograms returns the folder of the newest version's programs.
func postgresPrograms(t testing.TB) string {
	t.Helper()
	all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return n
	}
	if len(all) == 0 {
		t.Fatal("programs are missing: install [postgresql]")
	}
	return filepath.Dir(slices.MaxFunc(all, func(a, b string) int { return version(a) - version(b) }))
}

func randomPassword(t testing.TB) string {
	t.Helper()
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b[:])
}

// Address is where it listens.
func (p *PostgreSQL) Address() string { return address(p.Port) }

func (p *PostgreSQL) data() string { return filepath.Join(p.dir, "data") }

// own gives a file to the server's user.
func (p *PostgreSQL) own(path string) {
	p.t.Helper()
	if p.owner == nil {
		return
	}
	if err := os.Chown(path, int(p.owner.Uid), int(p.owner.Gid)); err != nil {
		p.t.Fatal(err)
	}
}

// initialise makes the server's files.
func (p *PostgreSQL) initialise(settings []string) {
	t := p.t
	t.Helper()
	if err := os.Mkdir(p.data(), 0o700); err != nil {
		t.Fatal(err)
	}
	p.own(p.data())
	password := filepath.Join(p.dir, "password")
	writeFile(t, password, p.password+"\n", 0o600)
	p.own(password)
	init := exec.Command(filepath.Join(p.bin, "initdb"), "-D", p.data(), "-U", postgresSuperuser, "--no-sync",
		"--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--pwfile="+password)
	init.Dir = p.dir
	init.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner}
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	certificate := p.CA.Issue()
	for name, from := range map[string]string{"server.crt": certificate.CertFile, "server.key": certificate.KeyFile} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(p.data(), name), string(b), 0o600)
		p.own(filepath.Join(p.data(), name))
	}
	writeFile(t, filepath.Join(p.data(), "pg_hba.conf"), "hostssl all all 127.0.0.1/32 scram-sha-256\n", 0o600)
	config := append([]string{
		"listen_addresses = '127.0.0.1'", "unix_socket_directories = ''", "ssl = on",
		"max_connections = 200", "shared_buffers = 32MB", "log_lock_waits = on",
	}, settings...)
	writeFile(t, filepath.Join(p.data(), "postgresql.conf"), strings.Join(config, "\n")+"\n", 0o600)
	p.own(filepath.Join(p.data(), "pg_hba.conf"))
	p.own(filepath.Join(p.data(), "postgresql.conf"))
}

func (p *PostgreSQL) start() bool {
	p.t.Helper()
	// A log that another start wrote to is the other user's.
	server, err := startProcessIn(p.LogFile, surroundings{user: p.owner}, filepath.Join(p.bin, "postgres"),
		"-D", p.data(), "-p", strconv.Itoa(int(p.Port)))
	if err != nil {
		p.t.Fatalf("start postgresql: %v", err)
	}
	p.process = server
	up := waitFor(startTimeout, func() bool { return server.ended() || p.accepts() })
	if up && !server.ended() {
		return true
	}
	if err := server.kill(); err != nil {
		p.t.Errorf("postgresql: %v", err)
	}
	p.process = nil
	return false
}

// accepts reports whether it lets the superuser in.
func (p *PostgreSQL) accepts() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := p.connect(ctx, postgresSuperuser)
	if err != nil {
		return false
	}
	return conn.Close(ctx) == nil
}

func (p *PostgreSQL) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("host=localhost port=%d dbname=%s user=%s password=%s sslmode=verify-full sslrootcert=%s",
		p.Port, database, postgresSuperuser, p.password, p.CA.File))
}

// Exec executes statements in a database as the superuser.
func (p *PostgreSQL) Exec(database string, statements ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	conn := p.Connect(database)
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			p.t.Fatalf("%s: %v", s, err)
		}
	}
	if err := conn.Close(ctx); err != nil {
		p.t.Fatal(err)
	}
}

// Connect connects to a database as the superuser; the caller closes it.
func (p *PostgreSQL) Connect(database string) *pgx.Conn {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	conn, err := p.connect(ctx, database)
	if err != nil {
		p.t.Fatal(err)
	}
	return conn
}

// NewDatabase makes a database with an owner that can do nothing else.
func (p *PostgreSQL) NewDatabase() *Database {
	p.t.Helper()
	name := p.newName()
	d := &Database{Name: name, server: p, owner: name}
	password := randomPassword(p.t)
	d.PasswordFile = filepath.Join(p.dir, d.Name+".password")
	writeFile(p.t, d.PasswordFile, password+"\n", 0o600)
	p.Exec(postgresSuperuser,
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", d.Name, password),
		fmt.Sprintf("CREATE DATABASE %s OWNER %s", d.Name, d.Name),
	)
	return d
}

func (p *PostgreSQL) newName() string {
	p.made++
	return fmt.Sprintf("postern_%d", p.made)
}

// Stop ends it in an orderly way, and all of its connections; stopping twice
// does nothing.
func (p *PostgreSQL) Stop() {
	p.end(func(server *process) error {
		if err := syscall.Kill(server.pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		waitFor(stopTimeout, server.ended)
		return server.kill()
	})
}

// Kill ends it at once, without a word to anybody, as a power cut does: its
// backends notice that it is gone and end themselves.
func (p *PostgreSQL) Kill() { p.end((*process).kill) }

func (p *PostgreSQL) end(how func(*process) error) {
	p.t.Helper()
	if p.process == nil {
		return
	}
	if err := how(p.process); err != nil {
		p.t.Errorf("end postgresql: %v", err)
	}
	p.process = nil
	WaitFor(p.t, killTimeout, func() bool { return !answers(p.Port) }, "postgresql's port to close")
}

// Start starts it again, after Stop or Kill, on the same port. What a killed
// one left in memory may keep it from starting for a moment.
func (p *PostgreSQL) Start() {
	p.t.Helper()
	for range 20 {
		if p.start() {
			return
		}
		time.Sleep(pollInterval)
	}
	p.t.Fatalf("postgresql does not start again:\n%s", logTail(p.LogFile))
}
