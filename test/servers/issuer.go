// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer is an OAuth 2.0 authorization server: its token endpoint (RFC 6749
// with client secrets by either way and private_key_jwt, RFC 7523 assertions as
// Google takes them, RFC 8628 device codes), its authorization endpoint with
// PKCE (RFC 7636), and for Dovecot the introspection of access tokens.
//
// Refresh tokens follow each other and are good once: who shows an old one ends
// the consent, which is the strictest that RFC 9700 §4.14.2 knows.
type Issuer struct {
	// URL is "https://127.0.0.1:port"; CA issued its certificate.
	URL string
	CA  *CA

	t       testing.TB
	https   *httptest.Server
	plain   *httptest.Server
	clients map[string]*IssuerClient

	mu sync.Mutex
	// tokens are the access tokens that are good, by themselves; given are all
	// tokens of either kind that ever were.
	tokens map[string]*issued
	given  []string
	// consents are by their newest refresh token; spent leads from old ones.
	consents map[string]*consent
	spent    map[string]*consent
	codes    map[string]url.Values
	devices  map[string]*device
	life     time.Duration
	requests []IssuerRequest
	answer   http.HandlerFunc
	hold     chan struct{}
	ahead    time.Duration
}

// IssuerClient is an application that the issuer knows.
type IssuerClient struct {
	// Secret, or Certificate, proves who it is; neither: a public client.
	Secret      string
	Certificate *x509.Certificate
	// Mailbox is whom its tokens of the client credentials grant are for.
	Mailbox string
	// Delegated says that it is a service account: it speaks for the mailboxes
	// of this domain, and Certificate is that of its key.
	Delegated string
}

// IssuerRequest is one request that the token endpoint got.
type IssuerRequest struct {
	Grant  string
	Form   url.Values
	Status int
}

type issued struct {
	user    string
	expires time.Time
}

type consent struct {
	user, client string
	over         bool
}

type device struct {
	client  string
	user    string // whom it was approved by; empty: nobody yet
	denied  bool
	expires time.Time
}

// TokenMark begins every token that an Issuer gives.
const TokenMark = "Issued-"

// StartIssuer starts one that knows these clients, by their client_id.
func StartIssuer(t testing.TB, ca *CA, clients map[string]*IssuerClient) *Issuer {
	t.Helper()
	i := &Issuer{
		CA: ca, t: t, clients: clients, life: time.Hour,
		tokens: map[string]*issued{}, consents: map[string]*consent{}, spent: map[string]*consent{},
		codes: map[string]url.Values{}, devices: map[string]*device{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", i.token)
	mux.HandleFunc("GET /authorize", i.authorize)
	mux.HandleFunc("POST /device", i.device)
	i.https = httptest.NewUnstartedServer(mux)
	i.https.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue().TLS}}
	// Clients that are to distrust it say so themselves.
	i.https.Config.ErrorLog = log.New(io.Discard, "", 0)
	i.https.StartTLS()
	i.URL = i.https.URL
	i.plain = httptest.NewServer(http.HandlerFunc(i.introspect))
	t.Cleanup(func() {
		i.Release()
		i.https.Close()
		i.plain.Close()
	})
	return i
}

// TokenURL is the token endpoint's.
func (i *Issuer) TokenURL() string { return i.URL + "/token" }

// Introspection is for WithOAuth2.
func (i *Issuer) Introspection() string { return i.plain.URL + "/?token=" }

// Networks are where it is, as a configuration names them.
func (i *Issuer) Networks() string { return "127.0.0.0/8" }

// SetLife sets how long tokens live that are given from now on.
func (i *Issuer) SetLife(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.life = d
}

// SetClock sets how far its clock is ahead.
func (i *Issuer) SetClock(ahead time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ahead = ahead
}

// Answer has the token endpoint answer so; nil: as it should.
func (i *Issuer) Answer(f http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = f
}

// Hold keeps back answers of the token endpoint until Release.
func (i *Issuer) Hold() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.hold = make(chan struct{})
}

// Release lets held answers go.
func (i *Issuer) Release() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.hold != nil {
		close(i.hold)
		i.hold = nil
	}
}

// Requests are those that the token endpoint got so far.
func (i *Issuer) Requests() []IssuerRequest {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.requests)
}

// RevokeTokens ends all access tokens: the mail server refuses them.
func (i *Issuer) RevokeTokens() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.tokens)
}

// Consent makes one of a user to a client, and returns its refresh token.
func (i *Issuer) Consent(client, user string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.newConsent(client, user)
}

// Withdraw ends all consents of a user.
func (i *Issuer) Withdraw(user string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, c := range i.consents {
		c.over = c.over || c.user == user
	}
}

// Grant makes an access token of a test's own good.
func (i *Issuer) Grant(token, user string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tokens[token] = &issued{user: user, expires: i.now().Add(i.life)}
}

// Issued are all tokens that it gave, of either kind, and what else it was
// shown that is secret.
func (i *Issuer) Issued() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := slices.Clone(i.given)
	for _, r := range i.requests {
		for _, name := range []string{"refresh_token", "assertion", "client_assertion", "code"} {
			if v := r.Form.Get(name); v != "" {
				all = append(all, v)
			}
		}
	}
	return all
}

// Approve lets the person who was shown a device's code consent, or deny.
func (i *Issuer) Approve(userCode, user string, consents bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	d := i.devices[userCode]
	if d == nil {
		i.t.Errorf("no device has the code %s", userCode)
		return
	}
	d.user, d.denied = user, !consents
}

func (i *Issuer) newConsent(client, user string) string {
	refresh := i.give("refresh-")
	i.consents[refresh] = &consent{user: user, client: client}
	return refresh
}

// give makes a token that nothing else is like.
func (i *Issuer) give(kind string) string {
	token := TokenMark + kind + rand.Text() + rand.Text()
	i.given = append(i.given, token)
	return token
}

func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	hold, answer := i.hold, i.answer
	i.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	w.Header().Set("Date", i.now().UTC().Format(http.TimeFormat))
	recorder := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	defer func() {
		i.requests = append(i.requests, IssuerRequest{Grant: r.PostForm.Get("grant_type"), Form: r.PostForm, Status: recorder.status})
	}()
	if answer != nil {
		answer(recorder, r)
		return
	}
	user, refresh, fault := i.grant(r)
	w.Header().Set("Content-Type", "application/json")
	if fault != "" {
		status := http.StatusBadRequest
		if fault == "invalid_client" {
			status = http.StatusUnauthorized
		}
		recorder.WriteHeader(status)
		_ = json.NewEncoder(recorder).Encode(map[string]string{
			"error": fault, "error_description": "AADSTS70000: what was sent: " + r.PostForm.Encode(),
		})
		return
	}
	token := i.give("access-")
	i.tokens[token] = &issued{user: user, expires: i.now().Add(i.life)}
	body := map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": int(i.life.Seconds())}
	if refresh != "" {
		body["refresh_token"] = refresh
	}
	_ = json.NewEncoder(recorder).Encode(body)
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (i *Issuer) now() time.Time { return time.Now().Add(i.ahead) }

// grant decides a request: for whom a token is, or what is wrong.
func (i *Issuer) grant(r *http.Request) (user, refresh, fault string) {
	form := r.PostForm
	if form.Get("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		user, fault = i.serviceAccount(form.Get("assertion"))
		return user, "", fault
	}
	id, client := i.client(r)
	if client == nil {
		return "", "", "invalid_client"
	}
	switch form.Get("grant_type") {
	case "client_credentials":
		if client.Mailbox == "" || form.Get("scope") == "" {
			return "", "", "unauthorized_client"
		}
		return client.Mailbox, "", ""
	case "refresh_token":
		shown := form.Get("refresh_token")
		if reused := i.spent[shown]; reused != nil {
			reused.over = true
		}
		c := i.consents[shown]
		if c == nil || c.over || c.client != id {
			return "", "", "invalid_grant"
		}
		return c.user, i.follow(shown, c), ""
	case "authorization_code":
		asked := i.codes[form.Get("code")]
		delete(i.codes, form.Get("code"))
		challenge := sha256.Sum256([]byte(form.Get("code_verifier")))
		if asked == nil || asked.Get("client_id") != id || asked.Get("redirect_uri") != form.Get("redirect_uri") ||
			asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(challenge[:]) {
			return "", "", "invalid_grant"
		}
		return asked.Get("login_hint"), i.newConsent(id, asked.Get("login_hint")), ""
	case "urn:ietf:params:oauth:grant-type:device_code":
		return i.deviceToken(id, form.Get("device_code"))
	}
	return "", "", "unsupported_grant_type"
}

// follow replaces a refresh token by the next.
func (i *Issuer) follow(old string, c *consent) string {
	refresh := i.give("refresh-")
	delete(i.consents, old)
	i.spent[old], i.consents[refresh] = c, c
	return refresh
}

// client finds who asks, and checks the proof.
func (i *Issuer) client(r *http.Request) (string, *IssuerClient) {
	id, secret, basic := r.BasicAuth()
	if basic {
		id, _ = url.QueryUnescape(id) // a wrong one is nobody's
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	c := i.clients[id]
	switch {
	case c == nil:
		return "", nil
	case c.Certificate != nil:
		thumbprint := sha256.Sum256(c.Certificate.Raw)
		claims := i.verify(r.PostForm.Get("client_assertion"), jose.PS256, c.Certificate, "x5t#S256", base64.RawURLEncoding.EncodeToString(thumbprint[:]))
		if r.PostForm.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" ||
			claims == nil || claims.Issuer != id || claims.Subject != id || claims.ID == "" {
			return "", nil
		}
	case c.Secret != secret:
		return "", nil
	}
	return id, c
}

// assertion are the claims of RFC 7523 §3.
type assertion struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"`
	Scope     string `json:"scope"`
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
}

// verify checks signature, header, audience and times; nil: something is wrong.
func (i *Issuer) verify(text string, algorithm jose.SignatureAlgorithm, c *x509.Certificate, header, value string) *assertion {
	signed, err := jose.ParseSigned(text, []jose.SignatureAlgorithm{algorithm})
	if err != nil {
		return nil
	}
	payload, err := signed.Verify(c.PublicKey)
	h := signed.Signatures[0].Protected
	shown, _ := h.ExtraHeaders[jose.HeaderKey(header)].(string)
	if header == "kid" {
		shown = h.KeyID
	}
	claims := &assertion{}
	now := i.now().Unix()
	if err != nil || shown != value || h.ExtraHeaders["typ"] != "JWT" || json.Unmarshal(payload, claims) != nil ||
		claims.Audience != i.TokenURL() || claims.IssuedAt > now || claims.NotBefore > now || claims.Expires <= now ||
		claims.Expires > now+3600 {
		return nil
	}
	return claims
}

// KeyID is what a service account's key is called.
const KeyID = "key-1"

func (i *Issuer) serviceAccount(text string) (user, fault string) {
	for id, c := range i.clients {
		if c.Delegated == "" {
			continue
		}
		if claims := i.verify(text, jose.RS256, c.Certificate, "kid", KeyID); claims != nil && claims.Issuer == id {
			if !strings.HasSuffix(claims.Subject, "@"+c.Delegated) || claims.Scope == "" {
				return "", "unauthorized_client"
			}
			return claims.Subject, ""
		}
	}
	return "", "invalid_grant"
}

// authorize is the person's browser: whoever the request names consents.
func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	q := r.URL.Query()
	redirect, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || i.clients[q.Get("client_id")] == nil || !net.ParseIP(redirect.Hostname()).IsLoopback() ||
		q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || q.Get("state") == "" || q.Get("login_hint") == "" {
		http.Error(w, "no such request", http.StatusBadRequest)
		return
	}
	code := TokenMark + "code-" + rand.Text()
	i.codes[code] = q
	redirect.RawQuery = url.Values{"code": {code}, "state": {q.Get("state")}}.Encode()
	http.Redirect(w, r, redirect.String(), http.StatusFound)
}

func (i *Issuer) device(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := r.ParseForm(); err != nil || i.clients[r.PostForm.Get("client_id")] == nil {
		http.Error(w, "no such client", http.StatusBadRequest)
		return
	}
	userCode := rand.Text()[:8]
	i.devices[userCode] = &device{client: r.PostForm.Get("client_id"), expires: time.Now().Add(time.Minute)}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"device_code": "device-" + userCode, "user_code": userCode, "verification_uri": i.URL + "/activate", "expires_in": 60, "interval": 1,
	})
}

func (i *Issuer) deviceToken(client, code string) (user, refresh, fault string) {
	d := i.devices[strings.TrimPrefix(code, "device-")]
	switch {
	case d == nil || d.client != client:
		return "", "", "invalid_grant"
	case time.Now().After(d.expires):
		return "", "", "expired_token"
	case d.denied:
		return "", "", "access_denied"
	case d.user == "":
		return "", "", "authorization_pending"
	}
	return d.user, i.newConsent(client, d.user), ""
}

// introspect answers Dovecot, which compares strings and takes an answer
// without a name for a failure of its own.
func (i *Issuer) introspect(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	t := i.tokens[r.URL.Query().Get("token")]
	user, active := "nobody", false
	if t != nil {
		user, active = t.user, i.now().Before(t.expires)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"active": fmt.Sprint(active), "username": user})
}
