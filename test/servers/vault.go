// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// vaultStartTimeout is longer than the others': Vault's core mounts its
// engines first.
const vaultStartTimeout = 60 * time.Second

// Vault is HashiCorp Vault's own core in a process of its own (test/vaultd),
// with storage in files and TLS, behind a TCP relay that can be slowed down.
type Vault struct {
	// Addr is "https://127.0.0.1:port": the relay's, the same over restarts.
	Addr string
	// CAFile is the PEM file of the CA that signed its certificate, for
	// localhost and 127.0.0.1.
	CAFile string
	// CA is that authority.
	CA *CA
	// RootToken may do anything.
	RootToken string

	t         testing.TB
	dir       string
	bin       string
	cert      *Certificate
	unsealKey string
	process   *process
	relay     *delayRelay
	starts    int
}

// StartVault builds test/vaultd, unless it was built before, and starts one,
// initialised and unsealed.
func StartVault(t testing.TB) *Vault {
	t.Helper()
	bin, err := buildVault(t)
	if err != nil {
		t.Fatal(err)
	}
	ca := NewCA(t)
	v := &Vault{CA: ca, CAFile: ca.File, t: t, dir: t.TempDir(), bin: bin, cert: ca.Issue()}
	v.relay = startDelayRelay(t)
	v.Addr = "https://" + v.relay.addr()
	t.Cleanup(func() {
		if t.Failed() {
			for i := range v.starts {
				t.Logf("vaultd's log:\n%s", logTail(v.log(i+1)))
			}
		}
		v.Kill()
	})
	v.start()
	b, err := os.ReadFile(filepath.Join(v.dir, "init.json"))
	if err != nil {
		t.Fatal(err)
	}
	var keys struct {
		RootToken string `json:"root_token"`
		UnsealKey string `json:"unseal_key"`
	}
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	v.RootToken, v.unsealKey = keys.RootToken, keys.UnsealKey
	return v
}

func (v *Vault) log(start int) string {
	return filepath.Join(v.dir, fmt.Sprintf("vaultd.%d.log", start))
}

var readyLine = regexp.MustCompile(`(?m)^ready https://(\S+)$`)

func (v *Vault) start(args ...string) {
	v.t.Helper()
	v.starts++
	var err error
	v.process, err = startProcess(v.log(v.starts), v.bin,
		append([]string{"-dir", v.dir, "-cert", v.cert.CertFile, "-key", v.cert.KeyFile}, args...)...)
	if err != nil {
		v.t.Fatal(err)
	}
	var address [][]byte
	WaitFor(v.t, vaultStartTimeout, func() bool {
		b, _ := os.ReadFile(v.log(v.starts))
		address = readyLine.FindSubmatch(b)
		return address != nil || v.process.ended()
	}, "vaultd to be ready")
	if address == nil {
		v.t.Fatalf("vaultd ended at once: %v\n%s", v.process.err, logTail(v.log(v.starts)))
	}
	v.relay.setTarget(string(address[1]))
}

// Kill ends it with SIGKILL; connections to Addr break until Restart.
func (v *Vault) Kill() {
	v.t.Helper()
	v.relay.setTarget("")
	if err := v.process.kill(); err != nil {
		v.t.Errorf("vaultd: %v", err)
	}
}

// Restart starts it again on the same storage, sealed as Vault is after a
// start; Unseal follows.
func (v *Vault) Restart() {
	v.t.Helper()
	v.Kill()
	v.start()
}

// Seal seals it.
func (v *Vault) Seal() {
	v.t.Helper()
	if err := v.Client().Sys().Seal(); err != nil {
		v.t.Fatalf("seal: %v", err)
	}
}

// Unseal unseals it, and returns when it serves requests.
func (v *Vault) Unseal() {
	v.t.Helper()
	client := v.Client()
	if _, err := client.Sys().Unseal(v.unsealKey); err != nil {
		v.t.Fatalf("unseal: %v", err)
	}
	WaitFor(v.t, vaultStartTimeout, func() bool {
		health, err := client.Sys().Health()
		return err == nil && !health.Sealed && !health.Standby
	}, "vaultd to serve after it was unsealed")
}

// Slow keeps back each answer for d, on connections that are open too; 0:
// no longer.
func (v *Vault) Slow(d time.Duration) { v.relay.slow(d) }

// Connections counts the connections that were made to Addr.
func (v *Vault) Connections() int { return int(v.relay.accepted.Load()) }

// CutAnswer breaks the connection of the next answer instead of passing it
// on: the request is done, and the client cannot know. The connection must
// have been used before, since a session ticket looks like an answer.
func (v *Vault) CutAnswer() { v.relay.cut.Store(true) }

// Client returns a client with the root token; it is not kept from Slow.
func (v *Vault) Client() *api.Client { return v.ClientFor(v.RootToken) }

// ClientFor returns a client with some other token; "": none.
func (v *Vault) ClientFor(token string) *api.Client {
	v.t.Helper()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = v.CA.Pool()
	transport.DisableKeepAlives = true
	client, err := api.NewClient(&api.Config{Address: v.Addr, HttpClient: &http.Client{Transport: transport}, Timeout: 30 * time.Second})
	if err != nil {
		v.t.Fatal(err)
	}
	client.SetToken(token)
	return client
}

// Setup runs a step of deployments/vault/setup.sh, which is how Vault is made
// ready for Postern everywhere, and returns what it prints.
func (v *Vault) Setup(step string, args ...string) string {
	v.t.Helper()
	out, err := v.TrySetup(v.RootToken, nil, step, args...)
	if err != nil {
		v.t.Fatalf("setup.sh %s: %v\n%s", step, err, out)
	}
	return strings.TrimSuffix(out, "\n")
}

// TrySetup is Setup with some token and further variables; it may fail.
func (v *Vault) TrySetup(token string, env []string, step string, args ...string) (out string, err error) {
	v.t.Helper()
	cmd := exec.Command(filepath.Join(moduleRoot(v.t), "deployments", "vault", "setup.sh"), append([]string{step}, args...)...)
	cmd.Env = append(os.Environ(), "VAULT_ADDR="+v.Addr, "VAULT_CACERT="+v.CAFile, "VAULT_TOKEN="+token)
	cmd.Env = append(cmd.Env, env...)
	b, err := cmd.CombinedOutput()
	return string(b), err
}

// EnableAuth mounts an auth method at its standard path, once.
func (v *Vault) EnableAuth(method string) {
	v.t.Helper()
	client := v.Client()
	mounts, err := client.Sys().ListAuth()
	if err != nil {
		v.t.Fatal(err)
	}
	if mounts[method+"/"] != nil {
		return
	}
	if err := client.Sys().EnableAuthWithOptions(method, &api.EnableAuthOptions{Type: method}); err != nil {
		v.t.Fatalf("auth method %s: %v", method, err)
	}
}

// Write writes to any path with the root token, and returns the answer's data.
func (v *Vault) Write(path string, data map[string]any) map[string]any {
	v.t.Helper()
	secret, err := v.Client().Logical().Write(path, data)
	if err != nil {
		v.t.Fatalf("write %s: %v", path, err)
	}
	if secret == nil {
		return nil
	}
	return secret.Data
}

// AppRole makes an AppRole role with a policy and a token's time to live, where
// a test needs another than setup.sh gives, and returns its role-id.
func (v *Vault) AppRole(role, policy string, ttl, maxTTL time.Duration) string {
	v.t.Helper()
	v.EnableAuth("approle")
	v.Write("auth/approle/role/"+role, map[string]any{
		"token_policies": policy, "token_no_default_policy": true,
		"token_ttl": ttl.String(), "token_max_ttl": maxTTL.String(),
	})
	secret, err := v.Client().Logical().Read("auth/approle/role/" + role + "/role-id")
	if err != nil {
		v.t.Fatal(err)
	}
	return secret.Data["role_id"].(string)
}

// SecretID returns a secret-id of a role.
func (v *Vault) SecretID(role string) string {
	v.t.Helper()
	return v.Write("auth/approle/role/"+role+"/secret-id", nil)["secret_id"].(string)
}

// WrappedSecretID returns a wrapping token that holds a secret-id of a role.
func (v *Vault) WrappedSecretID(role string) string {
	v.t.Helper()
	client := v.Client()
	client.SetWrappingLookupFunc(func(string, string) string { return "10m" })
	secret, err := client.Logical().Write("auth/approle/role/"+role+"/secret-id", nil)
	if err != nil {
		v.t.Fatal(err)
	}
	return secret.WrapInfo.Token
}

// Token makes a token with a policy.
func (v *Vault) Token(policy string, ttl time.Duration) string {
	v.t.Helper()
	secret, err := v.Client().Auth().Token().Create(&api.TokenCreateRequest{
		Policies: []string{policy}, TTL: ttl.String(), NoDefaultPolicy: true, NoParent: true,
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return secret.Auth.ClientToken
}

// RevokeTokens revokes all that an auth method gave out.
func (v *Vault) RevokeTokens(method string) {
	v.t.Helper()
	if err := v.Client().Sys().RevokePrefix("auth/" + method + "/"); err != nil {
		v.t.Fatal(err)
	}
}

// Holds reports whether some octets lie in Vault's log or in its storage,
// where everything is encrypted.
func (v *Vault) Holds(octets []byte) bool {
	v.t.Helper()
	found := false
	err := filepath.WalkDir(v.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, octets)
		return err
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return found
}
