// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
	"github.com/hashicorp/vault/api/auth/kubernetes"
	"go.uber.org/zap"
)

// authenticator is one way to log in. Its methods are called from one
// goroutine.
type authenticator interface {
	login(ctx context.Context, conn *connector) (*login, error)
	// stale reports that a new login is due though the token still lives.
	stale() bool
	// owned reports whether the token is Postern's to revoke.
	owned() bool
}

func newAuthenticator(a AuthConfig, log *zap.Logger) authenticator {
	switch {
	case a.AppRole != nil:
		return &appRoleAuth{AppRole: *a.AppRole, log: log}
	case a.Kubernetes != nil:
		return &methodAuth{a.Kubernetes.method}
	case a.Certificate != nil:
		return &methodAuth{func() (api.AuthMethod, error) { return a.Certificate, nil }}
	}
	return &tokenAuth{path: a.TokenFile}
}

// methodAuth logs in with a method of the library's kind, made anew for each
// login: the Kubernetes one reads its token when it is made.
type methodAuth struct {
	method func() (api.AuthMethod, error)
}

func (m *methodAuth) login(ctx context.Context, conn *connector) (*login, error) {
	method, err := m.method()
	if err != nil {
		return nil, err
	}
	return loginWith(ctx, conn, method)
}

func (*methodAuth) stale() bool { return false }
func (*methodAuth) owned() bool { return true }

func loginWith(ctx context.Context, conn *connector, method api.AuthMethod) (*login, error) {
	client, err := conn.client("")
	if err != nil {
		return nil, err
	}
	secret, err := method.Login(ctx, client)
	if err != nil {
		return nil, spoken(err)
	}
	if secret == nil || secret.Auth == nil || secret.Auth.ClientToken == "" {
		return nil, errors.New("vault's answer to the login holds no token")
	}
	if client, err = conn.client(secret.Auth.ClientToken); err != nil {
		return nil, err
	}
	return newLogin(client, time.Duration(secret.Auth.LeaseDuration)*time.Second, secret.Auth.Renewable), nil
}

func newLogin(client *api.Client, ttl time.Duration, renewable bool) *login {
	l := &login{api: client, since: time.Now(), ttl: ttl, renewable: renewable && ttl > 0}
	if ttl > 0 {
		l.expires = l.since.Add(ttl)
	}
	return l
}

func (k *Kubernetes) method() (api.AuthMethod, error) {
	token, err := readShort(k.TokenFile)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewKubernetesAuth(k.Role, kubernetes.WithServiceAccountToken(token), kubernetes.WithMountPath(k.Mount))
}

// Login presents the certificate of the connection it comes by, which is the
// identity's own: Vault asks for it again when the token is renewed.
func (c *Certificate) Login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	fields := make(map[string]any)
	if c.Name != "" {
		fields["name"] = c.Name
	}
	return client.Logical().WriteWithContext(ctx, "auth/"+c.Mount+"/login", fields)
}

// tokenAuth takes a token from a file.
type tokenAuth struct {
	path string
	used string
}

func (a *tokenAuth) login(ctx context.Context, conn *connector) (*login, error) {
	token, err := readShort(a.path)
	if err != nil {
		return nil, err
	}
	a.used = token
	client, err := conn.client(token)
	if err != nil {
		return nil, err
	}
	secret, err := client.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		return nil, spoken(err)
	}
	ttl, err := secret.TokenTTL()
	if err != nil {
		return nil, errors.New("vault's answer does not tell how long the token lives")
	}
	renewable, err := secret.TokenIsRenewable()
	if err != nil {
		return nil, errors.New("vault's answer does not tell whether the token is renewable")
	}
	return newLogin(client, ttl, renewable), nil
}

// stale reports that the file holds another token. One that cannot be read
// for a moment is being replaced.
func (a *tokenAuth) stale() bool {
	token, err := readShort(a.path)
	return err == nil && token != a.used
}

func (*tokenAuth) owned() bool { return false }

// appRoleAuth logs in with a secret-id from a file, from a wrapping token, or
// from what an earlier unwrapping left.
type appRoleAuth struct {
	AppRole
	log       *zap.Logger
	unwrapped unwrappedID
}

func (a *appRoleAuth) login(ctx context.Context, conn *connector) (*login, error) {
	secretID, err := a.secretID(ctx, conn)
	if err != nil {
		return nil, err
	}
	method, err := approle.NewAppRoleAuth(a.RoleID, &approle.SecretID{FromString: secretID}, approle.WithMountPath(a.Mount))
	if err != nil {
		return nil, err
	}
	return loginWith(ctx, conn, method)
}

func (*appRoleAuth) stale() bool { return false }
func (*appRoleAuth) owned() bool { return true }

func (a *appRoleAuth) secretID(ctx context.Context, conn *connector) (string, error) {
	if !a.Wrapped {
		return readShort(a.SecretIDFile)
	}
	return a.unwrapOnce(ctx, conn)
}

// readShort reads a file that holds one token.
func readShort(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", err
	}
	b = bytes.TrimSpace(b)
	if len(b) == 0 || len(b) > maxFile {
		return "", fmt.Errorf("%s: is empty, or longer than %d octets", path, maxFile)
	}
	if bytes.ContainsFunc(b, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", fmt.Errorf("%s: holds something that is not a token", path)
	}
	return string(b), nil
}

// spoken makes an error of the library's about a login fit for a log: what
// Vault said itself stays, cut short; a body that is not its own goes.
func spoken(err error) error {
	var answered *api.ResponseError
	if !errors.As(err, &answered) {
		return err
	}
	said := ""
	if !answered.RawError {
		said = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return ' '
			}
			return r
		}, strings.Join(answered.Errors, "; "))
		said = said[:min(len(said), 300)]
	}
	return &loginRefused{status: answered.StatusCode, said: said}
}

// loginRefused is Vault's answer to a login.
type loginRefused struct {
	status int
	said   string
}

func (e *loginRefused) Error() string { return fmt.Sprintf("vault answered %d %q", e.status, e.said) }
