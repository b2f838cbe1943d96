// SPDX-License-Identifier: Apache-2.0

package companyca

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// Rule is what in a certificate names its workstation.
type Rule string

// The rules. Each wants exactly one of its kind in a certificate.
const (
	// RuleSubjectCN: the subject's common name.
	RuleSubjectCN Rule = "subject-cn"
	// RuleDNS, RuleURI and RuleEmail: a dNSName, a uniformResourceIdentifier or
	// an rfc822Name in the subject's alternative names (RFC 5280 §4.2.1.6).
	RuleDNS   Rule = "dns"
	RuleURI   Rule = "uri"
	RuleEmail Rule = "email"
)

// Rules returns all rules.
func Rules() []Rule { return []Rule{RuleSubjectCN, RuleDNS, RuleURI, RuleEmail} }

// Object identifiers (RFC 5280).
var (
	oidCommonName      = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidSubjectAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}
)

// tag is a rule's choice of GeneralName; -1: it goes by the subject.
func (r Rule) tag() int {
	switch r {
	case RuleEmail:
		return 1
	case RuleDNS:
		return 2
	case RuleURI:
		return 6
	}
	return -1
}

// nameOf returns the workstation's name in a certificate, or why it has none.
func (r Rule) nameOf(c *x509.Certificate) (name, unnamed string) {
	names, err := r.namesIn(c)
	switch {
	case err != nil:
		return "", err.Error()
	case len(names) == 0:
		return "", "it has no " + string(r)
	case len(names) > 1:
		return "", fmt.Sprintf("it has %d names of the kind %s", len(names), r)
	}
	return r.normal(names[0])
}

// namesIn returns all names of the rule's kind, as they stand in a certificate.
func (r Rule) namesIn(c *x509.Certificate) (names []string, err error) {
	if r == RuleSubjectCN {
		// Not Subject.CommonName, which is the last of several.
		for _, a := range c.Subject.Names {
			if a.Type.Equal(oidCommonName) {
				names = append(names, fmt.Sprint(a.Value))
			}
		}
		return names, nil
	}
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		// Not c.URIs and its like, which have been parsed: what is compared is what
		// the CA signed.
		var all []asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &all); err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("its alternative names cannot be read")
		}
		for _, n := range all {
			if n.Class == asn1.ClassContextSpecific && n.Tag == r.tag() {
				names = append(names, string(n.Bytes))
			}
		}
	}
	return names, nil
}

// normal returns a name as it is compared, or what is wrong with it.
func (r Rule) normal(name string) (normal, wrong string) {
	if !broker.ValidCertificateName(name) {
		return "", fmt.Sprintf("%.80q is no name: printable ASCII, at most %d octets, no spaces around it", name, broker.MaxCertificateName)
	}
	if r != RuleDNS {
		return name, ""
	}
	name = strings.ToLower(name) // ASCII alone, by now
	if !hostName(name) {
		return "", fmt.Sprintf("%.80q is no host's name", name)
	}
	return name, ""
}

// hostName wants the labels of one host, in lower case: no wildcard, no dot at
// the end.
func hostName(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_" // Windows has _
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, letters) != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}
