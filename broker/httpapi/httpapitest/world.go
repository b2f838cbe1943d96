// SPDX-License-Identifier: Apache-2.0

package httpapitest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/attest"
	"github.com/postern-mail/postern/broker/audit/checkpoint"
	"github.com/postern-mail/postern/broker/audit/sink"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/people"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/broker/workstationca"
)

// Admin is who made what a world holds at the start.
var Admin = broker.Actor{Kind: "admin", Name: "test"}

// World is a management server and what it stands on.
type World struct {
	// Dir holds everything; Socket is the server's.
	Dir, Socket string
	Store       *store.Store
	Credentials *Credentials
	Upstream    *Upstream
	Sessions    *Sessions
	CA          *workstationca.Authority
	Handler     http.Handler
	// Log is what the server logged, at every level.
	Log *Log
	// Submitted is an event that is not durable until the log is flushed.
	Submitted atomic.Pointer[broker.Event]

	stop   context.CancelFunc
	served chan error
}

// Start starts a server with its socket at dir/run/postern.sock. The caller
// must Close it.
func Start(dir string) (*World, error) { return start(dir, nil) }

// StartOn is Start on a store that is there, and that Close closes.
func StartOn(dir string, s *store.Store) (*World, error) { return start(dir, s) }

func start(dir string, s *store.Store) (*World, error) {
	w := &World{
		Store: s,
		Dir:   dir, Socket: filepath.Join(dir, "run", "postern.sock"),
		Credentials: NewCredentials(), Upstream: &Upstream{}, Log: &Log{}, served: make(chan error, 1),
	}
	logger := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), w.Log, zap.DebugLevel))
	var err error
	if w.CA, err = newCA(filepath.Join(dir, "ca")); err != nil {
		return nil, err
	}
	if w.Store == nil {
		if w.Store, err = store.Open(context.Background(), store.Config{Path: filepath.Join(dir, "postern.db"), Logger: logger}); err != nil {
			return nil, err
		}
	}
	w.Sessions = newSessions(w.Store)
	if err := w.serve(logger); err != nil {
		w.Sessions.close()
		return nil, errors.Join(err, w.Store.Close())
	}
	return w, nil
}

func newCA(dir string) (*workstationca.Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return workstationca.Create(dir, workstationca.Config{})
}

func (w *World) serve(logger *zap.Logger) error {
	key := broker.NewSecret(bytes.Repeat([]byte("k"), 32))
	apiTokens, err := people.NewAPITokens(key)
	if err != nil {
		return err
	}
	codes, err := people.NewEnrolmentCodes(key)
	if err != nil {
		return err
	}
	attestor, err := attest.New(attest.Config{Key: key})
	if err != nil {
		return err
	}
	claims, err := people.NewClaims(key)
	if err != nil {
		return err
	}
	authenticator, err := people.NewAuthenticator(people.Config{People: w.Store, Tokens: apiTokens})
	if err != nil {
		return err
	}
	publisher, err := checkpoint.New(checkpoint.Config{
		Logs: w.Store, Logger: logger, Signers: []checkpoint.Signer{checkpoint.NewLocal(bytes.Repeat([]byte("l"), 32))},
	})
	if err != nil {
		return err
	}
	sinks, err := sink.New(sink.Config{
		Sinks: []sink.Sink{{Name: "siem", Kind: "file", Target: "nowhere", Receiver: nowhere{}}}, Store: w.Store, Log: eventLog{w.Store}, Logger: logger, Node: "test",
	})
	if err != nil {
		return err
	}
	w.Handler, err = httpapi.New(httpapi.Config{
		Logs: signedLogs{w.Store, publisher}, LogKeyring: publisher, Questions: w.Store, Witnesses: w.Store, Retentions: w.Store,
		State: w.Store, FirmState: w.Store, People: w.Store, Repeats: w.Store, Events: w.Store, Flusher: flusher{w}, Credentials: w.Credentials, Upstream: w.Upstream,
		Providers: w.Store, Rotations: w.Store, Watches: w.Store, Canaries: w.Store, Alerts: w.Store, Sinks: sinks, RotationSecrets: w.Credentials, Drivers: map[string]broker.Driver{"test": driver{}},
		Sessions: w.Sessions, Tokens: tokens{}, APITokens: apiTokens, Claims: claims, Authenticator: authenticator,
		Directory: true, CertificateAlone: []broker.WorkstationClass{broker.ClassHardware},
		WorkstationCA: w.CA, Enrolments: w.Store, EnrolmentCodes: codes, Attestor: attestor, Logger: logger,
	})
	if err != nil {
		return err
	}
	server, err := httpapi.NewServer(w.Handler, logger)
	if err != nil {
		return err
	}
	l, err := httpapi.ListenUnix(w.Socket, httpapi.SocketMode)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	go func() { w.served <- server.Serve(ctx, l) }()
	return nil
}

// flusher makes a world's submitted event durable.
type flusher struct{ *World }

func (w flusher) Flush(ctx context.Context) {
	if e := w.Submitted.Swap(nil); e != nil {
		if err := w.Store.AppendEvents(ctx, []*broker.Event{e}); err != nil {
			panic(err)
		}
	}
}

// Close stops the server and waits for it.
func (w *World) Close() error {
	w.stop()
	err := <-w.served
	w.Sessions.close()
	return errors.Join(err, w.Store.Close())
}

// signedLogs signs what is new before it tells of it, so that no test must wait.
type signedLogs struct {
	broker.Logs
	publisher *checkpoint.Publisher
}

func (l signedLogs) LogHead(ctx context.Context, firm broker.ID) (*broker.LogHead, error) {
	l.publisher.Round(ctx)
	return l.Logs.LogHead(ctx, firm)
}

// tokens makes app passwords as broker/session does, without its key.
type tokens struct{}

func (tokens) NewToken() (display string, hash []byte, err error) {
	display = "token-" + string(broker.NewID())
	sum := sha256.Sum256([]byte(display))
	return display, sum[:], nil
}

// driver takes any settings, and is asked for nothing else here.
type driver struct{}

func (driver) Check(_, _ json.RawMessage) error { return nil }

func (driver) Set(context.Context, *broker.PasswordChange) error {
	return &broker.DriverError{Outcome: broker.NotApplied, Reason: broker.DriverMisconfigured}
}

// Log keeps what is logged. Its methods may be called from any goroutine.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write appends (zapcore.WriteSyncer).
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// Sync has nothing to do.
func (*Log) Sync() error { return nil }

// String returns all that was logged.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Upstream accepts one secret. Its methods may be called from any goroutine.
type Upstream struct {
	mu     sync.Mutex
	secret string
	err    error
	probed []broker.Mailbox
	// instead is what a probe leaves in place of the secret; empty: that.
	instead string
}

// Accept sets the secret that opens every mailbox.
func (u *Upstream) Accept(secret string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.secret = secret
}

// HandBack has probes put another secret in the place of the one that they
// were given, as an issuer of refresh tokens does.
func (u *Upstream) HandBack(secret string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.instead = secret
}

// Fail makes every probe fail; nil: no more.
func (u *Upstream) Fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
}

// Probed returns the mailboxes that were tried, in order.
func (u *Upstream) Probed() []broker.Mailbox {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]broker.Mailbox(nil), u.probed...)
}

// Probe accepts the secret that Accept named.
func (u *Upstream) Probe(_ context.Context, m *broker.Mailbox, c *broker.Credential) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.probed = append(u.probed, *m)
	if u.err != nil {
		return u.err
	}
	if u.secret == "" || string(c.Secret.Reveal()) != u.secret {
		return broker.Errorf(broker.CredentialRefused, "the IMAP server refused the login").WithCause(fmt.Errorf("NO authentication failed"))
	}
	if u.instead != "" {
		c.Secret.Wipe()
		c.Secret = broker.NewSecret([]byte(u.instead))
	}
	return nil
}

// OpenIMAP is not used by the API.
func (*Upstream) OpenIMAP(context.Context, *broker.Mailbox, *broker.Credential) (*broker.IMAPConn, error) {
	return nil, broker.Errorf(broker.Internal, "the management API opens no mailbox")
}

// OpenSubmission is not used by the API.
func (*Upstream) OpenSubmission(context.Context, *broker.Mailbox, *broker.Credential) (*broker.SubmissionConn, error) {
	return nil, broker.Errorf(broker.Internal, "the management API opens no mailbox")
}
