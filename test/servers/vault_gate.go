// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
)

// VaultGate passes requests on to a Vault, and can keep them waiting before
// Vault hears of them, or their answers once Vault has done what they ask.
type VaultGate struct {
	// Addr is "https://127.0.0.1:port"; the certificate is of Vault's CA.
	Addr string

	t      testing.TB
	vault  string
	client *http.Transport

	mu    sync.Mutex
	rules []*vaultRule
}

type vaultRule struct {
	*Hold
	when     func(method, path string) bool
	answered bool
}

// NewGate makes a gate before it, until the test is over.
func (v *Vault) NewGate() *VaultGate {
	v.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		v.t.Fatal(err)
	}
	g := &VaultGate{Addr: "https://" + l.Addr().String(), t: v.t, vault: v.Addr, client: http.DefaultTransport.(*http.Transport).Clone()}
	g.client.TLSClientConfig.RootCAs = v.CA.Pool()
	server := &http.Server{Handler: g}
	var work sync.WaitGroup
	work.Go(func() { _ = server.ServeTLS(l, v.cert.CertFile, v.cert.KeyFile) }) // until Close
	v.t.Cleanup(func() {
		g.mu.Lock()
		rules := slices.Clone(g.rules)
		g.mu.Unlock()
		for _, rule := range rules {
			rule.Drop()
		}
		server.Close()
		work.Wait()
		g.client.CloseIdleConnections()
	})
	return g
}

// Hold keeps requests waiting for whose method and path when holds, or, with
// answered, the answers to them. The path begins after "/v1/".
func (g *VaultGate) Hold(when func(method, path string) bool, answered bool) *Hold {
	rule := &vaultRule{newHold(), when, answered}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rules = append(g.rules, rule)
	return rule.Hold
}

// Unhold forgets all holds; those that wait are dropped.
func (g *VaultGate) Unhold() {
	g.mu.Lock()
	rules := g.rules
	g.rules = nil
	g.mu.Unlock()
	for _, rule := range rules {
		rule.Drop()
	}
}

func (g *VaultGate) rule(r *http.Request) *vaultRule {
	g.mu.Lock()
	rules := slices.Clone(g.rules)
	g.mu.Unlock()
	for _, rule := range rules {
		if rule.when(r.Method, r.URL.Path[len("/v1/"):]) {
			return rule
		}
	}
	return nil
}

// ServeHTTP passes one request on.
func (g *VaultGate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	rule := g.rule(r)
	if rule != nil && !rule.answered {
		if !rule.wait(r.Context().Done()) {
			panic(http.ErrAbortHandler)
		}
		defer rule.ended()
	}
	out, err := http.NewRequest(r.Method, g.vault+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	out.Header = r.Header.Clone()
	answer, err := g.client.RoundTrip(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	said, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if rule != nil && rule.answered {
		if !rule.wait(r.Context().Done()) {
			panic(http.ErrAbortHandler)
		}
		defer rule.ended()
	}
	for name, values := range answer.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = w.Write(said) // the client may be gone
}
