// SPDX-License-Identifier: Apache-2.0

package ldap

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	client "github.com/go-ldap/ldap/v3"
	"github.com/sony/gobreaker/v2"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Directory is the broker.Directory. Its methods may be called from any
// goroutine; it has none of its own.
type Directory struct {
	config  Config
	servers []server
	logger  *zap.Logger
	timeout time.Duration
	// places are taken by the questions under way.
	places  chan struct{}
	breaker *gobreaker.CircuitBreaker[struct{}]
}

var _ broker.Directory = (*Directory)(nil)

// New makes a Directory without asking it anything.
func New(c Config) (*Directory, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Logger == nil {
		return nil, errors.New("ldap: a Logger is needed")
	}
	servers, err := c.servers()
	if err != nil {
		return nil, err
	}
	d := &Directory{config: c, servers: servers, logger: c.Logger, timeout: c.Timeout}
	if d.timeout == 0 {
		d.timeout = DefaultTimeout
	}
	connections := c.Connections
	if connections == 0 {
		connections = DefaultConnections
	}
	d.places = make(chan struct{}, connections)
	d.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        "directory",
		Timeout:     breakerPause,
		ReadyToTrip: func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= breakerFailures },
		// A no is an answer, and whoever asked may have given up.
		IsSuccessful: func(err error) bool {
			return err == nil || broker.CodeOf(err) == broker.Denied || errors.Is(err, context.Canceled)
		},
		OnStateChange: func(_ string, _, to gobreaker.State) {
			d.logger.Warn("the directory's breaker", zap.Stringer("state", to))
		},
	})
	return d, nil
}

// Check is described at broker.Directory.
func (d *Directory) Check(ctx context.Context, account string, password broker.Secret) error {
	secret := password.Reveal()
	switch {
	case len(secret) == 0, len(secret) > MaxPassword, !utf8.Valid(secret), bytes.IndexByte(secret, 0) >= 0:
		// To a server in C a password that begins with a NUL is an empty one.
		return denied(broker.ReasonPassword, errors.New("no password that a bind could carry"))
	case account == "":
		return denied(broker.ReasonNoAccount, errors.New("no account is named"))
	}
	return d.ask(ctx, func(c *conversation) error {
		name := ""
		if d.config.NameTemplate != "" {
			name = bindName(d.config.NameTemplate, account)
		} else {
			entry, err := c.find(account)
			if err != nil {
				return err
			}
			name = entry.DN
		}
		return c.bindAs(name, secret)
	})
}

// Look is described at broker.Directory.
func (d *Directory) Look(ctx context.Context, account string) error {
	switch {
	case d.config.Search == nil:
		return denied(broker.ReasonNoLookUp, errors.New("nobody is configured to search"))
	case account == "":
		return denied(broker.ReasonNoAccount, errors.New("no account is named"))
	}
	return d.ask(ctx, func(c *conversation) error {
		_, err := c.find(account)
		return err
	})
}

// ask holds one conversation, in time, if there is a place for it.
func (d *Directory) ask(ctx context.Context, question func(*conversation) error) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	select {
	case d.places <- struct{}{}:
		defer func() { <-d.places }()
	case <-ctx.Done():
		return unavailable(errors.New("too many questions are under way"))
	}
	_, err := d.breaker.Execute(func() (struct{}, error) {
		c, err := d.connect(ctx)
		if err != nil {
			return struct{}{}, unavailable(err)
		}
		defer c.close()
		err = question(c)
		if broker.CodeOf(err) != broker.Denied && errors.Is(ctx.Err(), context.Canceled) {
			err = ctx.Err() // no fault of the directory's
		}
		return struct{}{}, err
	})
	switch {
	case err == nil, broker.CodeOf(err) == broker.Denied, broker.CodeOf(err) == broker.Unavailable:
		return err
	}
	return unavailable(err) // the breaker's own
}

// find returns the one entry of an account, which is enabled.
func (c *conversation) find(account string) (*client.Entry, error) {
	s := c.directory.config.Search
	if err := c.serve(s); err != nil {
		return nil, err
	}
	found, err := c.conn.Search(client.NewSearchRequest(s.Base, client.ScopeWholeSubtree, client.NeverDerefAliases,
		2, int(c.directory.timeout/time.Second)+1, false, filter(s.Filter, account), []string{accountControl}, nil))
	switch {
	case client.IsErrorWithCode(err, client.LDAPResultSizeLimitExceeded):
		return nil, denied(broker.ReasonNoAccount, errors.New("more than one entry"))
	case err != nil:
		return nil, unavailable(err)
	case len(found.Entries) > 1:
		return nil, denied(broker.ReasonNoAccount, errors.New("more than one entry"))
	case len(found.Entries) == 0 || found.Entries[0].DN == "":
		return nil, denied(broker.ReasonNoAccount, errors.New("no entry"))
	}
	entry := found.Entries[0]
	if disabled(entry) {
		return nil, denied(broker.ReasonDisabled, errors.New("userAccountControl says so"))
	}
	return entry, nil
}

// Active Directory's flag for accounts that are disabled (MS-ADTS §2.2.16).
const (
	accountControl = "userAccountControl"
	accountDisable = 0x2
)

// disabled reports whether an entry says that it is. One that says something
// else than a number does.
func disabled(e *client.Entry) bool {
	text := e.GetEqualFoldAttributeValue(accountControl)
	if text == "" {
		return false
	}
	flags, err := strconv.ParseInt(text, 10, 64)
	return err != nil || flags&accountDisable != 0
}

// serve binds as the identity that searches. Its refusal is nobody's failure
// but the configuration's.
func (c *conversation) serve(s *Search) error {
	password, err := s.Password()
	if err != nil {
		return unavailable(err)
	}
	defer password.Wipe()
	if password.Empty() {
		return unavailable(errors.New("the searching identity's password is empty"))
	}
	if err := c.conn.Bind(s.BindName, string(password.Reveal())); err != nil {
		c.directory.logger.Error("the directory refused the identity that searches", zap.String("bind_name", s.BindName), zap.Error(err))
		return unavailable(err)
	}
	return nil
}

// bindAs reports whether the password is the name's.
func (c *conversation) bindAs(name string, password []byte) error {
	if name == "" {
		return denied(broker.ReasonNoAccount, errors.New("the entry has no name"))
	}
	// The library takes a string, which nobody can wipe.
	err := c.conn.Bind(name, string(password))
	if err == nil {
		return nil
	}
	return verdict(err)
}
