// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/oauth"
)

// clientFlags say who an issuer of access tokens is, and who asks it for them.
type clientFlags struct {
	tenant, tokenURL, clientID, clientAuth, scope string
	certificate, privateKey, secretFile           string
}

func (f *clientFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.tenant, "tenant", "", "the `tenant` at Microsoft, by id or domain, in place of --token-url")
	flags.StringVar(&f.tokenURL, "token-url", "", "the issuer's token endpoint, an https `URL`")
	flags.StringVar(&f.clientID, "client-id", "", "the application's `id` at the issuer")
	flags.StringVar(&f.clientAuth, "client-auth", "", "where the client secret goes: post (the default), or basic")
	flags.StringVar(&f.scope, "scope", "", "what tokens are to be good for (the default is Exchange Online's, or Gmail's)")
	flags.StringVar(&f.secretFile, "client-secret-file", "", "`file` with the application's secret, where it has one")
	flags.StringVar(&f.certificate, "certificate", "", "PEM `file` of the application's certificate, in place of a client secret")
	flags.StringVar(&f.privateKey, "private-key", "", "PEM `file` of the certificate's key")
}

// unused refuses flags that have no meaning for a kind.
func (f *clientFlags) unused(cmd *cobra.Command, kind broker.CredentialKind) error {
	var wrong []string
	switch kind {
	case broker.KindOAuth2Client, broker.KindOAuth2Refresh:
		return nil
	case broker.KindGoogleServiceAccount:
		wrong = []string{"tenant", "token-url", "client-id", "client-auth", "client-secret-file", "certificate", "private-key"}
	default:
		wrong = []string{"tenant", "token-url", "client-id", "client-auth", "client-secret-file", "certificate", "private-key", "scope"}
	}
	for _, name := range wrong {
		if cmd.Flags().Changed(name) {
			return usagef("--%s has no meaning for a credential of kind %s", name, kind)
		}
	}
	return nil
}

func (f *clientFlags) hasKey() bool { return f.certificate != "" || f.privateKey != "" }

// complete reports whether the flags say all of a credential: no secret is left
// to be asked for.
func (f *clientFlags) complete(kind broker.CredentialKind) bool {
	return kind == broker.KindOAuth2Client && (f.hasKey() || f.secretFile != "")
}

// secretName is what a person is asked for.
func secretName(kind broker.CredentialKind) string {
	switch kind {
	case broker.KindOAuth2Client:
		return "client secret"
	case broker.KindOAuth2Refresh:
		return "refresh token"
	case broker.KindGoogleServiceAccount:
		return "key file"
	}
	return string(kind)
}

// document makes what is stored. The server checks it.
func (f *clientFlags) document(kind broker.CredentialKind, secret string) (*httpapi.CredentialDocument, error) {
	if kind == broker.KindGoogleServiceAccount {
		return googleDocument(secret, f.scope)
	}
	d, err := f.client()
	if err != nil {
		return nil, err
	}
	switch {
	case kind == broker.KindOAuth2Refresh:
		d.RefreshToken = secret
	case !f.complete(kind):
		d.ClientSecret = secret
	}
	return d, nil
}

// client is a document with what the flags say.
func (f *clientFlags) client() (*httpapi.CredentialDocument, error) {
	d := &httpapi.CredentialDocument{
		Version: 1, ID: string(broker.NewID()), TokenURL: f.tokenURL, ClientID: f.clientID, ClientAuth: f.clientAuth, Scope: f.scope,
	}
	if (f.tenant == "") == (f.tokenURL == "") {
		return nil, usagef("give either --tenant or --token-url")
	}
	if f.tenant != "" {
		d.TokenURL = microsoftURL(f.tenant, "token")
	}
	if f.clientID == "" {
		return nil, usagef("--client-id is missing")
	}
	if f.secretFile != "" {
		var err error
		if d.ClientSecret, err = readClientSecret(f.secretFile); err != nil {
			return nil, err
		}
	}
	if !f.hasKey() {
		return d, nil
	}
	certificate, err := os.ReadFile(f.certificate)
	if err != nil {
		return nil, usagef("--certificate: %v", err)
	}
	key, err := os.ReadFile(f.privateKey)
	if err != nil {
		return nil, usagef("--private-key: %v", err)
	}
	defer clear(key)
	d.Certificate, d.PrivateKey = string(certificate), string(key)
	return d, nil
}

// microsoftURL is an endpoint of the Microsoft identity platform, version 2.0.
func microsoftURL(tenant, endpoint string) string {
	return "https://login.microsoftonline.com/" + url.PathEscape(tenant) + "/oauth2/v2.0/" + endpoint
}

// googleDocument reads the key file of a service account.
func googleDocument(file, scope string) (*httpapi.CredentialDocument, error) {
	var key struct {
		Type     string `json:"type"`
		Email    string `json:"client_email"`
		Key      string `json:"private_key"`
		KeyID    string `json:"private_key_id"`
		TokenURL string `json:"token_uri"`
	}
	if json.Unmarshal([]byte(file), &key) != nil || key.Type != "service_account" || key.Email == "" || key.Key == "" {
		return nil, usagef("standard input is not the key file of a service account, in JSON")
	}
	if key.TokenURL == "" {
		key.TokenURL = oauth.GoogleTokenURL
	}
	return &httpapi.CredentialDocument{
		Version: 1, ID: string(broker.NewID()), TokenURL: key.TokenURL, ClientEmail: key.Email,
		PrivateKey: key.Key, PrivateKeyID: key.KeyID, Scope: scope,
	}, nil
}
