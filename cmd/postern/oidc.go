// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/people"
)

// issuers makes the configured OpenID Connect issuers.
func (c *Config) issuers() ([]people.Issuer, error) {
	var all []people.Issuer
	for i, o := range c.API.OIDC {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if o.CAFile != "" {
			key := fmt.Sprintf("api.oidc[%d].ca_file", i)
			b, err := os.ReadFile(o.CAFile)
			if err != nil {
				return nil, keyError(key, err)
			}
			transport.TLSClientConfig.RootCAs = x509.NewCertPool()
			if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(b) {
				return nil, keyError(key, fmt.Errorf("%s holds no certificate in PEM form", o.CAFile))
			}
		}
		issuer := people.Issuer{URL: o.Issuer, Audience: o.Audience, Client: &http.Client{Transport: transport}}
		for _, value := range o.Admins {
			issuer.Roles = append(issuer.Roles, people.RoleRule{Claim: o.RoleClaim, Value: value, Role: broker.RoleAdmin})
		}
		for _, value := range o.Auditors {
			issuer.Roles = append(issuer.Roles, people.RoleRule{Claim: o.RoleClaim, Value: value, Role: broker.RoleAuditor})
		}
		all = append(all, issuer)
	}
	return all, nil
}
