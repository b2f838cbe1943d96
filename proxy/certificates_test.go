// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/broker/workstationca"
	"github.com/postern-mail/postern/proxy"
)

// serverName is the first DNS name of the certificate that the server shows.
func (h *house) serverName(config *tls.Config) string {
	h.t.Helper()
	c := tls.Client(h.dial(), config)
	defer c.Close()
	if err := c.Handshake(); err != nil {
		h.t.Fatal(err)
	}
	return c.ConnectionState().PeerCertificates[0].DNSNames[0]
}

// watch runs Certificates.Run until the test ends.
func (h *house) watch() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.certs.Run(ctx); err != nil {
			h.t.Errorf("Run: %v", err)
		}
	}()
	h.t.Cleanup(func() { cancel(); h.wait(done, "the watch to end") })
}

func TestCertificatesReload(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.start(whoami)
	h.watch()
	config := h.clientTLS(h.workstation(h.ca))
	if got := h.serverName(config); got != "imap.postern.example" {
		t.Fatalf("at first: %s", got)
	}
	before := h.metric("postern_certificate_expiry_timestamp_seconds", map[string]string{"which": "server"})
	if before < float64(time.Now().Unix()) {
		t.Errorf("the certificate expires at %v", before)
	}
	h.writeServerCertificate("new.postern.example")
	h.eventually("the new certificate is shown", func() bool { return h.serverName(config) == "new.postern.example" })
}

func TestBadCertificatesChangeNothing(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.start(whoami)
	h.watch()
	config := h.clientTLS(h.workstation(h.ca))
	_, otherKey, err := h.ca.IssueServer([]string{"other.example"})
	if err != nil {
		t.Fatal(err)
	}
	failed := func() float64 {
		return h.metric("postern_certificate_reloads_total", map[string]string{"result": "failed"})
	}
	n := failed()
	h.write("server.key", otherKey)
	h.eventually("the reload has failed", func() bool { return failed() > n })
	if got := h.serverName(config); got != "imap.postern.example" {
		t.Fatalf("%s is shown", got)
	}
	h.writeServerCertificate("mended.postern.example")
	h.eventually("the mended pair is shown", func() bool { return h.serverName(config) == "mended.postern.example" })
}

// A CA that is taken out of the file lets nobody in from then on.
func TestClientCAsReload(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.start(whoami)
	config := h.clientTLS(h.workstation(h.ca))
	if got := line(t, tls.Client(h.dial(), config)); got != "desk-7 tls=true\n" {
		t.Fatalf("at first: %q", got)
	}
	other, err := workstationca.Create(t.TempDir(), workstationca.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h.write(workstationca.CertificateFile, other.CertificatePEM())
	if err := h.certs.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := logInOnce(h.server.Addr().String(), config); err == nil {
		t.Error("a workstation of the old CA was let in")
	}
	if got := line(t, tls.Client(h.dial(), h.clientTLS(h.workstation(other)))); got != "desk-7 tls=true\n" {
		t.Errorf("a workstation of the new CA: %q", got)
	}
}

// Kubernetes mounts a secret as links through ..data, and replaces that link.
func TestKubernetesSecretReload(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	mount := t.TempDir()
	project := func(version, name string) {
		t.Helper()
		dir := filepath.Join(mount, version)
		certPEM, keyPEM, err := h.ca.IssueServer([]string{name, "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{
			os.Mkdir(dir, 0o700),
			os.WriteFile(filepath.Join(dir, "tls.crt"), certPEM, 0o600),
			os.WriteFile(filepath.Join(dir, "tls.key"), keyPEM, 0o600),
			os.Symlink(version, filepath.Join(mount, "..data_tmp")),
			os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	project("..v1", "first.postern.example")
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(mount, name)); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	h.certs, err = proxy.NewCertificates(proxy.CertificatesConfig{
		CertificateFile: filepath.Join(mount, "tls.crt"),
		KeyFile:         filepath.Join(mount, "tls.key"),
		ClientCAFiles:   []string{h.path(workstationca.CertificateFile)},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.config.Certificates = h.certs
	h.start(whoami)
	h.watch()
	config := h.clientTLS(h.workstation(h.ca))
	if got := h.serverName(config); got != "first.postern.example" {
		t.Fatalf("at first: %s", got)
	}
	project("..v2", "second.postern.example")
	h.eventually("the second is shown", func() bool { return h.serverName(config) == "second.postern.example" })
}

func TestNewCertificatesRefuses(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	good := proxy.CertificatesConfig{
		CertificateFile: h.path("server.pem"),
		KeyFile:         h.path("server.key"),
		ClientCAFiles:   []string{h.path(workstationca.CertificateFile)},
	}
	h.write("empty.pem", nil)
	for name, tc := range map[string]struct {
		change func(*proxy.CertificatesConfig)
		want   string
	}{
		"no certificate":      {func(c *proxy.CertificatesConfig) { c.CertificateFile = h.path("none.pem") }, "none.pem"},
		"no key":              {func(c *proxy.CertificatesConfig) { c.KeyFile = h.path("none.key") }, "none.key"},
		"another's key":       {func(c *proxy.CertificatesConfig) { c.KeyFile = h.path(workstationca.KeyFile) }, "does not match"},
		"an empty CA bundle":  {func(c *proxy.CertificatesConfig) { c.ClientCAFiles = []string{h.path("empty.pem")} }, "empty.pem: holds no certificate"},
		"a key as CA":         {func(c *proxy.CertificatesConfig) { c.ClientCAFiles = []string{h.path("server.key")} }, "holds a PRIVATE KEY"},
		"a CA that is no CA":  {func(c *proxy.CertificatesConfig) { c.ClientCAFiles = []string{h.path("server.pem")} }, "is not a CA's"},
		"a CA file not there": {func(c *proxy.CertificatesConfig) { c.ClientCAFiles = []string{h.path("none.pem")} }, "none.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			config := good
			tc.change(&config)
			if _, err := proxy.NewCertificates(config); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error is %v, want one that says %q", err, tc.want)
			}
		})
	}
}

// Unchanged files are not taken over again, so a busy directory costs nothing
// but the reading.
func TestReloadOfTheSameIsQuiet(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	core, logs := observer.New(zap.InfoLevel)
	certs, err := proxy.NewCertificates(proxy.CertificatesConfig{
		CertificateFile: h.path("server.pem"), KeyFile: h.path("server.key"), Logger: zap.New(core),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := certs.Reload(); err != nil {
		t.Fatal(err)
	}
	if n := logs.Len(); n != 1 {
		t.Errorf("%d log lines, want the first load's alone", n)
	}
}
