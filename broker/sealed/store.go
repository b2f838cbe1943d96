// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/postern-mail/postern/broker"
)

// Limits and times.
const (
	// maxFile bounds the credentials file, in octets: some thousands of
	// mailboxes.
	maxFile = 64 << 20
	// maxIdentity bounds the identity and passphrase files, in octets.
	maxIdentity = 16 << 10
	// lockTimeout bounds the wait for another writer, unless the context ends
	// first; lockPoll is how often the lock is tried meanwhile.
	lockTimeout = 5 * time.Second
	lockPoll    = 5 * time.Millisecond
	// defaultWorkFactor is scrypt's, as the base-2 logarithm of N: a second or
	// so. Config.WorkFactor may be 1 to maxWorkFactor.
	defaultWorkFactor = 18
	maxWorkFactor     = 22
)

// Reasons of an error, for records and metrics.
const (
	ReasonMissing  = "sealed-missing"  // there is no such file
	ReasonIdentity = "sealed-identity" // the identity or the passphrase does not fit
	ReasonDamaged  = "sealed-damaged"  // what is in the file cannot be understood
	ReasonFile     = "sealed-file"     // the file system failed
	ReasonLock     = "sealed-lock"     // another writer holds the lock
)

// Config says where the files are.
type Config struct {
	// Path is the credentials file. Path + ".lock" and Path + ".new" are used
	// beside it.
	Path string
	// IdentityFile holds the age identity.
	IdentityFile string
	// Passphrase opens an encrypted identity file; nil: it is not encrypted.
	// It is called once, and what it returns is wiped.
	Passphrase func() ([]byte, error)
	// WorkFactor is scrypt's when Create encrypts the identity, as the base-2
	// logarithm of N; 0: 18.
	WorkFactor int
}

var _ broker.Credentials = (*Store)(nil)

// Store is a broker.Credentials in a file. Its methods may be called from any
// goroutine.
type Store struct {
	path     string
	identity *age.X25519Identity
	cache    *cache
}

// Create makes an identity and an empty file, and opens it. Files that exist
// already are left alone: Conflict.
func Create(cfg Config) (*Store, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(cfg.Path); !errors.Is(err, fs.ErrNotExist) {
		return nil, broker.Errorf(broker.Conflict, "the credentials file %s exists already", cfg.Path).WithCause(err)
	}
	identity, err := createIdentity(cfg)
	if err != nil {
		return nil, err
	}
	s := &Store{path: cfg.Path, identity: identity, cache: newCache()}
	unlock, err := s.lock(context.Background())
	if err == nil {
		defer unlock()
		err = s.write(make(contents))
	}
	if err != nil {
		// An identity that opens nothing would keep the next Create from working.
		if removeErr := os.Remove(cfg.IdentityFile); removeErr != nil {
			err = errors.Join(err, removeErr)
		}
		return nil, err
	}
	return s, nil
}

// Open reads the identity and the file once, so that a wrong passphrase, a
// loose mode or a damaged file is found at the start.
func Open(cfg Config) (*Store, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	identity, err := openIdentity(cfg)
	if err != nil {
		return nil, err
	}
	s := &Store{path: cfg.Path, identity: identity, cache: newCache()}
	if err := s.Ready(context.Background()); err != nil {
		return nil, err
	}
	return s, nil
}

func (cfg Config) check() error {
	switch {
	case cfg.Path == "":
		return broker.InvalidField("path", "is missing")
	case cfg.IdentityFile == "":
		return broker.InvalidField("identity_file", "is missing")
	case cfg.Path == cfg.IdentityFile:
		return broker.InvalidField("identity_file", "must not be the credentials file")
	case cfg.WorkFactor < 0 || cfg.WorkFactor > maxWorkFactor:
		return broker.InvalidField("work_factor", "must be 1 to %d", maxWorkFactor)
	}
	return nil
}

// Credential returns one entry, and decrypts the file if it changed.
func (s *Store) Credential(ctx context.Context, firm, mailbox broker.ID) (*broker.Credential, error) {
	key, err := keyOf(ctx, firm, mailbox)
	if err != nil {
		return nil, err
	}
	return s.get(key)
}

func (s *Store) get(key string) (*broker.Credential, error) {
	e, err := s.entry(key)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, broker.Errorf(broker.NotFound, "no credential is stored for this mailbox")
	}
	return &broker.Credential{Kind: e.Kind, Username: e.Username, Secret: broker.NewSecret(e.Secret), Version: e.Version}, nil
}

// SetCredential replaces one entry if its version is still c.Version. c stays
// the caller's.
func (s *Store) SetCredential(ctx context.Context, firm, mailbox broker.ID, c *broker.Credential) (int, error) {
	key, err := keyOf(ctx, firm, mailbox)
	if err != nil {
		return 0, err
	}
	return s.set(ctx, key, c)
}

func (s *Store) set(ctx context.Context, key string, c *broker.Credential) (int, error) {
	if err := c.Validate(); err != nil {
		return 0, err
	}
	if c.Version < 0 {
		return 0, broker.InvalidField("version", "must not be negative")
	}
	version := c.Version + 1
	err := s.update(ctx, func(all contents) (bool, error) {
		stored := 0
		if e := all[key]; e != nil {
			stored = e.Version
			clear(e.Secret)
		}
		if stored != c.Version {
			return false, broker.Errorf(broker.Conflict, "the credential was changed meanwhile: read its version again")
		}
		all[key] = &entry{Version: version, Kind: c.Kind, Username: c.Username, Secret: bytes.Clone(c.Secret.Reveal())}
		return true, nil
	})
	if err != nil {
		return 0, err
	}
	return version, nil
}

// CredentialVersion decrypts the file, and wipes it.
func (s *Store) CredentialVersion(ctx context.Context, firm, mailbox broker.ID) (int, error) {
	key, err := keyOf(ctx, firm, mailbox)
	if err != nil {
		return 0, err
	}
	return s.version(key)
}

func (s *Store) version(key string) (int, error) {
	all, err := s.read()
	if err != nil {
		return 0, err
	}
	defer all.wipe()
	if e := all[key]; e != nil {
		return e.Version, nil
	}
	return 0, nil
}

// DeleteCredential removes one entry.
func (s *Store) DeleteCredential(ctx context.Context, firm, mailbox broker.ID) error {
	key, err := keyOf(ctx, firm, mailbox)
	if err != nil {
		return err
	}
	return s.remove(ctx, key)
}

func (s *Store) remove(ctx context.Context, key string) error {
	return s.update(ctx, func(all contents) (bool, error) {
		e := all[key]
		if e == nil {
			return false, nil
		}
		clear(e.Secret)
		delete(all, key)
		return true, nil
	})
}

// Ready decrypts the file, and wipes it.
func (s *Store) Ready(ctx context.Context) error {
	if ctx.Err() != nil {
		return cancelled(ctx)
	}
	all, err := s.read()
	all.wipe()
	return err
}

// keyOf also ends a call whose context is done: nothing else of a reading
// waits.
func keyOf(ctx context.Context, ids ...broker.ID) (string, error) {
	parts := make([]string, len(ids))
	for i, id := range ids {
		if _, err := broker.ParseID(string(id)); err != nil {
			return "", err
		}
		parts[i] = string(id)
	}
	if ctx.Err() != nil {
		return "", cancelled(ctx)
	}
	return strings.Join(parts, "/"), nil
}

// update changes the file under the lock; change says whether it did.
func (s *Store) update(ctx context.Context, change func(contents) (bool, error)) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := s.read()
	if err != nil {
		return err
	}
	defer all.wipe()
	if changed, err := change(all); err != nil || !changed {
		return err
	}
	return s.write(all)
}

// entry returns one entry, nil if there is none: from the cache when the file
// is still the one that it holds.
func (s *Store) entry(key string) (*entry, error) {
	is, err := os.Stat(s.path)
	if err != nil {
		return nil, fileError(err, s.path)
	}
	if e, known := s.cache.get(is, key); known {
		return e, nil
	}
	all, err := s.read()
	if err != nil {
		return nil, err
	}
	// A file that was replaced in between is read again next time: what is
	// kept as the older one is the newer one's, which no stat will match.
	s.cache.put(is, all)
	e := all[key]
	delete(all, key)
	all.wipe()
	return e, nil
}

// read decrypts the file.
func (s *Store) read() (contents, error) {
	plain, err := s.decrypt()
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	all, err := parse(plain)
	if err != nil {
		return nil, failure(broker.Invalid, ReasonDamaged, fmt.Errorf("%s: %w", s.path, err))
	}
	return all, nil
}

// decrypt returns the plain text, which the caller wipes.
func (s *Store) decrypt() ([]byte, error) {
	sealed, err := readFile(s.path, maxFile)
	if err != nil {
		return nil, fileError(err, s.path)
	}
	plain, err := decrypt(sealed, s.identity)
	var mismatch *age.NoIdentityMatchError
	switch {
	case errors.As(err, &mismatch):
		return nil, failure(broker.Unavailable, ReasonIdentity, fmt.Errorf("%s is encrypted to another identity, or its header is damaged", s.path))
	case err != nil:
		return nil, failure(broker.Invalid, ReasonDamaged, fmt.Errorf("%s: %w", s.path, err))
	}
	return plain, nil
}

// decrypt returns what is in an age file, all of it or an error. The buffer
// never grows: the plain text is shorter than the file.
func decrypt(sealed []byte, identity age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), identity)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, 0, len(sealed))
	for {
		n, err := r.Read(plain[len(plain):cap(plain)])
		plain = plain[:len(plain)+n]
		switch {
		case errors.Is(err, io.EOF):
			return plain, nil
		case err != nil:
			clear(plain)
			return nil, err
		}
	}
}

// write replaces the file; the caller holds the lock.
func (s *Store) write(all contents) error {
	plain, err := all.marshal()
	if err != nil {
		return failure(broker.Internal, "", err)
	}
	defer clear(plain)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, s.identity.Recipient())
	if err != nil {
		return failure(broker.Internal, "", err)
	}
	_, err = w.Write(plain)
	if err = errors.Join(err, w.Close()); err != nil {
		return failure(broker.Internal, "", err)
	}
	if sealed.Len() > maxFile {
		return failure(broker.Unavailable, ReasonFile, fmt.Errorf("%s would be longer than %d octets: use Vault", s.path, maxFile))
	}
	if err := replaceFile(s.path, sealed.Bytes()); err != nil {
		return fileError(err, s.path)
	}
	return nil
}

func (s *Store) lock(ctx context.Context) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	unlock, err := lockFile(ctx, s.path+".lock")
	switch {
	case err == nil:
		return unlock, nil
	case ctx.Err() != nil:
		return nil, failure(broker.Unavailable, ReasonLock, fmt.Errorf("%s.lock is held by another writer: %w", s.path, context.Cause(ctx)))
	}
	return nil, fileError(err, s.path+".lock")
}

// failure makes an error whose public text tells an agent no more than that
// he has to wait.
func failure(code broker.Code, reason string, cause error) *broker.Error {
	text := "the credential storage cannot be used at the moment; try again later"
	if code == broker.Invalid {
		text = "the credential storage is damaged; tell the administrator"
	}
	e := broker.Errorf(code, "%s", text).WithCause(cause)
	e.Reason = reason
	return e
}

func fileError(err error, path string) *broker.Error {
	if errors.Is(err, fs.ErrNotExist) {
		return failure(broker.Unavailable, ReasonMissing, fmt.Errorf("%s does not exist; an existing one may lie elsewhere: %w", path, err))
	}
	return failure(broker.Unavailable, ReasonFile, err)
}

func cancelled(ctx context.Context) *broker.Error {
	return failure(broker.Unavailable, "", context.Cause(ctx))
}
