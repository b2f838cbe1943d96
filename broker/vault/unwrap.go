// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"go.uber.org/zap"
)

// unwrappedID is a secret-id and the SHA-256 of the wrapping token it came
// in, in hex; its JSON form is the state file's.
type unwrappedID struct {
	WrappingSHA256 string `json:"wrapping_sha256"`
	SecretID       string `json:"secret_id"`
}

// unwrapOnce returns the secret-id: from memory or the state file when the
// wrapping token in SecretIDFile is the one it came in, or is gone; else by
// unwrapping the new one.
func (a *appRoleAuth) unwrapOnce(ctx context.Context, conn *connector) (string, error) {
	if a.unwrapped.SecretID == "" && a.SecretIDState != "" {
		var err error
		if a.unwrapped, err = readState(a.SecretIDState); err != nil {
			return "", err
		}
	}
	token, err := readShort(a.SecretIDFile)
	if errors.Is(err, fs.ErrNotExist) && a.unwrapped.SecretID != "" {
		return a.unwrapped.SecretID, nil
	}
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(token))
	digest := hex.EncodeToString(sum[:])
	if a.unwrapped.SecretID != "" && a.unwrapped.WrappingSHA256 == digest {
		return a.unwrapped.SecretID, nil
	}
	secretID, err := unwrap(ctx, conn, token, a.Mount)
	if err != nil {
		return "", err
	}
	a.unwrapped = unwrappedID{WrappingSHA256: digest, SecretID: secretID}
	if a.SecretIDState != "" {
		// The secret-id works without the file, and is lost without the memory:
		// a disk that is full must not keep Postern from logging in now.
		if err := writeState(a.SecretIDState, a.unwrapped); err != nil {
			a.log.Error("cannot keep the unwrapped secret-id: a restart will need a new wrapping token", zap.Error(err))
		}
	}
	return secretID, nil
}

// unwrap exchanges a wrapping token for the secret-id in it. Where it was
// made is checked first: one that somebody else wrapped would hold the
// secret-id of his choice.
func unwrap(ctx context.Context, conn *connector, token, mount string) (string, error) {
	client, err := conn.client("")
	if err != nil {
		return "", err
	}
	about, err := client.Logical().WriteWithContext(ctx, "sys/wrapping/lookup", map[string]any{"token": token})
	if err != nil {
		return "", fmt.Errorf("the wrapping token is spent, expired or unknown: unless Postern itself used it, somebody has intercepted it; revoke its secret-id and wrap a new one: %w", spoken(err))
	}
	if about == nil {
		return "", errors.New("vault knows nothing of the wrapping token")
	}
	made, _ := about.Data["creation_path"].(string)
	if ok, err := path.Match("auth/"+mount+"/role/*/secret-id", made); err != nil || !ok {
		return "", fmt.Errorf("the wrapping token was not made at auth/%s/role/<role>/secret-id: do not trust where it came from", mount)
	}
	if client, err = conn.client(token); err != nil {
		return "", err
	}
	secret, err := client.Logical().UnwrapWithContext(ctx, token)
	if err != nil {
		return "", fmt.Errorf("cannot unwrap the secret-id: %w", spoken(err))
	}
	if secret != nil {
		if id, _ := secret.Data["secret_id"].(string); id != "" {
			return id, nil
		}
	}
	return "", errors.New("the wrapping token holds no secret-id")
}

// readState returns an empty value when there is no file.
func readState(name string) (unwrappedID, error) {
	var u unwrappedID
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	if err != nil {
		return u, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return u, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return u, fmt.Errorf("%s: others may read or change it (mode %#o): make it 0600, and renew the secret-id", name, info.Mode().Perm())
	}
	if err := json.NewDecoder(io.LimitReader(f, maxFile)).Decode(&u); err != nil || u.SecretID == "" {
		return unwrappedID{}, fmt.Errorf("%s: is damaged: remove it and wrap a new secret-id", name)
	}
	return u, nil
}

// writeState replaces the file, whole and durable or not at all.
func writeState(name string, u unwrappedID) error {
	b, err := json.Marshal(u)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".secret-id-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
