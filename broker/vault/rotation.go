// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/hashicorp/vault/api"

	"github.com/postern-mail/postern/broker"
)

var _ broker.RotationSecrets = (*Client)(nil)

// PendingCredential reads a password that a rotation has made.
func (c *Client) PendingCredential(ctx context.Context, firm, mailbox, pending broker.ID) (*broker.Credential, error) {
	p, err := below(firm, "pending", mailbox, pending)
	if err != nil {
		return nil, err
	}
	return c.get(ctx, p)
}

// SetPendingCredential writes one, once.
func (c *Client) SetPendingCredential(ctx context.Context, firm, mailbox, pending broker.ID, cred *broker.Credential) error {
	p, err := below(firm, "pending", mailbox, pending)
	if err != nil {
		return err
	}
	first := *cred
	first.Version = 0
	_, err = c.set(ctx, p, &first)
	return err
}

// DeletePendingCredential removes one.
func (c *Client) DeletePendingCredential(ctx context.Context, firm, mailbox, pending broker.ID) error {
	p, err := below(firm, "pending", mailbox, pending)
	if err != nil {
		return err
	}
	return c.remove(ctx, p)
}

// DestroyCredentialsBefore destroys the versions before one that Vault keeps. A
// credential that was removed and stored anew counts from 1 again: its present
// version is kept whatever its number.
func (c *Client) DestroyCredentialsBefore(ctx context.Context, firm, mailbox broker.ID, version int) error {
	p, err := below(firm, "mailboxes", mailbox)
	if err != nil {
		return err
	}
	err = c.call(ctx, c.writer, "destroy", func(ctx context.Context, client *api.Client) error {
		about, err := readMetadata(ctx, client, c.path("metadata", p))
		if err != nil {
			return err
		}
		before := min(version, about.CurrentVersion)
		var old []int
		for key, v := range about.Versions {
			if n, err := strconv.Atoi(key); err == nil && n < before && !v.Destroyed {
				old = append(old, n)
			}
		}
		if len(old) == 0 {
			return nil
		}
		slices.Sort(old)
		body, err := json.Marshal(map[string][]int{"versions": old})
		if err != nil {
			return err
		}
		answer, err := client.Logical().WriteRawWithContext(ctx, c.path("destroy", p), body)
		_, err = readAnswer(answer, err)
		return err
	})
	if broker.CodeOf(err) == broker.NotFound {
		return nil
	}
	return err
}

// ProviderAccount reads a provider account.
func (c *Client) ProviderAccount(ctx context.Context, firm, provider broker.ID) (*broker.ProviderAccount, error) {
	p, err := below(firm, "providers", provider)
	if err != nil {
		return nil, err
	}
	cred, err := c.get(ctx, p)
	if err != nil {
		return nil, err
	}
	return &broker.ProviderAccount{Username: cred.Username, Secret: cred.Secret, Version: cred.Version}, nil
}

// SetProviderAccount writes one with check-and-set, as SetCredential does.
func (c *Client) SetProviderAccount(ctx context.Context, firm, provider broker.ID, a *broker.ProviderAccount) (int, error) {
	p, err := below(firm, "providers", provider)
	if err != nil {
		return 0, err
	}
	return c.set(ctx, p, &broker.Credential{Kind: broker.KindPassword, Username: a.Username, Secret: a.Secret, Version: a.Version})
}

// ProviderAccountVersion returns the version stored, 0 if none.
func (c *Client) ProviderAccountVersion(ctx context.Context, firm, provider broker.ID) (int, error) {
	p, err := below(firm, "providers", provider)
	if err != nil {
		return 0, err
	}
	return c.version(ctx, p)
}

// DeleteProviderAccount removes every version of one.
func (c *Client) DeleteProviderAccount(ctx context.Context, firm, provider broker.ID) error {
	p, err := below(firm, "providers", provider)
	if err != nil {
		return err
	}
	return c.remove(ctx, p)
}
