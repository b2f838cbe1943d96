// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a small broker.State in memory with one of everything, and the
// other things that a Manager stands on. Methods that a Manager does not call
// are missing, and panic.
type world struct {
	broker.State // nil

	mu       sync.Mutex
	revision int64
	firms    map[broker.ID]*broker.Firm
	boxes    map[broker.ID]*broker.Mailbox
	agents   map[broker.ID]*broker.Agent
	stations map[broker.ID]*broker.Workstation
	places   map[broker.ID]*broker.Site
	grants   map[broker.ID]*broker.Delegation
	assigned map[broker.ID]*broker.Assignment
	secrets  map[broker.ID]*broker.AppPassword
	locked   map[broker.ID]*broker.Lock
	tell     func(broker.Change)
	// mute loses notices, fail fails every read, failOnly those of one name.
	mute     bool
	fail     error
	failOnly map[string]error
	// hook is called before and after each call, by its name.
	hook func(call string)
	// lying gives any app password out for any hash.
	lying bool
	calls []string

	firm        *broker.Firm
	mailbox     *broker.Mailbox
	agent       *broker.Agent
	workstation *broker.Workstation
	site        *broker.Site
	delegation  *broker.Delegation
	assignment  *broker.Assignment
	password    *broker.AppPassword
	token       string
	certificate *x509.Certificate

	log      *fakeLog
	vault    *fakeVault
	upstream *fakeUpstream
	manager  *Manager
}

var tokenKey = bytes.Repeat([]byte{7}, tokenKeySize)

func newWorld(t testing.TB, change ...func(*Config)) *world {
	t.Helper()
	w := &world{
		revision: 1,
		firms:    map[broker.ID]*broker.Firm{}, boxes: map[broker.ID]*broker.Mailbox{},
		agents: map[broker.ID]*broker.Agent{}, stations: map[broker.ID]*broker.Workstation{},
		places: map[broker.ID]*broker.Site{}, grants: map[broker.ID]*broker.Delegation{},
		assigned: map[broker.ID]*broker.Assignment{}, secrets: map[broker.ID]*broker.AppPassword{},
		locked: map[broker.ID]*broker.Lock{}, failOnly: map[string]error{},
		log: &fakeLog{}, vault: &fakeVault{secret: "correct horse battery"}, upstream: &fakeUpstream{},
		certificate: &x509.Certificate{RawSubjectPublicKeyInfo: []byte("workstation key")},
	}
	c := Config{
		State: w, Log: w.log, Credentials: w.vault, Upstream: w.upstream,
		TokenKey: broker.NewSecret(tokenKey), Node: "node-1", Logger: zap.NewNop(),
	}
	for _, f := range change {
		f(&c)
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	w.manager = m

	w.firm = &broker.Firm{ID: broker.NewID(), Name: "Firm", Contact: "Priya (desk 4)"}
	w.mailbox = &broker.Mailbox{
		ID: broker.NewID(), FirmID: w.firm.ID, Address: "Info@firm.example", Aliases: []string{"sales@firm.example"},
		IMAP:       broker.Endpoint{Host: "imap.firm.example", Port: 993, TLS: broker.TLSImplicit},
		Submission: broker.Endpoint{Host: "smtp.firm.example", Port: 465, TLS: broker.TLSImplicit},
	}
	w.site = &broker.Site{ID: broker.NewID(), Name: "hq", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	w.firms[w.firm.ID], w.boxes[w.mailbox.ID], w.places[w.site.ID] = w.firm, w.mailbox, w.site
	w.delegation = w.delegate(w.mailbox, policy.Terms{Actions: policy.All})
	w.agent, w.password, w.token = w.hire("anna")
	w.assignment = w.assign(w.agent, w.delegation, policy.Terms{Actions: policy.All})
	w.workstation = &broker.Workstation{
		ID: broker.NewID(), Name: "desk-1", Class: broker.ClassSoftware, SiteID: w.site.ID, Groups: []string{"support"},
		KeyPins: []string{broker.KeyPin(w.certificate)},
	}
	w.stations[w.workstation.ID] = w.workstation
	return w
}

func (w *world) hire(name string) (*broker.Agent, *broker.AppPassword, string) {
	a := &broker.Agent{ID: broker.NewID(), Name: name}
	token, hash, err := w.manager.NewToken()
	if err != nil {
		panic(err)
	}
	p := &broker.AppPassword{ID: broker.NewID(), AgentID: a.ID, Hash: hash}
	w.agents[a.ID], w.secrets[p.ID] = a, p
	return a, p, token
}

func (w *world) delegate(m *broker.Mailbox, terms policy.Terms) *broker.Delegation {
	d := &broker.Delegation{ID: broker.NewID(), FirmID: m.FirmID, MailboxID: m.ID, Terms: terms}
	w.grants[d.ID] = d
	return d
}

func (w *world) assign(a *broker.Agent, d *broker.Delegation, terms policy.Terms) *broker.Assignment {
	x := &broker.Assignment{
		ID: broker.NewID(), DelegationID: d.ID, FirmID: d.FirmID, MailboxID: d.MailboxID, AgentID: a.ID,
		Terms: terms, CreatedAt: time.Now(),
	}
	w.assigned[x.ID] = x
	return x
}

// login is the agent's, at the workstation.
func (w *world) login() broker.Login {
	return broker.Login{
		Protocol: broker.ProtocolIMAP, Username: "info@firm.example", Token: broker.NewSecret([]byte(w.token)),
		Certificate: w.certificate, RemoteAddr: netip.MustParseAddrPort("192.0.2.17:50000"),
	}
}

// run starts the Manager and stops it when the test ends.
func (w *world) run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.manager.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	<-w.manager.ready
}

func (w *world) open(t testing.TB) broker.LiveSession {
	t.Helper()
	s, err := w.manager.Open(context.Background(), w.login())
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { s.End(&broker.End{Reason: broker.EndLogout}, nil) })
	return s
}

// set commits a change.
func (w *world) set(c broker.Change, change func()) {
	w.mu.Lock()
	change()
	w.revision++
	c.Revision, c.At = w.revision, time.Now()
	tell := w.tell
	if w.mute {
		tell = nil
	}
	w.mu.Unlock()
	if tell != nil {
		tell(c)
	}
}

// lock adds a lock.
func (w *world) lock(target broker.LockTarget, id broker.ID, until time.Time) {
	l := &broker.Lock{ID: broker.NewID(), Target: target, TargetID: id, Message: "Stop work.", Until: until}
	w.set(broker.Change{Kind: "lock", ID: l.ID, Target: target, TargetID: id}, func() { w.locked[l.ID] = l })
}

// enter begins a call of the state.
func (w *world) enter(ctx context.Context, call string) (leave func(), err error) {
	w.mu.Lock()
	hook := w.hook
	w.calls = append(w.calls, call)
	w.mu.Unlock()
	if hook != nil {
		hook("before " + call)
	}
	w.mu.Lock()
	err = w.fail
	if only := w.failOnly[call]; only != nil {
		err = only
	}
	if err == nil && ctx.Err() != nil {
		err = broker.Errorf(broker.Unavailable, "gone").WithCause(ctx.Err())
	}
	return func() {
		w.mu.Unlock()
		if hook != nil {
			hook("after " + call)
		}
	}, err
}

func (w *world) taken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

var errMissing = broker.Errorf(broker.NotFound, "no such thing")

func find[T any](ctx context.Context, w *world, call string, all map[broker.ID]*T, match func(*T) bool) (*T, error) {
	leave, err := w.enter(ctx, call)
	defer leave()
	if err != nil {
		return nil, err
	}
	for _, x := range all {
		if match(x) {
			c := *x
			return &c, nil
		}
	}
	return nil, errMissing
}

func every[T any](ctx context.Context, w *world, call string, all map[broker.ID]*T, match func(*T) bool) ([]*T, error) {
	leave, err := w.enter(ctx, call)
	defer leave()
	if err != nil {
		return nil, err
	}
	var ids []broker.ID
	for id, x := range all {
		if match(x) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids) // ids grow with time: oldest first
	found := make([]*T, len(ids))
	for i, id := range ids {
		c := *all[id]
		found[i] = &c
	}
	return found, nil
}

func (w *world) Firm(ctx context.Context, id broker.ID) (*broker.Firm, error) {
	return find(ctx, w, "Firm", w.firms, func(x *broker.Firm) bool { return x.ID == id })
}

func (w *world) Mailbox(ctx context.Context, id broker.ID) (*broker.Mailbox, error) {
	return find(ctx, w, "Mailbox", w.boxes, func(x *broker.Mailbox) bool { return x.ID == id })
}

// MailboxByAddress finds aliases as well, which a Manager must not take.
func (w *world) MailboxByAddress(ctx context.Context, address string) (*broker.Mailbox, error) {
	return find(ctx, w, "MailboxByAddress", w.boxes, func(x *broker.Mailbox) bool {
		return slices.Contains(x.Addresses(), strings.ToLower(address))
	})
}

func (w *world) Agent(ctx context.Context, id broker.ID) (*broker.Agent, error) {
	return find(ctx, w, "Agent", w.agents, func(x *broker.Agent) bool { return x.ID == id })
}

func (w *world) AgentByName(ctx context.Context, name string) (*broker.Agent, error) {
	return find(ctx, w, "AgentByName", w.agents, func(x *broker.Agent) bool { return strings.EqualFold(x.Name, name) })
}

func (w *world) Workstation(ctx context.Context, id broker.ID) (*broker.Workstation, error) {
	return find(ctx, w, "Workstation", w.stations, func(x *broker.Workstation) bool { return x.ID == id })
}

func (w *world) WorkstationByCertificateName(ctx context.Context, n broker.CertificateName) (*broker.Workstation, error) {
	return find(ctx, w, "WorkstationByCertificateName", w.stations, func(x *broker.Workstation) bool {
		return x.CertificateName != nil && *x.CertificateName == n
	})
}

func (w *world) WorkstationByKeyPin(ctx context.Context, pin string) (*broker.Workstation, error) {
	return find(ctx, w, "WorkstationByKeyPin", w.stations, func(x *broker.Workstation) bool { return slices.Contains(x.KeyPins, pin) })
}

func (w *world) Sites(ctx context.Context) ([]*broker.Site, error) {
	return every(ctx, w, "Sites", w.places, func(*broker.Site) bool { return true })
}

func (w *world) Delegation(ctx context.Context, id broker.ID) (*broker.Delegation, error) {
	return find(ctx, w, "Delegation", w.grants, func(x *broker.Delegation) bool { return x.ID == id })
}

func (w *world) Assignment(ctx context.Context, id broker.ID) (*broker.Assignment, error) {
	return find(ctx, w, "Assignment", w.assigned, func(x *broker.Assignment) bool { return x.ID == id })
}

func (w *world) AssignmentsOf(ctx context.Context, agent, mailbox broker.ID) ([]*broker.Assignment, error) {
	return every(ctx, w, "AssignmentsOf", w.assigned, func(x *broker.Assignment) bool { return x.AgentID == agent && x.MailboxID == mailbox })
}

func (w *world) AppPassword(ctx context.Context, id broker.ID) (*broker.AppPassword, error) {
	return find(ctx, w, "AppPassword", w.secrets, func(x *broker.AppPassword) bool { return x.ID == id })
}

func (w *world) AppPasswordByHash(ctx context.Context, hash []byte) (*broker.AppPassword, error) {
	return find(ctx, w, "AppPasswordByHash", w.secrets, func(x *broker.AppPassword) bool { return w.lying || bytes.Equal(x.Hash, hash) })
}

func (w *world) Locks(ctx context.Context) ([]*broker.Lock, error) {
	return every(ctx, w, "Locks", w.locked, func(*broker.Lock) bool { return true })
}

func (w *world) PolicyRevision(ctx context.Context) (int64, error) {
	leave, err := w.enter(ctx, "PolicyRevision")
	defer leave()
	return w.revision, err
}

func (w *world) EndStaleSessions(ctx context.Context, node string) (int, error) {
	leave, err := w.enter(ctx, "EndStaleSessions")
	defer leave()
	if node != "node-1" {
		return 0, errors.New("another node's sessions")
	}
	return 0, err
}

func (w *world) Subscribe(f func(broker.Change)) (cancel func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell = f
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.tell = nil
	}
}

// fakeLog is a broker.EventLog in memory.
type fakeLog struct {
	mu     sync.Mutex
	events []*broker.Event
	fail   error
	hook   func()
	// submitting is called before an event is queued.
	submitting func(*broker.Event)
}

func (l *fakeLog) Append(ctx context.Context, events ...*broker.Event) error {
	l.mu.Lock()
	hook := l.hook
	l.mu.Unlock()
	if hook != nil {
		hook()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail == nil {
		l.events = append(l.events, events...)
	}
	return l.fail
}

func (l *fakeLog) Submit(e *broker.Event) *broker.Receipt {
	receipt, settle := broker.NewReceipt()
	l.mu.Lock()
	submitting := l.submitting
	l.mu.Unlock()
	if submitting != nil {
		submitting(e)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail == nil {
		l.events = append(l.events, e)
	}
	settle(l.fail)
	return receipt
}

func (l *fakeLog) breakWith(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

// of returns the events of a type.
func (l *fakeLog) of(t broker.EventType) (found []*broker.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Type == t {
			found = append(found, e)
		}
	}
	return found
}

// fakeVault holds one credential.
type fakeVault struct {
	broker.Credentials // nil
	mu                 sync.Mutex
	secret             string
	err                error
	given              []*broker.Credential
}

func (v *fakeVault) Credential(context.Context, broker.ID, broker.ID) (*broker.Credential, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return nil, v.err
	}
	c := &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte(v.secret))}
	v.given = append(v.given, c)
	return c, nil
}

// fakeUpstream opens connections, or not.
type fakeUpstream struct {
	broker.Upstream // nil
	// login is asked for the outcome.
	login func(ctx context.Context, c *broker.Credential) error
	conn  *fakeConn
}

type fakeConn struct {
	broker.IMAPConn
	closed bool
}

func (c *fakeConn) Close() error { c.closed = true; return nil }

func (u *fakeUpstream) open(ctx context.Context, c *broker.Credential) error {
	u.conn = &fakeConn{}
	if u.login == nil {
		return nil
	}
	return u.login(ctx, c)
}

func (u *fakeUpstream) OpenIMAP(ctx context.Context, _ *broker.Mailbox, c *broker.Credential) (*broker.IMAPConn, error) {
	if err := u.open(ctx, c); err != nil {
		return nil, err
	}
	return &broker.IMAPConn{Conn: u.conn}, nil
}

func (u *fakeUpstream) OpenSubmission(ctx context.Context, _ *broker.Mailbox, c *broker.Credential) (*broker.SubmissionConn, error) {
	if err := u.open(ctx, c); err != nil {
		return nil, err
	}
	return &broker.SubmissionConn{Conn: u.conn}, nil
}

// ended returns why a session is over, or fails.
func ended(t testing.TB, s broker.LiveSession) *broker.End {
	t.Helper()
	if s.Context().Err() == nil {
		t.Fatal("the session lives on")
	}
	var end *broker.End
	if !errors.As(context.Cause(s.Context()), &end) {
		t.Fatalf("the cause is %v, not an *End", context.Cause(s.Context()))
	}
	return end
}

func alive(t testing.TB, s broker.LiveSession) {
	t.Helper()
	if s.Context().Err() != nil {
		t.Fatalf("the session ended: %v", context.Cause(s.Context()))
	}
}

func newKey(b byte) broker.Secret { return broker.NewSecret(bytes.Repeat([]byte{b}, tokenKeySize)) }
