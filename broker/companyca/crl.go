// SPDX-License-Identifier: Apache-2.0

package companyca

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	// MaxList bounds a revocation list, in octets: some 800,000 certificates.
	MaxList = 32 << 20
	// clockSkew is how far a CA's clock may be ahead.
	clockSkew = 5 * time.Minute
)

// Object identifiers of lists (RFC 5280 §5.2, §5.3).
var (
	oidNumber            = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidReason            = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidInvalidity        = asn1.ObjectIdentifier{2, 5, 29, 24}
	oidDelta             = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidCertificateIssuer = asn1.ObjectIdentifier{2, 5, 29, 29}
	oidAuthorityKey      = asn1.ObjectIdentifier{2, 5, 29, 35}
)

// reasonRemoved takes a certificate off a list; only deltas have it.
const reasonRemoved = 8

// list is what one CA has revoked.
type list struct {
	number                 *big.Int // nil: it has none
	thisUpdate, nextUpdate time.Time
	revoked                map[string]struct{} // by serial number
}

// parseLists reads lists, in PEM or one in DER, of no more than limit octets.
func parseLists(b []byte, limit int64) ([]*x509.RevocationList, error) {
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("has more than %d octets", limit)
	}
	if !bytes.Contains(b, []byte("-----BEGIN ")) {
		rl, err := x509.ParseRevocationList(b)
		if err == nil && len(rl.Raw) != len(b) {
			err = errors.New("something follows it")
		}
		if err != nil {
			return nil, fmt.Errorf("is no revocation list in DER or PEM: %w", err)
		}
		return []*x509.RevocationList{rl}, nil
	}
	var all []*x509.RevocationList
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("holds a %s; only X509 CRL blocks belong here", block.Type)
		}
		rl, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds a block that is none: %w", err)
		}
		all = append(all, rl)
	}
	if len(all) == 0 || len(bytes.TrimSpace(b)) > 0 {
		return nil, errors.New("holds no whole revocation list in PEM")
	}
	return all, nil
}

// listOf checks that a list is the issuer's, and says of all its certificates
// whether they are revoked.
func (i *issuer) listOf(rl *x509.RevocationList, now time.Time) (*list, error) {
	switch rl.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1:
		return nil, errors.New("is signed with SHA-1, which anybody with means can forge")
	}
	if err := rl.CheckSignatureFrom(i.certificates[0]); err != nil {
		return nil, fmt.Errorf("is not signed by %q: %w", i.certificates[0].Subject, err)
	}
	if err := wholeList(rl); err != nil {
		return nil, err
	}
	switch {
	case rl.NextUpdate.IsZero():
		return nil, errors.New("does not say when the next one comes (nextUpdate): nobody could tell when it is out of date")
	case !rl.NextUpdate.After(rl.ThisUpdate):
		return nil, errors.New("ends before it begins")
	case rl.ThisUpdate.After(now.Add(clockSkew)):
		return nil, fmt.Errorf("is of the future (%s): is this machine's clock right?", rl.ThisUpdate.UTC().Format(time.RFC3339))
	}
	l := &list{
		number: rl.Number, thisUpdate: rl.ThisUpdate, nextUpdate: rl.NextUpdate,
		revoked: make(map[string]struct{}, len(rl.RevokedCertificateEntries)),
	}
	for n := range rl.RevokedCertificateEntries {
		e := &rl.RevokedCertificateEntries[n]
		if err := plainEntry(e); err != nil {
			return nil, err
		}
		l.revoked[string(e.SerialNumber.Bytes())] = struct{}{}
	}
	return l, nil
}

// wholeList refuses lists that leave certificates of their CA out, and such as
// say something that is not understood here.
func wholeList(rl *x509.RevocationList) error {
	for _, e := range rl.Extensions {
		switch {
		case e.Id.Equal(oidDelta):
			return errors.New("is a delta list, which says only what is new: give the complete one")
		case e.Id.Equal(oidDistributionPoint):
			if err := wholeScope(e.Value); err != nil {
				return err
			}
		case e.Id.Equal(oidNumber), e.Id.Equal(oidAuthorityKey):
		case e.Critical:
			return fmt.Errorf("has a critical extension that is not known here: %v", e.Id)
		}
	}
	return nil
}

// wholeScope reads an IssuingDistributionPoint (RFC 5280 §5.2.5).
func wholeScope(value []byte) error {
	var fields []asn1.RawValue
	if rest, err := asn1.Unmarshal(value, &fields); err != nil || len(rest) > 0 {
		return errors.New("has a scope that cannot be read")
	}
	for _, f := range fields {
		switch f.Tag {
		case 1: // clients' certificates, and not CAs'
		case 4:
			return errors.New("is an indirect list, about certificates of other CAs as well: give the CA's own")
		default:
			return errors.New("covers a part of the CA's certificates, or of the reasons, alone (issuingDistributionPoint): give the complete one")
		}
	}
	return nil
}

// plainEntry refuses an entry about another CA's certificate, and one that says
// something that is not understood here.
func plainEntry(e *x509.RevocationListEntry) error {
	for _, x := range e.Extensions {
		switch {
		case x.Id.Equal(oidCertificateIssuer):
			return errors.New("is an indirect list, with certificates of other CAs: give the CA's own")
		case x.Id.Equal(oidReason), x.Id.Equal(oidInvalidity):
		case x.Critical:
			return fmt.Errorf("has an entry with a critical extension that is not known here: %v", x.Id)
		}
	}
	switch {
	case e.ReasonCode == reasonRemoved:
		return errors.New("takes certificates off a list, as only delta lists do: give the complete one")
	case e.SerialNumber.Sign() < 0:
		return errors.New("has a negative serial number")
	}
	return nil
}

// follows reports whether l is newer than an earlier list of its CA, and what is
// wrong if it is older: whoever can put an old list in a new one's place could
// undo what was revoked since.
func (l *list) follows(earlier *list) (newer bool, err error) {
	numbered := earlier != nil && l.number != nil && earlier.number != nil
	switch {
	case earlier == nil:
		return true, nil
	case l.thisUpdate.Before(earlier.thisUpdate), numbered && l.number.Cmp(earlier.number) < 0:
		return false, fmt.Errorf("is of %s, and older than the one that is in use, of %s",
			l.thisUpdate.UTC().Format(time.RFC3339), earlier.thisUpdate.UTC().Format(time.RFC3339))
	case l.thisUpdate.Equal(earlier.thisUpdate) && l.nextUpdate.Equal(earlier.nextUpdate) && (!numbered || l.number.Cmp(earlier.number) == 0):
		return len(l.revoked) != len(earlier.revoked), nil
	}
	return true, nil
}
