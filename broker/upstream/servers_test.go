// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

var modes = []broker.TLSMode{broker.TLSImplicit, broker.TLSStartTLS, broker.TLSNone}

// noop proves that a logged-in connection is of use: what the login handed
// over is in step.
func noop(t *testing.T, conn net.Conn, buffered []byte, command, answer string) {
	t.Helper()
	if len(buffered) > 0 {
		t.Errorf("buffered %q", buffered)
	}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(command)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 512)
	n, err := conn.Read(b)
	if err != nil || !bytes.HasPrefix(b[:n], []byte(answer)) {
		t.Fatalf("%q is answered %q, %v", command, b[:n], err)
	}
}

func tryIMAP(t *testing.T, d *Dialer, m *broker.Mailbox, c *broker.Credential) error {
	t.Helper()
	conn, err := d.OpenIMAP(t.Context(), m, c)
	if err != nil {
		return err
	}
	defer conn.Close()
	noop(t, conn, conn.Buffered, "x NOOP\r\n", "x OK")
	if !slices.Contains(conn.Capabilities, "IDLE") {
		t.Errorf("capabilities after login: %q", conn.Capabilities)
	}
	return nil
}

func trySubmission(t *testing.T, d *Dialer, m *broker.Mailbox, c *broker.Credential) error {
	t.Helper()
	conn, err := d.OpenSubmission(t.Context(), m, c)
	if err != nil {
		return err
	}
	defer conn.Close()
	noop(t, conn, nil, "NOOP\r\n", "250 ")
	if _, ok := conn.Extensions["SIZE"]; !ok {
		t.Errorf("extensions: %q", conn.Extensions)
	}
	return nil
}

func TestAgainstDovecotAndPostfix(t *testing.T) {
	dovecot := servers.StartDovecot(t, servers.WithUser(address, marked))
	postfix := servers.StartPostfix(t, dovecot.CA, dovecot)
	d := newDialer(t, Config{Hostname: "postern.example"})
	passwords := []string{marked, `"`, `pässwörd \`, strings.Repeat("long", 100)}
	for i, secret := range passwords {
		dovecot.SetPassword(address, secret)
		for _, mode := range modes {
			m := &broker.Mailbox{Address: address, IMAP: dovecot.IMAP(mode), Submission: postfix.Submission(mode)}
			for round := range 2 {
				if err := tryIMAP(t, d, m, password(secret)); err != nil {
					t.Errorf("IMAP, %s, %q, %d: %v", mode, secret, round, err)
				}
				if err := trySubmission(t, d, m, password(secret)); err != nil {
					t.Errorf("submission, %s, %q, %d: %v", mode, secret, round, err)
				}
			}
			if err := d.Probe(t.Context(), m, password(secret)); err != nil {
				t.Errorf("probe, %s, %q: %v", mode, secret, err)
			}
			if i > 0 { // servers are slow to refuse
				continue
			}
			wantError(t, tryIMAP(t, d, m, password(marked+"-wrong")), broker.CredentialRefused, ReasonRefused, marked)
			wantError(t, trySubmission(t, d, m, password(marked+"-wrong")), broker.CredentialRefused, ReasonRefused, marked)
			wantError(t, d.Probe(t.Context(), m, password(marked+"-wrong")), broker.CredentialRefused, ReasonRefused, marked)
		}
	}
}

func TestSASLLoginAgainstDovecot(t *testing.T) {
	dovecot := servers.StartDovecot(t, servers.WithUser(address, "pässwörd"), servers.WithMechanisms("login"))
	postfix := servers.StartPostfix(t, dovecot.CA, dovecot)
	m := &broker.Mailbox{
		Address: address, IMAP: dovecot.IMAP(broker.TLSImplicit), Submission: postfix.Submission(broker.TLSImplicit),
	}
	d := newDialer(t, Config{})
	if err := d.Probe(t.Context(), m, password("pässwörd")); err != nil {
		t.Error(err)
	}
	wantError(t, tryIMAP(t, d, m, password("other")), broker.CredentialRefused, ReasonRefused)
	wantError(t, trySubmission(t, d, m, password("other")), broker.CredentialRefused, ReasonRefused)
}

// Dovecot has the LOGIN command only along with AUTH=PLAIN, which would be
// taken first: the command is run by itself.
func TestLoginCommandAgainstDovecot(t *testing.T) {
	users := map[string]string{
		"a@client.example": marked, "b@client.example": "pässwörd", "c@client.example": `\"`, "dü@client.example": "x y",
	}
	var options []servers.DovecotOption
	for user, secret := range users {
		options = append(options, servers.WithUser(user, secret))
	}
	dovecot := servers.StartDovecot(t, append(options, servers.WithDovecotConfig("auth_username_chars ="))...)
	e := dovecot.IMAP(broker.TLSNone)
	for user, secret := range users {
		for attempt, code := range map[string]broker.Code{secret: "", secret + "x": broker.CredentialRefused} {
			w, err := newDialer(t, Config{}).connect(t.Context(), &e)
			if err != nil {
				t.Fatal(err)
			}
			cred := testCredentials(attempt)
			cred.user = user
			l := &imapLogin{wire: w, cred: cred, prefix: newPrefix()}
			if err := l.greeting(); err != nil {
				t.Fatal(err)
			}
			err = l.login()
			if err != nil {
				err = cred.report(t.Context(), err)
			}
			if broker.CodeOf(err) != code {
				t.Errorf("%s, %q: %v", user, attempt, err)
			}
			w.conn.Close()
		}
	}
}

// A login after the first one costs no second key exchange. Dovecot's login
// processes share no ticket keys as they are set up by default; Postfix's do.
func TestTLSSessionsAreResumed(t *testing.T) {
	dovecot := servers.StartDovecot(t, servers.WithUser(address, marked))
	postfix := servers.StartPostfix(t, dovecot.CA, dovecot)
	m := &broker.Mailbox{Address: address, Submission: postfix.Submission(broker.TLSStartTLS)}
	d := newDialer(t, Config{})
	for _, want := range []bool{false, true, true} {
		conn, err := d.OpenSubmission(t.Context(), m, password(marked))
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.Conn.(*tls.Conn).ConnectionState().DidResume; got != want {
			t.Errorf("resumed: %t, want %t", got, want)
		}
		conn.Close()
	}
}

// introspection is a token endpoint (RFC 7662) that knows tokens by what they
// begin with.
func introspection(t *testing.T, prefix string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		active := strconv.FormatBool(strings.HasPrefix(r.URL.Query().Get("token"), prefix))
		w.Header().Set("Content-Type", "application/json")
		// Dovecot takes an answer without a name for a failure of its own.
		_ = json.NewEncoder(w).Encode(map[string]string{"active": active, "username": address})
	}))
	t.Cleanup(s.Close)
	return s.URL + "/?token="
}

func TestAccessTokensAgainstDovecot(t *testing.T) {
	for _, mechanism := range []string{"xoauth2", "oauthbearer"} {
		dovecot := servers.StartDovecot(t, servers.WithUser(address, "secret"),
			servers.WithOAuth2(introspection(t, "tok.en-")),
			servers.WithDovecotConfig("auth_mechanisms = "+mechanism))
		postfix := servers.StartPostfix(t, dovecot.CA, dovecot)
		m := &broker.Mailbox{
			Address: address, IMAP: dovecot.IMAP(broker.TLSImplicit), Submission: postfix.Submission(broker.TLSImplicit),
		}
		d := newDialer(t, Config{})
		for _, length := range []int{40, 2000, 3500} {
			token := "tok.en-" + strings.Repeat("x", length)
			if err := tryIMAP(t, d, m, accessToken(token)); err != nil {
				t.Errorf("%s, %d octets: %v", mechanism, length, err)
			}
			if err := trySubmission(t, d, m, accessToken(token)); err != nil {
				t.Errorf("%s, %d octets: %v", mechanism, length, err)
			}
		}
		wantError(t, tryIMAP(t, d, m, accessToken("stale.token")), broker.CredentialRefused, ReasonRefused, "stale.token")
		wantError(t, trySubmission(t, d, m, accessToken("stale.token")), broker.CredentialRefused, ReasonRefused, "stale.token")
		wantError(t, tryIMAP(t, d, m, password("secret")), broker.Unavailable, ReasonMechanism)
	}
}

// An upstream that cannot prove who it is never sees the credential.
func TestCertificatesAreVerified(t *testing.T) {
	ca, other := servers.NewCA(t), servers.NewCA(t)
	later := func() time.Time { return time.Now().Add(48 * time.Hour) }
	certificates := map[string]*servers.Certificate{"right": ca.Issue(), "wrong name": ca.IssueWrongName(), "expired": ca.IssueExpired()}
	tests := []struct {
		name        string
		certificate string
		bundle      []byte
		dialer      Config
		ok          bool
	}{
		{"right", "right", ca.PEM, Config{}, true},
		{"right, by the configured roots", "right", nil, Config{RootCAs: ca.Pool()}, true},
		{"wrong name", "wrong name", ca.PEM, Config{}, false},
		{"expired", "expired", ca.PEM, Config{}, false},
		{"expired by our clock", "right", ca.PEM, Config{Now: later}, false},
		{"unknown CA", "right", other.PEM, Config{}, false},
		{"a bundle replaces the roots", "right", other.PEM, Config{RootCAs: ca.Pool()}, false},
		{"the system's roots", "right", nil, Config{}, false},
		{"no certificate in the bundle", "right", []byte("nothing"), Config{}, false},
	}
	for name, certificate := range certificates {
		dovecot := servers.StartDovecot(t, servers.WithCA(ca), servers.WithCertificate(certificate), servers.WithUser(address, marked))
		postfix := servers.StartPostfix(t, ca, dovecot, servers.WithPostfixCertificate(certificate))
		for _, test := range tests {
			if test.certificate != name {
				continue
			}
			t.Run(test.name, func(t *testing.T) {
				d := newDialer(t, test.dialer)
				for _, mode := range []broker.TLSMode{broker.TLSImplicit, broker.TLSStartTLS} {
					m := &broker.Mailbox{Address: address, IMAP: dovecot.IMAP(mode), Submission: postfix.Submission(mode)}
					m.IMAP.CA, m.Submission.CA = string(test.bundle), string(test.bundle)
					imap, submission := tryIMAP(t, d, m, password(marked)), trySubmission(t, d, m, password(marked))
					for protocol, err := range map[string]error{"IMAP": imap, "submission": submission} {
						if !test.ok {
							wantError(t, err, broker.Unavailable, ReasonTLS, marked)
						} else if err != nil {
							t.Errorf("%s, %s: %v", protocol, mode, err)
						}
					}
				}
			})
		}
	}
}

func TestUpstreamKilledAndBack(t *testing.T) {
	dovecot := servers.StartDovecot(t, servers.WithUser(address, marked))
	postfix := servers.StartPostfix(t, dovecot.CA, dovecot)
	d := newDialer(t, Config{})
	m := &broker.Mailbox{
		Address: address, IMAP: dovecot.IMAP(broker.TLSImplicit), Submission: postfix.Submission(broker.TLSImplicit),
	}
	// Postfix stays up while its authentication is gone: that is no refusal.
	dovecot.Kill()
	wantError(t, tryIMAP(t, d, m, password(marked)), broker.Unavailable, ReasonDial, marked)
	err := trySubmission(t, d, m, password(marked))
	if broker.CodeOf(err) != broker.Unavailable {
		t.Errorf("submission without its authentication server: %v", err)
	}
	postfix.Kill()
	wantError(t, trySubmission(t, d, m, password(marked)), broker.Unavailable, ReasonDial, marked)
	dovecot.Restart()
	postfix.Restart()
	if err := d.Probe(t.Context(), m, password(marked)); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

// Whatever moment a server chooses to fall silent or to vanish, the caller
// gets his answer in time, and never "refused".
func TestUpstreamStallsOrVanishesAtEachStep(t *testing.T) {
	dovecot := servers.StartDovecot(t, servers.WithUser(address, marked))
	postfix := servers.StartPostfix(t, dovecot.CA, dovecot)
	steps := map[string]struct {
		target  broker.Endpoint
		faults  []servers.Fault
		connect func(*testing.T, *Dialer, *broker.Mailbox, *broker.Credential) error
	}{
		"IMAP": {dovecot.IMAP(broker.TLSNone), []servers.Fault{
			{Direction: servers.ToClient, AfterOctets: 1},
			{Direction: servers.ToServer, Pattern: []byte(" AUTHENTICATE PLAIN ")},
			{Direction: servers.ToServer, Pattern: []byte("\r\n")},
			{Direction: servers.ToClient, Pattern: []byte(" OK [CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT")},
		}, tryIMAP},
		"submission": {postfix.Submission(broker.TLSNone), []servers.Fault{
			{Direction: servers.ToClient, AfterOctets: 1},
			{Direction: servers.ToClient, Pattern: []byte("250-")},
			{Direction: servers.ToServer, Pattern: []byte("AUTH PLAIN ")},
			{Direction: servers.ToClient, Pattern: []byte("235")},
		}, trySubmission},
	}
	for protocol, step := range steps {
		for _, fault := range step.faults {
			for action, reason := range map[servers.FaultAction]string{servers.Cut: ReasonConnection, servers.Stall: ReasonTimeout} {
				fault.Action = action
				name := fmt.Sprintf("%s, %v at %q", protocol, action, fault.Pattern)
				// On a busy machine the time may be up before the login comes to
				// the fault: then with more of it.
				patience := 300 * time.Millisecond
				for !faulty(t, name, step.target, fault, func(m *broker.Mailbox) error {
					return step.connect(t, newDialer(t, Config{LoginTimeout: patience}), m, password(marked))
				}, patience, reason) {
					if patience *= 3; patience > time.Minute {
						t.Fatalf("%s: no login came so far", name)
					}
				}
			}
		}
	}
}

// faulty connects through the fault, which the caller must see as reason within
// patience, and reports whether it came so far.
func faulty(t *testing.T, name string, target broker.Endpoint, fault servers.Fault, connect func(*broker.Mailbox) error, patience time.Duration, reason string) bool {
	t.Helper()
	tap := servers.NewTap(t, net.JoinHostPort(target.Host, portOf(target)))
	defer tap.Close()
	struck := tap.Arm(fault)
	e := broker.Endpoint{Host: "127.0.0.1", Port: tap.Port, TLS: broker.TLSNone}
	began := time.Now()
	err := connect(&broker.Mailbox{Address: address, IMAP: e, Submission: e})
	took := time.Since(began)
	select {
	case <-struck:
	default:
		if broker.CodeOf(err) == broker.Unavailable && took >= patience {
			return false
		}
		<-time.After(time.Second) // the tap may be about to say so
		select {
		case <-struck:
		default:
			t.Fatalf("%s: it did not come so far: %v", name, err)
		}
	}
	if took > patience+15*time.Second {
		t.Errorf("%s: it took %v", name, took)
	}
	var failed *broker.Error
	if fault.Action == servers.Cut && errors.As(err, &failed) {
		switch failed.Reason {
		case ReasonDial: // a cut may be quicker than connect(2) is to return
			reason = ReasonDial
		case ReasonTimeout: // the cut came when the time was up
			return false
		}
	}
	wantError(t, err, broker.Unavailable, reason, marked)
	return true
}

// Nothing but the login goes upstream, and the password in one form only.
func TestOctetsOfALogin(t *testing.T) {
	dovecot := servers.StartDovecot(t, servers.WithUser(address, marked))
	e := dovecot.IMAP(broker.TLSNone)
	tap := servers.NewTap(t, net.JoinHostPort(e.Host, portOf(e)))
	e.Port = tap.Port
	conn, err := newDialer(t, Config{}).OpenIMAP(t.Context(), &broker.Mailbox{Address: address, IMAP: e}, password(marked))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	tag, rest, _ := strings.Cut(string(tap.Seen(servers.ToServer)), " ")
	if want := "AUTHENTICATE PLAIN " + plainPayload(marked) + "\r\n"; rest != want || len(tag) < 6 {
		t.Errorf("upstream received %q %q", tag, rest)
	}
}

// The caller's context ends a login at once, whatever the timeouts.
func TestCallerGivesUp(t *testing.T) {
	m := &broker.Mailbox{Address: address, IMAP: silent(t)}
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := &broker.End{Reason: broker.EndRevoked}
	timer := time.AfterFunc(50*time.Millisecond, func() { cancel(reason) })
	defer timer.Stop()
	began := time.Now()
	_, err := newDialer(t, Config{}).OpenIMAP(ctx, m, password(marked))
	wantError(t, err, broker.Unavailable, ReasonTimeout)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if !strings.Contains(err.Error(), string(broker.EndRevoked)) {
		t.Errorf("the cause is lost: %v", err)
	}
}

// A deadline of the login must not outlive it.
func TestDeadlinesEndWithTheLogin(t *testing.T) {
	dovecot := servers.StartDovecot(t, servers.WithUser(address, marked))
	const patience = 4 * time.Second
	for _, mode := range modes {
		ctx, cancel := context.WithCancel(t.Context())
		conn, err := newDialer(t, Config{LoginTimeout: patience}).OpenIMAP(ctx, &broker.Mailbox{Address: address, IMAP: dovecot.IMAP(mode)}, password(marked))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		<-time.After(patience)
		noop(t, conn, conn.Buffered, "x NOOP\r\n", "x OK")
		conn.Close()
	}
}
