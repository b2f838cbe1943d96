// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/workstationca"
	"github.com/postern-mail/postern/proxy"
)

// whoami tells the client what the server knows of it.
func whoami(_ context.Context, c *proxy.Conn) {
	name := "nobody"
	if cert := c.Certificate(); cert != nil {
		name = cert.Subject.CommonName
	}
	fmt.Fprintf(c, "%s tls=%v\n", name, c.IsTLS())
}

func TestCertificateIsVerified(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.start(whoami)
	other, err := workstationca.Create(t.TempDir(), workstationca.Config{})
	if err != nil {
		t.Fatal(err)
	}
	serverPair, err := tls.LoadX509KeyPair(h.path("server.pem"), h.path("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	own, stranger := h.workstation(h.ca), h.workstation(other)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, tc := range map[string]struct {
			certs []tls.Certificate
			alert string // empty: let in
		}{
			"a workstation's":  {[]tls.Certificate{own}, ""},
			"none":             {nil, map[uint16]string{tls.VersionTLS12: "handshake failure", tls.VersionTLS13: "certificate required"}[version]},
			"of an unknown CA": {[]tls.Certificate{stranger}, "bad certificate"},
			"the server's own": {[]tls.Certificate{serverPair}, "bad certificate"},
			// Whoever saw a certificate on the wire does not have its key.
			"a workstation's, without its key": {
				[]tls.Certificate{{Certificate: own.Certificate, PrivateKey: stranger.PrivateKey}},
				"error decrypting",
			},
		} {
			t.Run(tls.VersionName(version)+"/"+name, func(t *testing.T) {
				config := h.clientTLS(tc.certs...)
				config.MinVersion, config.MaxVersion = version, version
				c := tls.Client(h.dial(), config)
				got, err := io.ReadAll(c) // in TLS 1.3 the refusal comes after the client's handshake
				switch {
				case tc.alert == "" && (err != nil || string(got) != "desk-7 tls=true\n"):
					t.Fatalf("got %q, %v", got, err)
				case tc.alert != "" && (err == nil || !strings.Contains(err.Error(), "remote error: tls: "+tc.alert)):
					t.Fatalf("got %q, %v; want the alert %q", got, err, tc.alert)
				}
			})
		}
	}
}

func TestNetworkOnlySite(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.config.NetworkOnly = anywhere
	h.start(whoami)
	other, err := workstationca.Create(t.TempDir(), workstationca.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got := line(t, tls.Client(h.dial(), h.clientTLS())); got != "nobody tls=true\n" {
		t.Errorf("without a certificate: %q", got)
	}
	if got := line(t, tls.Client(h.dial(), h.clientTLS(h.workstation(h.ca)))); got != "desk-7 tls=true\n" {
		t.Errorf("with a certificate: %q", got)
	}
	if got, err := io.ReadAll(tls.Client(h.dial(), h.clientTLS(h.workstation(other)))); err == nil {
		t.Errorf("with a certificate of an unknown CA: %q", got)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.start(whoami)
	config := h.clientTLS(h.workstation(h.ca))
	config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if err := tls.Client(h.dial(), config).Handshake(); err == nil {
		t.Fatal("TLS 1.1 was accepted")
	}
}

// A ticket would let a workstation back in without its certificate being
// looked at.
func TestNoSessionTickets(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.start(whoami)
	config := h.clientTLS(h.workstation(h.ca))
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for range 3 {
		c := tls.Client(h.dial(), config)
		line(t, c)
		if c.ConnectionState().DidResume {
			t.Fatal("a session was resumed")
		}
	}
}

func TestStartTLS(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.config.Implicit = false
	result := make(chan error, 1)
	h.start(func(ctx context.Context, c *proxy.Conn) {
		fmt.Fprintf(c, "tls=%v\n", c.IsTLS())
		if err := c.StartTLS(ctx); err != nil {
			result <- err
			return
		}
		result <- c.StartTLS(ctx)
		whoami(ctx, c)
	})
	bare := h.dial()
	if got := line(t, bare); got != "tls=false\n" {
		t.Fatalf("before: %q", got)
	}
	if got := line(t, tls.Client(bare, h.clientTLS(h.workstation(h.ca)))); got != "desk-7 tls=true\n" {
		t.Fatalf("after: %q", got)
	}
	if err := <-result; !errors.Is(err, proxy.ErrNoTLS) {
		t.Fatalf("a second StartTLS: %v", err)
	}

	bare = h.dial()
	line(t, bare)
	if got, err := io.ReadAll(tls.Client(bare, h.clientTLS())); err == nil {
		t.Fatalf("without a certificate: %q", got)
	}
	if err := <-result; err == nil {
		t.Fatal("StartTLS without a certificate succeeded")
	}
}

func TestKeyPinIsOfTheLeaf(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	pins := make(chan string, 1)
	h.start(func(_ context.Context, c *proxy.Conn) { pins <- broker.KeyPin(c.Certificate()) })
	// The chain holds a second certificate that must not be taken for the leaf.
	own, other := h.workstation(h.ca), h.workstation(h.ca)
	own.Certificate = append(own.Certificate, other.Certificate...)
	_, _ = io.ReadAll(tls.Client(h.dial(), h.clientTLS(own)))
	leaf := mustParse(t, own.Certificate[0])
	if got := <-pins; got != broker.KeyPin(leaf) {
		t.Fatalf("pin %s is not the leaf's", got)
	}
}

// What only the login needed is not held for as long as the session lasts.
func TestAuthenticatedLetsGoOfTheCertificates(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	type held struct {
		before, after bool
		chain         int
	}
	found := make(chan held, 1)
	h.start(func(_ context.Context, c *proxy.Conn) {
		got := held{before: c.Certificate() != nil}
		c.Authenticated()
		got.after = c.Certificate() != nil
		for _, peer := range c.Conn.(*tls.Conn).ConnectionState().PeerCertificates {
			if peer != nil {
				got.chain++
			}
		}
		found <- got
	})
	own, other := h.workstation(h.ca), h.workstation(h.ca)
	own.Certificate = append(own.Certificate, other.Certificate...)
	_, _ = io.ReadAll(tls.Client(h.dial(), h.clientTLS(own)))
	if got := <-found; got != (held{before: true}) {
		t.Errorf("held %+v", got)
	}
}
