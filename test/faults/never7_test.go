// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/rotation"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/broker/upstream"
	"github.com/postern-mail/postern/broker/vault"
	"github.com/postern-mail/postern/test/servers"
)

const (
	// killsVariable is how often TestNever7 kills the rotator; rotatorKills when
	// it is not set.
	killsVariable = "POSTERN_ROTATION_KILLS"
	rotatorKills  = 12
	// rotationSeed seeds the random instants; not set: others each time.
	rotationSeed = "POSTERN_ROTATION_SEED"
	// rotatedMailboxes rotate at once, half of them over each driver.
	rotatedMailboxes = 4
	// killsPerRound is how often the rotator dies in one round of rotations at
	// most, which is then let to its end.
	killsPerRound = 6
	// longestLife is the longest that a rotator lives which dies at a random
	// instant.
	longestLife = 1500 * time.Millisecond
	// roundTime bounds a round: what a kill left in the dark takes a few looks.
	roundTime = 5 * time.Minute

	initialPassword = "initial-5ecret"
	accountSecret   = "account-5ecret"
)

// rotated is a provider with mailboxes in a database and in a directory, a
// Vault, and a server's state.
type rotated struct {
	t         *testing.T
	dir       string
	vault     *servers.Vault
	dovecot   *servers.Dovecot
	postfix   *servers.Postfix
	state     *store.Store
	secrets   *vault.Client
	upstream  broker.Upstream
	config    string
	binary    string
	starts    int
	mailboxes []*broker.Mailbox
	// before are the passwords that opened the mailboxes before the round.
	before map[broker.ID]string
}

var rotatedBy = broker.Actor{Kind: "admin", Name: "test"}

// TestNever7: the rotator is killed at each of its journal's entries and at
// random instants, and started again: each rotation ends with a credential in
// Vault that opens the mailbox and an old one that does not, or says what it
// could not prove.
func TestNever7(t *testing.T) {
	wanted, seed := rotatorKills, rand.Uint64()
	if text := os.Getenv(killsVariable); text != "" {
		var err error
		if wanted, err = strconv.Atoi(text); err != nil || wanted < 1 {
			t.Fatalf("%s: %q is no number of kills", killsVariable, text)
		}
	}
	if text := os.Getenv(rotationSeed); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", rotationSeed, err)
		}
	}
	t.Logf("%s=%d", rotationSeed, seed)
	r := newRotated(t)
	random := rand.New(rand.NewPCG(seed, 7))
	states := []broker.RotationState{
		broker.RotationRequested, broker.RotationPrepared, broker.RotationAsking, broker.RotationAsked,
		broker.RotationVerified, broker.RotationOldDead, broker.RotationCommitted,
	}
	killed, died, ended := 0, map[broker.RotationState]int{}, map[string]int{}
	for killed < wanted {
		r.begin()
		deadline := time.Now().Add(roundTime)
		for n := 0; killed < wanted && n < killsPerRound && r.anyOpen(); n++ {
			process := r.start()
			if killed%2 == 0 {
				r.until(states[(killed/2)%len(states)], deadline)
			} else {
				time.Sleep(time.Duration(random.Int64N(int64(longestLife)))) // the instant is what is tested
			}
			r.must(process.Kill())
			killed++
			for _, j := range r.journals() {
				died[j.State]++
			}
		}
		if r.anyOpen() {
			process := r.start()
			servers.WaitFor(t, time.Until(deadline), func() bool { return !r.anyOpen() }, "the rotations to end")
			if err := process.Stop(); err != nil {
				t.Errorf("the rotator: %v", err)
			}
		}
		r.judge(ended)
	}
	t.Logf("%d kills; the rotations' states when the rotator died: %v; they ended: %v", killed, died, ended)
}

func newRotated(t *testing.T) *rotated {
	t.Helper()
	r := &rotated{t: t, dir: servers.TempDir(t), vault: servers.StartVault(t), binary: servers.BuildPostern(t), before: map[broker.ID]string{}}
	postgres := servers.StartPostgreSQL(t, "fsync = off")
	db := postgres.NewDatabase()
	directory := servers.StartSlapd(t)
	ca := servers.NewCA(t)
	r.dovecot = servers.StartDovecot(t, servers.WithCA(ca), servers.WithPostgreSQL(db), servers.WithSlapd(directory))
	r.postfix = servers.StartPostfix(t, ca, r.dovecot)
	const role = "postern_rotator"
	postgres.Exec(db.Name, "CREATE ROLE "+role+" LOGIN PASSWORD '"+accountSecret+"'",
		"GRANT SELECT (username), UPDATE (password) ON mailboxes TO "+role)

	for _, step := range []string{"engine", "policies", "approle"} {
		r.vault.Setup(step)
	}
	r.open(ca)
	firm := &broker.Firm{Name: "Firm"}
	r.must(r.state.CreateFirm(t.Context(), rotatedBy, firm))
	sql := r.provider(firm, "sql", map[string]any{
		"host": "localhost", "port": postgres.Port, "database": db.Name, "ca": string(postgres.CA.PEM),
		"statement": "UPDATE mailboxes SET password = :hash WHERE username = :username", "scheme": "SHA512-CRYPT",
	}, role, accountSecret)
	ldap := r.provider(firm, "ldap", map[string]any{
		"url": directory.URL(), "ca": string(directory.CA.PEM),
		"search": map[string]string{"base": directory.Suffix, "filter": "(mail={username})"},
	}, directory.AdminDN, directory.AdminPassword)
	for i := range rotatedMailboxes {
		address, provider := fmt.Sprintf("sql%d@firm.example", i), sql
		if i%2 == 0 {
			postgres.Exec(db.Name, "INSERT INTO mailboxes VALUES ('"+address+"', '{PLAIN}"+initialPassword+"')")
		} else {
			address, provider = fmt.Sprintf("ldap%d@firm.example", i), ldap
			directory.AddPerson(fmt.Sprintf("ldap%d", i), initialPassword, map[string][]string{"mail": {address}})
		}
		r.mailbox(firm, address, provider)
	}
	return r
}

func (r *rotated) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// open opens what the test and the rotator share, and writes the rotator's
// configuration.
func (r *rotated) open(ca *servers.CA) {
	t := r.t
	path := filepath.Join(r.dir, "postern.db")
	var err error
	r.state, err = store.Open(t.Context(), store.Config{Path: path, Logger: zap.NewNop()})
	r.must(err)
	t.Cleanup(func() {
		if err := r.state.Close(); err != nil {
			t.Error(err)
		}
	})
	token := filepath.Join(r.dir, "test.token")
	r.must(os.WriteFile(token, []byte(r.vault.RootToken), 0o600))
	r.secrets, err = vault.New(vault.Config{Address: r.vault.Addr, CACert: r.vault.CAFile, Auth: vault.AuthConfig{TokenFile: token}})
	r.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.secrets.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r.upstream, err = upstream.New(upstream.Config{RootCAs: ca.Pool()})
	r.must(err)

	secretID := filepath.Join(r.dir, "rotator.secret-id")
	r.must(os.WriteFile(secretID, []byte(r.vault.SecretID("postern-rotator")), 0o600))
	r.config = filepath.Join(r.dir, "postern.yaml")
	identity := fmt.Sprintf("{approle: {role_id: %s, secret_id_file: %s}}", r.vault.Setup("role-id", "postern-rotator"), secretID)
	r.must(os.WriteFile(r.config, fmt.Appendf(nil, `data_dir: .
hostname: localhost
node: never7
listeners: {imaps: "127.0.0.1:0"}
tls: {certificate: none.pem, key: none.key}
workstations: {embedded_ca: none}
state: {sqlite: %q}
upstream: {ca_file: %q}
credentials:
  vault:
    address: %s
    ca_file: %q
    auth: %[5]s
    rotator_auth: %[5]s
rotation: {separate: true}
log: {level: debug}
`, path, ca.File, r.vault.Addr, r.vault.CAFile, identity), 0o600))
}

func (r *rotated) provider(firm *broker.Firm, driver string, settings map[string]any, username, secret string) *broker.Provider {
	r.t.Helper()
	b, err := json.Marshal(settings)
	r.must(err)
	p := &broker.Provider{FirmID: firm.ID, Name: driver, Driver: driver, Settings: b}
	r.must(r.state.CreateProvider(r.t.Context(), rotatedBy, p))
	_, err = r.secrets.SetProviderAccount(r.t.Context(), firm.ID, p.ID, &broker.ProviderAccount{
		Username: username, Secret: broker.NewSecret([]byte(secret)),
	})
	r.must(err)
	return p
}

func (r *rotated) mailbox(firm *broker.Firm, address string, p *broker.Provider) {
	r.t.Helper()
	m := &broker.Mailbox{
		FirmID: firm.ID, Address: address,
		IMAP:       broker.Endpoint{Host: "127.0.0.1", Port: r.dovecot.IMAPSPort, TLS: broker.TLSImplicit},
		Submission: r.postfix.Submission(broker.TLSImplicit),
		Rotation:   &broker.RotationMethod{ProviderID: p.ID},
	}
	r.must(r.state.CreateMailbox(r.t.Context(), rotatedBy, m))
	_, err := r.secrets.SetCredential(r.t.Context(), firm.ID, m.ID, password(initialPassword))
	r.must(err)
	r.must(r.upstream.Probe(r.t.Context(), m, password(initialPassword)))
	r.mailboxes = append(r.mailboxes, m)
}

func password(secret string) *broker.Credential {
	return &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte(secret))}
}

// begin begins a rotation of every mailbox.
func (r *rotated) begin() {
	r.t.Helper()
	for _, m := range r.mailboxes {
		r.before[m.ID] = r.stored(m)
		r.must(r.state.RequestRotation(r.t.Context(), rotatedBy, &broker.Rotation{MailboxID: m.ID, Cause: broker.RotateOnDemand}))
	}
}

// stored is the password in Vault.
func (r *rotated) stored(m *broker.Mailbox) string {
	r.t.Helper()
	c, err := r.secrets.Credential(r.t.Context(), m.FirmID, m.ID)
	r.must(err)
	return string(c.Secret.Reveal())
}

// start starts a rotator.
func (r *rotated) start() *servers.Child {
	r.t.Helper()
	r.starts++
	log := filepath.Join(r.dir, fmt.Sprintf("rotator.%d.log", r.starts))
	child, err := servers.StartChild(log, nil, r.binary, "rotator", "--config", r.config)
	r.must(err)
	last := func() bool { return log == filepath.Join(r.dir, fmt.Sprintf("rotator.%d.log", r.starts)) }
	r.t.Cleanup(func() {
		if !child.Ended() {
			_ = child.Kill()
		}
		if b, err := os.ReadFile(log); err == nil && r.t.Failed() && last() {
			r.t.Logf("the last rotator's log:\n%s", b)
		}
	})
	return child
}

// journals are the round's.
func (r *rotated) journals() []*broker.Rotation {
	r.t.Helper()
	all, err := r.state.Rotations(r.t.Context(), broker.RotationQuery{Limit: len(r.mailboxes)})
	r.must(err)
	return all
}

func (r *rotated) anyOpen() bool {
	return slices.ContainsFunc(r.journals(), func(j *broker.Rotation) bool { return j.State != broker.RotationEnded })
}

// until waits for a rotation in a state, or for none to be under way that does
// not wait.
func (r *rotated) until(state broker.RotationState, deadline time.Time) {
	r.t.Helper()
	servers.WaitFor(r.t, time.Until(deadline), func() bool {
		busy := false
		for _, j := range r.journals() {
			if j.State == state && j.Revision > 1 {
				return true
			}
			busy = busy || j.State != broker.RotationEnded && j.NextAt.Before(time.Now())
		}
		return !busy
	}, "a rotation in the state "+string(state))
}

// judge holds what the round's journals say against what logins show, and
// counts how they ended.
func (r *rotated) judge(ended map[string]int) {
	r.t.Helper()
	for _, j := range r.journals() {
		m := r.mailboxes[slices.IndexFunc(r.mailboxes, func(m *broker.Mailbox) bool { return m.ID == j.MailboxID })]
		ended[strings.Join(append([]string{string(j.Outcome)}, j.Unproved...), " ")]++
		before, now := r.before[m.ID], r.stored(m)
		r.recorded(m, j, now, before)
		if j.Outcome == broker.RotationLost || rotation.Alarming(j) && j.Outcome == broker.RotationDone {
			r.t.Logf("%s: alerted: %s, unproved %v", m.Address, j.Outcome, j.Unproved)
			continue
		}
		if err := r.upstream.Probe(r.t.Context(), m, password(now)); err != nil {
			r.t.Errorf("%s: ended as %s, and the credential in Vault does not open it: %v", m.Address, j.Outcome, err)
		}
		switch j.Outcome {
		case broker.RotationDone:
			if now == before {
				r.t.Errorf("%s: done, and the password is the old one", m.Address)
			}
			if err := r.upstream.Probe(r.t.Context(), m, password(before)); broker.CodeOf(err) != broker.CredentialRefused {
				r.t.Errorf("%s: done, and the old password: %v", m.Address, err)
			}
		case broker.RotationKeptOld:
			if now != before {
				r.t.Errorf("%s: the old one was kept, and the credential is another", m.Address)
			}
		default:
			r.t.Errorf("%s: ended as %s (%s)", m.Address, j.Outcome, j.Words)
		}
	}
}

// recorded wants the end in the firm's log, and no password there.
func (r *rotated) recorded(m *broker.Mailbox, j *broker.Rotation, secrets ...string) {
	r.t.Helper()
	found := false
	for after := int64(-1); ; {
		events, err := r.state.Events(r.t.Context(), broker.EventQuery{FirmID: m.FirmID, After: after, Limit: 10000})
		r.must(err)
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			after = e.Seq
			found = found || e.Type == broker.EventRotationEnded && strings.Contains(string(e.Record), string(j.ID))
			for _, s := range secrets {
				if strings.Contains(string(e.Record), s) {
					r.t.Errorf("the log holds a password: %s", e.Record)
				}
			}
		}
	}
	if !found {
		r.t.Errorf("the end of rotation %s is not in the log", j.ID)
	}
}
