// SPDX-License-Identifier: Apache-2.0

package companyca_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/companyca"
	"github.com/postern-mail/postern/broker/companyca/companycatest"
)

func authority(name, file string, rule companyca.Rule) companyca.Authority {
	return companyca.Authority{Name: name, CAFile: file, Rule: rule, Class: broker.ClassSoftware}
}

func trust(t *testing.T, all ...companyca.Authority) *companyca.CAs {
	t.Helper()
	cas, err := companyca.New(companyca.Config{Authorities: all})
	if err != nil {
		t.Fatal(err)
	}
	return cas
}

// named are changes of a certificate's template.
func cn(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject.CommonName = name }
}

func dns(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

func email(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.EmailAddresses = names }
}

func uri(t *testing.T, names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, name := range names {
			u, err := url.Parse(name)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs = append(c.URIs, u)
		}
	}
}

func commonNames(names ...any) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, name := range names {
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: name})
		}
	}
}

// TestOneCertificateNamesOneWorkstation: what each rule reads, and what it takes
// for no name.
func TestOneCertificateNamesOneWorkstation(t *testing.T) {
	ca := companycatest.New(t, "Head Office CA")
	type change = func(*x509.Certificate)
	for name, test := range map[string]struct {
		rule    companyca.Rule
		changes []change
		want    string // empty: it names nobody
	}{
		"a common name":                        {companyca.RuleSubjectCN, []change{cn("PUNE-07")}, "PUNE-07"},
		"no common name":                       {companyca.RuleSubjectCN, []change{dns("pune-07")}, ""},
		"two common names":                     {companyca.RuleSubjectCN, []change{commonNames("goa-01", "pune-07")}, ""},
		"the same common name twice":           {companyca.RuleSubjectCN, []change{commonNames("pune-07", "pune-07")}, ""},
		"a common name with a NUL":             {companyca.RuleSubjectCN, []change{cn("pune-07\x00.evil.example")}, ""},
		"a common name with a line's end":      {companyca.RuleSubjectCN, []change{cn("pune-07\n")}, ""},
		"a common name with a space around it": {companyca.RuleSubjectCN, []change{cn("pune-07 ")}, ""},
		"a common name of full-width letters":  {companyca.RuleSubjectCN, []change{cn("ｐｕｎｅ-07")}, ""},
		"a common name with an accent":         {companyca.RuleSubjectCN, []change{cn("pun\u00e9-07")}, ""},
		"a common name with a zero-width":      {companyca.RuleSubjectCN, []change{cn("pune\u200b-07")}, ""},
		"a common name that is too long":       {companyca.RuleSubjectCN, []change{cn(strings.Repeat("a", 256))}, ""},
		"a host":                               {companyca.RuleDNS, []change{dns("pune-07.corp.example")}, "pune-07.corp.example"},
		"a host in capitals":                   {companyca.RuleDNS, []change{dns("PUNE-07.Corp.Example")}, "pune-07.corp.example"},
		"a host beside a common name":          {companyca.RuleDNS, []change{cn("goa-01"), dns("pune-07")}, "pune-07"},
		"a host beside other names":            {companyca.RuleDNS, []change{dns("pune-07"), email("goa-01@corp.example"), uri(t, "urn:goa-01")}, "pune-07"},
		"two hosts":                            {companyca.RuleDNS, []change{dns("pune-07", "goa-01")}, ""},
		"the same host twice":                  {companyca.RuleDNS, []change{dns("pune-07", "pune-07")}, ""},
		"a common name where a host is wanted": {companyca.RuleDNS, []change{cn("pune-07")}, ""},
		"a wildcard":                           {companyca.RuleDNS, []change{dns("*.corp.example")}, ""},
		"a host with a dot at the end":         {companyca.RuleDNS, []change{dns("pune-07.corp.example.")}, ""},
		"a host with an empty label":           {companyca.RuleDNS, []change{dns("pune-07..example")}, ""},
		"a host with a space":                  {companyca.RuleDNS, []change{dns("pune-07 corp")}, ""},
		"a URI":                                {companyca.RuleURI, []change{uri(t, "urn:device:pune-07")}, "urn:device:pune-07"},
		"a URI in capitals":                    {companyca.RuleURI, []change{uri(t, "urn:device:PUNE-07")}, "urn:device:PUNE-07"},
		"a URI that could be written shorter":  {companyca.RuleURI, []change{uri(t, "https://corp.example/%70une-07")}, "https://corp.example/%70une-07"},
		"two URIs":                             {companyca.RuleURI, []change{uri(t, "urn:a", "urn:b")}, ""},
		"an address":                           {companyca.RuleEmail, []change{email("pune-07@corp.example")}, "pune-07@corp.example"},
		"two addresses":                        {companyca.RuleEmail, []change{email("a@corp.example", "b@corp.example")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cas := trust(t, authority("head-office", ca.File(), test.rule))
			found, err := cas.Identify(ca.Issue(test.changes...).Leaf)
			if err != nil || found == nil {
				t.Fatalf("%v, %v", found, err)
			}
			if found.Name != test.want || (found.Unnamed == "") != (test.want != "") || found.Authority != "head-office" || found.Class != broker.ClassSoftware {
				t.Errorf("%+v, want the name %q", found, test.want)
			}
			if err := cas.Standing(found); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOnlyTheIssuerItselfSpeaks: a CA below an authority's, one that another has
// signed as well, or one of the same name, makes no certificate the authority's.
func TestOnlyTheIssuerItselfSpeaks(t *testing.T) {
	a, b := companycatest.New(t, "A"), companycatest.New(t, "B")
	below := a.Below("Printers")
	// One key, certified by both: the authority is B's certificate of it.
	crossed := a.Below("Issuing CA")
	byB := b.Certify("Issuing CA", crossed.Key)
	twin := companycatest.New(t, "A")
	cas := trust(t, authority("a", a.File(), companyca.RuleDNS), authority("b", b.File(), companyca.RuleDNS))
	issuing := trust(t, authority("a", a.File(), companyca.RuleDNS), authority("issuing", companycatest.PEMFile(t, byB), companyca.RuleDNS))
	for name, test := range map[string]struct {
		cas    *companyca.CAs
		issuer *companycatest.CA
		want   string // empty: nobody's
	}{
		"A":                               {cas, a, "a"},
		"B":                               {cas, b, "b"},
		"below A":                         {cas, below, ""},
		"crossed, neither is named":       {cas, crossed, ""},
		"crossed, by the name it has":     {issuing, crossed, "issuing"},
		"of A's name with another key":    {cas, twin, ""},
		"a stranger":                      {cas, companycatest.New(t, "C"), ""},
		"A, where it has a twin in trust": {trust(t, authority("a", a.File(), companyca.RuleDNS), authority("twin", twin.File(), companyca.RuleDNS)), a, "a"},
	} {
		found, err := test.cas.Identify(test.issuer.Issue(dns("pune-07")).Leaf)
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case (found != nil) != (test.want != ""), found != nil && found.Authority != test.want:
			t.Errorf("%s: %+v, want %q", name, found, test.want)
		}
	}
}

// TestUnfitCertificatesAreRefused: a certificate that an authority signed and
// that is no workstation's is refused, and not taken for a stranger's, which a
// pinned key could still let in.
func TestUnfitCertificatesAreRefused(t *testing.T) {
	ca := companycatest.New(t, "CA")
	constrained := companycatest.New(t, "Constrained", func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"branch.example"}
	})
	servers := companycatest.New(t, "Servers", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	cas := trust(t, authority("a", ca.File(), companyca.RuleDNS), authority("b", constrained.File(), companyca.RuleDNS), authority("c", servers.File(), companyca.RuleDNS))
	if found, err := cas.Identify(constrained.Issue(dns("pune-07.branch.example")).Leaf); err != nil || found.Name != "pune-07.branch.example" {
		t.Fatalf("within the constraints: %+v, %v", found, err)
	}
	usage := func(all ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = all }
	}
	for name, c := range map[string]*x509.Certificate{
		"expired":                       ca.Issue(dns("pune-07"), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }).Leaf,
		"not valid yet":                 ca.Issue(dns("pune-07"), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }).Leaf,
		"a server's":                    ca.Issue(dns("pune-07"), usage(x509.ExtKeyUsageServerAuth)).Leaf,
		"without extended key usage":    ca.Issue(dns("pune-07"), usage()).Leaf,
		"for any use":                   ca.Issue(dns("pune-07"), usage(x509.ExtKeyUsageAny)).Leaf,
		"of a CA for servers":           servers.Issue(dns("pune-07")).Leaf,
		"for encipherment alone":        ca.Issue(dns("pune-07"), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }).Leaf,
		"a CA's":                        ca.Below("pune-07", dns("pune-07"), usage(x509.ExtKeyUsageClientAuth)).Certificate,
		"the authority's own":           ca.Certificate,
		"outside the CA's constraints":  constrained.Issue(dns("pune-07.acme.example")).Leaf,
		"an extension that is critical": ca.Issue(dns("pune-07"), critical).Leaf,
	} {
		found, err := cas.Identify(c)
		if broker.CodeOf(err) != broker.Denied || found != nil {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
	}
}

func critical(c *x509.Certificate) {
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
}

// TestWhatCannotBeAnAuthority: files that would mean something else than they
// seem to are refused.
func TestWhatCannotBeAnAuthority(t *testing.T) {
	a, own := companycatest.New(t, "A"), companycatest.New(t, "Postern's")
	constrained := companycatest.New(t, "Constrained", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"branch.example"} })
	noSigner := companycatest.New(t, "No signer", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	// The same name and key in another certificate are the same CA.
	again := companycatest.PEMFile(t, companycatest.Root(t, "A", a.Key))
	for name, test := range map[string]struct {
		all  []companyca.Authority
		want string
	}{
		"name constraints under common names": {[]companyca.Authority{authority("a", constrained.File(), companyca.RuleSubjectCN)}, "name constraints"},
		"no CA":                               {[]companyca.Authority{authority("a", companycatest.PEMFile(t, a.Issue().Leaf), companyca.RuleDNS)}, "not a CA's"},
		"a CA that may not sign":              {[]companyca.Authority{authority("a", noSigner.File(), companyca.RuleDNS)}, "may not sign"},
		"one CA in two authorities":           {[]companyca.Authority{authority("a", a.File(), companyca.RuleDNS), authority("b", again, companyca.RuleURI)}, "belongs to one authority"},
		"Postern's own":                       {[]companyca.Authority{authority("a", own.File(), companyca.RuleDNS)}, "issues certificates for Postern"},
		"two of one name":                     {[]companyca.Authority{authority("a", a.File(), companyca.RuleDNS), authority("a", constrained.File(), companyca.RuleDNS)}, "there twice"},
		"no rule":                             {[]companyca.Authority{authority("a", a.File(), "anything")}, "no such rule"},
	} {
		_, err := companyca.New(companyca.Config{Authorities: test.all, OwnFiles: []string{own.File()}})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// TestCAsOfOneAuthority: an authority that renews its CA, with its key or a new
// one, stays the same; one that is taken out of the file ends what it vouched
// for.
func TestCAsOfOneAuthority(t *testing.T) {
	old, next := companycatest.New(t, "CA"), companycatest.New(t, "CA")
	renewed := companycatest.Root(t, "CA", old.Key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(30 * 24 * time.Hour) })
	file := old.File(renewed, next.Certificate)
	cas := trust(t, authority("a", file, companyca.RuleDNS))
	first, err := cas.Identify(old.Issue(dns("pune-07")).Leaf)
	if err != nil || first.Name != "pune-07" {
		t.Fatalf("%+v, %v", first, err)
	}
	second, err := cas.Identify(next.Issue(dns("pune-07")).Leaf)
	if err != nil || second.Name != "pune-07" || second.Authority != first.Authority {
		t.Fatalf("%+v, %v", second, err)
	}
	// A certificate of longer life than the older of the CA's goes by the newer.
	long := old.Issue(dns("goa-01"), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(20 * 24 * time.Hour) }).Leaf
	if found, err := cas.Identify(long); err != nil || !found.NotAfter.Equal(long.NotAfter) {
		t.Errorf("%+v, %v, want its end at %s", found, err, long.NotAfter)
	}
	told := 0
	defer cas.Subscribe(func() { told++ })()
	only, err := os.ReadFile(next.File())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, only, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cas.Reload(); err != nil || told != 1 {
		t.Fatalf("%v, told %d times", err, told)
	}
	if err := cas.Standing(first); broker.CodeOf(err) != broker.Denied {
		t.Errorf("of the CA that is gone: %v", err)
	}
	if err := cas.Standing(second); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cas.Reload(); err == nil || cas.Standing(second) != nil {
		t.Errorf("a file that cannot be read: %v, and %v", err, cas.Standing(second))
	}
}

// TestNamesThatWorkstationsCanHave: what an administrator types is compared as
// certificates are, and an authority need not be named where there is one.
func TestNamesThatWorkstationsCanHave(t *testing.T) {
	a, b := companycatest.New(t, "A"), companycatest.New(t, "B")
	one := trust(t, authority("a", a.File(), companyca.RuleDNS))
	two := trust(t, authority("a", a.File(), companyca.RuleDNS), authority("b", b.File(), companyca.RuleSubjectCN))
	for name, test := range map[string]struct {
		cas  *companyca.CAs
		in   broker.CertificateName
		want broker.CertificateName // zero: it is refused
	}{
		"the only authority":     {one, broker.CertificateName{Name: "PUNE-07.example"}, broker.CertificateName{Authority: "a", Name: "pune-07.example"}},
		"which of two":           {two, broker.CertificateName{Name: "pune-07"}, broker.CertificateName{}},
		"the second":             {two, broker.CertificateName{Authority: "b", Name: "PUNE-07"}, broker.CertificateName{Authority: "b", Name: "PUNE-07"}},
		"no such authority":      {two, broker.CertificateName{Authority: "A", Name: "pune-07"}, broker.CertificateName{}},
		"a pattern":              {one, broker.CertificateName{Name: "*.example"}, broker.CertificateName{}},
		"no name":                {one, broker.CertificateName{Authority: "a"}, broker.CertificateName{}},
		"there are no authority": {trust(t), broker.CertificateName{Name: "pune-07"}, broker.CertificateName{}},
	} {
		got, _, err := test.cas.Named(test.in)
		if (err == nil) != (test.want != broker.CertificateName{}) || err == nil && got != test.want || err != nil && broker.CodeOf(err) != broker.Invalid {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
