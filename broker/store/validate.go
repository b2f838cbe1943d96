// SPDX-License-Identifier: Apache-2.0

package store

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// Limits on input, in octets unless said otherwise.
const (
	maxName      = 100
	maxText      = 500 // contacts, messages of locks
	maxActorName = 256
	maxAddress   = 254 // RFC 5321 §4.5.3.1.3, less the angle brackets
	maxLocalPart = 64  // RFC 5321 §4.5.3.1.1
	maxHost      = 253 // RFC 1035 §2.3.4, in text
	maxLabel     = 63
	maxCA        = 256 << 10
	maxAliases   = 100 // things, as are those below
	maxSenders   = 20
	maxGroups    = 32
	maxKeyPins   = 16
	maxNetworks  = 256
	maxSites     = 64
	maxBudget    = 1000
)

// text wants printable UTF-8 of at most limit octets.
func text(field, s string, limit int) error {
	switch {
	case len(s) > limit:
		return broker.InvalidField(field, "longer than %d octets", limit)
	case !utf8.ValidString(s):
		return broker.InvalidField(field, "not UTF-8")
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return broker.InvalidField(field, "holds a character that cannot be printed")
	}
	return nil
}

// name wants a text of 1 to maxName octets without spaces around it.
func name(field, s string) error {
	if strings.TrimSpace(s) == "" {
		return broker.InvalidField(field, "missing")
	}
	if strings.TrimSpace(s) != s {
		return broker.InvalidField(field, "begins or ends with a space")
	}
	return text(field, s, maxName)
}

// key is a name or an address as it is compared.
func key(s string) string { return strings.ToLower(s) }

// agentName wants what can stand before the slash of agent/mailbox in any
// login command.
func agentName(field, s string) error {
	if err := name(field, s); err != nil {
		return err
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("._-+@", r) }); i >= 0 {
		return broker.InvalidField(field, "only letters, digits and . _ - + @ of ASCII, since mail clients log in with it; the full name may be any")
	}
	return nil
}

func isAlnum(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// address wants Dot-string "@" Domain (RFC 5321 §4.1.2), in ASCII: no quoted
// local part and no address literal, whose many spellings would each be
// another way around a rule.
func address(field, s string) error {
	if len(s) > maxAddress {
		return broker.InvalidField(field, "longer than %d octets", maxAddress)
	}
	local, domain, ok := strings.Cut(s, "@")
	if !ok || len(local) == 0 || len(local) > maxLocalPart {
		return broker.InvalidField(field, "not a mail address")
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(r rune) bool {
			return !isAlnum(r) && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r) // RFC 5322 §3.2.3
		}) {
			return broker.InvalidField(field, "not a mail address")
		}
	}
	if !isDomain(domain) {
		return broker.InvalidField(field, "not a mail address: its domain is wrong")
	}
	return nil
}

// recoverySenders wants addresses and domains, each once, and writes them in
// lower case. Each becomes a search key in the sessions that hide what it sends.
func recoverySenders(field string, all []string) error {
	if len(all) > maxSenders {
		return broker.InvalidField(field, "more than %d", maxSenders)
	}
	for i, s := range all {
		field := field + "[" + strconv.Itoa(i) + "]"
		all[i] = key(s)
		switch {
		case strings.Contains(s, "@"):
			if err := address(field, s); err != nil {
				return err
			}
		case !isDomain(s) || !strings.Contains(s, "."):
			return broker.InvalidField(field, "not a mail address, nor a domain such as accounts.provider.example")
		}
		if slices.Contains(all[:i], all[i]) {
			return broker.InvalidField(field, "%s is there twice", s)
		}
	}
	return nil
}

// isDomain reports whether s is a host name of letters, digits and hyphens
// (RFC 1123 §2.1); other scripts come as A-labels.
func isDomain(s string) bool {
	if s == "" || len(s) > maxHost {
		return false
	}
	label := ""
	for label = range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool { return !isAlnum(r) && r != '-' }) {
			return false
		}
	}
	// A last label of digits is an IPv4 address, or half of one.
	_, err := strconv.ParseUint(label, 10, 64)
	return err != nil
}

// endpoint wants a host, a port, and TLS unless the host is this machine.
func endpoint(field string, e broker.Endpoint) error {
	addr, err := netip.ParseAddr(e.Host)
	isAddr := err == nil && addr.Zone() == ""
	if !isAddr && !isDomain(e.Host) {
		return broker.InvalidField(field+".host", "not a host name or an IP address")
	}
	if e.Port == 0 {
		return broker.InvalidField(field+".port", "missing: 1 to 65535")
	}
	switch e.TLS {
	case broker.TLSImplicit, broker.TLSStartTLS:
	case broker.TLSNone:
		// RFC 6761 §6.3 keeps "localhost" on the machine.
		if !(isAddr && addr.Unmap().IsLoopback()) && !strings.EqualFold(e.Host, "localhost") {
			return broker.InvalidField(field+".tls", "none is for loopback hosts only: use implicit or starttls")
		}
	default:
		return broker.InvalidField(field+".tls", "use implicit, starttls or none")
	}
	return certificates(field+".ca", e.CA)
}

// certificates wants PEM of certificates and nothing else; empty is good.
func certificates(field, s string) error {
	if len(s) > maxCA {
		return broker.InvalidField(field, "longer than %d octets", maxCA)
	}
	rest := []byte(s)
	for len(strings.TrimSpace(string(rest))) > 0 {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" {
			// A private key pasted here would end up in the log.
			return broker.InvalidField(field, "not a PEM bundle of certificates alone")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return broker.InvalidField(field, "a certificate in it cannot be read").WithCause(err)
		}
	}
	return nil
}

// groups wants names, each once.
func groups(field string, all []string) error {
	if len(all) > maxGroups {
		return broker.InvalidField(field, "more than %d", maxGroups)
	}
	for i, g := range all {
		if err := name(field, g); err != nil {
			return err
		}
		if slices.Contains(all[:i], g) {
			return broker.InvalidField(field, "%q is there twice", g)
		}
	}
	return nil
}

// terms wants sound terms. That their sites exist is checked in the
// transaction.
func terms(field string, t *policy.Terms) error {
	t.NotBefore, t.NotAfter = stored(t.NotBefore), stored(t.NotAfter)
	if wrong, reason := t.Validate(); wrong != "" {
		return broker.InvalidField(field+"."+wrong, "%s", reason)
	}
	if len(t.Sites) > maxSites {
		return broker.InvalidField(field+".sites", "more than %d", maxSites)
	}
	for _, s := range t.Sites {
		if _, err := broker.ParseID(s); err != nil {
			return broker.InvalidField(field+".sites", "not a site's id")
		}
	}
	return nil
}

// network wants a range of addresses, in the only spelling in which
// Site.Contains finds an address.
func network(field string, p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return broker.InvalidField(field, "not a network such as 192.0.2.0/24")
	case p.Addr().Is4In6():
		return broker.InvalidField(field, "write an IPv4 network as 192.0.2.0/24")
	case p != p.Masked():
		return broker.InvalidField(field, "%s has bits beyond its length: %s?", p, p.Masked())
	}
	return nil
}

// keyPin wants a SHA-256 hash in lower-case hex.
func keyPin(field, s string) error {
	if len(s) != 2*sha256.Size || strings.Trim(s, "0123456789abcdef") != "" {
		return broker.InvalidField(field, "not a SHA-256 hash in lower-case hex")
	}
	return nil
}

// actor wants one of the kinds; its name goes into records and must not be
// able to forge any.
func actor(by broker.Actor) error {
	switch by.Kind {
	case "agent", "workstation", "system", "stranger", string(broker.RoleAdmin), string(broker.RoleAuditor),
		string(broker.RoleFirmAdmin), string(broker.RoleFirmAuditor):
	default:
		return broker.InvalidField("actor.kind", "use a role, agent, workstation, system or stranger")
	}
	return text("actor.name", by.Name, maxActorName)
}
