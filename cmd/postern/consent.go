// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/oauth2"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/oauth"
)

const (
	// consentTimeout is how long a person may take to consent.
	consentTimeout = 15 * time.Minute
	// issuerTimeout bounds one request to the issuer.
	issuerTimeout = 30 * time.Second
	// maxClientSecret bounds the file with a client secret, in octets.
	maxClientSecret = 4 << 10
)

// consentFlags say how a consent is asked for.
type consentFlags struct {
	clientFlags
	provider, authorizeURL, deviceURL string
	issuerCA, username                string
	device                            bool
}

func newMailboxConsentCommand(a *app) *cobra.Command {
	var f consentFlags
	cmd := &cobra.Command{
		Use:   "consent MAILBOX --client-id ID",
		Short: "Have the mailbox's owner consent to its use, and store what that gives",
		Long: `Ask the mailbox's provider for a consent (OAuth 2.0), check what it gives by
logging in with it, and store it as the mailbox's credential, of kind
oauth2-refresh. It is for a firm's admin, who runs it on a machine of the firm.

The command prints an address. Whoever opens it in a browser on the same machine
signs in as the mailbox and consents; the browser comes back to the command
(authorization code with PKCE, RFC 7636, on a loopback address). With --device
the browser may be anywhere: the command prints a code to type in there (RFC 8628).

The application must be known to the provider: see deployments/providers.md.`,
		Example: `  postern mailbox consent sales@acme.example --provider microsoft --tenant acme.example --client-id 5d0f2f3e-…
  postern mailbox consent sales@acme.example --provider google --client-id 1234.apps.googleusercontent.com --client-secret-file secret`,
		Args: exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			document, config, err := f.settings()
			if err != nil {
				return err
			}
			client, err := f.http()
			if err != nil {
				return err
			}
			defer client.CloseIdleConnections()
			// Who may not store it need not ask for it.
			_, m, err := call[httpapi.Mailbox](cmd, a, http.MethodGet, path("mailboxes", args[0]), nil)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(context.WithValue(cmd.Context(), oauth2.HTTPClient, client), consentTimeout)
			defer cancel()
			ask := f.byBrowser
			if f.device {
				ask = f.byDevice
			}
			token, err := ask(ctx, cmd.ErrOrStderr(), config, m.LoginName(&broker.Credential{Username: f.username}))
			if err != nil {
				return consentError(err)
			}
			if token.RefreshToken == "" {
				return errors.New("the provider gave no refresh token: ask for a scope that has one (Microsoft: offline_access)")
			}
			document.RefreshToken = token.RefreshToken
			return a.setCredential(cmd, args[0], httpapi.CredentialInput{
				Kind: broker.KindOAuth2Refresh, Username: f.username, Document: document,
			})
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.provider, "provider", "", "microsoft or google; without it, name --authorize-url and --token-url")
	flags.StringVar(&f.authorizeURL, "authorize-url", "", "the provider's authorization endpoint, an https `URL`")
	flags.StringVar(&f.deviceURL, "device-url", "", "the provider's device authorization endpoint, an https `URL`")
	flags.StringVar(&f.issuerCA, "issuer-ca", "", "PEM `file` that the provider's certificate is verified against, in place of the system's")
	flags.StringVar(&f.username, "username", "", "the login name upstream, where it is not the mailbox's")
	flags.BoolVar(&f.device, "device", false, "print a code to type in on another machine")
	return cmd
}

// settings are what is stored, but for the refresh token, and how to ask for it.
func (f *consentFlags) settings() (*httpapi.CredentialDocument, *oauth2.Config, error) {
	// What the provider's documentation says.
	switch f.provider {
	case "":
	case "microsoft":
		if f.tenant == "" {
			return nil, nil, usagef("--provider microsoft needs --tenant")
		}
		f.authorizeURL, f.deviceURL = microsoftURL(f.tenant, "authorize"), microsoftURL(f.tenant, "devicecode")
		setDefault(&f.scope, "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send offline_access")
	case "google":
		f.authorizeURL, f.tokenURL = "https://accounts.google.com/o/oauth2/v2/auth", oauth.GoogleTokenURL
		setDefault(&f.scope, oauth.DefaultGoogleScope)
		if f.device {
			return nil, nil, usagef("Google gives no access to mail by device codes: leave --device out")
		}
	default:
		return nil, nil, usagef("--provider: give microsoft or google")
	}
	if f.hasKey() {
		return nil, nil, usagef("--certificate: a consent is asked for with a client secret, or with none")
	}
	document, err := f.client()
	if err != nil {
		return nil, nil, err
	}
	endpoints := map[string]string{"--token-url": document.TokenURL, "--authorize-url": f.authorizeURL}
	if f.device {
		endpoints = map[string]string{"--token-url": document.TokenURL, "--device-url": f.deviceURL}
	}
	for flag, endpoint := range endpoints {
		if oauth.CheckURL(flag, endpoint) != nil {
			return nil, nil, usagef("%s must be https://host/path", flag)
		}
	}
	config := &oauth2.Config{
		ClientID: document.ClientID, ClientSecret: document.ClientSecret,
		Endpoint: oauth2.Endpoint{
			AuthURL: f.authorizeURL, TokenURL: document.TokenURL, DeviceAuthURL: f.deviceURL, AuthStyle: oauth2.AuthStyleInParams,
		},
	}
	if document.ClientAuth == oauth.AuthBasic {
		config.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
	}
	if document.Scope != "" {
		config.Scopes = []string{document.Scope}
	}
	return document, config, nil
}

func readClientSecret(file string) (string, error) {
	in, err := os.Open(file)
	if err != nil {
		return "", usagef("--client-secret-file: %v", err)
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxClientSecret+1))
	if err != nil || len(b) > maxClientSecret {
		return "", usagef("--client-secret-file: not read, or longer than %d octets", maxClientSecret)
	}
	return string(bytes.TrimRight(b, "\r\n")), nil
}

// http makes the client for the provider: no redirects, its certificate
// verified.
func (f *consentFlags) http() (*http.Client, error) {
	roots, err := readCAs("--issuer-ca", f.issuerCA)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return &http.Client{
		Timeout: issuerTimeout,
		Transport: &http.Transport{
			Proxy:           http.ProxyFromEnvironment,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// byDevice asks by RFC 8628.
func (f *consentFlags) byDevice(ctx context.Context, out io.Writer, config *oauth2.Config, _ string) (*oauth2.Token, error) {
	code, err := config.DeviceAuth(ctx)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "Open %s, sign in as the mailbox, and type in the code %s\n",
		printable(code.VerificationURI, false), printable(code.UserCode, false))
	return config.DeviceAccessToken(ctx, code)
}

// byBrowser asks with a browser on this machine (RFC 8252, RFC 7636).
func (f *consentFlags) byBrowser(ctx context.Context, out io.Writer, config *oauth2.Config, login string) (*oauth2.Token, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	host := "127.0.0.1"
	if f.provider == "microsoft" {
		host = "localhost" // for which it takes any port (RFC 8252 §7.3 has it for the address)
	}
	config.RedirectURL = fmt.Sprintf("http://%s:%d/", host, l.Addr().(*net.TCPAddr).Port)
	verifier, back := oauth2.GenerateVerifier(), newComeback()
	server := &http.Server{Handler: back, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 32 << 10}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		// The browser is to have its page.
		bye, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if server.Shutdown(bye) != nil {
			server.Close()
		}
		<-served
	}()
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("login_hint", login)}
	if f.provider == "google" {
		// Else it gives a refresh token with the first consent alone.
		options = append(options, oauth2.AccessTypeOffline, oauth2.SetAuthURLParam("prompt", "consent"))
	}
	fmt.Fprintf(out, "Open this in a browser on this machine, and sign in as the mailbox:\n\n%s\n\n", config.AuthCodeURL(back.state, options...))
	select {
	case answer := <-back.answers:
		if answer.fault != "" {
			return nil, fmt.Errorf("the provider says %s", printable(answer.fault, false))
		}
		return config.Exchange(ctx, answer.code, oauth2.VerifierOption(verifier))
	case err := <-served:
		served <- err
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// comeback is where the browser comes back to, once.
type comeback struct {
	state   string
	answers chan comebackAnswer
}

type comebackAnswer struct{ code, fault string }

func newComeback() *comeback {
	return &comeback{state: rand.Text(), answers: make(chan comebackAnswer, 1)}
}

func (c *comeback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	answer := comebackAnswer{q.Get("code"), q.Get("error")}
	// RFC 6749 §10.12: whoever else opens the address does not know the state.
	if r.Method != http.MethodGet || r.URL.Path != "/" || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(c.state)) != 1 ||
		(answer.code == "") == (answer.fault == "") {
		http.Error(w, "This is not the answer that Postern waits for.", http.StatusBadRequest)
		return
	}
	select {
	case c.answers <- answer:
	default: // the first counts
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	fmt.Fprintln(w, "Postern has the answer. Close this window and go back to the command.")
}

// consentError says what the provider answered without what it was sent: the
// library's error holds the whole body.
func consentError(err error) error {
	var said *oauth2.RetrieveError
	switch {
	case errors.As(err, &said) && said.ErrorCode != "":
		return broker.Errorf(broker.Refused, "the provider refused: %s", printable(said.ErrorCode, false))
	case errors.As(err, &said):
		return broker.Errorf(broker.Unavailable, "the provider gave no token (status %d)", said.Response.StatusCode)
	case errors.Is(err, context.DeadlineExceeded):
		return broker.Errorf(broker.Unavailable, "nobody consented in time; nothing was changed")
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted; nothing was changed")
	}
	return err
}
