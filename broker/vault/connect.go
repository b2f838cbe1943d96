// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/postern-mail/postern/broker"
)

// connector makes api clients that share one pool of connections and take
// nothing from the environment.
type connector struct {
	address   string
	namespace string
	http      *http.Client
}

// newConnector makes the pool. certificate is nil unless it is the identity.
func newConnector(cfg Config, certificate *Certificate) (*connector, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cfg.ServerName}
	if cfg.CACert != "" {
		pem, err := os.ReadFile(cfg.CACert)
		if err != nil {
			return nil, broker.InvalidField("ca_cert", "cannot be read").WithCause(err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, broker.InvalidField("ca_cert", "holds no certificate in PEM")
		}
	}
	if certificate != nil {
		// Loaded at each handshake, so that a renewed one is taken up; and
		// offered whatever authorities the server names, since those of the
		// auth method need not be the listener's.
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(certificate.CertFile, certificate.KeyFile)
			return &pair, err
		}
		if _, err := load(); err != nil {
			return nil, broker.InvalidField("certificate", "cannot be loaded").WithCause(err)
		}
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	// HTTP/1.1 alone: a call that times out closes its own connection, while
	// over HTTP/2 the next one would be sent down the same dead connection.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	transport := &http.Transport{
		Proxy:                  nil,
		DialContext:            (&net.Dialer{Timeout: cfg.Timeout}).DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    cfg.Timeout,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
	c := &connector{address: cfg.Address, namespace: cfg.Namespace, http: &http.Client{Transport: transport}}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if _, err := c.client(""); err != nil {
		return nil, broker.InvalidField("environment", "a VAULT_ variable that Postern does not use keeps the Vault library from starting: unset it").WithCause(err)
	}
	return c, nil
}

// client returns an api client that bears token. It is never changed, so that
// a call knows which token it was made with.
func (c *connector) client(token string) (*api.Client, error) {
	// Deadlines come with each context, and tries are counted by call: the
	// library's own are switched off.
	client, err := api.NewClient(&api.Config{
		Address:          c.address,
		HttpClient:       c.http,
		MaxRetries:       0,
		DisableRedirects: true,
	})
	if err != nil {
		return nil, err
	}
	// NewClient has taken the token, the namespace and further headers from
	// the environment, and would take VAULT_WRAP_TTL at each request.
	headers := http.Header{api.RequestHeaderName: {"true"}}
	if c.namespace != "" {
		headers.Set(api.NamespaceHeaderName, c.namespace)
	}
	client.SetHeaders(headers)
	client.SetToken(token)
	client.SetWrappingLookupFunc(func(string, string) string { return "" })
	return client, nil
}
