// SPDX-License-Identifier: Apache-2.0

package httpapitest

import (
	"bytes"
	"context"
	"sync"

	"github.com/postern-mail/postern/broker"
)

var _ broker.Credentials = (*Credentials)(nil)

// Credentials keeps credentials in memory. Its methods may be called from any
// goroutine.
type Credentials struct {
	mu     sync.Mutex
	stored map[[2]broker.ID]broker.Credential
	err    error
}

// NewCredentials returns an empty storage.
func NewCredentials() *Credentials {
	return &Credentials{stored: map[[2]broker.ID]broker.Credential{}}
}

// Fail makes every call fail; nil: no more.
func (s *Credentials) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// enter locks, and checks what every call must.
func (s *Credentials) enter(ctx context.Context, firm, mailbox broker.ID) (key [2]broker.ID, leave func(), err error) {
	s.mu.Lock()
	for _, id := range []broker.ID{firm, mailbox} {
		if _, invalid := broker.ParseID(string(id)); invalid != nil {
			err = invalid
		}
	}
	if ctx.Err() != nil {
		err = broker.Errorf(broker.Unavailable, "given up").WithCause(ctx.Err())
	}
	if s.err != nil {
		err = s.err
	}
	return [2]broker.ID{firm, mailbox}, s.mu.Unlock, err
}

// Credential returns a copy.
func (s *Credentials) Credential(ctx context.Context, firm, mailbox broker.ID) (*broker.Credential, error) {
	key, leave, err := s.enter(ctx, firm, mailbox)
	defer leave()
	if err != nil {
		return nil, err
	}
	c, ok := s.stored[key]
	if !ok {
		return nil, broker.Errorf(broker.NotFound, "no credential is stored")
	}
	c.Secret = broker.NewSecret(bytes.Clone(c.Secret.Reveal()))
	return &c, nil
}

// SetCredential stores a copy.
func (s *Credentials) SetCredential(ctx context.Context, firm, mailbox broker.ID, c *broker.Credential) (int, error) {
	key, leave, err := s.enter(ctx, firm, mailbox)
	defer leave()
	if err != nil {
		return 0, err
	}
	if err := c.Validate(); err != nil {
		return 0, err
	}
	if c.Version < 0 {
		return 0, broker.InvalidField("version", "negative")
	}
	if s.stored[key].Version != c.Version {
		return 0, broker.Errorf(broker.Conflict, "the credential was changed meanwhile")
	}
	kept := *c
	kept.Secret = broker.NewSecret(bytes.Clone(c.Secret.Reveal()))
	kept.Version++
	s.stored[key] = kept
	return kept.Version, nil
}

// CredentialVersion returns the version.
func (s *Credentials) CredentialVersion(ctx context.Context, firm, mailbox broker.ID) (int, error) {
	key, leave, err := s.enter(ctx, firm, mailbox)
	defer leave()
	return s.stored[key].Version, err
}

// DeleteCredential forgets one.
func (s *Credentials) DeleteCredential(ctx context.Context, firm, mailbox broker.ID) error {
	key, leave, err := s.enter(ctx, firm, mailbox)
	defer leave()
	if err != nil {
		return err
	}
	delete(s.stored, key)
	return nil
}

// Ready fails when Fail said so.
func (s *Credentials) Ready(ctx context.Context) error {
	_, leave, err := s.enter(ctx, broker.NewID(), broker.NewID())
	leave()
	return err
}

// SetPendingCredential stores one, once.
func (s *Credentials) SetPendingCredential(ctx context.Context, _, mailbox, pending broker.ID, c *broker.Credential) error {
	_, err := s.SetCredential(ctx, mailbox, pending, c)
	return err
}

// DeletePendingCredential forgets one.
func (s *Credentials) DeletePendingCredential(ctx context.Context, _, mailbox, pending broker.ID) error {
	return s.DeleteCredential(ctx, mailbox, pending)
}

// SetProviderAccount stores a copy.
func (s *Credentials) SetProviderAccount(ctx context.Context, firm, provider broker.ID, a *broker.ProviderAccount) (int, error) {
	return s.SetCredential(ctx, firm, provider, &broker.Credential{
		Kind: broker.KindPassword, Username: a.Username, Secret: a.Secret, Version: a.Version,
	})
}

// ProviderAccountVersion returns the version.
func (s *Credentials) ProviderAccountVersion(ctx context.Context, firm, provider broker.ID) (int, error) {
	return s.CredentialVersion(ctx, firm, provider)
}

// DeleteProviderAccount forgets one.
func (s *Credentials) DeleteProviderAccount(ctx context.Context, firm, provider broker.ID) error {
	return s.DeleteCredential(ctx, firm, provider)
}
