// SPDX-License-Identifier: Apache-2.0

package servers

import "testing"

// TestDovecotAsksElsewhere: users of a database and of a directory, beside its
// own.
func TestDovecotAsksElsewhere(t *testing.T) {
	server, directory := StartPostgreSQL(t, "fsync = off"), StartSlapd(t)
	db := server.NewDatabase()
	d := StartDovecot(t, WithPostgreSQL(db), WithSlapd(directory), WithUser("own@client.example", "own-secret"))
	server.Exec(db.Name, "INSERT INTO mailboxes VALUES ('sql@client.example', '{PLAIN}sql-secret')")
	directory.AddPerson("ldap", "ldap-secret", map[string][]string{"mail": {"ldap@client.example"}})
	for user, password := range map[string]string{
		"own@client.example": "own-secret", "sql@client.example": "sql-secret", "ldap@client.example": "ldap-secret",
	} {
		client, err := dialIMAP(d.IMAPPort, user, password)
		if err != nil {
			t.Errorf("%s: %v", user, err)
			continue
		}
		client.Close()
		if client, err := dialIMAP(d.IMAPPort, user, "another"); err == nil {
			client.Close()
			t.Errorf("%s gets in with another password", user)
		}
	}
}
