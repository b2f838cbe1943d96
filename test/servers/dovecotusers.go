// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// WithPostgreSQL has Dovecot ask a database for users that it does not have
// itself. The table mailboxes, with the columns username and password (a hash
// with its scheme, as `doveadm pw` writes it), is made there.
func WithPostgreSQL(db *Database) DovecotOption {
	return func(s *dovecotSettings) { s.postgresql = db }
}

// WithSlapd has Dovecot ask a directory for users that it does not have itself:
// the entries whose mail is the user's name, by a bind with the password.
func WithSlapd(directory *Slapd) DovecotOption {
	return func(s *dovecotSettings) { s.slapd = directory }
}

// elsewhere declares the databases of users that are not Dovecot's own.
func (d *Dovecot) elsewhere(uid, gid int) string {
	var b strings.Builder
	passdb := func(driver, config string) {
		path := filepath.Join(d.dir, driver+".conf")
		writeFile(d.t, path, config, 0o644)
		fmt.Fprintf(&b, "passdb {\n  driver = %s\n  args = %s\n}\n", driver, path)
	}
	if db := d.settings.postgresql; db != nil {
		password, err := os.ReadFile(db.PasswordFile)
		if err != nil {
			d.t.Fatal(err)
		}
		db.server.Exec(db.Name, "CREATE TABLE IF NOT EXISTS mailboxes (username text PRIMARY KEY, password text NOT NULL)",
			"ALTER TABLE mailboxes OWNER TO "+db.Name)
		// Its processes of another user cannot look into a test's own folder.
		ca := filepath.Join(d.dir, "sql-ca.pem")
		writeFile(d.t, ca, string(db.server.CA.PEM), 0o644)
		dsn := strings.ReplaceAll(db.DSN(0), db.server.CA.File, ca)
		passdb("sql", fmt.Sprintf("driver = pgsql\nconnect = %s password=%s\npassword_query = SELECT username AS user, password FROM mailboxes WHERE username = '%%u'\n",
			dsn, strings.TrimSpace(string(password))))
	}
	if s := d.settings.slapd; s != nil {
		// GnuTLS, which it speaks LDAP with, does not take the tests' certificates.
		passdb("ldap", fmt.Sprintf("uris = %s\ntls_require_cert = never\ndn = %s\ndnpass = %s\nauth_bind = yes\nbase = %s\npass_filter = (mail=%%u)\npass_attrs = mail=user\n",
			s.URL(), s.AdminDN, s.AdminPassword, s.Suffix))
	}
	if b.Len() > 0 {
		fmt.Fprintf(&b, "userdb {\n  driver = static\n  args = uid=%d gid=%d home=%s/mail/%%u\n}\n", uid, gid, d.dir)
	}
	return b.String()
}
