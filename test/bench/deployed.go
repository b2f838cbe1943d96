// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	"github.com/postern-mail/postern/test/servers"
)

// variant is Postern as deployed with one thing switched.
type variant struct {
	name  string
	proxy *proxy
	// figures are the keys of those that the switch can change; nil: all.
	figures []string
}

// deployed is what the second table, the storm and the revokes are measured
// on: Postern with Vault and a provider with TLS.
type deployed struct {
	vault   *servers.Vault
	postern *postern
}

func (b *bench) startDeployed() *deployed {
	d := &deployed{vault: servers.StartVault(b.h)}
	b.h.Logf("starting Postern as deployed, with %d agents", b.storm)
	d.postern = startPostern(b.h, posternOptions{
		vault: d.vault, kinds: b.provider.endpoints(), passwords: b.provider.passwords, agents: b.storm,
	})
	return d
}

// asDeployed prints the second table: Postern as deployed, and what each part
// of it costs.
func (b *bench) asDeployed(d *deployed, sealed *postern) {
	whole := d.postern.proxy("as deployed", "tls")
	variants := []variant{
		{name: "as deployed", proxy: whole},
		{name: "upstream in plain text", proxy: d.postern.proxy("upstream in plain text", "plain")},
		{name: "sealed file, no Vault", proxy: sealed.proxy("sealed", "tls"), figures: []string{"session"}},
		{name: "no client certificate", proxy: b.withoutCertificate(d), figures: []string{"session", "idle"}},
		{name: "nothing recorded", proxy: b.withoutRecords(), figures: []string{"session", "fetch", "message"}},
		{name: "clients with post-quantum key exchange", proxy: b.withPostQuantum(d), figures: []string{"session"}},
	}
	head := []string{"figure"}
	var rows [][]string
	for _, v := range variants {
		head = append(head, v.name)
	}
	begin := b.usage()
	for _, f := range b.figures() {
		row := make([]string, 1+len(variants))
		row[0] = f.name
		var measured []*proxy
		var columns []int
		for i, v := range variants {
			row[1+i] = "–"
			if v.measures(f.key) {
				measured, columns = append(measured, v.proxy), append(columns, 1+i)
			}
		}
		for i, s := range b.alternate(f, measured) {
			row[columns[i]] = fmt.Sprintf("%s %s", digits(s.median()*f.times), f.unit)
		}
		rows = append(rows, row)
	}
	fmt.Printf("\n## As deployed, and with one thing switched\n\nMedian of %d alternating runs. %s\n\n", b.runs, b.othersSince(begin))
	fmt.Print(markdown(head, rows))
	fmt.Printf("\n%s\n", deployedHow)
}

// deployedHow says what the second table's columns are.
const deployedHow = "As deployed: credentials in HashiCorp Vault over TLS, upstream over TLS, client certificates, records on disk; clients offer X25519 alone. " +
	"Nothing recorded is a binary that no configuration can bring about: test/bench builds it."

func (v *variant) measures(figure string) bool {
	return v.figures == nil || slices.Contains(v.figures, figure)
}

// withoutCertificate has the clients connect from a network-only site.
func (b *bench) withoutCertificate(d *deployed) *proxy {
	p := d.postern.proxy("no client certificate", "tls")
	for i := range p.accounts {
		p.accounts[i].certificate, p.accounts[i].from = nil, networkOnly
	}
	return p
}

// withPostQuantum has the clients offer what Go's and browsers' TLS prefers.
func (b *bench) withPostQuantum(d *deployed) *proxy {
	p := d.postern.proxy("post-quantum", "tls")
	for i := range p.accounts {
		p.accounts[i].postQuantum = true
	}
	return p
}

// withoutRecords is a Postern of its own, with a Vault of its own.
func (b *bench) withoutRecords() *proxy {
	p := startPostern(b.h, posternOptions{
		vault: servers.StartVault(b.h), bin: buildInstrumented(b.h), env: []string{"POSTERN_BENCH_NO_RECORDS=1"},
		kinds: b.provider.kind("tls"), passwords: b.provider.passwords, agents: firstAgents,
	})
	return p.proxy("nothing recorded", "tls")
}
