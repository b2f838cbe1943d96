// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

const (
	// requestTimeout is longer than the server takes for anything.
	requestTimeout = 2 * time.Minute
	// maxAnswer bounds what the client reads.
	maxAnswer = 256 << 20
)

// app is what the management commands share: the global flags.
type app struct {
	socket string
	json   bool
	// server is HOST:PORT; empty: the socket. ca is the file with what signed
	// its certificate; empty: the system's.
	server, ca string
	// tokenFile holds the API token; anonymous says that none is to be shown.
	tokenFile string
	anonymous bool
	// yes answers every question.
	yes bool
}

func defaultSocket() string {
	if path := os.Getenv("POSTERN_SOCKET"); path != "" {
		return path
	}
	return "/run/postern/postern.sock"
}

// call makes one request and returns the answer, as it came and decoded.
func call[T any](cmd *cobra.Command, a *app, method, path string, in any) (raw []byte, out *T, err error) {
	var body []byte
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return nil, nil, err
		}
	}
	if raw, err = a.request(cmd.Context(), method, path, body); err != nil {
		return nil, nil, err
	}
	if method == http.MethodGet {
		if raw, err = a.wholeList(cmd.Context(), path, raw); err != nil {
			return nil, nil, err
		}
	}
	out = new(T)
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, nil, fmt.Errorf("the server's answer is not understood; is it of another version? %w", err)
	}
	return raw, out, nil
}

// wholeList asks for the pages that follow the first of a list, and returns
// them as one. What is no list, or has one page, it returns as it came.
func (a *app) wholeList(ctx context.Context, path string, raw []byte) ([]byte, error) {
	type page struct {
		Items []json.RawMessage `json:"items"`
		Next  string            `json:"next,omitempty"`
	}
	var all page
	// Of an event log, next is a number: its reader pages by himself.
	if err := json.Unmarshal(raw, &all); err != nil {
		return raw, nil
	}
	if err := whole(all.Items); err != nil {
		return nil, err
	}
	if all.Next == "" {
		return raw, nil
	}
	total := len(raw)
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	for all.Next != "" {
		more, err := a.request(ctx, http.MethodGet, path+separator+"cursor="+url.QueryEscape(all.Next), nil)
		if err != nil {
			return nil, err
		}
		var following page
		if err := json.Unmarshal(more, &following); err != nil {
			return nil, fmt.Errorf("the server's answer is not understood: %w", err)
		}
		if err := whole(following.Items); err != nil {
			return nil, err
		}
		if total += len(more); total > maxAnswer {
			return nil, fmt.Errorf("the server's list does not end within %d octets", maxAnswer)
		}
		all.Items, all.Next = append(all.Items, following.Items...), following.Next
	}
	return json.Marshal(all)
}

// whole refuses a list of which an item is nothing.
func whole(items []json.RawMessage) error {
	for _, x := range items {
		if string(x) == "null" {
			return errors.New("the server's answer has items with nothing in them")
		}
	}
	return nil
}

// request makes one request, over the server's socket or to a remote server.
func (a *app) request(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	return a.requestUpTo(ctx, maxAnswer, method, path, body)
}

// requestUpTo is request for an answer of so many octets at most.
func (a *app) requestUpTo(ctx context.Context, octets int64, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	transport, base, err := a.transport()
	if err != nil {
		return nil, err
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	token, err := a.token()
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, a.unreachable(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, octets+1))
	if err != nil {
		return nil, a.unreachable(err)
	}
	if int64(len(answer)) > octets {
		return nil, fmt.Errorf("the server's answer has more than %d octets", octets)
	}
	if resp.StatusCode/100 == 2 {
		return answer, nil
	}
	problem := &httpapi.Problem{}
	if err := json.Unmarshal(answer, problem); err != nil || problem.Code == "" {
		return nil, fmt.Errorf("the server answered %s, which is not understood; is it Postern's API?", resp.Status)
	}
	return nil, problem
}

// transport returns the way to the server, and what its URLs begin with.
func (a *app) transport() (*http.Transport, string, error) {
	t := &http.Transport{DisableKeepAlives: true}
	if a.server == "" {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", a.socket)
		}
		// The host says nothing: there is one server behind the socket.
		return t, "http://postern", nil
	}
	if _, port, err := net.SplitHostPort(a.server); err != nil || port == "" {
		return nil, "", usagef("--server %q is not HOST:PORT, such as mail.bpo.example:8443", a.server)
	}
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if a.ca != "" {
		b, err := os.ReadFile(a.ca)
		if err != nil {
			return nil, "", usagef("--ca: %v", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(b) {
			return nil, "", usagef("--ca: %s holds no certificate in PEM form", a.ca)
		}
	}
	return t, "https://" + a.server, nil
}

// unreachable says what to do about a server that does not answer.
func (a *app) unreachable(err error) error {
	if a.server != "" {
		var unknown *tls.CertificateVerificationError
		if errors.As(err, &unknown) {
			return broker.Errorf(broker.Unavailable, "the certificate of %s is not good: %v; name the CA that signed it with --ca", a.server, unknown.Err).WithCause(err)
		}
		return broker.Errorf(broker.Unavailable, "the server at %s did not answer: %v", a.server, err).WithCause(err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return broker.Errorf(broker.Refused, "the socket %s may not be used by this user: be root or the server's own user", a.socket)
	}
	text := fmt.Sprintf("no server answers at %s: is it running? Start it with 'postern serve --config FILE', or name its socket with --socket or POSTERN_SOCKET", a.socket)
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
		text = fmt.Sprintf("the server at %s did not answer: %v", a.socket, err)
	}
	return broker.Errorf(broker.Unavailable, "%s", text).WithCause(err)
}

// path joins steps, each of them escaped.
func path(steps ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, s := range steps {
		b.WriteString("/" + url.PathEscape(s))
	}
	return b.String()
}

// withQuery adds what is not empty.
func withQuery(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}
