// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/people"
)

// firstAdminName is the person's that the first token speaks for.
const firstAdminName = "admin"

// newAdminToken makes the token that `postern init` leaves for the first start
// to take up: init has the key, but no database.
func newAdminToken(key broker.Secret) (string, error) {
	tokens, err := people.NewAPITokens(key)
	if err != nil {
		return "", err
	}
	token, _ := tokens.New()
	return token, nil
}

// firstAdmin makes the BPO's first admin out of the token in a file, while the
// BPO has nobody. Whoever can write there is the server's user, who is an admin
// on the socket in any case.
func firstAdmin(ctx context.Context, store broker.People, tokens *people.Tokens, file string) error {
	there, err := store.People(ctx, "")
	if err != nil || len(there) > 0 {
		return err
	}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	token, err := readTokenFile(file)
	if err != nil {
		return err
	}
	hash, ok := tokens.Hash(token)
	if !ok {
		return usagef("%s holds no API token: remove it, or make one with 'postern init' in another directory", file)
	}
	by := broker.Actor{Kind: "system", Name: "postern init"}
	p := &broker.Person{Name: firstAdminName, Role: broker.RoleAdmin}
	if err := store.CreatePerson(ctx, by, p); err != nil {
		if broker.CodeOf(err) == broker.Conflict {
			return nil // another node was first
		}
		return err
	}
	return store.CreateAPIToken(ctx, by, &broker.APIToken{
		PersonID: p.ID, Label: "postern init", Hash: hash, ExpiresAt: time.Now().Add(httpapi.MaxTokenLifetime),
	})
}
