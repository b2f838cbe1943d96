// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/rotation/driver"
	"github.com/postern-mail/postern/broker/rotation/driver/drivertest"
	"github.com/postern-mail/postern/test/servers"
)

// ldapFlood begins an answer of 2 GB.
const ldapFlood = "\x30\x84\x7f\xff\xff\xff\x02\x01\x01\x61\x84\x7f\xff\xff\xf0\x0a\x01\x00\x04\x84\x7f\xff\xff\x00"

const rotatorPassword = "rotator-5ecret-of-the-directory"

// startPolicied starts slapd with a password policy, and a rotator that can
// write passwords and look for entries, and nothing else.
func startPolicied(t *testing.T) (s *servers.Slapd, rotator string) {
	t.Helper()
	const policy = "cn=policy,dc=bpo,dc=example"
	rotator = "cn=rotator,dc=bpo,dc=example"
	s = servers.StartSlapd(t,
		"access to attrs=userPassword by dn.exact="+rotator+" =xw by self =xw by anonymous auth by * none",
		"overlay ppolicy", "ppolicy_default "+policy)
	s.Add(policy, map[string][]string{
		"objectClass": {"device", "pwdPolicy"}, "pwdAttribute": {"userPassword"},
		"pwdMinLength": {"12"}, "pwdCheckQuality": {"2"}, "pwdAllowUserChange": {"TRUE"},
	})
	s.Add(rotator, map[string][]string{
		"objectClass": {"applicationProcess", "simpleSecurityObject"}, "userPassword": {rotatorPassword},
	})
	return s, rotator
}

// addMailbox adds an entry whose mail is the change's user name.
func addMailbox(s *servers.Slapd, c *broker.PasswordChange) (dn string) {
	local, _, _ := strings.Cut(c.Mailbox.Address, "@")
	return s.AddPerson(local, oldPassword, map[string][]string{"mail": {c.Username}})
}

func dnInSlapd(s *servers.Slapd, c *broker.PasswordChange) string {
	local, _, _ := strings.Cut(c.Mailbox.Address, "@")
	return "uid=" + local + "," + s.Suffix
}

func at(t testing.TB, scheme string) func(*broker.PasswordChange, uint16) {
	return func(c *broker.PasswordChange, port uint16) {
		c.Provider = with(t, c.Provider, "url", fmt.Sprintf("%s://localhost:%d", scheme, port))
	}
}

func TestLDAPOfOpenLDAP(t *testing.T) {
	s, rotator := startPolicied(t)
	doubtful := startDirectory(t, s.CA)
	doubtful.set(rotator, rotatorPassword)
	drivertest.Run(t, func(t *testing.T) *drivertest.Provider {
		return &drivertest.Provider{
			Driver: newDriver(t, driver.NameLDAP, driver.Config{}),
			CA:     s.CA,
			Mailbox: func(t *testing.T) *broker.PasswordChange {
				c := newChange()
				addMailbox(s, c)
				c.Account = &broker.ProviderAccount{Username: rotator, Secret: secret(rotatorPassword)}
				c.Provider = encode(t, map[string]any{
					"url": s.URL(), "ca": string(s.CA.PEM),
					"search": map[string]string{"base": s.Suffix, "filter": "(&(objectClass=inetOrgPerson)(mail={username}))"},
				})
				return c
			},
			Opens: func(t *testing.T, c *broker.PasswordChange, password string) bool {
				return s.TryBind(dnInSlapd(s, c), password) == nil
			},
			Refusals: map[string]drivertest.Refusal{
				"the account's password": {Reason: broker.DriverAccountRefused, Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.Account.Secret = secret("not-the-5ecret-of-the-directory")
				}},
				"the account's rights": {Reason: broker.DriverAccountRefused, Alter: func(t *testing.T, c *broker.PasswordChange) {
					other := newChange()
					c.Account = &broker.ProviderAccount{Username: addMailbox(s, other), Secret: secret(oldPassword)}
				}},
				"no account": {Reason: broker.DriverMisconfigured, Alter: func(_ *testing.T, c *broker.PasswordChange) { c.Account = nil }},
				"an account without a password": {Reason: broker.DriverMisconfigured, Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.Account.Secret = broker.Secret{}
				}},
				"no such mailbox": {Reason: broker.DriverUnknownMailbox, Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.Username = "nobody@firm.example"
				}},
				"no such entry": {Reason: broker.DriverUnknownMailbox, Alter: func(t *testing.T, c *broker.PasswordChange) {
					c.Settings = encode(t, map[string]string{"dn": "uid=nobody," + s.Suffix})
				}},
				"more than one": {Reason: broker.DriverMisconfigured, Alter: func(t *testing.T, c *broker.PasswordChange) {
					addMailbox(s, newChange())
					c.Provider = with(t, c.Provider, "search", map[string]string{"base": s.Suffix, "filter": "(|(mail={username})(mail=*))"})
				}},
				"no such base": {Reason: broker.DriverMisconfigured, Alter: func(t *testing.T, c *broker.PasswordChange) {
					c.Provider = with(t, c.Provider, "search", map[string]string{"base": "ou=away," + s.Suffix, "filter": "(mail={username})"})
				}},
				"the password": {Reason: broker.DriverPasswordPolicy, Words: "quality", Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.New = secret("short-pw")
				}},
				"a name that is a filter": {Reason: broker.DriverUnknownMailbox, Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.Username = "*)(mail=*"
				}},
			},
			InDoubt: func(t *testing.T, c *broker.PasswordChange) error {
				// The same driver, and a directory that hangs up.
				dn := "uid=doubt," + s.Suffix
				doubtful.set(dn, oldPassword)
				c.Settings = encode(t, map[string]string{"dn": dn})
				at(t, "ldaps")(c, doubtful.port)
				return newDriver(t, driver.NameLDAP, driver.Config{}).Set(t.Context(), c)
			},
			At:    at(t, "ldaps"),
			Flood: []byte(ldapFlood),
		}
	})
}

// TestLDAPBySelf: a mailbox changes its own password, over StartTLS, and its
// name has everything that a DN escapes.
func TestLDAPBySelf(t *testing.T) {
	s, _ := startPolicied(t)
	d := newDriver(t, driver.NameLDAP, driver.Config{RootCAs: s.CA.Pool()})
	c := newChange()
	const local = ` a+b,"c"\<d>;e#=`
	c.Mailbox.Address = local + "@firm.example"
	dn := "uid=" + ldap.EscapeDN(local) + "," + s.Suffix
	s.Add(dn, map[string][]string{"objectClass": {"inetOrgPerson"}, "uid": {local}, "cn": {"x"}, "sn": {"x"}, "userPassword": {oldPassword}})
	c.Provider = encode(t, map[string]any{"url": s.PlainURL(), "as": "self", "dn": "uid={local}," + s.Suffix})
	if err := d.Set(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if s.TryBind(dn, newPassword) != nil || s.TryBind(dn, oldPassword) == nil {
		t.Error("it was not changed")
	}
	// The old one is old now.
	drivertest.WantError(t, d.Set(t.Context(), c), broker.NotApplied, broker.DriverAccountRefused)
	c.Old = broker.Secret{}
	drivertest.WantError(t, d.Set(t.Context(), c), broker.NotApplied, broker.DriverMisconfigured)
	c.Old, c.New = secret(newPassword), secret("short-pw")
	drivertest.WantError(t, d.Set(t.Context(), c), broker.NotApplied, broker.DriverPasswordPolicy)
}

// TestLDAPDemandsStartTLS: a server that cannot, or whose certificate is not
// good, is told nothing.
func TestLDAPDemandsStartTLS(t *testing.T) {
	s := servers.StartSlapd(t)
	d := newDriver(t, driver.NameLDAP, driver.Config{RootCAs: servers.NewCA(t).Pool()})
	c := newChange()
	dn := addMailbox(s, c)
	c.Account = &broker.ProviderAccount{Username: s.AdminDN, Secret: secret(s.AdminPassword)}
	c.Provider = encode(t, map[string]any{"url": s.PlainURL(), "dn": dn})
	binds := s.Binds(s.AdminDN)
	drivertest.WantError(t, d.Set(t.Context(), c), broker.NotApplied, broker.DriverUnavailable)
	if got := s.Binds(s.AdminDN); got != binds {
		t.Errorf("%d binds came to a server that was not verified", got-binds)
	}
}

func activeDirectory(t *testing.T, ca *servers.CA, d *directory, as string) *drivertest.Provider {
	const admin = "CN=Postern,OU=Services,DC=firm,DC=example"
	d.set(admin, rotatorPassword)
	d.admins[admin] = true
	provider := map[string]any{"url": fmt.Sprintf("ldaps://localhost:%d", d.port), "ca": string(ca.PEM), "method": "unicodePwd", "as": as}
	refusals := map[string]drivertest.Refusal{
		"the password": {Reason: broker.DriverPasswordPolicy, Words: "0000052D", Alter: func(_ *testing.T, c *broker.PasswordChange) {
			c.New = secret("short-pw")
		}},
		"a password that is no UTF-8": {Reason: broker.DriverMisconfigured, Alter: func(_ *testing.T, c *broker.PasswordChange) {
			c.New = secret("\xff\xfe-and-more-than-that")
		}},
	}
	if as == "self" {
		provider["dn"] = "CN={local},OU=Mail,DC=firm,DC=example"
		refusals["the old password"] = drivertest.Refusal{Reason: broker.DriverAccountRefused, Alter: func(_ *testing.T, c *broker.PasswordChange) {
			c.Old = secret("another-0ld-one-than-there")
		}}
	} else {
		provider["search"] = map[string]string{"base": "DC=firm,DC=example", "filter": "(userPrincipalName={username})"}
		refusals["the account's password"] = drivertest.Refusal{Reason: broker.DriverAccountRefused, Words: "data 52e", Alter: func(_ *testing.T, c *broker.PasswordChange) {
			c.Account.Secret = secret("not-the-5ecret-of-the-directory")
		}}
		refusals["the account's rights"] = drivertest.Refusal{Reason: broker.DriverAccountRefused, Words: "INSUFF_ACCESS", Alter: func(_ *testing.T, c *broker.PasswordChange) {
			d.set(dnOf("other@firm.example"), oldPassword)
			c.Account = &broker.ProviderAccount{Username: dnOf("other@firm.example"), Secret: secret(oldPassword)}
		}}
		refusals["no such mailbox"] = drivertest.Refusal{Reason: broker.DriverUnknownMailbox, Alter: func(_ *testing.T, c *broker.PasswordChange) {
			c.Username = "nobody@firm.example"
		}}
		refusals["no such entry"] = drivertest.Refusal{Reason: broker.DriverUnknownMailbox, Words: "NO_OBJECT", Alter: func(t *testing.T, c *broker.PasswordChange) {
			c.Settings = encode(t, map[string]string{"dn": dnOf("gone@firm.example")})
		}}
	}
	return &drivertest.Provider{
		Driver: newDriver(t, driver.NameLDAP, driver.Config{}),
		CA:     ca,
		Mailbox: func(t *testing.T) *broker.PasswordChange {
			c := newChange()
			d.set(dnOf(c.Username), oldPassword)
			if as != "self" {
				c.Account = &broker.ProviderAccount{Username: admin, Secret: secret(rotatorPassword)}
			}
			c.Provider = encode(t, provider)
			return c
		},
		Opens: func(_ *testing.T, c *broker.PasswordChange, password string) bool {
			return d.opens(dnOf(c.Username), password)
		},
		Refusals: refusals,
		InDoubt: func(t *testing.T, c *broker.PasswordChange) error {
			d.mu.Lock()
			d.cut[dnOf(c.Username)] = true
			d.mu.Unlock()
			return newDriver(t, driver.NameLDAP, driver.Config{}).Set(t.Context(), c)
		},
		At:        at(t, "ldaps"),
		Flood:     []byte(ldapFlood),
		OldNeeded: as == "self",
	}
}

func TestLDAPOfActiveDirectory(t *testing.T) {
	ca := servers.NewCA(t)
	for _, as := range []string{"account", "self"} {
		t.Run(as, func(t *testing.T) {
			d := startDirectory(t, ca)
			drivertest.Run(t, func(t *testing.T) *drivertest.Provider { return activeDirectory(t, ca, d, as) })
		})
	}
}

// TestLDAPAnswersInDoubt: what a proxy says that has lost its server is no
// refusal.
func TestLDAPAnswersInDoubt(t *testing.T) {
	ca := servers.NewCA(t)
	d := startDirectory(t, ca)
	p := activeDirectory(t, ca, d, "account")
	for _, code := range []int{ldap.LDAPResultOperationsError, ldap.LDAPResultBusy, ldap.LDAPResultUnavailable, ldap.LDAPResultOther, ldap.LDAPResultTimeLimitExceeded} {
		c := p.Mailbox(t)
		d.mu.Lock()
		d.answer = code
		d.mu.Unlock()
		drivertest.WantError(t, p.Driver.Set(t.Context(), c), broker.OutcomeUnknown, broker.DriverUnavailable)
	}
}

func TestLDAPSettings(t *testing.T) {
	d := newDriver(t, driver.NameLDAP, driver.Config{})
	const dn = `"dn": "uid={local},dc=firm,dc=example"`
	for settings, field := range map[string]string{
		`{"url": "ldaps://d.example", ` + dn + `}`:                                                             "",
		`{"url": "ldap://d.example:1389", ` + dn + `}`:                                                         "",
		`{"url": "http://d.example", ` + dn + `}`:                                                              "provider.url",
		`{"url": "ldapi://%2Frun%2Fslapd%2Fldapi", ` + dn + `}`:                                                "provider.url",
		`{"url": "ldaps://user:pw@d.example", ` + dn + `}`:                                                     "provider.url",
		`{"url": "ldaps://", ` + dn + `}`:                                                                      "provider.url",
		`{"url": "ldaps://d.example"}`:                                                                         "provider.dn",
		`{"url": "ldaps://d.example", "dn": "uid={password}"}`:                                                 "provider.dn",
		`{"url": "ldaps://d.example", "dn": "uid={local"}`:                                                     "provider.dn",
		`{"url": "ldaps://d.example", "dn": "nothing"}`:                                                        "provider.dn",
		`{"url": "ldaps://d.example", "ca": "x", ` + dn + `}`:                                                  "provider.ca",
		`{"url": "ldaps://d.example", "method": "digest", ` + dn + `}`:                                         "provider.method",
		`{"url": "ldaps://d.example", "as": "root", ` + dn + `}`:                                               "provider.as",
		`{"url": "ldaps://d.example", "search": {"base": "dc=x", "filter": "mail="}}`:                          "provider.search.filter",
		`{"url": "ldaps://d.example", "search": {"base": "", "filter": "(mail={address})"}}`:                   "provider.search.base",
		`{"url": "ldaps://d.example", "as": "self", "search": {"base": "dc=x", "filter": "(mail={address})"}}`: "provider.search",
		`{"url": "ldaps://d.example", "search": {"base": "dc=x", "filter": "(mail={address})"}, ` + dn + `}`:   "provider.dn",
	} {
		wantField(t, d.Check([]byte(settings), nil), field, settings)
	}
	wantField(t, d.Check([]byte(`{"url": "ldaps://d.example", `+dn+`}`), []byte(`{"dn": "nothing"}`)), "mailbox.dn", "a mailbox")
}

func wantField(t *testing.T, err error, field, what string) {
	t.Helper()
	if field == "" {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	e, ok := err.(*broker.Error)
	if !ok || e.Code != broker.Invalid || e.Field != field {
		t.Errorf("%s: %v, want field %s", what, err, field)
	}
}
