// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/redact"
)

// httpSession is a conversation with a provider's API about one mailbox.
type httpSession struct {
	*attempt
	provider *httpProvider
	own      map[string]string
	captured map[string]string
	client   *http.Client
}

func (d *HTTP) session(a *attempt, p *httpProvider, own map[string]string) (*httpSession, error) {
	u, err := url.Parse(p.URL)
	if err != nil {
		return nil, a.misconfigured(err)
	}
	config, err := d.config.tlsConfig(u.Hostname(), p.CA)
	if err != nil {
		return nil, a.misconfigured(err)
	}
	return &httpSession{attempt: a, provider: p, own: own, captured: map[string]string{}, client: newClient(config)}, nil
}

// newClient asks no proxy, follows no redirect, keeps no cookie, and sends a
// request once: on a connection of its own there is nothing to send again.
func newClient(config *tls.Config) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: config, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				var dialer net.Dialer
				conn, err := dialer.DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return &boundedConn{Conn: conn, left: maxAnswer}, nil
			},
		},
	}
}

// value is what a name in a template stands for.
func (s *httpSession) value(name string) (string, error) {
	var secret *broker.Secret
	switch {
	case isMailboxName(name):
		return s.names[name], nil
	case name == "old":
		secret = &s.Old
	case name == "new":
		secret = &s.New
	case name == "account.username" || name == "account.secret":
		if s.Account == nil {
			return "", errors.New("the provider has no account")
		}
		if name == "account.username" {
			return s.Account.Username, nil
		}
		secret = &s.Account.Secret
	case strings.HasPrefix(name, "mailbox."):
		if v, ok := s.own[strings.TrimPrefix(name, "mailbox.")]; ok {
			return v, nil
		}
		return "", fmt.Errorf("the mailbox's settings lack %s", strings.TrimPrefix(name, "mailbox."))
	default:
		if v, ok := s.captured[name]; ok {
			return v, nil
		}
		return "", fmt.Errorf("{%s} is not known", name)
	}
	if secret.Empty() {
		return "", fmt.Errorf("{%s} is not known for this mailbox", name)
	}
	// A JSON string would hold something else in its place.
	if !utf8.Valid(secret.Reveal()) {
		return "", fmt.Errorf("{%s} is no UTF-8", name)
	}
	return string(secret.Reveal()), nil
}

// escaped is value for a place.
func (s *httpSession) escaped(escape func(string) (string, error)) func(string) (string, error) {
	return func(name string) (string, error) {
		v, err := s.value(name)
		if err != nil {
			return "", err
		}
		return escape(v)
	}
}

// pathSegment escapes a part of a path. Dots alone would climb out of it.
func pathSegment(v string) (string, error) {
	if v == "" || v == "." || v == ".." {
		return "", errors.New("a part of the path would be empty, or dots alone")
	}
	return url.PathEscape(v), nil
}

func headerValue(v string) (string, error) {
	if strings.ContainsFunc(v, isControl) {
		return "", errors.New("a header would hold a control character")
	}
	return v, nil
}

// pointerToken escapes a part of a JSON pointer (RFC 6901 §3).
func pointerToken(v string) (string, error) {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(v), nil
}

// request makes a step's.
func (s *httpSession) request(ctx context.Context, step *httpStep) (*http.Request, error) {
	path, err := expand(step.Path, s.escaped(pathSegment))
	if err != nil {
		return nil, err
	}
	query := url.Values{}
	for name, template := range step.Query {
		v, err := expand(template, s.value)
		if err != nil {
			return nil, err
		}
		query.Set(name, v)
	}
	target := s.provider.URL + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	body, err := renderBody(step, s.value)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, step.Method, target, bytes.NewReader(body.octets))
	if err != nil {
		return nil, err
	}
	r.GetBody = nil // it is sent once
	if body.kind != "" {
		r.Header.Set("Content-Type", body.kind)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "postern")
	for name, template := range step.Headers {
		v, err := expand(template, s.escaped(headerValue))
		if err != nil {
			return nil, err
		}
		r.Header.Set(name, v)
	}
	if step.Basic {
		account, err := s.account()
		if err != nil {
			return nil, err
		}
		r.SetBasicAuth(account.Username, string(account.Secret.Reveal()))
	}
	return r, nil
}

type body struct {
	kind   string
	octets []byte
}

// renderBody makes a body: names stand for values within strings of the JSON,
// and within values of the form, so that none can become something else.
func renderBody(step *httpStep, value func(string) (string, error)) (*body, error) {
	if len(step.JSON) > 0 {
		document, err := decodeJSON(step.JSON)
		if err != nil {
			return nil, fmt.Errorf("the JSON body: %w", err)
		}
		if document, err = render(document, value); err != nil {
			return nil, err
		}
		octets, err := json.Marshal(document)
		return &body{"application/json", octets}, err
	}
	if len(step.Form) == 0 {
		return &body{}, nil
	}
	form := url.Values{}
	for name, template := range step.Form {
		v, err := expand(template, value)
		if err != nil {
			return nil, err
		}
		form.Set(name, v)
	}
	return &body{"application/x-www-form-urlencoded", []byte(form.Encode())}, nil
}

func decodeJSON(b []byte) (any, error) {
	var document any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&document); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the document")
	}
	return document, nil
}

// render replaces names in all strings of a document, keys included.
func render(document any, value func(string) (string, error)) (any, error) {
	var err error
	switch v := document.(type) {
	case string:
		return expand(v, value)
	case []any:
		for i := range v {
			if v[i], err = render(v[i], value); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		rendered := make(map[string]any, len(v))
		for key, of := range v {
			if key, err = expand(key, value); err != nil {
				return nil, err
			}
			if rendered[key], err = render(of, value); err != nil {
				return nil, err
			}
		}
		return rendered, nil
	}
	return document, nil
}

// step makes a request, and returns the document of an answer that means done.
// changes says that it is the one that changes the password.
func (s *httpSession) step(ctx context.Context, step *httpStep, changes bool) (any, error) {
	request, err := s.request(ctx, step)
	if known := (*broker.DriverError)(nil); errors.As(err, &known) {
		return nil, err
	} else if err != nil {
		return nil, s.misconfigured(err)
	}
	var asked atomic.Bool
	request = request.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { asked.Store(true) },
	}))
	status, document, err := s.ask(request)
	if err != nil {
		if changes && asked.Load() {
			return nil, s.unanswered(ctx, err)
		}
		return nil, s.unreached(ctx, err)
	}
	means, words, err := s.understand(step, status, document)
	switch {
	case err != nil:
		return nil, s.misconfigured(err)
	case means == meansDone && changes:
		return document, nil
	case means == meansDone:
		return document, s.capture(step, document)
	case means == meansUnknown && changes:
		return nil, s.failed(broker.OutcomeUnknown, broker.DriverUnavailable, words, fmt.Errorf("status %d", status))
	case means == meansUnknown:
		return nil, s.failed(broker.NotApplied, broker.DriverUnavailable, words, fmt.Errorf("status %d", status))
	}
	return nil, s.failed(broker.NotApplied, broker.DriverReason(means), words, fmt.Errorf("status %d", status))
}

// ask returns the answer's status, and its document if it is one.
func (s *httpSession) ask(r *http.Request) (int, any, error) {
	answer, err := s.client.Do(r)
	if err != nil {
		// Its text has the URL in it, with the mailbox's name.
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return 0, nil, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, nil, err
	}
	document, err := decodeJSON(b)
	if err != nil {
		document = nil // then no condition about it holds
	}
	return answer.StatusCode, document, nil
}

// capture keeps values of an answer for the steps behind. They are told to
// nobody, since they may be tokens.
func (s *httpSession) capture(step *httpStep, document any) error {
	for name, pointer := range step.Capture {
		pointer, err := expand(pointer, s.escaped(pointerToken))
		if err != nil {
			return s.misconfigured(err)
		}
		v, found := at(document, pointer)
		if !found || text(v) == "" {
			return s.failed(broker.NotApplied, broker.DriverUnavailable, "", fmt.Errorf("the answer lacks %s", name))
		}
		s.captured[name] = text(v)
		s.hidden = append(s.hidden, redact.Forms([]byte(text(v)))...)
	}
	return nil
}

// list makes a request for a list, and returns its names.
func (s *httpSession) list(ctx context.Context, list *httpList) ([]string, error) {
	document, err := s.step(ctx, &list.httpStep, false)
	if err != nil {
		return nil, err
	}
	v, _ := at(document, list.Items)
	items, _ := v.([]any)
	var names []string
	for _, item := range items[:min(len(items), maxListed)] {
		if name, found := at(item, list.Name); found {
			names = append(names, redact.Words([]byte(text(name)), maxListName, s.hidden))
		}
	}
	return names, nil
}
