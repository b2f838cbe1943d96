// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/broker"
)

// grant is what an issuer gave.
type grant struct {
	token broker.Secret
	// refresh is empty where the refresh token stays as it is.
	refresh broker.Secret
	// expires is when the token ends, by this machine's clock.
	issued, expires time.Time
}

func (g *grant) wipe() {
	g.token.Wipe()
	g.refresh.Wipe()
}

// issuers asks issuers for tokens.
type issuers struct {
	client *http.Client
	now    func() time.Time

	mu sync.Mutex
	// skew is how far each token endpoint's clock is ahead of this machine's.
	skew map[string]time.Duration
}

// ask makes one request for a token; a second where the issuer refuses an
// assertion and its clock is not the one that the assertion was made for.
func (i *issuers) ask(ctx context.Context, kind broker.CredentialKind, d *Document, subject string) (*grant, error) {
	before := i.skewOf(d.TokenURL)
	g, err := i.askOnce(ctx, kind, d, subject, before)
	var said *refusal
	if errors.As(err, &said) && !d.PrivateKey.Empty() {
		if after := i.skewOf(d.TokenURL); (after - before).Abs() > skewBorne {
			return i.askOnce(ctx, kind, d, subject, after)
		}
	}
	return g, err
}

func (i *issuers) skewOf(tokenURL string) time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.skew[tokenURL]
}

// learn takes an issuer's clock from an answer (RFC 9110 §6.6.1).
func (i *issuers) learn(tokenURL string, header http.Header) {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.skew == nil || len(i.skew) >= maxSkews {
		i.skew = make(map[string]time.Duration)
	}
	i.skew[tokenURL] = date.Sub(i.now())
}

func (i *issuers) askOnce(ctx context.Context, kind broker.CredentialKind, d *Document, subject string, skew time.Duration) (*grant, error) {
	body, err := form(kind, d, subject, i.now().Add(skew))
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.TokenURL, bytes.NewReader(body))
	if err != nil {
		return nil, unavailable(ReasonEndpoint, errURL)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if d.ClientAuth == AuthBasic && !d.ClientSecret.Empty() {
		// RFC 6749 §2.3.1: both are form-encoded first.
		req.SetBasicAuth(url.QueryEscape(d.ClientID), url.QueryEscape(string(d.ClientSecret.Reveal())))
	}
	asked := i.now()
	resp, err := i.client.Do(req)
	if err != nil {
		// body is left to the collector: net/http may still be reading it.
		return nil, failed(err)
	}
	defer resp.Body.Close()
	defer clear(body)
	i.learn(d.TokenURL, resp.Header)
	answer := make([]byte, maxAnswer)
	defer clear(answer)
	n, err := io.ReadFull(resp.Body, answer)
	if err == nil {
		return nil, unavailable(ReasonEndpoint, errors.New("the issuer's answer is too long"))
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, failed(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, i.refused(resp, answer[:n])
	}
	return granted(answer[:n], asked)
}

// granted reads RFC 6749 §5.1.
func granted(answer []byte, asked time.Time) (*grant, error) {
	var a struct {
		Token   octets      `json:"access_token"`
		Type    string      `json:"token_type"`
		Expires json.Number `json:"expires_in"`
		Refresh octets      `json:"refresh_token"`
	}
	err := json.Unmarshal(answer, &a)
	g := &grant{token: broker.NewSecret(a.Token), refresh: broker.NewSecret(a.Refresh), issued: asked}
	fit := &broker.Credential{Kind: broker.KindAccessToken, Secret: g.token}
	if err != nil || !strings.EqualFold(a.Type, "Bearer") || fit.Validate() != nil || bytes.ContainsFunc(a.Refresh, notVSCHAR) {
		g.wipe()
		// The cause is fixed: those of encoding/json quote their input.
		return nil, unavailable(ReasonEndpoint, errors.New("the issuer's answer holds no bearer token"))
	}
	life := defaultLife
	if seconds, err := a.Expires.Float64(); err == nil && seconds > 0 {
		life = time.Duration(min(seconds, maxLife.Seconds()) * float64(time.Second))
	}
	g.expires = asked.Add(life)
	return g, nil
}

// form is the request's body.
func form(kind broker.CredentialKind, d *Document, subject string, now time.Time) ([]byte, error) {
	const bearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	var f formWriter
	if kind == broker.KindGoogleServiceAccount {
		assertion, err := d.grantAssertion(subject, now)
		if err != nil {
			return nil, err
		}
		f.add("grant_type", []byte(bearer))
		f.add("assertion", []byte(assertion))
		return f.b, nil
	}
	if kind == broker.KindOAuth2Client {
		f.add("grant_type", []byte("client_credentials"))
	} else {
		f.add("grant_type", []byte("refresh_token"))
		f.add("refresh_token", d.RefreshToken.Reveal())
	}
	if d.Scope != "" {
		f.add("scope", []byte(d.Scope))
	}
	switch {
	case !d.PrivateKey.Empty():
		assertion, err := d.clientAssertion(now)
		if err != nil {
			return nil, err
		}
		f.add("client_id", []byte(d.ClientID))
		f.add("client_assertion_type", []byte("urn:ietf:params:oauth:client-assertion-type:jwt-bearer"))
		f.add("client_assertion", []byte(assertion))
	case d.ClientSecret.Empty():
		f.add("client_id", []byte(d.ClientID))
	case d.ClientAuth == AuthPost:
		f.add("client_id", []byte(d.ClientID))
		f.add("client_secret", d.ClientSecret.Reveal())
	}
	return f.b, nil
}

// formWriter writes application/x-www-form-urlencoded without making strings
// of secrets.
type formWriter struct{ b []byte }

func (f *formWriter) add(name string, value []byte) {
	const upperHex = "0123456789ABCDEF"
	// So that no outgrown buffer keeps a copy.
	need := len(f.b) + len(name) + len("&=") + 3*len(value)
	if cap(f.b) < need {
		grown := append(make([]byte, 0, 2*need), f.b...)
		clear(f.b)
		f.b = grown
	}
	if len(f.b) > 0 {
		f.b = append(f.b, '&')
	}
	f.b = append(append(f.b, name...), '=')
	for _, c := range value {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			f.b = append(f.b, c)
		} else {
			f.b = append(f.b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
}

// retryAfter reads RFC 9110 §10.2.3; 0: the issuer does not say.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, longestWait)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), longestWait)
	}
	return 0
}
