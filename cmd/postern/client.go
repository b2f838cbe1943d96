// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
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
	out = new(T)
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, nil, fmt.Errorf("the server's answer is not understood; is it of another version? %w", err)
	}
	return raw, out, nil
}

// request makes one request over the server's socket.
func (a *app) request(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", a.socket)
		},
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	// The host says nothing: there is one server behind the socket.
	req, err := http.NewRequestWithContext(ctx, method, "http://postern"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, a.unreachable(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, a.unreachable(err)
	}
	if resp.StatusCode/100 == 2 {
		return answer, nil
	}
	problem := &httpapi.Problem{}
	if err := json.Unmarshal(answer, problem); err != nil || problem.Code == "" {
		return nil, fmt.Errorf("the server answered %s, which is not understood; is it Postern's socket?", resp.Status)
	}
	return nil, problem
}

// unreachable says what to do about a server that does not answer.
func (a *app) unreachable(err error) error {
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
