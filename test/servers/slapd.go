// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// slapdDeadline bounds one conversation with the directory.
const slapdDeadline = 10 * time.Second

// Slapd is a running OpenLDAP directory on loopback. It takes passwords over
// TLS alone: from the first octet on Port, after StartTLS on PlainPort. Like
// Active Directory it says yes to a bind with a name and no password, which
// proves nothing (RFC 4513 §5.1.2), knows userAccountControl and
// sAMAccountName, and changes passwords by RFC 3062's operation.
type Slapd struct {
	// CA issued its certificate, for localhost and 127.0.0.1.
	CA              *CA
	Port, PlainPort uint16
	// Suffix is the directory's root entry, which is there.
	Suffix string
	// AdminDN may do everything; AdminPassword is its password.
	AdminDN, AdminPassword string
	// LogFile has a line for each operation, without passwords.
	LogFile string

	t        testing.TB
	dir, bin string
	process  *process
}

// StartSlapd starts an empty directory and returns when it answers. settings
// are lines of slapd.conf(5) for its database.
func StartSlapd(t testing.TB, settings ...string) *Slapd {
	t.Helper()
	NeedPrograms(t, map[string]string{"slapd": "slapd"})
	s := &Slapd{
		t: t, CA: NewCA(t), dir: tempDir(t), Suffix: "dc=bpo,dc=example",
		AdminDN: "cn=admin,dc=bpo,dc=example", AdminPassword: randomPassword(t),
	}
	var err error
	if s.bin, err = findProgram("slapd"); err != nil {
		t.Fatal(err)
	}
	s.LogFile = filepath.Join(s.dir, "slapd.log")
	if err := os.Mkdir(filepath.Join(s.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(s.dir, "slapd.conf"), s.config(settings), 0o600)
	t.Cleanup(func() {
		s.Kill() // nobody needs what it would write to the disk now
		if t.Failed() {
			t.Logf("slapd's log:\n%s", logTail(s.LogFile))
		}
	})
	// Another program may have taken a port between the choice and the start.
	const attempts = 3
	for attempt := 1; ; attempt++ {
		s.Port, s.PlainPort = FreePort(t), FreePort(t)
		if s.start() {
			break
		}
		if attempt == attempts || !strings.Contains(logTail(s.LogFile), "Address already in use") {
			t.Fatalf("slapd does not start:\n%s", logTail(s.LogFile))
		}
	}
	s.Add(s.Suffix, map[string][]string{"objectClass": {"dcObject", "organization"}, "o": {"BPO"}})
	return s
}

func (s *Slapd) config(settings []string) string {
	certificate := s.CA.Issue()
	lines := []string{
		"include /etc/ldap/schema/core.schema",
		"include /etc/ldap/schema/cosine.schema",
		"include /etc/ldap/schema/inetorgperson.schema",
		"attributetype ( 1.2.840.113556.1.4.8 NAME 'userAccountControl' EQUALITY integerMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )",
		"attributetype ( 1.2.840.113556.1.4.221 NAME 'sAMAccountName' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )",
		// Not Active Directory's own class, which is structural.
		"objectclass ( 1.3.6.1.4.1.32473.1 NAME 'adAccount' SUP top AUXILIARY MAY ( sAMAccountName $ userAccountControl ) )",
		"modulepath /usr/lib/ldap",
		"moduleload back_mdb",
		"moduleload ppolicy",
		"allow bind_anon_dn bind_anon_cred",
		"security simple_bind=128", // no password in plain text
		"password-hash {SSHA}",
		"loglevel stats",
		"TLSCertificateFile " + certificate.CertFile,
		"TLSCertificateKeyFile " + certificate.KeyFile,
		"TLSCACertificateFile " + s.CA.File,
		"database mdb",
		"suffix " + s.Suffix,
		"rootdn " + s.AdminDN,
		"rootpw " + s.AdminPassword,
		"directory " + filepath.Join(s.dir, "db"),
		"dbnosync",
		"index objectClass,uid,sAMAccountName eq",
	}
	// Of rules for an attribute the first counts: the settings' come before.
	lines = append(lines, settings...)
	lines = append(lines,
		"access to attrs=userPassword by self =xw by anonymous auth by * none",
		"access to * by users read by * none",
	)
	return strings.Join(lines, "\n") + "\n"
}

func (s *Slapd) start() bool {
	s.t.Helper()
	p, err := startProcess(s.LogFile, s.bin, "-d", "stats", "-f", filepath.Join(s.dir, "slapd.conf"),
		"-h", fmt.Sprintf("ldaps://%s ldap://%s", address(s.Port), address(s.PlainPort)))
	if err != nil {
		s.t.Fatalf("start slapd: %v", err)
	}
	s.process = p
	if waitFor(startTimeout, func() bool { return p.ended() || s.TryBind(s.AdminDN, s.AdminPassword) == nil }) && !p.ended() {
		return true
	}
	if err := p.kill(); err != nil {
		s.t.Errorf("slapd: %v", err)
	}
	s.process = nil
	return false
}

// URL is where it speaks TLS from the first octet; PlainURL where after
// StartTLS.
func (s *Slapd) URL() string { return fmt.Sprintf("ldaps://localhost:%d", s.Port) }

// PlainURL is described at URL.
func (s *Slapd) PlainURL() string { return fmt.Sprintf("ldap://localhost:%d", s.PlainPort) }

// Stop ends it in order; stopping twice does nothing.
func (s *Slapd) Stop() { s.end((*process).stop) }

// Kill ends it at once.
func (s *Slapd) Kill() { s.end((*process).kill) }

func (s *Slapd) end(how func(*process) error) {
	s.t.Helper()
	if s.process == nil {
		return
	}
	if err := how(s.process); err != nil {
		s.t.Errorf("end slapd: %v", err)
	}
	s.process = nil
}

// Start starts it again on the same ports, after Stop or Kill.
func (s *Slapd) Start() {
	s.t.Helper()
	if !s.start() {
		s.t.Fatalf("slapd does not start again:\n%s", logTail(s.LogFile))
	}
}

// Suspend stops it from answering, with its connections open; Resume lets it
// go on.
func (s *Slapd) Suspend() {
	s.t.Helper()
	if err := s.process.suspend(); err != nil {
		s.t.Fatal(err)
	}
}

// Resume is described at Suspend.
func (s *Slapd) Resume() { s.signal(syscall.SIGCONT) }

func (s *Slapd) signal(what syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(s.process.pid, what); err != nil {
		s.t.Fatal(err)
	}
}

// connect binds as somebody.
func (s *Slapd) connect(dn, password string) (*ldap.Conn, error) {
	conn, err := ldap.DialURL(s.URL(), ldap.DialWithTLSConfig(&tls.Config{RootCAs: s.CA.Pool(), MinVersion: tls.VersionTLS12}))
	if err != nil {
		return nil, err
	}
	conn.SetTimeout(slapdDeadline)
	if err := conn.Bind(dn, password); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// TryBind reports whether a password is an entry's: nil, or the answer.
func (s *Slapd) TryBind(dn, password string) error {
	conn, err := s.connect(dn, password)
	if err != nil {
		return err
	}
	return conn.Close()
}

// do has the admin do something.
func (s *Slapd) do(what string, f func(*ldap.Conn) error) {
	s.t.Helper()
	conn, err := s.connect(s.AdminDN, s.AdminPassword)
	if err != nil {
		s.t.Fatalf("slapd: %v", err)
	}
	defer conn.Close()
	if err := f(conn); err != nil {
		s.t.Fatalf("slapd: %s: %v", what, err)
	}
}

// Add adds an entry. A userPassword among its attributes is its password, as
// it is or hashed.
func (s *Slapd) Add(dn string, attributes map[string][]string) {
	s.t.Helper()
	add := ldap.NewAddRequest(dn, nil)
	for name, values := range attributes {
		add.Attribute(name, values)
	}
	s.do("add "+dn, func(c *ldap.Conn) error { return c.Add(add) })
}

// AddPerson adds an entry for somebody below the suffix, with a password and
// further attributes, and returns its name.
func (s *Slapd) AddPerson(uid, password string, further map[string][]string) (dn string) {
	s.t.Helper()
	dn = "uid=" + uid + "," + s.Suffix
	attributes := map[string][]string{
		"objectClass": {"inetOrgPerson", "adAccount"}, "cn": {uid}, "sn": {uid}, "userPassword": {password},
	}
	for name, values := range further {
		attributes[name] = values
	}
	s.Add(dn, attributes)
	return dn
}

// Replace gives an attribute of an entry other values; none: takes it away.
func (s *Slapd) Replace(dn, attribute string, values ...string) {
	s.t.Helper()
	modify := ldap.NewModifyRequest(dn, nil)
	modify.Replace(attribute, values)
	s.do("modify "+dn, func(c *ldap.Conn) error { return c.Modify(modify) })
}

// Delete removes an entry.
func (s *Slapd) Delete(dn string) {
	s.t.Helper()
	s.do("delete "+dn, func(c *ldap.Conn) error { return c.Del(ldap.NewDelRequest(dn, nil)) })
}

// Binds counts the binds that were asked for in an entry's name, whatever the
// answer.
func (s *Slapd) Binds(dn string) int {
	s.t.Helper()
	log, err := os.ReadFile(s.LogFile)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Count(string(log), fmt.Sprintf("BIND dn=%q method=128", dn))
}
