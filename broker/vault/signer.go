// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/vault/api"

	"github.com/postern-mail/postern/broker"
)

// Defaults of a Signer: what setup.sh makes.
const (
	DefaultSignerMount   = "postern-transit"
	DefaultSignerKey     = "postern-log"
	DefaultSignerVersion = 1
)

// SignerConfig says which key of a Transit engine signs.
type SignerConfig struct {
	// Vault is where the engine is and who Postern is there. Its Mount is the
	// engine's (empty: DefaultSignerMount); it has no Writer.
	Vault Config
	// Key is the name of an Ed25519 key; empty: DefaultSignerKey.
	Key string
	// Version is the key's; 0: the first. Another one is another key to those who
	// verify, so that a key that somebody rotates in Vault changes nothing here.
	Version int
}

// Signer has Vault's Transit engine sign, with one version of one key. Its methods
// may be called from any goroutine; PublicKey and Sign need Run.
type Signer struct {
	*caller
	identity   *identity
	mount, key string
	version    int

	mu     sync.Mutex
	public ed25519.PublicKey
}

// NewSigner checks cfg and makes a signer; it does not talk to Vault. The error is
// Invalid, its Field a name within the configuration's section or an environment
// variable's.
func NewSigner(cfg SignerConfig) (*Signer, error) {
	if cfg.Vault.Mount == "" {
		cfg.Vault.Mount = DefaultSignerMount
	}
	common, err := cfg.Vault.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.Key == "" {
		cfg.Key = DefaultSignerKey
	}
	// A key's name is one step of a path.
	if _, err := checkMount("key", cfg.Key, ""); err != nil || strings.Contains(cfg.Key, "/") {
		return nil, broker.InvalidField("key", "must consist of letters, digits, - and _")
	}
	if cfg.Version == 0 {
		cfg.Version = DefaultSignerVersion
	}
	if cfg.Version < 0 {
		return nil, broker.InvalidField("version", "must be 1 or more")
	}
	s := &Signer{mount: common.Mount, key: cfg.Key, version: cfg.Version}
	if s.identity, err = newIdentity("transit", common, common.Auth); err != nil {
		return nil, err
	}
	s.caller, err = newCaller("vault-transit", "postern_vault_transit", common.Timeout, common.Logger, common.Registerer, s.identity)
	return s, err
}

// PublicKey returns the key's public half, which is asked for once. The error is
// Unavailable.
func (s *Signer) PublicKey(ctx context.Context) (ed25519.PublicKey, error) {
	s.mu.Lock()
	public := s.public
	s.mu.Unlock()
	if public != nil {
		return public, nil
	}
	err := s.call(ctx, s.identity, "public-key", func(ctx context.Context, client *api.Client) error {
		answer, err := readAnswer(client.Logical().ReadRawWithContext(ctx, s.mount+"/keys/"+s.key))
		if err != nil {
			return err
		}
		public, err = s.publicKey(answer)
		if err != nil {
			return &failure{err: unavailable(ReasonAnswer, err)}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.public = public
	return public, nil
}

func (s *Signer) publicKey(answer []byte) (ed25519.PublicKey, error) {
	var a struct {
		Data struct {
			Type string `json:"type"`
			Keys map[string]struct {
				PublicKey []byte `json:"public_key"`
			} `json:"keys"`
		} `json:"data"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return nil, errors.New("the answer about a key is not a Transit engine's")
	}
	if a.Data.Type != "ed25519" {
		return nil, fmt.Errorf("the key %s is of type %q, and must be ed25519", s.key, a.Data.Type)
	}
	key := a.Data.Keys[strconv.Itoa(s.version)].PublicKey
	if len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("the key %s has no version %d", s.key, s.version)
	}
	return key, nil
}

// Sign has Vault sign message, and checks what it answers. The error is
// Unavailable.
func (s *Signer) Sign(ctx context.Context, message []byte) (signature []byte, err error) {
	public, err := s.PublicKey(ctx)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{"input": message, "key_version": s.version})
	if err != nil {
		return nil, broker.Errorf(broker.Internal, "the request to Vault cannot be encoded").WithCause(err)
	}
	err = s.call(ctx, s.identity, "sign", func(ctx context.Context, client *api.Client) error {
		answer, err := readAnswer(client.Logical().WriteRawWithContext(ctx, s.mount+"/sign/"+s.key, body))
		if err != nil {
			return refusal(err)
		}
		var a struct {
			Data struct {
				Signature string `json:"signature"`
			} `json:"data"`
		}
		if json.Unmarshal(answer, &a) == nil {
			_, symbols, _ := strings.Cut(strings.TrimPrefix(a.Data.Signature, "vault:"), ":")
			if signature, err = base64.StdEncoding.DecodeString(symbols); err == nil && ed25519.Verify(public, message, signature) {
				return nil
			}
		}
		return &failure{err: unavailable(ReasonAnswer, errors.New("vault's Transit engine answered with something else than the signature"))}
	})
	if err != nil {
		return nil, err
	}
	return signature, nil
}
