// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// Limits of the API and its server.
const (
	// MaxBodyBytes bounds a request's body.
	MaxBodyBytes = 1 << 20
	// maxHeaderBytes bounds a request's header.
	maxHeaderBytes = 32 << 10
	// readHeaderTimeout and readTimeout bound how long a request may take to
	// arrive, from its connection's or the last answer's end on.
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	// writeTimeout bounds a whole exchange; it is longer than probeTimeout.
	writeTimeout = 90 * time.Second
	// idleTimeout closes kept-alive connections.
	idleTimeout = 2 * time.Minute
	// shutdownTimeout is how long running requests may take to end.
	shutdownTimeout = 10 * time.Second
	// probeTimeout bounds checking a credential against both services.
	probeTimeout = 60 * time.Second
	// settleTimeout is how long a revoke waits to see its sessions end: the
	// design's second, and a little for the answer that says they did not.
	settleTimeout = 1200 * time.Millisecond
	// settleInterval is how often it looks.
	settleInterval = 10 * time.Millisecond
	// settlePart of the time it looks, at most one part.
	settlePart = 20
	// defaultSessions and maxSessions bound a list of sessions.
	defaultSessions = 100
	maxSessions     = 10000
	// defaultEvents is a page of events.
	defaultEvents = 1000
	// flushTimeout bounds the wait for events that are not durable yet. A log that
	// takes longer is not well, which is told elsewhere.
	flushTimeout = 2 * time.Second
)

// Sessions is what the API needs of the live sessions: broker/session.
type Sessions interface {
	// Live returns the records of the sessions that are open on this node.
	// The caller must not change them.
	Live() []*broker.Session
	// Standing returns the records of those that may go on under the policy at
	// revision; ok is false while that is not decided for each. The caller
	// must not change them.
	Standing(revision int64) (records []*broker.Session, ok bool)
	// EndSession ends one with reason by-admin and returns when it is told
	// to; NotFound when it is not open on this node.
	EndSession(ctx context.Context, by broker.Actor, id broker.ID) error
}

// Tokens makes app passwords.
type Tokens interface {
	// NewToken returns a random token as the agent types it, and its keyed
	// hash, which is all that is stored.
	NewToken() (display string, hash []byte, err error)
}

// WorkstationCA issues client certificates: broker/workstationca, broker/vault.
type WorkstationCA interface {
	// Issue checks a PKCS #10 request in PEM and certifies its key for w. The
	// error is Invalid when the request is no good, and Unavailable when the CA
	// cannot be used: nothing was issued then.
	Issue(ctx context.Context, csrPEM []byte, w *broker.Workstation) (certPEM []byte, err error)
	// CertificatePEM returns the CA's own certificate.
	CertificatePEM() []byte
	// Verify checks that it issued a client certificate, which is valid now.
	Verify(*x509.Certificate) error
}

// CertificateRevoker is a WorkstationCA that publishes what it has revoked. It
// adds nothing to what Postern itself does, which goes by its own record: it is
// for others who trust the CA.
type CertificateRevoker interface {
	// Revoke returns nil for a certificate that is another's or not known.
	Revoke(context.Context, *broker.WorkstationCertified) error
}

// TokenMaker makes tokens that are shown once: broker/people.
type TokenMaker interface {
	// New returns a token, and its keyed hash, which is all that is stored.
	New() (token string, hash []byte)
	// Hash returns a token's hash; ok is false for what New never returns.
	Hash(token string) (hash []byte, ok bool)
}

// EventFlusher is what batches events: broker/audit.
type EventFlusher interface {
	// Flush returns when whatever was submitted before it is durable or has
	// failed, or when ctx ends.
	Flush(ctx context.Context)
}

// Config is what the API stands on. All fields are needed but WorkstationCA.
type Config struct {
	State       broker.State
	FirmState   broker.FirmState
	People      broker.People
	Repeats     broker.Repeats
	Events      broker.EventStore
	Flusher     EventFlusher
	Logs        broker.Logs
	Questions   broker.Questions
	LogKeyring  LogKeyring
	Witnesses   broker.Witnesses
	Retentions  broker.Retentions
	Enrolments  broker.Enrolments
	Credentials broker.Credentials
	// Providers, Rotations and RotationSecrets are for replacing passwords, and
	// Drivers check settings.
	Providers       broker.Providers
	Rotations       broker.Rotations
	RotationSecrets RotationSecrets
	Drivers         map[string]broker.Driver
	// Watches are what the sentinel knows.
	Watches  broker.Watches
	Canaries broker.Canaries
	Alerts   broker.Alerts
	Sinks    Sinks
	Upstream broker.Upstream
	Sessions Sessions
	Tokens   Tokens
	// APITokens and Claims make what people show; Authenticator knows them
	// again.
	APITokens, Claims, EnrolmentCodes TokenMaker
	Authenticator                     Authenticator
	// WorkstationCA may be nil: then workstations have certificates of
	// another CA, and a CSR is refused.
	WorkstationCA WorkstationCA
	// Attestor proves that keys are in TPMs.
	Attestor Attestor
	// Directory says that agents' passwords can be a directory's.
	Directory bool
	// CertificateAlone are the classes of workstations whose certificate may be
	// all that lets their own agent in; empty: none.
	CertificateAlone []broker.WorkstationClass
	// CompanyCAs check the names that workstations have in certificates of a
	// company's own CAs; nil: none are known by name.
	CompanyCAs broker.CompanyCAs
	Logger     *zap.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// api is the handlers' receiver.
type api struct {
	Config
	huma huma.API
	// changing keeps checks of a mailbox and what follows from them together.
	changing keyedMutex
	// rules is the table of who may do what. public and secret hold the patterns
	// of the operations that need no token, and of those that answer with a
	// secret; faults is what keeps the API from starting.
	rules          map[string]rule
	public, secret map[string]bool
	faults         []error
	// before, failures and after limit requests before a token is looked at,
	// tokens that are not good, and requests by person; renewals limits those
	// of a workstation's certificate by its key.
	before, failures, after, renewals *limiter
}

// New returns the API's handler, for [Server].
func New(c Config) (http.Handler, error) {
	a, mux, err := newAPI(c)
	if err != nil {
		return nil, err
	}
	document, err := openAPIDocument(a.huma)
	if err != nil {
		return nil, err
	}
	mux.HandleFunc("GET "+openAPIPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(document)
	})
	return a.protect(mux), nil
}

func newAPI(c Config) (*api, *http.ServeMux, error) {
	for name, dependency := range map[string]any{
		"State": c.State, "FirmState": c.FirmState, "People": c.People, "Repeats": c.Repeats, "Events": c.Events, "Flusher": c.Flusher, "Logs": c.Logs, "Questions": c.Questions, "LogKeyring": c.LogKeyring, "Witnesses": c.Witnesses, "Retentions": c.Retentions,
		"Enrolments": c.Enrolments, "EnrolmentCodes": c.EnrolmentCodes, "Attestor": c.Attestor,
		"Providers": c.Providers, "Rotations": c.Rotations, "Watches": c.Watches, "Canaries": c.Canaries, "Alerts": c.Alerts, "Sinks": c.Sinks, "RotationSecrets": c.RotationSecrets,
		"APITokens": c.APITokens, "Claims": c.Claims, "Authenticator": c.Authenticator, "Credentials": c.Credentials, "Upstream": c.Upstream,
		"Sessions": c.Sessions, "Tokens": c.Tokens, "Logger": c.Logger,
	} {
		if v := reflect.ValueOf(dependency); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
			return nil, nil, fmt.Errorf("httpapi: Config.%s is missing", name)
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	mux := http.NewServeMux()
	a := &api{
		Config: c, huma: humago.New(mux, humaConfig()), rules: rules(), public: map[string]bool{}, secret: map[string]bool{},
		before: newLimiter(addressRate, addressBurst), failures: newLimiter(failureRate, failureBurst), after: newLimiter(personRate, personBurst),
		renewals: newLimiter(renewalRate, renewalBurst),
	}
	a.registerPeople()
	a.registerAPITokens()
	a.registerClaims()
	a.registerFirms()
	a.registerMailboxes()
	a.registerCredential()
	a.registerAgents()
	a.registerWorkstations()
	a.registerEnrolment()
	a.registerSites()
	a.registerDelegations()
	a.registerAssignments()
	a.registerAppPasswords()
	a.registerSessions()
	a.registerLocks()
	a.registerEvents()
	a.registerLog()
	a.registerWitnesses()
	a.registerRetention()
	a.registerEvidence()
	a.registerQuestions()
	a.registerOffBoarding()
	a.registerDownloads()
	a.registerImports()
	a.registerProviders()
	a.registerRotations()
	a.registerWatches()
	a.registerCanaries()
	a.registerAlerts()
	a.registerSinks()
	if err := errors.Join(a.faults...); err != nil {
		return nil, nil, err
	}
	return a, mux, nil
}

const openAPIPath = "/v1/openapi.json"

func humaConfig() huma.Config {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	registry.RegisterTypeAlias(reflect.TypeFor[policy.Actions](), reflect.TypeFor[[]Action]())
	config := huma.DefaultConfig("Postern management API", "1")
	config.Info.Description = "What `postern` on the command line speaks. Things are named by id, or by name where one is unique: " +
		"a mailbox's address, a firm's, agent's, workstation's or site's name."
	config.Components.Schemas = registry
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"bearer": {
		Type: "http", Scheme: "bearer",
		Description: "An API token, or over the server's Unix socket nothing: root and the server's own user are admins there.",
	}}
	config.Security = []map[string][]string{{"bearer": {}}}
	// The document is served by New: huma's own routes for it race on their
	// first use, and its pages load scripts from elsewhere.
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil
	config.RejectUnknownQueryParameters = true
	// huma's errors echo the input; no error leaves in its form.
	config.Transformers = []huma.Transformer{problemTransformer}
	return config
}

// openAPIDocument renders the API's description.
func openAPIDocument(h huma.API) ([]byte, error) {
	// huma registers the schemas of its own errors, which are never sent.
	schemas := h.OpenAPI().Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	document, err := json.MarshalIndent(h.OpenAPI(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("httpapi: OpenAPI document: %w", err)
	}
	return append(document, '\n'), nil
}

// Action is the name of one of the policy's actions.
type Action string

// Schema lists the names (huma.SchemaProvider).
func (Action) Schema(huma.Registry) *huma.Schema {
	names := append([]string{"all"}, policy.All.Names()...)
	enum := make([]any, len(names))
	for i, name := range names {
		enum[i] = name
	}
	return &huma.Schema{Type: huma.TypeString, Enum: enum}
}

// answer is a body.
type answer[T any] struct{ Body T }

// List is the body of every list.
type List[T any] struct {
	Items []T    `json:"items" nullable:"false"`
	Next  string `json:"next,omitempty" doc:"There is more: what to give as cursor, for the page that follows."`
}

func listOf[T any](items []T) *answer[List[T]] {
	if items == nil {
		items = []T{}
	}
	return &answer[List[T]]{List[T]{Items: items}}
}

// none is the input of a request that has none.
type none struct{}

// route registers an operation whose errors become problems.
func route[I, O any](a *api, method, path, id, summary string, handler func(context.Context, *I) (*O, error)) {
	register(a, huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary}, handler)
}

func register[I, O any](a *api, op huma.Operation, handler func(context.Context, *I) (*O, error)) {
	r, ok := a.rules[op.OperationID]
	if !ok {
		a.faults = append(a.faults, fmt.Errorf("httpapi: the table of who may do what does not know %s", op.OperationID))
		return
	}
	if r.who&anyone != 0 {
		a.public[op.Method+" "+op.Path] = true
		op.Security = []map[string][]string{}
	}
	if r.secret {
		a.secret[op.Method+" "+op.Path] = true
	}
	op.Parameters = append(op.Parameters, headers(&op, r)...)
	op.Tags = []string{r.group}
	if _, isList := pageOf(new(O)); isList {
		op.Parameters = append(op.Parameters, pageParameters()...)
		op.Middlewares = append(op.Middlewares, takePage)
	}
	op.Middlewares = append(op.Middlewares, a.guard(&op, r), a.takeIfMatch(&op, r))
	op.MaxBodyBytes = MaxBodyBytes
	op.BodyReadTimeout = readTimeout
	if op.Method == http.MethodPost && op.DefaultStatus == 0 {
		op.DefaultStatus = http.StatusOK
	}
	op.Responses = map[string]*huma.Response{"default": problemResponse(a.huma)}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		if r.recorded {
			a.flushLog(ctx)
		}
		out, err := handler(ctx, in)
		if lostRace(err) {
			out, err = handler(ctx, in)
		}
		if err == nil && out != nil {
			if body, isList := pageOf(out); isList {
				err = page(ctx, body)
			}
		}
		if err != nil {
			return nil, a.problem(ctx, &op, err)
		}
		return out, nil
	})
}
