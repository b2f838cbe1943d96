// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker/audit/checkpoint"
	"github.com/postern-mail/postern/broker/vault"
)

// logKeyPurpose separates the key that signs the transparency logs from others
// that come of the same secret.
const logKeyPurpose = "postern/transparency log"

// maxLogKeys bounds how often each checkpoint is signed.
const maxLogKeys = 4

// CheckpointsConfig says what signs the transparency logs.
type CheckpointsConfig struct {
	// Keys sign each checkpoint, all of them; none: the derived one does.
	Keys []LogKeyConfig `yaml:"keys"`
}

// LogKeyConfig is one key: exactly one of its fields is set.
type LogKeyConfig struct {
	// Derived is the key that comes of the app passwords'.
	Derived bool           `yaml:"derived"`
	File    string         `yaml:"file"`
	Vault   *TransitConfig `yaml:"vault"`
}

// TransitConfig is broker/vault's Signer.
type TransitConfig struct {
	Address    string           `yaml:"address"`
	CAFile     string           `yaml:"ca_file"`
	ServerName string           `yaml:"server_name"`
	Namespace  string           `yaml:"namespace"`
	Mount      string           `yaml:"mount"`
	Key        string           `yaml:"key"`
	Version    int              `yaml:"version"`
	Timeout    duration         `yaml:"timeout"`
	Auth       *VaultAuthConfig `yaml:"auth"`
}

func (c *CheckpointsConfig) complete(absolute func(...*string)) {
	if len(c.Keys) == 0 {
		c.Keys = []LogKeyConfig{{Derived: true}}
	}
	for i := range c.Keys {
		absolute(&c.Keys[i].File)
		if v := c.Keys[i].Vault; v != nil {
			setDefault(&v.Mount, vault.DefaultSignerMount)
			setDefault(&v.Key, vault.DefaultSignerKey)
			setDefault(&v.Version, vault.DefaultSignerVersion)
			setDefault(&v.Timeout, duration(vault.DefaultTimeout))
			absolute(&v.CAFile)
			v.Auth.complete(absolute)
		}
	}
}

func (v *validator) checkpoints(c *CheckpointsConfig) {
	v.check(len(c.Keys) <= maxLogKeys, "checkpoints.keys", "give at most %d keys", maxLogKeys)
	seen := make(map[string]string)
	for i, k := range c.Keys {
		key, is := fmt.Sprintf("checkpoints.keys[%d]", i), ""
		given := 0
		if k.Derived {
			given, is = given+1, "derived"
		}
		if k.File != "" {
			given, is = given+1, k.File
		}
		if t := k.Vault; t != nil {
			given, is = given+1, fmt.Sprintf("%s/%s/%s/%s/%d", t.Address, t.Namespace, t.Mount, t.Key, t.Version)
			v.vault(key+".vault", &VaultConfig{Address: t.Address, Timeout: t.Timeout, Auth: t.Auth})
			v.check(t.Version > 0, key+".vault.version", "give the number of one of the key's versions, from 1")
		}
		v.check(given == 1, key, "give exactly one of derived, file and vault")
		other, taken := seen[is]
		v.check(!taken, key, "is the same as %s", other)
		seen[is] = key
	}
}

// logKeys sign the transparency logs.
type logKeys struct {
	signers []checkpoint.Signer
	vaults  []*vault.Signer
}

// openLogKeys reads the keys that are here; it does not talk to Vault.
func openLogKeys(c *Config, logger *zap.Logger, registry prometheus.Registerer) (*logKeys, error) {
	keys := &logKeys{}
	for i, k := range c.Checkpoints.Keys {
		key := fmt.Sprintf("checkpoints.keys[%d]", i)
		switch {
		case k.Vault != nil:
			s, err := k.Vault.open(logger, registry)
			if err != nil {
				return nil, vaultError(key+".vault", err)
			}
			keys.signers, keys.vaults = append(keys.signers, s), append(keys.vaults, s)
		case k.File != "":
			s, err := readLogKey(k.File)
			if err != nil {
				return nil, keyError(key+".file", err)
			}
			keys.signers = append(keys.signers, s)
		default:
			s, err := derivedLogKey(c)
			if err != nil {
				return nil, err
			}
			keys.signers = append(keys.signers, s)
		}
	}
	return keys, nil
}

func (t *TransitConfig) open(logger *zap.Logger, registry prometheus.Registerer) (*vault.Signer, error) {
	return vault.NewSigner(vault.SignerConfig{
		Vault: vault.Config{
			Address: t.Address, Namespace: t.Namespace, CACert: t.CAFile, ServerName: t.ServerName, Mount: t.Mount,
			Timeout: time.Duration(t.Timeout), Auth: vaultAuth(t.Auth), Logger: logger,
			Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"key": t.Key, "version": strconv.Itoa(t.Version)}, registry),
		},
		Key: t.Key, Version: t.Version,
	})
}

// readLogKey reads an Ed25519 key from a PEM file that nobody else can read.
func readLogKey(file string) (checkpoint.Signer, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others could read the key; chmod 0600 it", file, mode)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	notOne := fmt.Errorf("%s is no Ed25519 key in PEM: 'openssl genpkey -algorithm ed25519' makes one", file)
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, notOne
	}
	defer clear(block.Bytes)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, notOne
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, notOne
	}
	return checkpoint.NewLocal(key.Seed()), nil
}

// derivedLogKey is the key that comes of the app passwords' key, which all nodes
// have and every backup is made with.
func derivedLogKey(c *Config) (checkpoint.Signer, error) {
	key, err := readTokenKey(c.AppPasswords.KeyFile)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	seed, err := hkdf.Key(sha256.New, key.Reveal(), nil, logKeyPurpose, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	return checkpoint.NewLocal(seed), nil
}

// Run keeps Postern logged in to Vault, where Vault signs, until ctx ends.
func (k *logKeys) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, s := range k.vaults {
		all.Go(func() { _ = s.Run(ctx) }) // it fails only when it runs already
	}
	<-ctx.Done()
	all.Wait()
	return nil
}
