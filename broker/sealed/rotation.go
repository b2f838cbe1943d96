// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"context"

	"github.com/postern-mail/postern/broker"
)

var _ broker.RotationSecrets = (*Store)(nil)

// PendingCredential returns a password that a rotation has made.
func (s *Store) PendingCredential(ctx context.Context, firm, mailbox, pending broker.ID) (*broker.Credential, error) {
	key, err := keyOf(ctx, firm, mailbox, pending)
	if err != nil {
		return nil, err
	}
	return s.get(key)
}

// SetPendingCredential stores one, once.
func (s *Store) SetPendingCredential(ctx context.Context, firm, mailbox, pending broker.ID, c *broker.Credential) error {
	key, err := keyOf(ctx, firm, mailbox, pending)
	if err != nil {
		return err
	}
	first := *c
	first.Version = 0
	_, err = s.set(ctx, key, &first)
	return err
}

// DeletePendingCredential removes one.
func (s *Store) DeletePendingCredential(ctx context.Context, firm, mailbox, pending broker.ID) error {
	key, err := keyOf(ctx, firm, mailbox, pending)
	if err != nil {
		return err
	}
	return s.remove(ctx, key)
}

// DestroyCredentialsBefore has nothing to do: the file holds one version.
func (s *Store) DestroyCredentialsBefore(ctx context.Context, firm, mailbox broker.ID, _ int) error {
	_, err := keyOf(ctx, firm, mailbox)
	return err
}

// ProviderAccount returns a provider account.
func (s *Store) ProviderAccount(ctx context.Context, firm, provider broker.ID) (*broker.ProviderAccount, error) {
	key, err := providerKey(ctx, firm, provider)
	if err != nil {
		return nil, err
	}
	c, err := s.get(key)
	if err != nil {
		return nil, err
	}
	return &broker.ProviderAccount{Username: c.Username, Secret: c.Secret, Version: c.Version}, nil
}

// SetProviderAccount stores one, as SetCredential does.
func (s *Store) SetProviderAccount(ctx context.Context, firm, provider broker.ID, a *broker.ProviderAccount) (int, error) {
	key, err := providerKey(ctx, firm, provider)
	if err != nil {
		return 0, err
	}
	return s.set(ctx, key, &broker.Credential{Kind: broker.KindPassword, Username: a.Username, Secret: a.Secret, Version: a.Version})
}

// ProviderAccountVersion returns the version stored, 0 if none.
func (s *Store) ProviderAccountVersion(ctx context.Context, firm, provider broker.ID) (int, error) {
	key, err := providerKey(ctx, firm, provider)
	if err != nil {
		return 0, err
	}
	return s.version(key)
}

// DeleteProviderAccount removes one.
func (s *Store) DeleteProviderAccount(ctx context.Context, firm, provider broker.ID) error {
	key, err := providerKey(ctx, firm, provider)
	if err != nil {
		return err
	}
	return s.remove(ctx, key)
}

// providerMark stands in the key of a provider account where a mailbox's id
// stands in that of a credential.
const providerMark = "provider"

func providerKey(ctx context.Context, firm, provider broker.ID) (string, error) {
	if _, err := keyOf(ctx, firm, provider); err != nil {
		return "", err
	}
	return string(firm) + "/" + providerMark + "/" + string(provider), nil
}
