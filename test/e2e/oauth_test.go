// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/servers"
)

// The applications that the issuer knows.
const (
	secretApp = "app-with-a-secret"
	keyApp    = "app-with-a-key"
	publicApp = "public-app"
	robot     = "robot@project.example"
	appSecret = "Marked~client+secret&="
	withdrawn = "NO [CONTACTADMIN] The firm's consent to use this mailbox was withdrawn or has ended. Nothing that you enter can change that: the firm must consent again. Ask " + FirmContact + "."
)

// oauthWorld is a world whose provider takes access tokens.
type oauthWorld struct {
	*World
	issuer *servers.Issuer
	// key and certificate are PEM files of keyApp and robot.
	key, certificate string
}

func newOAuthWorld(t *testing.T) *oauthWorld {
	t.Helper()
	w := &oauthWorld{}
	certificate := w.newKey(t)
	ca := servers.NewCA(t)
	w.issuer = servers.StartIssuer(t, ca, map[string]*servers.IssuerClient{
		secretApp: {Secret: appSecret, Mailbox: sales},
		keyApp:    {Certificate: certificate, Mailbox: sales},
		publicApp: {},
		robot:     {Certificate: certificate, Delegated: "client.example"},
	})
	w.World = NewWorld(t, WorldOptions{
		Mailboxes: []string{sales, support},
		Dovecot:   []servers.DovecotOption{servers.WithOAuth2(w.issuer.Introspection())},
		Postern:   Options{Config: "oauth:\n  ca_file: " + ca.File + "\n  networks: [" + w.issuer.Networks() + "]\n"},
	})
	return w
}

// newKey makes an application's key and certificate.
func (w *oauthWorld) newKey(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := servers.TempDir(t)
	w.key, w.certificate = filepath.Join(dir, "app.key"), filepath.Join(dir, "app.pem")
	for path, block := range map[string]*pem.Block{w.key: {Type: "PRIVATE KEY", Bytes: pkcs8}, w.certificate: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate
}

// keyFile is a service account's, as Google gives it.
func (w *oauthWorld) keyFile() string {
	key, err := os.ReadFile(w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "project", "private_key_id": servers.KeyID, "private_key": string(key),
		"client_email": robot, "client_id": "1", "token_uri": w.issuer.TokenURL(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// works opens the mailbox and sends from it.
func works(t *testing.T, w *World, s *Seat, subject string) {
	t.Helper()
	c := s.IMAP(t)
	c.OK("SELECT INBOX")
	c.OK("LOGOUT")
	m := s.Submission(t)
	m.Ask(250, "MAIL FROM:<%s>", s.Mailbox)
	m.Ask(250, "RCPT TO:<%s>", support)
	m.Ask(354, "DATA")
	m.Send("%s.\r\n", message(s.Mailbox, support, subject, "By token."))
	m.Want(250)
	m.Ask(221, "QUIT")
	w.AwaitMail(support, "INBOX", subject)
}

// TestOAuthUpstreams: each kind of credential, from the command line through
// Vault to a provider that takes tokens.
func TestOAuthUpstreams(t *testing.T) {
	w := newOAuthWorld(t)
	s := w.Seat(sales)
	issuer := []string{"--token-url", w.issuer.TokenURL(), "--scope", "mail"}
	set := func(t *testing.T, stdin, kind string, flags ...string) {
		t.Helper()
		w.Postern.For(t).CLIInput(stdin, append([]string{"mailbox", "set-credential", sales, "--kind", kind}, flags...)...)
	}
	for _, test := range []struct {
		name string
		set  func(t *testing.T)
	}{
		{"client secret", func(t *testing.T) {
			set(t, appSecret+"\n", "oauth2-client", append(issuer, "--client-id", secretApp)...)
		}},
		{"client secret in the header", func(t *testing.T) {
			set(t, appSecret+"\n", "oauth2-client", append(issuer, "--client-id", secretApp, "--client-auth", "basic")...)
		}},
		{"certificate", func(t *testing.T) {
			set(t, "", "oauth2-client", append(issuer, "--client-id", keyApp, "--certificate", w.certificate, "--private-key", w.key)...)
		}},
		{"refresh token", func(t *testing.T) {
			set(t, w.issuer.Consent(publicApp, sales)+"\n", "oauth2-refresh", append(issuer, "--client-id", publicApp)...)
		}},
		{"service account", func(t *testing.T) { set(t, w.keyFile(), "google-service-account") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(w.issuer.Requests())
			test.set(t)
			works(t, w.World.For(t), s, strings.ReplaceAll(test.name, " ", "-"))
			// The check and all sessions had one token.
			if n := len(w.issuer.Requests()) - before; n != 1 {
				t.Errorf("%d requests for a token", n)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		for stdin, flags := range map[string][]string{
			"wrong\n":                            {"--kind", "oauth2-client", "--client-id", secretApp, "--token-url", w.issuer.TokenURL()},
			"no such token\n":                    {"--kind", "oauth2-refresh", "--client-id", publicApp, "--token-url", w.issuer.TokenURL()},
			appSecret + "\n":                     {"--kind", "oauth2-client", "--client-id", secretApp, "--token-url", "https://10.0.0.1/token"},
			w.keyFile():                          {"--kind", "google-service-account", "--username", "boss@elsewhere.example"},
			`{"type":"authorized_user"}`:         {"--kind", "google-service-account"},
			"password\n":                         {"--kind", "password", "--client-id", secretApp},
			w.issuer.Consent(publicApp, support): {"--kind", "oauth2-refresh", "--client-id", publicApp, "--token-url", w.issuer.TokenURL()},
		} {
			stdout, stderr, code := w.Postern.For(t).TryCLI(stdin, append([]string{"mailbox", "set-credential", sales}, flags...)...)
			if code == 0 {
				t.Errorf("%q was stored: %s", flags, stdout)
			}
			if strings.Contains(stdout+stderr, appSecret) || strings.Contains(stdout+stderr, "PRIVATE KEY") {
				t.Errorf("a secret is shown: %s", stderr)
			}
		}
		works(t, w.World.For(t), s, "after-refusals") // what was stored before is
	})
	t.Run("token runs out", func(t *testing.T) { tokenRunsOut(t, w, s) })
	w.CheckNothingLeaked()
}

// tokenRunsOut: a provider ends a session whose token ran out; the client comes
// back and a new one was got. Fifty who come at once cost one request.
func tokenRunsOut(t *testing.T, w *oauthWorld, s *Seat) {
	w.Postern.For(t).CLIInput(appSecret+"\n", "mailbox", "set-credential", sales, "--kind", "oauth2-client",
		"--client-id", secretApp, "--token-url", w.issuer.TokenURL())
	c := s.IMAP(t)
	c.OK("SELECT INBOX")
	before := len(w.issuer.Requests())
	w.issuer.RevokeTokens()
	w.Dovecot.Doveadm("kick", sales)
	if line := c.ExpectClosed(10 * time.Second); !strings.HasPrefix(line, "* BYE ") {
		t.Errorf("the client is told %q", line)
	}
	c = s.IMAP(t)
	c.OK("SELECT INBOX")
	if n := len(w.issuer.Requests()) - before; n != 1 {
		t.Errorf("%d requests for a token, want 1", n)
	}
	if drift := s.Events(broker.EventDrift); len(drift) > 0 {
		t.Errorf("drift is recorded: %s", drift[0].Data)
	}

	// After a start there is none. (In broker/oauth, the same when it has ended.)
	const agents = 50
	w.Postern.For(t).CLI("mailbox", "update", sales, "--max-connections", "100")
	w.Postern.For(t).Restart()
	var clients sync.WaitGroup
	for range agents {
		// The dial fails a test from its own goroutine alone.
		conn := s.DialIMAP(t)
		clients.Go(func() {
			conn.Send("x LOGIN %s %s\r\n", sales, s.Token)
			for {
				line, err := conn.TryLine(time.Minute)
				if err != nil || strings.HasPrefix(line, "x ") && !strings.HasPrefix(line, "x OK ") {
					t.Errorf("login: %q, %v", line, err)
					return
				}
				if strings.HasPrefix(line, "x OK ") {
					return
				}
			}
		})
	}
	clients.Wait()
	if n := len(w.issuer.Requests()) - before; n != 2 {
		t.Errorf("%d sessions made %d requests for a token, want 1", agents, n-1)
	}
}

// TestConsent: the firm's admin consents by browser and by device; refresh
// tokens follow each other in Vault, over a restart; the consent is withdrawn,
// and the firm consents again.
func TestConsent(t *testing.T) {
	w := newOAuthWorld(t)
	s := w.Seat(sales)
	flags := []string{
		"mailbox", "consent", sales, "--client-id", publicApp, "--issuer-ca", w.issuer.CA.File,
		"--authorize-url", w.issuer.URL + "/authorize", "--token-url", w.issuer.TokenURL(), "--device-url", w.issuer.URL + "/device",
	}
	out := w.consent(t, flags, regexp.MustCompile(`(?m)^https://\S+$`), func(url string) {
		browser := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: w.issuer.CA.Pool()}}}
		// Whoever else finds the address does not know the state.
		stray := regexp.MustCompile(`state=[^&]+`).ReplaceAllString(url, "state=guessed")
		if resp, err := browser.Get(stray); err != nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("an answer without the state: %v, %v", resp, err)
		}
		resp, err := browser.Get(url)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		page, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(page, []byte("Close this window")) {
			t.Errorf("the browser sees %d %s, %v", resp.StatusCode, page, err)
		}
	})
	if !strings.Contains(out, "checked and stored") {
		t.Fatalf("consent: %s", out)
	}
	works(t, w.World, s, "by-browser")
	version := w.credentialVersion()

	// Each exchange is stored.
	for i := range 2 {
		w.issuer.RevokeTokens()
		w.Postern.Restart()
		s.IMAP(t).OK("LOGOUT")
		if got := w.credentialVersion(); got != version+i+1 {
			t.Errorf("the stored version is %d, want %d", got, version+i+1)
		}
	}

	w.issuer.Withdraw(sales)
	w.Postern.Restart()
	requests := len(w.issuer.Requests())
	for range 3 {
		if _, answer := s.DialIMAP(t).Cmd("LOGIN %s %s", sales, s.Token); answer != withdrawn {
			t.Errorf("a login without the firm's consent: %s", answer)
		}
	}
	if n := len(w.issuer.Requests()) - requests; n != 1 {
		t.Errorf("the issuer was asked %d times", n)
	}
	events := s.AwaitEvents(1, broker.EventConsentWithdrawn)
	if data := Decode[broker.ConsentWithdrawn](t, events[0]); len(events) != 1 || data.Kind != broker.KindOAuth2Refresh ||
		data.Answer != "the issuer answered 400 invalid_grant (AADSTS70000)" || events[0].MailboxID == "" {
		t.Errorf("%d events, %+v", len(events), data)
	}
	if drift := s.Events(broker.EventDrift); len(drift) > 0 {
		t.Errorf("drift is recorded: %s", drift[0].Data)
	}

	out = w.consent(t, append(flags, "--device"), regexp.MustCompile(`type in the code (\S+)`), func(code string) {
		w.issuer.Approve(code, sales, true)
	})
	if !strings.Contains(out, "checked and stored") {
		t.Fatalf("consent by device: %s", out)
	}
	works(t, w.World, s, "by-device")
	out = w.consent(t, append(flags, "--device"), regexp.MustCompile(`type in the code (\S+)`), func(code string) {
		w.issuer.Approve(code, sales, false)
	})
	if !strings.Contains(out, "the provider refused: access_denied") {
		t.Errorf("a denied consent: %s", out)
	}
	works(t, w.World, s, "still")
	for _, token := range w.issuer.Issued() {
		if bytes.Contains(w.Postern.Logs(), []byte(token)) || w.Vault.Holds([]byte(token)) {
			t.Error("a token lies in the log, or in Vault's storage in the clear")
		}
	}
}

func (w *oauthWorld) credentialVersion() int {
	w.t.Helper()
	return decodeCLI[httpapi.Mailbox](w.Postern, "mailbox", "show", sales).Credential.Version
}

// consent runs a command that waits for a person, and acts for him once it has
// printed what he needs. It returns all that was printed.
func (w *oauthWorld) consent(t *testing.T, args []string, wanted *regexp.Regexp, person func(string)) string {
	t.Helper()
	cmd := exec.Command(w.Postern.Bin, append([]string{"--socket", w.Postern.Socket}, args...)...)
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(cliTimeout, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	var told strings.Builder
	lines := bufio.NewScanner(stderr)
	acted := false
	for lines.Scan() {
		told.WriteString(lines.Text() + "\n")
		if found := wanted.FindStringSubmatch(lines.Text()); found != nil && !acted {
			acted = true
			person(found[len(found)-1])
		}
	}
	_ = cmd.Wait() // what it printed tells
	if !acted {
		t.Errorf("nobody was asked: %s", told.String())
	}
	return out.String() + told.String()
}
