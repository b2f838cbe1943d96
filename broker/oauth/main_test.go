// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	address  = "sales@client.example"
	clientID = "5d0f2f3e-app"
	// marked is a client secret that nothing else holds.
	marked = `mArKeD~s3cret+&=%"\x`
)

// world is an Upstream with an issuer, a storage and a mail server.
type world struct {
	*Upstream
	t      *testing.T
	issuer *servers.Issuer
	store  *memory
	mail   *mailServer
	box    *broker.Mailbox
	logged *observer.ObservedLogs
	ahead  atomic.Int64
	// stop ends Run.
	stop func()
}

// keyPair is an application's key: made once, since that takes long.
var keyPair = sync.OnceValues(func() (key []byte, certificate *x509.Certificate) {
	private, err := rsa.GenerateKey(rand.Reader, minKeyBits)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		panic(err)
	}
	if certificate, err = x509.ParseCertificate(der); err != nil {
		panic(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), certificate
})

func certificatePEM() string {
	_, c := keyPair()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func keyPEM() broker.Secret {
	key, _ := keyPair()
	return broker.NewSecret(bytes.Clone(key))
}

func secretOf(s string) broker.Secret { return broker.NewSecret([]byte(s)) }

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	_, certificate := keyPair()
	w := &world{t: t, store: &memory{}, mail: &mailServer{}}
	w.issuer = servers.StartIssuer(t, servers.NewCA(t), map[string]*servers.IssuerClient{
		clientID:                   {Secret: marked, Mailbox: address},
		"key-app":                  {Certificate: certificate, Mailbox: address},
		"public-app":               {},
		"robot@project.example":    {Certificate: certificate, Delegated: "client.example"},
		"stranger@project.example": {Certificate: certificate, Delegated: "elsewhere.example"},
		"without-permissions":      {Secret: marked},
	})
	w.box = &broker.Mailbox{ID: broker.NewID(), FirmID: broker.NewID(), Address: address}
	w.start(change...)
	return w
}

// start makes the Upstream, or another one as after a restart.
func (w *world) start(change ...func(*Config)) {
	w.t.Helper()
	core, logged := observer.New(zapcore.DebugLevel)
	w.logged = logged
	c := Config{
		Upstream: w.mail, Credentials: w.store, RootCAs: w.issuer.CA.Pool(),
		Networks: []netip.Prefix{netip.MustParsePrefix(w.issuer.Networks())}, Logger: zap.New(core),
		Now: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
	}
	for _, f := range change {
		f(&c)
	}
	u, err := New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Upstream = u
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.t.Cleanup(w.stop)
}

// pass lets time pass, here and at the issuer.
func (w *world) pass(d time.Duration) { w.issuer.SetClock(time.Duration(w.ahead.Add(int64(d)))) }

// client is a credential of kind oauth2-client.
func (w *world) client() *broker.Credential {
	return credential(broker.KindOAuth2Client, &Document{TokenURL: w.issuer.TokenURL(), ClientID: clientID, ClientSecret: secretOf(marked), Scope: "x"})
}

// consented is one of kind oauth2-refresh.
func (w *world) consented() *broker.Credential {
	return credential(broker.KindOAuth2Refresh, &Document{
		ID: string(broker.NewID()), TokenURL: w.issuer.TokenURL(), ClientID: "public-app",
		RefreshToken: secretOf(w.issuer.Consent("public-app", address)),
	})
}

func credential(kind broker.CredentialKind, d *Document) *broker.Credential {
	return &broker.Credential{Kind: kind, Secret: broker.NewSecret(d.Encode(kind))}
}

// set stores a credential.
func (w *world) set(c *broker.Credential) {
	w.t.Helper()
	if _, err := w.store.SetCredential(context.Background(), w.box.FirmID, w.box.ID, w.over(c)); err != nil {
		w.t.Fatal(err)
	}
}

// over makes c one to be stored over what is stored.
func (w *world) over(c *broker.Credential) *broker.Credential {
	w.t.Helper()
	var err error
	if c.Version, err = w.store.CredentialVersion(context.Background(), w.box.FirmID, w.box.ID); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// open logs in as a session does: with what is stored.
func (w *world) open() error {
	c, err := w.store.Credential(context.Background(), w.box.FirmID, w.box.ID)
	if err != nil {
		return err
	}
	defer c.Secret.Wipe()
	_, err = w.OpenIMAP(context.Background(), w.box, c)
	return err
}

func (w *world) mustOpen() {
	w.t.Helper()
	if err := w.open(); err != nil {
		w.t.Fatalf("login: %v", err)
	}
}

// requests fails unless the issuer got so many in all.
func (w *world) requests(want int) {
	w.t.Helper()
	if got := len(w.issuer.Requests()); got != want {
		w.t.Errorf("the issuer got %d requests, want %d", got, want)
	}
}

func wantError(t *testing.T, err error, code broker.Code, reason string) {
	t.Helper()
	var e *broker.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is no *broker.Error", err)
	}
	if e.Code != code || e.Reason != reason {
		t.Errorf("error is %s/%s (%v), want %s/%s", e.Code, e.Reason, err, code, reason)
	}
}

// mailServer lets in whoever brings a token that is not refused.
type mailServer struct {
	mu      sync.Mutex
	shown   []string
	refuses func(token string) error
}

func (s *mailServer) login(c *broker.Credential) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Kind != broker.KindAccessToken {
		return errors.New("not a token")
	}
	token := string(c.Secret.Reveal())
	s.shown = append(s.shown, token)
	if s.refuses != nil {
		return s.refuses(token)
	}
	return nil
}

// refuse has it refuse the tokens that were shown until now.
func (s *mailServer) refuseShown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := slices.Clone(s.shown)
	s.refuses = func(token string) error {
		if slices.Contains(old, token) {
			return refusedLogin()
		}
		return nil
	}
}

func (s *mailServer) refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = func(string) error { return err }
}

func refusedLogin() error {
	return &broker.Error{Code: broker.CredentialRefused, Reason: "refused", Public: "no"}
}

func (s *mailServer) OpenIMAP(_ context.Context, _ *broker.Mailbox, c *broker.Credential) (*broker.IMAPConn, error) {
	if err := s.login(c); err != nil {
		return nil, err
	}
	return &broker.IMAPConn{}, nil
}

func (s *mailServer) OpenSubmission(_ context.Context, _ *broker.Mailbox, c *broker.Credential) (*broker.SubmissionConn, error) {
	if err := s.login(c); err != nil {
		return nil, err
	}
	return &broker.SubmissionConn{}, nil
}

func (s *mailServer) Probe(_ context.Context, _ *broker.Mailbox, c *broker.Credential) error {
	return s.login(c)
}

// memory is a broker.Credentials that holds one mailbox's.
type memory struct {
	mu      sync.Mutex
	stored  *broker.Credential
	version int
	// failSet, failGet and failVersion fail calls; beforeSet runs before one
	// stores, and may itself store.
	failSet, failGet, failVersion error
	beforeSet                     func()
}

func (s *memory) Credential(context.Context, broker.ID, broker.ID) (*broker.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failGet != nil {
		return nil, s.failGet
	}
	if s.stored == nil {
		return nil, broker.Errorf(broker.NotFound, "none")
	}
	c := *s.stored
	c.Secret, c.Version = broker.NewSecret(bytes.Clone(s.stored.Secret.Reveal())), s.version
	return &c, nil
}

func (s *memory) SetCredential(_ context.Context, _, _ broker.ID, c *broker.Credential) (int, error) {
	s.mu.Lock()
	before := s.beforeSet
	s.beforeSet = nil
	s.mu.Unlock()
	if before != nil {
		before()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failSet != nil {
		return 0, s.failSet
	}
	current := s.version
	if s.stored == nil {
		current = 0
	}
	if c.Version != current {
		return 0, broker.Errorf(broker.Conflict, "changed")
	}
	s.version++
	stored := *c
	stored.Secret = broker.NewSecret(bytes.Clone(c.Secret.Reveal()))
	s.stored = &stored
	return s.version, nil
}

func (s *memory) CredentialVersion(context.Context, broker.ID, broker.ID) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stored == nil || s.failVersion != nil {
		return 0, s.failVersion
	}
	return s.version, nil
}

func (s *memory) DeleteCredential(context.Context, broker.ID, broker.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = nil
	return nil
}

func (s *memory) Ready(context.Context) error { return nil }

func (s *memory) fail(set, get, version error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failSet, s.failGet, s.failVersion = set, get, version
}

// refreshToken is the stored one.
func (s *memory) refreshToken(t *testing.T) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := Parse(s.stored.Kind, s.stored.Secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return string(d.RefreshToken.Reveal())
}

// nothingTold fails when a secret is in an error or in what was logged.
func (w *world) nothingTold(err error, secrets ...string) {
	w.t.Helper()
	var told strings.Builder
	if err != nil {
		told.WriteString(err.Error())
	}
	for _, entry := range w.logged.All() {
		told.WriteString(entry.Message)
		encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{})
		if b, err := encoder.EncodeEntry(zapcore.Entry{}, entry.Context); err == nil {
			told.Write(b.Bytes())
		}
	}
	for _, secret := range append(secrets, w.issuer.Issued()...) {
		if strings.Contains(told.String(), secret) {
			w.t.Errorf("a secret is told: %s", told.String())
		}
	}
}
