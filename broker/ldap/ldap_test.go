// SPDX-License-Identifier: Apache-2.0

package ldap

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/go-ldap/ldap/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout is long, so that a loaded machine fails no test.
const testTimeout = 30 * time.Second

func secret(s string) broker.Secret { return broker.NewSecret([]byte(s)) }

// open makes a Directory in front of a slapd, whose admin searches.
func open(t *testing.T, s *servers.Slapd, change ...func(*Config)) *Directory {
	t.Helper()
	c := Config{
		URLs: []string{s.URL()}, RootCAs: s.CA.Pool(), Timeout: testTimeout, Logger: zaptest.NewLogger(t),
		Search: &Search{
			Base: s.Suffix, Filter: "(&(objectClass=inetOrgPerson)(uid={account}))", BindName: s.AdminDN,
			Password: func() (broker.Secret, error) { return secret(s.AdminPassword), nil },
		},
	}
	for _, f := range change {
		f(&c)
	}
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// outcome is what a question came to: "yes", a no's reason, or a code.
func outcome(err error) string {
	var e *broker.Error
	switch {
	case err == nil:
		return "yes"
	case !errors.As(err, &e):
		return err.Error()
	case e.Code == broker.Denied:
		return e.Reason
	}
	return string(e.Code)
}

func expect(t *testing.T, what string, err error, want string) {
	t.Helper()
	if got := outcome(err); got != want {
		t.Errorf("%s: %s (%v), want %s", what, got, err, want)
	}
}

// TestCheck binds by search and by a template, over TLS from the first octet
// and after StartTLS.
func TestCheck(t *testing.T) {
	s := servers.StartSlapd(t)
	s.AddPerson("asha", "Pässwort 1", map[string][]string{"userAccountControl": {"512"}})
	s.AddPerson("gone", "secret", map[string][]string{"userAccountControl": {"514"}})
	s.Add("ou=twice,"+s.Suffix, map[string][]string{"objectClass": {"organizationalUnit"}})
	s.AddPerson("twin", "secret", nil)
	s.Add("uid=twin,ou=twice,"+s.Suffix, map[string][]string{"objectClass": {"inetOrgPerson"}, "cn": {"twin"}, "sn": {"twin"}, "userPassword": {"secret"}})
	ctx := context.Background()
	template := func(c *Config) { c.NameTemplate = "uid={account}," + s.Suffix }
	for name, d := range map[string]*Directory{
		"search": open(t, s), "template": open(t, s, template),
		"search, StartTLS":   open(t, s, func(c *Config) { c.URLs = []string{s.PlainURL()} }),
		"template, StartTLS": open(t, s, template, func(c *Config) { c.URLs = []string{s.PlainURL()} }),
	} {
		expect(t, name+", right", d.Check(ctx, "asha", secret("Pässwort 1")), "yes")
		expect(t, name+", wrong", d.Check(ctx, "asha", secret("wrong")), broker.ReasonPassword)
		expect(t, name+", another's", d.Check(ctx, "twin", secret("Pässwort 1")), map[bool]string{true: broker.ReasonNoAccount, false: broker.ReasonPassword}[strings.HasPrefix(name, "search")])
		want := broker.ReasonPassword // a server does not say who there is
		if strings.HasPrefix(name, "search") {
			want = broker.ReasonNoAccount
			expect(t, name+", disabled", d.Check(ctx, "gone", secret("secret")), broker.ReasonDisabled)
		}
		expect(t, name+", nobody", d.Check(ctx, "nobody", secret("secret")), want)
		expect(t, name+", no name", d.Check(ctx, "", secret("secret")), broker.ReasonNoAccount)
	}
}

// TestNoPasswordIsNoBind: what is no password goes to no directory, which would
// say yes to some of it (RFC 4513 §5.1.2).
func TestNoPasswordIsNoBind(t *testing.T) {
	s := servers.StartSlapd(t)
	dn := s.AddPerson("asha", "secret", nil)
	d := open(t, s, func(c *Config) { c.NameTemplate = "uid={account}," + s.Suffix })
	for _, password := range []string{"", "\x00", "\x00secret", "secret\x00", "\xff", strings.Repeat("x", MaxPassword+1)} {
		expect(t, fmt.Sprintf("%.10q", password), d.Check(context.Background(), "asha", secret(password)), broker.ReasonPassword)
	}
	if n := s.Binds(dn); n != 0 {
		t.Errorf("%d binds", n)
	}
}

// TestNamesAreEscaped: an account's name is one value in a filter and in a name,
// whatever is in it (RFC 4515 §3, RFC 4514 §2.4).
func TestNamesAreEscaped(t *testing.T) {
	s := servers.StartSlapd(t)
	s.AddPerson("asha", "secret", nil)
	s.Add("uid=a\\2cb\\2bc\\22\\5c \\23,"+s.Suffix, map[string][]string{
		"objectClass": {"inetOrgPerson"}, "cn": {"x"}, "sn": {"x"}, "uid": {`a,b+c"\ #`}, "userPassword": {"odd"},
	})
	ctx := context.Background()
	for name, d := range map[string]*Directory{
		"search": open(t, s), "template": open(t, s, func(c *Config) { c.NameTemplate = "uid={account}," + s.Suffix }),
	} {
		expect(t, name+", odd", d.Check(ctx, `a,b+c"\ #`, secret("odd")), "yes")
		for _, account := range []string{
			"*", "as*", "asha)(uid=*", "*)(objectClass=*", "asha)(|(uid=*)", "nobody)(|(uid=asha)", "asha,", "asha,x=", "asha+cn=asha",
			"\\61sha", "asha\\00", "asha\x00", "{account}",
		} {
			if got := outcome(d.Check(ctx, account, secret("secret"))); got == "yes" || got == string(broker.Unavailable) {
				t.Errorf("%s: %q: %s", name, account, got)
			}
		}
	}
}

func TestLook(t *testing.T) {
	s := servers.StartSlapd(t)
	dn := s.AddPerson("asha", "secret", map[string][]string{"userAccountControl": {"512"}})
	ctx, d := context.Background(), open(t, s)
	expect(t, "there", d.Look(ctx, "asha"), "yes")
	for value, want := range map[string]string{"514": broker.ReasonDisabled, "66050": broker.ReasonDisabled, "66048": "yes"} {
		s.Replace(dn, "userAccountControl", value)
		expect(t, value, d.Look(ctx, "asha"), want)
	}
	s.Delete(dn)
	expect(t, "deleted", d.Look(ctx, "asha"), broker.ReasonNoAccount)
	blind := open(t, s, func(c *Config) { c.NameTemplate, c.Search = "uid={account},"+s.Suffix, nil })
	expect(t, "without a search", blind.Look(ctx, "asha"), broker.ReasonNoLookUp)
}

// TestOutagesAreNoRefusals: down, silent, unverified, wrongly configured.
func TestOutagesAreNoRefusals(t *testing.T) {
	s := servers.StartSlapd(t)
	s.AddPerson("asha", "secret", nil)
	ctx := context.Background()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed := fmt.Sprintf("ldaps://localhost:%d", servers.FreePort(t))
	elsewhere := servers.NewCA(t)
	for name, d := range map[string]*Directory{
		"nobody listens": open(t, s, func(c *Config) { c.URLs = []string{closed} }),
		"nobody answers": open(t, s, func(c *Config) {
			c.URLs, c.Timeout = []string{"ldaps://" + silent.Addr().String()}, 200*time.Millisecond
		}),
		"another CA":   open(t, s, func(c *Config) { c.RootCAs = elsewhere.Pool() }),
		"no CA":        open(t, s, func(c *Config) { c.RootCAs = x509.NewCertPool() }),
		"another name": open(t, s, func(c *Config) { c.URLs = []string{strings.Replace(s.URL(), "localhost", "127.0.0.2", 1)} }),
		"TLS on the plain": open(t, s, func(c *Config) {
			c.URLs, c.Timeout = []string{strings.Replace(s.PlainURL(), "ldap:", "ldaps:", 1)}, 5*time.Second
		}),
		"a searching identity that is refused": open(t, s, func(c *Config) {
			c.Search.Password = func() (broker.Secret, error) { return secret("wrong"), nil }
		}),
		"a searching identity without a password": open(t, s, func(c *Config) {
			c.Search.Password = func() (broker.Secret, error) { return secret(""), nil }
		}),
		"a base that is elsewhere": open(t, s, func(c *Config) { c.Search.Base = "dc=other,dc=example" }),
	} {
		expect(t, name, d.Check(ctx, "asha", secret("secret")), string(broker.Unavailable))
		expect(t, name+", wrong", d.Check(ctx, "asha", secret("wrong")), string(broker.Unavailable))
	}
	both := open(t, s, func(c *Config) { c.URLs = []string{closed, s.URL()} })
	expect(t, "the second server", both.Check(ctx, "asha", secret("secret")), "yes")
}

// TestPlainTextNeverCarriesAPassword: a server that refuses StartTLS, or says
// that TLS is there and goes on in plain text, gets none.
func TestPlainTextNeverCarriesAPassword(t *testing.T) {
	s := servers.StartSlapd(t)
	for name, answer := range map[string][]byte{
		// LDAPResult of an extendedResp: unwillingToPerform, success, and
		// success with a bind's success right behind it, for the message to come.
		"refuses": {0x30, 0x0c, 0x02, 0x01, 0x01, 0x78, 0x07, 0x0a, 0x01, 0x35, 0x04, 0x00, 0x04, 0x00},
		"plain":   {0x30, 0x0c, 0x02, 0x01, 0x01, 0x78, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00},
		"injects": {
			0x30, 0x0c, 0x02, 0x01, 0x01, 0x78, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00,
			0x30, 0x0c, 0x02, 0x01, 0x02, 0x61, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var seen []byte
			var serving sync.WaitGroup
			serving.Go(func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				b := make([]byte, 4096)
				n, _ := conn.Read(b) // StartTLS
				if _, err := conn.Write(answer); err != nil {
					return
				}
				for err == nil {
					seen = append(seen, b[:n]...)
					n, err = conn.Read(b)
				}
			})
			d := open(t, s, func(c *Config) {
				c.URLs, c.NameTemplate = []string{"ldap://" + l.Addr().String()}, "uid={account},"+s.Suffix
				c.Timeout = 2 * time.Second
			})
			expect(t, name, d.Check(context.Background(), "asha", secret("Marked?1")), string(broker.Unavailable))
			l.Close()
			serving.Wait()
			if len(seen) == 0 || strings.Contains(string(seen), "Marked") {
				t.Errorf("it saw %q", seen)
			}
		})
	}
}

// TestManyQuestions: no more than the configured are under way, and none is
// lost; one that finds no place in time is an outage.
func TestManyQuestions(t *testing.T) {
	s := servers.StartSlapd(t)
	s.AddPerson("asha", "secret", nil)
	d := open(t, s, func(c *Config) { c.Connections = 2 })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { expect(t, "one of many", d.Check(context.Background(), "asha", secret("secret")), "yes") })
	}
	wg.Wait()
	s.Suspend()
	defer s.Resume()
	slow := open(t, s, func(c *Config) { c.Connections, c.Timeout = 1, 500*time.Millisecond })
	for range 5 {
		wg.Go(func() {
			expect(t, "a suspended server", slow.Check(context.Background(), "asha", secret("secret")), string(broker.Unavailable))
		})
	}
	wg.Wait()
}

// TestTheBreakerOpensAndCloses: a directory that is down is not asked each time;
// when it is back it is found again.
func TestTheBreakerOpensAndCloses(t *testing.T) {
	s := servers.StartSlapd(t)
	s.AddPerson("asha", "secret", nil)
	d := open(t, s)
	s.Kill()
	for range 2 * breakerFailures {
		expect(t, "down", d.Check(context.Background(), "asha", secret("secret")), string(broker.Unavailable))
	}
	s.Start()
	servers.WaitFor(t, testTimeout, func() bool {
		return d.Check(context.Background(), "asha", secret("secret")) == nil
	}, "the breaker to close")
	// Noes do not open it.
	for range 2 * breakerFailures {
		expect(t, "wrong", d.Check(context.Background(), "asha", secret("wrong")), broker.ReasonPassword)
	}
	expect(t, "right", d.Check(context.Background(), "asha", secret("secret")), "yes")
	// Nor do people who give up.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 2 * breakerFailures {
		expect(t, "given up", d.Check(ctx, "asha", secret("secret")), string(broker.Unavailable))
	}
	expect(t, "right", d.Check(context.Background(), "asha", secret("secret")), "yes")
}

// TestVerdict: servers say no in several ways; whatever is none of them is an
// outage.
func TestVerdict(t *testing.T) {
	const activeDirectory = "80090308: LdapErr: DSID-0C09044E, comment: AcceptSecurityContext error, data %s, v2580"
	for _, test := range []struct {
		code uint16
		text string
		want string
	}{
		{client.LDAPResultInvalidCredentials, "", broker.ReasonPassword},
		{client.LDAPResultInvalidCredentials, fmt.Sprintf(activeDirectory, "52e"), broker.ReasonPassword},
		{client.LDAPResultInvalidCredentials, fmt.Sprintf(activeDirectory, "525"), broker.ReasonNoAccount},
		{client.LDAPResultInvalidCredentials, fmt.Sprintf(activeDirectory, "533"), broker.ReasonDisabled},
		{client.LDAPResultInvalidCredentials, fmt.Sprintf(activeDirectory, "775"), broker.ReasonDisabled},
		{client.LDAPResultInappropriateAuthentication, "", broker.ReasonNoAccount},
		{client.LDAPResultUnwillingToPerform, "account inactivated", broker.ReasonDisabled},
		{client.LDAPResultBusy, "", string(broker.Unavailable)},
		{client.LDAPResultUnavailable, "", string(broker.Unavailable)},
		{client.LDAPResultReferral, "", string(broker.Unavailable)},
		{client.LDAPResultConfidentialityRequired, "", string(broker.Unavailable)},
		{client.LDAPResultStrongAuthRequired, "", string(broker.Unavailable)},
		{client.LDAPResultOperationsError, "", string(broker.Unavailable)},
		{client.ErrorNetwork, "connection closed", string(broker.Unavailable)},
		{client.ErrorMalformedPacket, "", string(broker.Unavailable)},
		{client.ErrorEmptyPassword, "", string(broker.Unavailable)},
	} {
		expect(t, fmt.Sprint(test.code, test.text), verdict(client.NewError(test.code, errors.New(test.text))), test.want)
	}
	expect(t, "no LDAP error", verdict(errors.New("unable to read")), string(broker.Unavailable))
}

func TestConfigIsValidated(t *testing.T) {
	good := func() *Config {
		return &Config{URLs: []string{"ldaps://dc1.bpo.example"}, Search: &Search{
			Base: "dc=bpo,dc=example", Filter: "(uid={account})", BindName: "cn=postern,dc=bpo,dc=example",
			Password: func() (broker.Secret, error) { return secret("x"), nil },
		}}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		field  string
		change func(*Config)
	}{
		"no server":    {"urls", func(c *Config) { c.URLs = nil }},
		"plain http":   {"urls", func(c *Config) { c.URLs = []string{"http://x.example"} }},
		"no host":      {"urls", func(c *Config) { c.URLs = []string{"ldaps://"} }},
		"a password":   {"urls", func(c *Config) { c.URLs = []string{"ldaps://me:secret@x.example"} }},
		"a path":       {"urls", func(c *Config) { c.URLs = []string{"ldaps://x.example/dc=bpo"} }},
		"no way":       {"search", func(c *Config) { c.Search = nil }},
		"no account":   {"search.filter", func(c *Config) { c.Search.Filter = "(uid=asha)" }},
		"not a filter": {"search.filter", func(c *Config) { c.Search.Filter = "(uid={account}" }},
		"no base":      {"search.base", func(c *Config) { c.Search.Base = "" }},
		"not a name":   {"search.base", func(c *Config) { c.Search.Base = "bpo.example" }},
		"nobody":       {"search.bind_name", func(c *Config) { c.Search.BindName = "" }},
		"two accounts": {"name_template", func(c *Config) { c.NameTemplate = "uid={account},cn={account}" }},
		"not a DN":     {"name_template", func(c *Config) { c.NameTemplate = "{account}@bpo.example" }},
		"a fixed name": {"name_template", func(c *Config) { c.NameTemplate = "uid=asha,dc=bpo" }},
	} {
		c := good()
		test.change(c)
		var e *broker.Error
		if err := c.Validate(); !errors.As(err, &e) || e.Field != test.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}
