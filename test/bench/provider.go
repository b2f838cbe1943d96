// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// What lies in every mailbox.
const (
	// mailboxes is how many there are of each kind; the agents share them.
	mailboxes = 10
	// messagesPerMailbox lie in each INBOX, of messageOctets each.
	messagesPerMailbox = 200
	messageOctets      = 12_000
)

// provider is the mail provider behind the proxies: one Dovecot for IMAP, and
// a sink of the bench's own that takes submissions.
type provider struct {
	ca        *servers.CA
	dovecot   *servers.Dovecot
	sink      *sink
	passwords map[string]string
}

// mailbox is the i-th mailbox; those of a kind reach the provider in the same
// way: "plain" or "tls".
func mailbox(kind string, i int) string {
	return fmt.Sprintf("%s%d@client.example", kind, i%mailboxes)
}

// upstreamLogins lets one Dovecot serve the connections of all proxies: its
// processes are kept for the next session, and none of this is measured.
const upstreamLogins = `
service imap-login {
  service_count = 0
  client_limit = 20000
  process_min_avail = 2
  vsz_limit = 1G
}
service imap {
  service_count = 100
  vsz_limit = 1G
}
service anvil {
  client_limit = 30000
}
service auth {
  client_limit = 30000
}
`

func startProvider(h *harness) *provider {
	p := &provider{ca: servers.NewCA(h), passwords: make(map[string]string)}
	options := []servers.DovecotOption{
		servers.WithCA(p.ca), servers.WithConnections(20000), servers.WithDovecotConfig(upstreamLogins),
	}
	for _, kind := range []string{"plain", "tls"} {
		for i := range mailboxes {
			address := mailbox(kind, i)
			p.passwords[address] = "provider-" + kind
			options = append(options, servers.WithUser(address, p.passwords[address]))
		}
	}
	p.dovecot = servers.StartDovecot(h, options...)
	p.sink = startSink(h, p.ca)
	h.Logf("filling %d mailboxes with %d messages of %d octets", len(p.passwords), messagesPerMailbox, messageOctets)
	for address := range p.passwords {
		p.dovecot.Fill(address, "INBOX", messagesPerMailbox, func(i int) []byte { return message(address, "buyer@market.example", i, messageOctets) })
	}
	return p
}

// submission is the sink's endpoint.
func (p *provider) submission(mode broker.TLSMode) broker.Endpoint {
	if mode == broker.TLSNone {
		return broker.Endpoint{Host: "127.0.0.1", Port: p.sink.plainPort, TLS: mode}
	}
	return broker.Endpoint{Host: "127.0.0.1", Port: p.sink.tlsPort, TLS: mode, CA: string(p.ca.PEM)}
}

// message is a message of so many octets, its number in its Message-ID.
func message(from, to string, number, octets int) []byte {
	head := fmt.Sprintf("From: %s\r\nTo: %s\r\nSubject: Offer %d\r\nMessage-ID: <%d.bench@client.example>\r\n"+
		"Date: Mon, 1 Jun 2026 09:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n",
		from, to, number, number)
	const line = "The pumps of type A are delivered within six weeks of the order, free.\r\n"
	var b strings.Builder
	b.Grow(octets)
	b.WriteString(head)
	for b.Len()+len(line) <= octets-len("\r\n") {
		b.WriteString(line)
	}
	b.WriteString(strings.Repeat("x", octets-len("\r\n")-b.Len()))
	b.WriteString("\r\n")
	return []byte(b.String())
}
