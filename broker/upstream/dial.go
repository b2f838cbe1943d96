// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strconv"
	"sync"

	"github.com/postern-mail/postern/broker"
)

// connect opens the TCP connection and finds the endpoint's TLS settings.
func (d *Dialer) connect(ctx context.Context, e *broker.Endpoint) (*wire, error) {
	var config *tls.Config
	switch e.TLS {
	case broker.TLSImplicit, broker.TLSStartTLS:
		var err error
		if config, err = d.tlsConfig(e); err != nil {
			return nil, err
		}
	case broker.TLSNone:
	default:
		return nil, broker.InvalidField("tls", "not a TLS mode")
	}
	conn, err := d.dialer.DialContext(ctx, "tcp", net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))))
	if err != nil {
		if isTimeout(err) || ctx.Err() != nil {
			return nil, unavailable(ReasonTimeout, publicUnreachable, err)
		}
		return nil, unavailable(ReasonDial, publicUnreachable, err)
	}
	// The address counts, not the name: a name may resolve to anything.
	if config == nil && !isLoopback(conn.RemoteAddr()) {
		conn.Close()
		return nil, tlsError(errors.New("plain text is spoken with loopback addresses alone"))
	}
	return newWire(conn, config), nil
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// endpointCache keeps one TLS configuration per endpoint, so that a CA bundle
// is parsed once and TLS sessions are resumed.
type endpointCache struct {
	mu  sync.Mutex
	all map[broker.Endpoint]*tls.Config
}

// sessionsPerEndpoint is 1 since a configuration knows a single server name.
const sessionsPerEndpoint = 1

func (d *Dialer) tlsConfig(e *broker.Endpoint) (*tls.Config, error) {
	d.endpoints.mu.Lock()
	defer d.endpoints.mu.Unlock()
	if config := d.endpoints.all[*e]; config != nil {
		return config, nil
	}
	roots := d.roots
	if e.CA != "" {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(e.CA)) {
			return nil, tlsError(errors.New("the endpoint's CA bundle holds no certificate"))
		}
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         e.Host,
		RootCAs:            roots,
		Time:               d.now,
		ClientSessionCache: tls.NewLRUClientSessionCache(sessionsPerEndpoint),
	}
	if d.endpoints.all == nil || len(d.endpoints.all) >= maxEndpoints {
		d.endpoints.all = make(map[broker.Endpoint]*tls.Config)
	}
	d.endpoints.all[*e] = config
	return config, nil
}
