// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// posternHow says what Postern was configured to do.
const posternHow = "Postern: client certificates, app passwords, policy, every event recorded on disk; log level info, metrics on; budgets raised to " +
	"the number of sessions, all else as it comes. In the first table its credentials are in the sealed file and its upstream leg is plain."

// posternLimits are what the default budgets and limits would refuse: all
// clients of a bench come from one address.
const posternLimits = `limits:
  pending: 8000
  pending_per_address: 8000
  mailbox_connections: 1000
  mailbox_submissions: 1000
`

// benchFirm owns every mailbox.
const benchFirm = "Bench Pumps"

// networkOnly is the address that needs no client certificate.
const networkOnly = "127.0.0.2"

// postern is a `postern serve` with a firm, its mailboxes and its agents.
type postern struct {
	*e2e.Postern
	h   *harness
	api *http.Client
	// agents have an account each; mailboxes are shared.
	agents []account
}

// posternOptions say what is around it.
type posternOptions struct {
	vault *servers.Vault
	// bin is the binary; empty: what is in the module, unchanged.
	bin string
	env []string
	// kinds are the mailboxes that it has, each with its endpoints.
	kinds     map[string]endpoints
	passwords map[string]string
	agents    int
	// database holds the state; nil: SQLite.
	database *servers.Database
}

type endpoints struct{ imap, submission broker.Endpoint }

// endpoints of the provider's mailboxes: in plain text as nginx has it, and
// with TLS as deployed.
func (p *provider) endpoints() map[string]endpoints {
	return map[string]endpoints{
		"plain": {p.dovecot.IMAP(broker.TLSNone), p.submission(broker.TLSNone)},
		"tls":   {p.dovecot.IMAP(broker.TLSImplicit), p.submission(broker.TLSImplicit)},
	}
}

// kind is endpoints for one kind of mailboxes alone.
func (p *provider) kind(name string) map[string]endpoints {
	return map[string]endpoints{name: p.endpoints()[name]}
}

func startPostern(h *harness, options posternOptions) *postern {
	h.Helper()
	p := &postern{h: h, Postern: e2e.StartPostern(h, e2e.Options{Vault: options.vault, Config: posternLimits, Env: options.env, Database: options.database})}
	p.logAsDeployed()
	if options.bin != "" {
		p.Bin = options.bin
	}
	p.Restart()
	p.api = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", p.Socket)
		},
	}}
	h.Cleanup(p.api.CloseIdleConnections)
	post[broker.Firm](p, "firms", httpapi.FirmInput{Name: benchFirm})
	post[broker.Site](p, "sites", httpapi.SiteInput{Name: "kiosk", Networks: []string{networkOnly + "/32"}, NetworkOnly: true})
	for kind, at := range options.kinds {
		for i := range mailboxes {
			p.addMailbox(mailbox(kind, i), options.passwords[mailbox(kind, i)], at)
		}
	}
	for i := range options.agents {
		p.agents = append(p.agents, p.addAgent(i, options.kinds))
	}
	return p
}

// beside starts a second node on the same database.
func (p *postern) beside(node string) *postern {
	p.h.Helper()
	second := &postern{h: p.h, Postern: p.Beside(p.h, node), api: p.api, agents: p.agents}
	second.logAsDeployed()
	second.Restart()
	return second
}

// logAsDeployed sets the log's level, which the end-to-end tests have at debug.
func (p *postern) logAsDeployed() {
	p.h.Helper()
	b, err := os.ReadFile(p.ConfigFile)
	if err != nil {
		p.h.Fatal(err)
	}
	const debug, info = "level: debug\n", "level: info\n"
	if strings.Count(string(b), debug) != 1 {
		p.h.Fatalf("%s does not set the log's level to debug", p.ConfigFile)
	}
	if err := os.WriteFile(p.ConfigFile, []byte(strings.Replace(string(b), debug, info, 1)), 0o600); err != nil {
		p.h.Fatal(err)
	}
}

func (p *postern) addMailbox(address, password string, at endpoints) {
	p.h.Helper()
	input := func(e broker.Endpoint) httpapi.EndpointInput {
		return httpapi.EndpointInput{Host: &e.Host, Port: &e.Port, TLS: &e.TLS, CA: &e.CA}
	}
	post[broker.Mailbox](p, "mailboxes", httpapi.MailboxInput{
		Firm: benchFirm, Address: address, IMAP: input(at.imap), Submission: input(at.submission), MaxConnections: 1000,
	})
	request[httpapi.CredentialSet](p, http.MethodPut, "mailboxes/"+address+"/credential",
		httpapi.CredentialInput{Kind: broker.KindPassword, Secret: password})
	post[httpapi.Delegation](p, "delegations", httpapi.DelegationInput{Mailbox: address})
}

// addAgent adds an agent with a workstation and an app password, assigned to
// one mailbox of each kind.
func (p *postern) addAgent(i int, kinds map[string]endpoints) account {
	p.h.Helper()
	name := fmt.Sprintf("agent-%d", i)
	post[broker.Agent](p, "agents", httpapi.AgentInput{Name: name})
	for kind := range kinds {
		post[httpapi.Assignment](p, "assignments", httpapi.AssignmentInput{Agent: name, Mailbox: mailbox(kind, i)})
	}
	created := post[httpapi.AppPasswordCreated](p, "app-passwords", httpapi.AppPasswordInput{Agent: name})
	return account{password: created.Token, certificate: p.addWorkstation(fmt.Sprintf("workstation-%d", i))}
}

// addWorkstation makes a key, and has the server's CA certify it.
func (p *postern) addWorkstation(name string) *tls.Certificate {
	p.h.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.h.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		p.h.Fatal(err)
	}
	made := post[httpapi.WorkstationCreated](p, "workstations", httpapi.WorkstationInput{
		Name: name, Class: broker.ClassSoftware,
		CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
	})
	certificate := &tls.Certificate{PrivateKey: key}
	for rest := []byte(made.Certificate); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return certificate
		}
		certificate.Certificate = append(certificate.Certificate, block.Bytes)
	}
}

// accounts are the agents', each on his mailbox of a kind.
func (p *postern) accounts(kind string) []account {
	all := make([]account, len(p.agents))
	for i, a := range p.agents {
		a.mailbox = mailbox(kind, i)
		all[i] = a
	}
	return all
}

// proxy is Postern under measurement with the mailboxes of a kind.
func (p *postern) proxy(name, kind string) *proxy {
	return &proxy{
		name: name, imaps: p.IMAPSPort, submissions: p.SubmissionsPort, roots: p.Roots(), accounts: p.accounts(kind),
		pids:    func() ([]int, error) { return []int{p.PID()}, nil },
		restart: p.Restart,
	}
}

// post makes something over the management API.
func post[T any](p *postern, kind string, in any) *T {
	p.h.Helper()
	return request[T](p, http.MethodPost, kind, in)
}

func request[T any](p *postern, method, path string, in any) *T {
	p.h.Helper()
	out := new(T)
	if err := p.request(method, path, in, out); err != nil {
		p.h.Fatal(err)
	}
	return out
}

func (p *postern) request(method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, "http://postern/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.api.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s /v1/%s: %s: %s", method, path, resp.Status, answer)
	}
	return json.Unmarshal(answer, out)
}
