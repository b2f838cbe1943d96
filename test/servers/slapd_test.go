// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"crypto/tls"
	"testing"

	"github.com/go-ldap/ldap/v3"
)

func TestSlapd(t *testing.T) {
	s := StartSlapd(t)
	asha := s.AddPerson("asha", "first", map[string][]string{"userAccountControl": {"512"}})
	if err := s.TryBind(asha, "first"); err != nil {
		t.Fatal(err)
	}
	if err := s.TryBind(asha, "second"); !ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
		t.Errorf("a wrong password: %v", err)
	}
	if n := s.Binds(asha); n != 2 {
		t.Errorf("%d binds were counted, and not 2", n)
	}

	// The person changes the password.
	conn, err := s.connect(asha, "first")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.PasswordModify(ldap.NewPasswordModifyRequest(asha, "first", "second")); err != nil {
		t.Errorf("the password modify operation: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	s.Kill()
	s.Start()
	if err := s.TryBind(asha, "second"); err != nil {
		t.Errorf("after the change and a restart: %v", err)
	}
	s.Delete(asha)
	if err := s.TryBind(asha, "second"); err == nil {
		t.Error("a deleted entry has a password")
	}
}

// TestSlapdIsLikeActiveDirectory: what tests of its clients rest on.
func TestSlapdIsLikeActiveDirectory(t *testing.T) {
	s := StartSlapd(t)
	asha := s.AddPerson("asha", "secret", nil)
	conn, err := ldap.DialURL(s.PlainURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Bind(asha, "secret"); !ldap.IsErrorWithCode(err, ldap.LDAPResultConfidentialityRequired) {
		t.Errorf("a password in plain text: %v", err)
	}
	if err := conn.StartTLS(&tls.Config{RootCAs: s.CA.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.SimpleBind(&ldap.SimpleBindRequest{Username: asha, AllowEmptyPassword: true}); err != nil {
		t.Errorf("a name without a password proves nothing, and is let in: %v", err)
	}
}
