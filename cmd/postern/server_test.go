// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"go.uber.org/zap/zaptest"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// patience is how long a test waits for what must come.
const patience = 15 * time.Second

// running is a server under test.
type running struct {
	*server
	t    *testing.T
	dir  string
	stop context.CancelFunc
	done chan error
}

// startServer runs a server on an initialised directory; change may alter its
// configuration.
func startServer(t *testing.T, change func(*Config)) *running {
	t.Helper()
	dir := initialised(t)
	config, err := loadConfig(filepath.Join(dir, configFile))
	if err != nil {
		t.Fatal(err)
	}
	config.Metrics.Address = "127.0.0.1:0"
	config.API.Socket = filepath.Join(shortDir(t), "s")
	if change != nil {
		change(config)
	}
	s, err := newServer(t.Context(), config, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{server: s, t: t, dir: dir, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		s.Abort()
		r.wait()
		s.Close()
	})
	return r
}

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postern")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// wait returns Run's error, when it has returned.
func (r *running) wait() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(patience):
		r.t.Fatal("Run does not return")
		return nil
	}
}

func (r *running) get(path string) (status int, body string) {
	r.t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + r.MetricsAddr().String() + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// command runs the command line against the server.
func (r *running) command(args ...string) string {
	r.t.Helper()
	code, stdout, stderr := postern(r.t, append(args, "--socket", r.Socket())...)
	if code != exitOK {
		r.t.Fatalf("postern %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// eventually waits until f holds.
func (r *running) eventually(what string, f func() bool) {
	r.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// clientTLS trusts the server's first certificate, and shows a workstation's.
func (r *running) clientTLS(certs ...tls.Certificate) *tls.Config {
	r.t.Helper()
	ca, err := os.ReadFile(filepath.Join(r.dir, workstationCADir, "workstation-ca.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: roots, ServerName: "mail.postern.example", Certificates: certs}
}

// workstation has the server issue a certificate.
func (r *running) workstation(name string) tls.Certificate {
	r.t.Helper()
	dir := r.t.TempDir()
	r.command("workstation", "add", name, "--generate-key", dir)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	if err != nil {
		r.t.Fatal(err)
	}
	return pair
}

// greeting connects and returns the first line.
func greeting(addr net.Addr, config *tls.Config) (string, error) {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr.String(), config)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	return bufio.NewReader(c).ReadString('\n')
}

func TestServerServes(t *testing.T) {
	r := startServer(t, nil)
	if status, body := r.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d %s", status, body)
	}
	if status, body := r.get("/readyz"); status != http.StatusOK || !strings.Contains(body, "store: ok\naudit: ok\ntransparency log: ok\ncredentials: ok\n") {
		t.Errorf("/readyz: %d %s", status, body)
	}
	_, metrics := r.get("/metrics")
	for _, name := range []string{"postern_build_info", "go_goroutines", "process_start_time_seconds", "postern_certificate_expiry_timestamp_seconds"} {
		if !strings.Contains(metrics, "\n"+name) {
			t.Errorf("/metrics has no %s", name)
		}
	}
	config := r.clientTLS(r.workstation("pune-07"))
	if line, err := greeting(r.IMAPSAddr(), config); err != nil || !strings.HasPrefix(line, "* OK ") {
		t.Errorf("IMAP: %q, %v", line, err)
	}
	if line, err := greeting(r.SubmissionsAddr(), config); err != nil || !strings.HasPrefix(line, "220 mail.postern.example ") {
		t.Errorf("submission: %q, %v", line, err)
	}
	if line, err := greeting(r.IMAPSAddr(), r.clientTLS()); err == nil {
		t.Errorf("without a certificate: %q", line)
	}
	if r.IMAPAddr() != nil || r.SubmissionAddr() != nil {
		t.Error("listeners are open that the configuration does not have")
	}
	r.stop()
	if err := r.wait(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if c, err := net.Dial("tcp", r.IMAPSAddr().String()); err == nil {
		_ = c.Close()
		t.Error("the listener is still open")
	}
}

// A site's change takes effect on handshakes without a restart.
func TestServerFollowsNetworkOnlySites(t *testing.T) {
	r := startServer(t, nil)
	r.command("site", "add", "office", "--network", "127.0.0.0/8", "--network-only")
	r.eventually("a client comes in without a certificate", func() bool {
		_, err := greeting(r.IMAPSAddr(), r.clientTLS())
		return err == nil
	})
	r.command("site", "update", "office", "--network-only=false")
	r.eventually("the certificate is required again", func() bool {
		_, err := greeting(r.IMAPSAddr(), r.clientTLS())
		return err != nil
	})
}

// upstream is a provider with one mailbox.
func upstreamIMAP(t *testing.T, username, password string) netip.AddrPort {
	t.Helper()
	memory := imapmemserver.New()
	user := imapmemserver.NewUser(username, password)
	if err := user.Create("INBOX", nil); err != nil {
		t.Fatal(err)
	}
	memory.AddUser(user)
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return memory.NewSession(), nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}},
		InsecureAuth: true,
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with Close
	}()
	t.Cleanup(func() {
		_, _ = server.Close(), l.Close() // Close does not know of it before Serve has begun
		<-done
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// assign puts asha on sales@acme.example and returns her app password.
func (r *running) assign(upstream netip.AddrPort, password string) string {
	r.t.Helper()
	ctx, by := r.t.Context(), broker.Actor{Kind: "system"}
	endpoint := broker.Endpoint{Host: upstream.Addr().String(), Port: upstream.Port(), TLS: broker.TLSNone}
	firm := &broker.Firm{Name: "Acme"}
	agent := &broker.Agent{Name: "asha"}
	mailbox := &broker.Mailbox{Address: "sales@acme.example", IMAP: endpoint, Submission: endpoint}
	delegation := &broker.Delegation{Terms: policy.Terms{Actions: policy.All}}
	assignment := &broker.Assignment{Terms: policy.Terms{Actions: policy.All}}
	token, hash, err := r.manager.NewToken()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return r.store.CreateFirm(ctx, by, firm) },
		func() error { return r.store.CreateAgent(ctx, by, agent) },
		func() error { mailbox.FirmID = firm.ID; return r.store.CreateMailbox(ctx, by, mailbox) },
		func() error {
			delegation.FirmID, delegation.MailboxID = firm.ID, mailbox.ID
			return r.store.CreateDelegation(ctx, by, delegation)
		},
		func() error {
			assignment.FirmID, assignment.MailboxID = firm.ID, mailbox.ID
			assignment.DelegationID, assignment.AgentID = delegation.ID, agent.ID
			return r.store.CreateAssignment(ctx, by, assignment)
		},
		func() error {
			return r.store.CreateAppPassword(ctx, by, &broker.AppPassword{AgentID: agent.ID, Hash: hash})
		},
		func() error {
			c := &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte(password))}
			_, err := r.credentials.SetCredential(ctx, firm.ID, mailbox.ID, c)
			return err
		},
	} {
		if err := step(); err != nil {
			r.t.Fatal(err)
		}
	}
	return token
}

// logIn opens a session and returns its connection after the login's answer.
func (r *running) logIn(config *tls.Config, token string) (net.Conn, *bufio.Reader) {
	r.t.Helper()
	c, err := tls.Dial("tcp", r.IMAPSAddr().String(), config)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	reader := bufio.NewReader(c)
	fmt.Fprintf(c, "a LOGIN sales@acme.example %s\r\n", token)
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			r.t.Fatal(err)
		}
		if strings.HasPrefix(line, "a ") {
			if !strings.HasPrefix(line, "a OK ") {
				r.t.Fatalf("login: %s", line)
			}
			return c, reader
		}
	}
}

// An agent works through all of it; stopping says goodbye, and records it.
func TestServerDrains(t *testing.T) {
	r := startServer(t, nil)
	token := r.assign(upstreamIMAP(t, "sales@acme.example", "upstream secret"), "upstream secret")
	c, reader := r.logIn(r.clientTLS(r.workstation("pune-07")), token)
	fmt.Fprint(c, "b SELECT INBOX\r\n")
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "b ") {
			break
		}
	}
	r.stop()
	rest, err := io.ReadAll(reader)
	if !bytes.Contains(rest, []byte("* BYE ")) {
		t.Errorf("the session ended with %q, %v", rest, err)
	}
	if err := r.wait(); err != nil {
		t.Errorf("Run: %v", err)
	}
	sessions, err := r.store.Sessions(t.Context(), false, 10)
	if err != nil || len(sessions) != 1 || sessions[0].EndReason != string(broker.EndDrain) {
		t.Errorf("sessions: %+v, %v", sessions, err)
	}
}

func TestAbortCutsSessionsOff(t *testing.T) {
	r := startServer(t, nil)
	token := r.assign(upstreamIMAP(t, "sales@acme.example", "upstream secret"), "upstream secret")
	_, reader := r.logIn(r.clientTLS(r.workstation("pune-07")), token)
	r.Abort()
	if _, err := io.ReadAll(reader); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the session ended with %v, want a reset", err)
	}
	if err := r.wait(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestServerErrorsNameTheKey(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	notPEM := filepath.Join(t.TempDir(), "not.pem")
	if err := os.WriteFile(notPEM, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"store":            {func(c *Config) { c.State.SQLite = "/nonexistent/postern.db" }, "state.sqlite: "},
		"certificate":      {func(c *Config) { c.TLS.Certificate = notPEM }, "tls or workstations: " + notPEM},
		"workstation CA":   {func(c *Config) { c.Workstations.CAFiles = []string{notPEM} }, "tls or workstations: " + notPEM},
		"embedded CA":      {func(c *Config) { c.Workstations.EmbeddedCA = "/nonexistent" }, "workstations: "},
		"key":              {func(c *Config) { c.AppPasswords.KeyFile = "/nonexistent" }, "app_passwords.key_file: "},
		"short key":        {func(c *Config) { c.AppPasswords.KeyFile = c.Credentials.Sealed.IdentityFile }, "app_passwords.key_file: "},
		"readable key":     {func(c *Config) { c.AppPasswords.KeyFile = notPEM }, "others could read"},
		"credentials":      {func(c *Config) { c.Credentials.Sealed.IdentityFile = "/nonexistent" }, "credentials.sealed"},
		"guardrails":       {func(c *Config) { c.Guardrails = notPEM }, "guardrails: " + notPEM},
		"guardrails gone":  {func(c *Config) { c.Guardrails = "/nonexistent" }, "guardrails: "},
		"upstream CA":      {func(c *Config) { c.Upstream.CAFile = notPEM }, "upstream.ca_file: "},
		"upstream CA gone": {func(c *Config) { c.Upstream.CAFile = "/nonexistent" }, "upstream.ca_file: "},
		"listener":         {func(c *Config) { c.Listeners.Submissions = taken.Addr().String() }, "listeners.submissions: "},
		"metrics":          {func(c *Config) { c.Metrics.Address = taken.Addr().String() }, "metrics.address: "},
		"socket":           {func(c *Config) { c.API.Socket = "/dev/null/s" }, "api.socket: "},
		"vault": {func(c *Config) {
			c.Credentials = CredentialsConfig{Vault: &VaultConfig{
				Address: "http://vault.example:8200", Auth: &VaultAuthConfig{TokenFile: "/nonexistent"},
			}}
		}, "credentials.vault.address: plain http"},
		"vault's CA": {func(c *Config) {
			c.Credentials = CredentialsConfig{Vault: &VaultConfig{
				Address: "https://vault.example:8200", CAFile: notPEM, Auth: &VaultAuthConfig{TokenFile: "/nonexistent"},
			}}
		}, "credentials.vault.ca_file: "},
		"vault's writer": {func(c *Config) {
			c.Credentials = CredentialsConfig{Vault: &VaultConfig{
				Address: "https://vault.example:8200", Auth: &VaultAuthConfig{TokenFile: "/x"},
				WriterAuth: &VaultAuthConfig{AppRole: &AppRoleConfig{RoleID: "r", SecretIDFile: "/s", SecretIDStateFile: "/t"}},
			}}
		}, "credentials.vault.writer_auth.approle.secret_id_state_file: "},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := loadConfig(filepath.Join(initialised(t), configFile))
			if err != nil {
				t.Fatal(err)
			}
			config.API.Socket = filepath.Join(shortDir(t), "s")
			tc.change(config)
			s, err := newServer(t.Context(), config, zaptest.NewLogger(t))
			if err == nil {
				s.Close()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error is %v, want one that says %q", err, tc.want)
			}
		})
	}
}
