// SPDX-License-Identifier: Apache-2.0

// Command vaultd runs HashiCorp Vault's own core as a small server for
// Postern's tests: file storage that survives a kill, TLS, and a fixed way to
// learn its address, root token and unseal key. It is no server for
// production: the keys lie beside the data.
//
// The first start initialises the storage and writes init.json (mode 0600)
// into the directory; it always ends unsealed. A later start stays sealed, as
// Vault's own server does, unless -unseal is given. When it serves, one line
// "ready https://<address>" appears on standard output.
//
// Vault's code is under the Business Source License 1.1. That is why this is
// a module of its own, which Postern's module neither imports nor links.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/vault"
)

// secrets is the content of init.json.
type secrets struct {
	RootToken string `json:"root_token"`
	UnsealKey string `json:"unseal_key"`
}

type options struct {
	dir, listen, cert, key, level string
	unseal                        bool
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "directory for storage and init.json; made when missing")
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "address to listen on")
	flag.StringVar(&o.cert, "cert", "", "PEM file of the server's certificate")
	flag.StringVar(&o.key, "key", "", "PEM file of its key")
	flag.BoolVar(&o.unseal, "unseal", false, "unseal with the key in init.json")
	flag.StringVar(&o.level, "log", "warn", "log level, on standard error")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "vaultd:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.dir == "" || o.cert == "" || o.key == "" {
		return errors.New("-dir, -cert and -key are needed")
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	core, err := newCore(o)
	if err != nil {
		return err
	}
	defer core.Shutdown()
	if err := prepare(ctx, core, filepath.Join(o.dir, "init.json"), o.unseal); err != nil {
		return err
	}
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{Address: listener.Addr().String()},
	})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, TLSConfig: clientCertificates()}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(listener, o.cert, o.key) }()
	fmt.Printf("ready https://%s\n", listener.Addr())
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		server.Close()
		<-served
		return nil
	}
}

func newCore(o options) (*vault.Core, error) {
	if err := os.MkdirAll(filepath.Join(o.dir, "data"), 0o700); err != nil {
		return nil, err
	}
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.LevelFromString(o.level), Output: os.Stderr})
	storage, err := file.NewFileBackend(map[string]string{"path": filepath.Join(o.dir, "data")}, logger)
	if err != nil {
		return nil, err
	}
	return vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		Logger:             logger,
		DisableMlock:       true,
		BuiltinRegistry:    builtins(),
		CredentialBackends: credentialBackends(),
		LogicalBackends:    logicalBackends(),
		AuditBackends:      auditBackends(),
	})
}

// prepare initialises a new storage, and unseals it or, when asked to, an
// existing one.
func prepare(ctx context.Context, core *vault.Core, path string, unseal bool) error {
	initialised, err := core.Initialized(ctx)
	if err != nil {
		return err
	}
	if !initialised {
		if err := initialise(ctx, core, path); err != nil {
			return err
		}
	} else if !unseal {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var s secrets
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	key, err := hex.DecodeString(s.UnsealKey)
	if err != nil {
		return fmt.Errorf("%s: unseal key: %w", path, err)
	}
	unsealed, err := core.Unseal(key)
	if err == nil && !unsealed {
		err = errors.New("one key share did not unseal it")
	}
	return err
}

func initialise(ctx context.Context, core *vault.Core, path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists beside a storage that is not initialised (%v)", path, err)
	}
	result, err := core.Initialize(ctx, &vault.InitParams{
		BarrierConfig: &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
	})
	if err != nil {
		return err
	}
	b, err := json.Marshal(secrets{RootToken: result.RootToken, UnsealKey: hex.EncodeToString(result.SecretShares[0])})
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
