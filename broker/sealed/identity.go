// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"filippo.io/age"

	"github.com/postern-mail/postern/broker"
)

// PassphraseFile returns a Config.Passphrase that reads the first line of a
// file, of mode 0600, such as one of systemd's credentials.
func PassphraseFile(path string) func() ([]byte, error) {
	return func() ([]byte, error) {
		b, err := readPrivate(path, maxIdentity)
		if err != nil {
			return nil, err
		}
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		clear(rest)
		return bytes.TrimSuffix(line, []byte("\r")), nil
	}
}

// createIdentity makes the identity file.
func createIdentity(cfg Config) (*age.X25519Identity, error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, failure(broker.Internal, "", err)
	}
	// The library hands the key out as a string alone, which cannot be wiped.
	text := []byte("# public key: " + identity.Recipient().String() + "\n" + identity.String() + "\n")
	defer clear(text)
	content := text
	if cfg.Passphrase != nil {
		if content, err = lockIdentity(cfg, text); err != nil {
			return nil, err
		}
	}
	err = createFile(cfg.IdentityFile, content)
	if errors.Is(err, fs.ErrExist) {
		return nil, broker.Errorf(broker.Conflict, "the identity file %s exists already", cfg.IdentityFile).WithCause(err)
	}
	if err == nil {
		err = syncFolder(cfg.IdentityFile)
	}
	if err != nil {
		return nil, fileError(err, cfg.IdentityFile)
	}
	return identity, nil
}

func lockIdentity(cfg Config, text []byte) ([]byte, error) {
	passphrase, err := cfg.passphrase()
	if err != nil {
		return nil, err
	}
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, failure(broker.Internal, "", err)
	}
	recipient.SetWorkFactor(defaultWorkFactor)
	if cfg.WorkFactor != 0 {
		recipient.SetWorkFactor(cfg.WorkFactor)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, recipient)
	if err != nil {
		return nil, failure(broker.Internal, "", err)
	}
	_, err = w.Write(text)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, failure(broker.Internal, "", err)
	}
	return out.Bytes(), nil
}

// passphrase calls Passphrase. age takes a string, which cannot be wiped.
func (cfg Config) passphrase() (string, error) {
	b, err := cfg.Passphrase()
	if err != nil {
		return "", failure(broker.Unavailable, ReasonIdentity, fmt.Errorf("the passphrase cannot be had: %w", err))
	}
	defer clear(b)
	if len(b) == 0 {
		return "", broker.InvalidField("passphrase", "is empty")
	}
	return string(b), nil
}

// openIdentity reads the identity file.
func openIdentity(cfg Config) (*age.X25519Identity, error) {
	content, err := readPrivate(cfg.IdentityFile, maxIdentity)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fileError(err, cfg.IdentityFile)
	}
	if err != nil {
		return nil, failure(broker.Unavailable, ReasonIdentity, err)
	}
	defer clear(content)
	refuse := func(why string) error {
		return failure(broker.Unavailable, ReasonIdentity, fmt.Errorf("%s %s", cfg.IdentityFile, why))
	}
	encrypted := bytes.HasPrefix(content, []byte("age-encryption.org/"))
	switch {
	case encrypted && cfg.Passphrase == nil:
		return nil, refuse("is encrypted: a passphrase is needed")
	case !encrypted && cfg.Passphrase != nil:
		// Else whoever can put a file there could make Postern use his key.
		return nil, refuse("is not encrypted, though a passphrase is configured")
	case encrypted:
		passphrase, err := cfg.passphrase()
		if err != nil {
			return nil, err
		}
		unlock, err := age.NewScryptIdentity(passphrase)
		if err != nil {
			return nil, failure(broker.Internal, "", err)
		}
		unlock.SetMaxWorkFactor(maxWorkFactor)
		plain, err := decrypt(content, unlock)
		if err != nil {
			return nil, refuse("does not open with this passphrase, or is damaged")
		}
		defer clear(plain)
		content = plain
	}
	// Errors of the parser's may quote a line: they are left out.
	identities, err := age.ParseIdentities(bytes.NewReader(content))
	if err != nil || len(identities) != 1 {
		return nil, refuse("does not hold one age identity")
	}
	identity, ok := identities[0].(*age.X25519Identity)
	if !ok {
		return nil, refuse("holds an identity of another kind than X25519")
	}
	return identity, nil
}
