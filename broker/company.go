// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"crypto/sha256"
	"crypto/x509"
	"strings"
	"time"
)

// CertificateName is how certificates of a company's own CA name a workstation.
// It stays the same when they are renewed with new keys.
type CertificateName struct {
	// Authority is what the configuration calls the CA.
	Authority string `json:"authority"`
	// Name is the workstation's, to the octet as Certificates have it.
	Name string `json:"name"`
}

// MaxCertificateName bounds the name in a certificate, in octets.
const MaxCertificateName = 255

// ValidCertificateName reports whether a name can be told from every other by
// looking at it: printable ASCII, without spaces around it. What has several
// forms that look alike, or ends in a NUL, names nobody.
func ValidCertificateName(name string) bool {
	return name != "" && len(name) <= MaxCertificateName && strings.TrimSpace(name) == name &&
		!strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' })
}

// CompanyCertificate is a client certificate that a company's own CA issued.
// Nobody may change it.
type CompanyCertificate struct {
	// Authority is what the configuration calls the CA.
	Authority string
	// Name is the workstation's by the authority's rule; empty: the certificate
	// names none, and Unnamed says why.
	Name, Unnamed string
	// Class is the best that a workstation passes for by such a certificate.
	Class WorkstationClass
	// Issuer stands for the CA's name and key; Serial is the serial number's
	// octets.
	Issuer [sha256.Size]byte
	Serial string
	// NotAfter is when it ends, and NotBefore when it began.
	NotBefore, NotAfter time.Time
}

// Names reports whether it is the certificate of a workstation of that name.
func (c *CompanyCertificate) Names(n *CertificateName) bool {
	return c != nil && n != nil && c.Name != "" && c.Authority == n.Authority && c.Name == n.Name
}

// ListState is what has become of a CA's revocation list.
type ListState string

// The states.
const (
	ListTaken    ListState = "taken"    // it is in use
	ListRefused  ListState = "refused"  // it cannot be used; the one before stays
	ListExpiring ListState = "expiring" // it will be out of date soon, and none newer has come
	ListStale    ListState = "stale"    // it is out of date
	ListMissing  ListState = "missing"  // there is none
)

// AuthorityList is the data of authority.list.
type AuthorityList struct {
	Authority string `json:"authority"`
	// Issuer is the CA's distinguished name, where the list is known to be its.
	Issuer string    `json:"issuer,omitempty"`
	State  ListState `json:"state"`
	// Source is the file or URL that it came from.
	Source string `json:"source,omitempty"`
	// Number is the CA's, Revoked how many certificates are on it.
	Number     string    `json:"number,omitempty"`
	ThisUpdate time.Time `json:"this_update,omitzero"`
	NextUpdate time.Time `json:"next_update,omitzero"`
	Revoked    int       `json:"revoked"`
	Detail     string    `json:"detail,omitempty"`
}

// CompanyCAs know certificates of a company's own CAs that are trusted by
// configuration: broker/companyca. Its methods may be called from any goroutine.
type CompanyCAs interface {
	// Identify reads the client certificate of somebody who has its key. It
	// returns nil for one that none of the CAs issued, and Denied for one that is
	// not fit to be a workstation's; the error's Reason is for the log.
	Identify(c *x509.Certificate) (*CompanyCertificate, error)
	// Standing reports whether one that Identify returned is good now. Denied: it
	// has expired, was revoked, or its CA is no longer trusted. Unavailable: that
	// cannot be known, since the list of what the CA has revoked is out of date.
	Standing(c *CompanyCertificate) error
	// Subscribe calls f whenever Standing may say something else than before, but
	// for what the clock alone changes; f must not block for long. The returned
	// function ends it, and returns when no call to f is under way.
	Subscribe(f func()) (cancel func())
	// Named checks the name that a workstation is to have, and returns it as
	// certificates are compared with it. An empty authority is the only one there
	// is.
	Named(n CertificateName) (CertificateName, WorkstationClass, error)
}
