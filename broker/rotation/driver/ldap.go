// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/broker"
)

// LDAP changes passwords in a directory: by RFC 3062's operation, or as Active
// Directory has it ([MS-ADTS] §3.1.1.3.1.5), by unicodePwd.
type LDAP struct{ config Config }

var _ broker.Driver = (*LDAP)(nil)

// How a password is changed.
const (
	methodRFC3062    = "rfc3062"
	methodUnicodePwd = "unicodePwd"
)

// Who changes it.
const (
	asAccount = "account" // the provider account, for everybody
	asSelf    = "self"    // the mailbox itself, with the old password
)

// ldapProvider is the settings of a provider.
type ldapProvider struct {
	// URL is ldaps://host[:port], or ldap:// for StartTLS, which is demanded.
	URL string `json:"url"`
	CA  string `json:"ca,omitempty"`
	// Method is rfc3062 (also if empty) or unicodePwd.
	Method string `json:"method,omitempty"`
	// As is account (also if empty) or self.
	As string `json:"as,omitempty"`
	// DN is a template of the entry's name; else Search finds it.
	DN     string      `json:"dn,omitempty"`
	Search *ldapSearch `json:"search,omitempty"`
	// SendOld sends the old password with RFC 3062's request; self always does.
	SendOld bool `json:"send_old,omitempty"`
}

type ldapSearch struct {
	Base string `json:"base"`
	// Filter is a template.
	Filter string `json:"filter"`
}

// ldapMailbox is the settings of a mailbox.
type ldapMailbox struct {
	// DN is the entry's name, as it is.
	DN string `json:"dn,omitempty"`
}

// Check reports what is wrong with settings.
func (d *LDAP) Check(provider, mailbox json.RawMessage) error {
	_, _, err := d.settings(provider, mailbox)
	return err
}

func (d *LDAP) settings(provider, mailbox json.RawMessage) (*ldapProvider, *ldapMailbox, error) {
	p, m := &ldapProvider{}, &ldapMailbox{}
	if err := decode(fieldProvider, provider, p); err != nil {
		return nil, nil, err
	}
	if err := decode(fieldMailbox, mailbox, m); err != nil {
		return nil, nil, err
	}
	if p.Method == "" {
		p.Method = methodRFC3062
	}
	if p.As == "" {
		p.As = asAccount
	}
	if _, _, err := p.address(); err != nil {
		return nil, nil, broker.InvalidField("provider.url", "%v", err)
	}
	if _, err := d.config.tlsConfig("", p.CA); err != nil {
		return nil, nil, err
	}
	switch {
	case p.Method != methodRFC3062 && p.Method != methodUnicodePwd:
		return nil, nil, broker.InvalidField("provider.method", "use %s or %s", methodRFC3062, methodUnicodePwd)
	case p.As != asAccount && p.As != asSelf:
		return nil, nil, broker.InvalidField("provider.as", "use %s or %s", asAccount, asSelf)
	case (p.DN == "") == (p.Search == nil):
		return nil, nil, broker.InvalidField("provider.dn", "give either dn or search")
	case p.As == asSelf && p.Search != nil:
		return nil, nil, broker.InvalidField("provider.search", "whoever changes his own password has no account to search with: give dn")
	}
	if m.DN != "" {
		if _, err := ldap.ParseDN(m.DN); err != nil {
			return nil, nil, broker.InvalidField("mailbox.dn", "not a distinguished name")
		}
	}
	return p, m, p.checkNames()
}

func (p *ldapProvider) checkNames() error {
	// With names that have nothing to escape: what is wrong then is the template.
	plain := func(string) (string, error) { return "x", nil }
	if p.Search == nil {
		if err := onlyMailboxNames(p.DN); err != nil {
			return broker.InvalidField("provider.dn", "%v", err)
		}
		dn, _ := expand(p.DN, plain)
		if _, err := ldap.ParseDN(dn); err != nil {
			return broker.InvalidField("provider.dn", "not a distinguished name")
		}
		return nil
	}
	if _, err := ldap.ParseDN(p.Search.Base); err != nil || p.Search.Base == "" {
		return broker.InvalidField("provider.search.base", "not a distinguished name")
	}
	if err := onlyMailboxNames(p.Search.Filter); err != nil {
		return broker.InvalidField("provider.search.filter", "%v", err)
	}
	filter, _ := expand(p.Search.Filter, plain)
	if _, err := ldap.CompileFilter(filter); err != nil {
		return broker.InvalidField("provider.search.filter", "not a filter")
	}
	return nil
}

// address returns where the server is, and whether TLS comes by StartTLS.
func (p *ldapProvider) address() (address string, startTLS bool, err error) {
	u, err := url.Parse(p.URL)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", false, errors.New("use ldaps://HOST or ldaps://HOST:PORT, or ldap:// for StartTLS")
	}
	port := u.Port()
	switch {
	case u.Scheme == "ldaps" && port == "":
		port = ldap.DefaultLdapsPort
	case u.Scheme == "ldap" && port == "":
		port = ldap.DefaultLdapPort
	case u.Scheme != "ldaps" && u.Scheme != "ldap":
		return "", false, errors.New("use ldaps:// or, for StartTLS, ldap://")
	}
	return net.JoinHostPort(u.Hostname(), port), u.Scheme == "ldap", nil
}

// Set changes the password.
func (d *LDAP) Set(ctx context.Context, c *broker.PasswordChange) error {
	a, err := newAttempt(c)
	defer a.done()
	if err != nil {
		return err
	}
	p, m, err := d.settings(c.Provider, c.Settings)
	if err != nil {
		return a.misconfigured(err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.config.Timeout)
	defer cancel()
	conn, stop, err := d.connect(ctx, p)
	if err != nil {
		return a.unreached(ctx, err)
	}
	defer stop()
	defer conn.Close()
	s := ldapSession{attempt: a, provider: p, conn: conn}
	dn, err := s.bindAndFind(ctx, m)
	if err != nil {
		return err
	}
	return s.change(ctx, dn)
}

// connect returns a connection with verified TLS.
func (d *LDAP) connect(ctx context.Context, p *ldapProvider) (*ldap.Conn, func() bool, error) {
	address, startTLS, err := p.address()
	if err != nil {
		return nil, nil, err
	}
	host, _, _ := net.SplitHostPort(address)
	config, err := d.config.tlsConfig(host, p.CA)
	if err != nil {
		return nil, nil, err
	}
	raw, stop, err := dial(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	if !startTLS {
		raw, err = handshake(ctx, raw, config)
		if err != nil {
			stop()
			return nil, nil, err
		}
	}
	conn := ldap.NewConn(raw, !startTLS)
	conn.Start()
	if startTLS {
		if err := conn.StartTLS(config); err != nil {
			stop()
			return nil, nil, errors.Join(err, conn.Close())
		}
	}
	return conn, stop, nil
}

// ldapSession is a conversation with the directory about one mailbox.
type ldapSession struct {
	*attempt
	provider *ldapProvider
	conn     *ldap.Conn
}

// bindAndFind returns the entry's name. Whatever fails, nothing was asked yet.
func (s *ldapSession) bindAndFind(ctx context.Context, m *ldapMailbox) (dn string, err error) {
	if s.provider.DN != "" {
		if dn, err = expand(s.provider.DN, s.mailboxNames(ldap.EscapeDN)); err != nil {
			return "", s.misconfigured(err)
		}
	}
	if m.DN != "" {
		dn = m.DN
	}
	who, secret := dn, s.Old
	if s.provider.As == asAccount {
		account, err := s.account()
		if err != nil {
			return "", err
		}
		who, secret = account.Username, account.Secret
	}
	// A name without a password is let in by many servers, and proves nothing
	// (RFC 4513 §5.1.2).
	if who == "" || secret.Empty() {
		return "", s.misconfigured(errors.New("there is no name or no password to log in to the directory with"))
	}
	if err := s.conn.Bind(who, string(secret.Reveal())); err != nil {
		return "", s.notAsked(ctx, "log in", err)
	}
	if dn != "" {
		return dn, nil
	}
	return s.find(ctx)
}

func (s *ldapSession) find(ctx context.Context) (string, error) {
	filter, err := expand(s.provider.Search.Filter, s.mailboxNames(ldap.EscapeFilter))
	if err != nil {
		return "", s.misconfigured(err)
	}
	const two, seconds = 2, 10
	found, err := s.conn.Search(ldap.NewSearchRequest(s.provider.Search.Base, ldap.ScopeWholeSubtree,
		ldap.NeverDerefAliases, two, seconds, false, filter, []string{"1.1"}, nil))
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject):
		return "", s.failed(broker.NotApplied, broker.DriverMisconfigured, "", errors.New("the search's base is not there"))
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded), err == nil && len(found.Entries) > 1:
		return "", s.misconfigured(errors.New("the search finds more than one entry"))
	case err != nil:
		return "", s.notAsked(ctx, "search", err)
	case len(found.Entries) == 0:
		return "", s.failed(broker.NotApplied, broker.DriverUnknownMailbox, "", errors.New("the search finds no entry"))
	}
	return found.Entries[0].DN, nil
}

// notAsked is a failure before the change.
func (s *ldapSession) notAsked(ctx context.Context, doing string, err error) error {
	code, words := ldapAnswer(err)
	switch code {
	case ldap.LDAPResultInvalidCredentials, ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultInsufficientAccessRights,
		ldap.LDAPResultUnwillingToPerform:
		return s.failed(broker.NotApplied, broker.DriverAccountRefused, words, fmt.Errorf("%s: result %d", doing, code))
	case ldap.LDAPResultStrongAuthRequired, ldap.LDAPResultConfidentialityRequired, ldap.LDAPResultAuthMethodNotSupported,
		ldap.LDAPResultInvalidDNSyntax, ldap.LDAPResultProtocolError, ldap.LDAPResultReferral:
		return s.failed(broker.NotApplied, broker.DriverMisconfigured, words, fmt.Errorf("%s: result %d", doing, code))
	}
	return s.unreached(ctx, fmt.Errorf("%s: %w", doing, err))
}

// change asks for the new password.
func (s *ldapSession) change(ctx context.Context, dn string) error {
	var err error
	if s.provider.Method == methodUnicodePwd {
		err = s.unicodePwd(dn)
	} else {
		old := ""
		if s.provider.SendOld || s.provider.As == asSelf {
			old = string(s.Old.Reveal())
		}
		_, err = s.conn.PasswordModify(ldap.NewPasswordModifyRequest(dn, old, string(s.New.Reveal())))
	}
	if err == nil {
		return nil
	}
	var unfit *broker.DriverError
	if errors.As(err, &unfit) {
		return unfit
	}
	code, words := ldapAnswer(err)
	if reason, refused := refusals(code, words); refused {
		return s.failed(broker.NotApplied, reason, words, fmt.Errorf("change the password: result %d", code))
	}
	return s.unanswered(ctx, fmt.Errorf("change the password: %w", err))
}

// unicodePwd replaces the password as an administrator resets it, or takes the
// old value away and adds the new one, as whose it is changes it.
func (s *ldapSession) unicodePwd(dn string) error {
	to, err := s.quoteUTF16(s.New)
	if err != nil {
		return err
	}
	request := ldap.NewModifyRequest(dn, nil)
	if s.provider.As == asSelf {
		from, err := s.quoteUTF16(s.Old)
		if err != nil {
			return err
		}
		request.Delete(methodUnicodePwd, []string{from})
		request.Add(methodUnicodePwd, []string{to})
	} else {
		request.Replace(methodUnicodePwd, []string{to})
	}
	return s.conn.Modify(request)
}

// quoteUTF16 returns a password in quotes as UTF-16, little end first.
func (s *ldapSession) quoteUTF16(secret broker.Secret) (string, error) {
	if !utf8.Valid(secret.Reveal()) {
		return "", s.misconfigured(errors.New("a password that is no UTF-8 cannot be a unicodePwd"))
	}
	var b []byte
	for _, unit := range utf16.Encode([]rune(`"` + string(secret.Reveal()) + `"`)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return string(b), nil
}
