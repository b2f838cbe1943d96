// SPDX-License-Identifier: Apache-2.0

package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/attest"
	"github.com/postern-mail/postern/proxy/connect/tpmkey"
	"github.com/postern-mail/postern/test/servers"
)

// machine is a workstation with a TPM and a key in it.
type machine struct {
	open     tpmkey.Opener
	key      *tpmkey.Key
	endorsed *tpmkey.Endorsement
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{open: tpmkey.At(servers.StartTPM(t))}
	m.look(t)
	var err error
	if m.key, _, err = tpmkey.Create(m.open); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) look(t *testing.T) {
	t.Helper()
	var err error
	if m.endorsed, err = tpmkey.Endorse(m.open); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) said() broker.TPMKey {
	return broker.TPMKey{Key: m.key.Area(), EndorsementKey: m.endorsed.Key, EndorsementCertificate: m.endorsed.Certificate}
}

func (m *machine) fingerprint() string { return broker.TPMFingerprint(m.endorsed.Key) }

func (m *machine) public(t *testing.T) []byte { return spki(t, m.key.Public()) }

func spki(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// clock is a verifier's.
type clock struct{ time.Time }

func newVerifier(t *testing.T, c attest.Config) (*attest.Verifier, *clock) {
	t.Helper()
	now := &clock{time.Now()}
	c.Key, c.Now = broker.NewSecret(bytes.Repeat([]byte("k"), 32)), func() time.Time { return now.Time }
	v, err := attest.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return v, now
}

func wantCode(t *testing.T, what string, err error, want broker.Code) {
	t.Helper()
	if broker.CodeOf(err) != want {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}

// TestAKeyInATPMIsProved, to any node that has the server's key, and nothing but
// that key in that TPM for that code.
func TestAKeyInATPMIsProved(t *testing.T) {
	m, other := newMachine(t), newMachine(t)
	v, now := newVerifier(t, attest.Config{})
	code, pin := []byte("a code's hash"), m.fingerprint()
	said := m.said()
	challenge, err := v.Challenge(code, pin, &said)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := m.key.Activate(m.endorsed, challenge.CredentialBlob, challenge.EncryptedSecret)
	if err != nil {
		t.Fatal(err)
	}
	answer := broker.TPMAnswer{TPMKey: said, Answer: proof, ExpiresAt: challenge.ExpiresAt}
	node, _ := newVerifier(t, attest.Config{})
	tpm, err := node.Verify(code, pin, m.public(t), &answer)
	if err != nil || tpm != pin {
		t.Fatalf("%s, %v", tpm, err)
	}

	second, _, err := tpmkey.Create(m.open)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := answer
	elsewhere.TPMKey = other.said()
	otherKey := answer
	otherKey.Key = second.Area()
	wrong, late, none := answer, answer, answer
	wrong.Answer = append([]byte{proof[0] ^ 1}, proof[1:]...)
	late.ExpiresAt = late.ExpiresAt.Add(time.Second)
	none.Answer = nil
	for what, c := range map[string]struct {
		code, public []byte
		answer       broker.TPMAnswer
	}{
		"another code":                   {[]byte("another"), m.public(t), answer},
		"another key of the TPM":         {code, spki(t, second.Public()), otherKey},
		"a request for another key":      {code, spki(t, second.Public()), answer},
		"another TPM":                    {code, other.public(t), elsewhere},
		"another answer":                 {code, m.public(t), wrong},
		"no answer":                      {code, m.public(t), none},
		"more time than there was":       {code, m.public(t), late},
		"another TPM's key for this pin": {code, other.public(t), broker.TPMAnswer{TPMKey: broker.TPMKey{Key: other.key.Area(), EndorsementKey: said.EndorsementKey}, Answer: proof, ExpiresAt: challenge.ExpiresAt}},
	} {
		_, err := v.Verify(c.code, pin, c.public, &c.answer)
		wantCode(t, what, err, broker.Refused)
	}
	now.Time = challenge.ExpiresAt
	_, err = v.Verify(code, pin, m.public(t), &answer)
	wantCode(t, "too late", err, broker.Refused)

	// What is encrypted to one TPM, another cannot tell; nor this one for another key.
	if _, err := other.key.Activate(other.endorsed, challenge.CredentialBlob, challenge.EncryptedSecret); err == nil {
		t.Error("another TPM answered the challenge")
	}
	if _, err := second.Activate(m.endorsed, challenge.CredentialBlob, challenge.EncryptedSecret); err == nil {
		t.Error("the TPM answered for another key")
	}
	foreign := other.said()
	_, err = v.Challenge(code, pin, &foreign)
	wantCode(t, "a challenge for another TPM", err, broker.Refused)
	_, err = v.Challenge(code, "", &said)
	wantCode(t, "a challenge without makers", err, broker.Refused)
}

// TestNever5AKeyInAFileDoesNotPassForOneInATPM: its owner has a true TPM beside
// it, and writes its public part as though it had been made there.
func TestNever5AKeyInAFileDoesNotPassForOneInATPM(t *testing.T) {
	m := newMachine(t)
	v, _ := newVerifier(t, attest.Config{})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	xy := point.Bytes()[1:]
	area := public(t, m.key.Area())
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: xy[:32]}, Y: tpm2.TPM2BECCParameter{Buffer: xy[32:]}})
	said := m.said()
	said.Key = tpm2.Marshal(tpm2.New2B(area))
	challenge, err := v.Challenge([]byte("code"), m.fingerprint(), &said)
	if err != nil {
		t.Fatal(err)
	}
	tpm, err := m.open()
	if err != nil {
		t.Fatal(err)
	}
	defer tpm.Close()
	endorsement, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.RSAEKTemplate)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	// The public part alone can be loaded, under the name that it must have.
	loaded, err := tpm2.LoadExternal{InPublic: tpm2.New2B(area), Hierarchy: tpm2.TPMRHNull}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	activate := func(auth tpm2.Session, of *tpm2.LoadExternalResponse) error {
		_, err := tpm2.ActivateCredential{
			ActivateHandle: tpm2.AuthHandle{Handle: of.ObjectHandle, Name: of.Name, Auth: auth},
			KeyHandle: tpm2.AuthHandle{
				Handle: endorsement.ObjectHandle, Name: endorsement.Name,
				Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(t transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
					_, err := tpm2.PolicySecret{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)}, PolicySession: session, NonceTPM: nonce}.Execute(t)
					return err
				}),
			},
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: challenge.CredentialBlob}, Secret: tpm2.TPM2BEncryptedSecret{Buffer: challenge.EncryptedSecret},
		}.Execute(tpm)
		return err
	}
	for what, c := range map[string]struct {
		auth tpm2.Session
		want tpm2.TPMRC
	}{
		"a password": {tpm2.PasswordAuth(nil), tpm2.TPMRCAuthUnavailable},
		"a policy":   {tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(transport.TPM, tpm2.TPMISHPolicy, tpm2.TPM2BNonce) error { return nil }), tpm2.TPMRCAuthUnavailable},
	} {
		if err := activate(c.auth, loaded); !errors.Is(err, c.want) {
			t.Errorf("by %s: %v", what, err)
		}
	}
	scalar, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	// Nor can the whole key be loaded as one that was made there.
	if _, err := (tpm2.LoadExternal{
		InPublic: tpm2.New2B(area), Hierarchy: tpm2.TPMRHNull,
		InPrivate: tpm2.New2B(tpm2.TPMTSensitive{
			SensitiveType: tpm2.TPMAlgECC,
			Sensitive:     tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgECC, &tpm2.TPM2BECCParameter{Buffer: scalar}),
		}),
	}).Execute(tpm); err == nil {
		t.Error("the TPM took a key from outside for one of its own")
	}

	// One that could leave the TPM is not asked about at all.
	for what, change := range map[string]func(*tpm2.TPMTPublic){
		"not bound to the TPM":    func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM = false },
		"not bound to its parent": func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedParent = false },
		"made elsewhere":          func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = false },
		"used by a policy":        func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer = make([]byte, 32) },
		"administered by policy":  func(p *tpm2.TPMTPublic) { p.ObjectAttributes.AdminWithPolicy = true },
		"restricted":              func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = true },
		"not for signing":         func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SignEncrypt = false },
		"off the curve": func(p *tpm2.TPMTPublic) {
			p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: xy[:32]}, Y: tpm2.TPM2BECCParameter{Buffer: xy[:32]}})
		},
	} {
		changed := public(t, m.key.Area())
		change(&changed)
		k := m.said()
		k.Key = tpm2.Marshal(tpm2.New2B(changed))
		_, err := v.Challenge([]byte("code"), m.fingerprint(), &k)
		wantCode(t, what, err, broker.Invalid)
	}
}

func public(t *testing.T, area []byte) tpm2.TPMTPublic {
	t.Helper()
	parsed, err := tpm2.Unmarshal[tpm2.TPM2BPublic](area)
	if err != nil {
		t.Fatal(err)
	}
	p, err := parsed.Contents()
	if err != nil {
		t.Fatal(err)
	}
	return *p
}

// TestMakersVouchForTPMs by certificates in the TPMs' own memory.
func TestMakersVouchForTPMs(t *testing.T) {
	m := newMachine(t)
	maker, stranger := newMaker(t, "a maker"), newMaker(t, "a stranger")
	v, now := newVerifier(t, attest.Config{Makers: maker.pool()})
	code := []byte("code")
	none := m.said()
	_, err := v.Challenge(code, "", &none)
	wantCode(t, "no certificate", err, broker.Refused)

	rsaKey := m.endorsed.Key
	m.store(t, 0x01c00002, maker.certify(t, rsaKey, nil))
	m.look(t)
	said := m.said()
	if !bytes.Equal(said.EndorsementKey, rsaKey) {
		t.Error("with its certificate the TPM has another key")
	}
	challenge, err := v.Challenge(code, "", &said)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := m.key.Activate(m.endorsed, challenge.CredentialBlob, challenge.EncryptedSecret)
	if err != nil {
		t.Fatal(err)
	}
	if tpm, err := v.Verify(code, "", m.public(t), &broker.TPMAnswer{TPMKey: said, Answer: proof, ExpiresAt: challenge.ExpiresAt}); err != nil || tpm != m.fingerprint() {
		t.Errorf("%s, %v", tpm, err)
	}

	for what, c := range map[string]struct {
		certificate []byte
		want        broker.Code
	}{
		"a stranger's":  {stranger.certify(t, rsaKey, nil), broker.Refused},
		"another key's": {maker.certify(t, m.public(t), nil), broker.Invalid},
		"another purpose's": {maker.certify(t, rsaKey, func(c *x509.Certificate) {
			c.UnknownExtKeyUsage = nil
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), broker.Invalid},
		"a CA's": {maker.certify(t, rsaKey, func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = true, true }), broker.Invalid},
		"with something critical that is not known": {maker.certify(t, rsaKey, func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true, Value: []byte{5, 0}})
		}), broker.Refused},
		"broken": {[]byte("a certificate"), broker.Invalid},
		"long":   {bytes.Repeat([]byte("c"), 1<<20), broker.Invalid},
	} {
		k := said
		k.EndorsementCertificate = c.certificate
		_, err := v.Challenge(code, "", &k)
		wantCode(t, what, err, c.want)
	}
	now.Time = now.Add(48 * time.Hour)
	_, err = v.Challenge(code, "", &said)
	wantCode(t, "expired", err, broker.Refused)
	if !strings.Contains(err.Error(), m.fingerprint()) {
		t.Errorf("the refusal does not say which TPM it is: %v", err)
	}
}

// TestATPMOfEllipticCurves has its certificate for that key.
func TestATPMOfEllipticCurves(t *testing.T) {
	m := newMachine(t)
	maker := newMaker(t, "a maker")
	tpm, err := m.open()
	if err != nil {
		t.Fatal(err)
	}
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.ECCEKTemplate)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	contents, err := made.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.Pub(*contents)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: made.ObjectHandle}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	tpm.Close()
	m.store(t, 0x01c0000a, maker.certify(t, spki(t, key), nil))
	m.look(t)
	v, _ := newVerifier(t, attest.Config{Makers: maker.pool()})
	said := m.said()
	challenge, err := v.Challenge([]byte("code"), "", &said)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := m.key.Activate(m.endorsed, challenge.CredentialBlob, challenge.EncryptedSecret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify([]byte("code"), "", m.public(t), &broker.TPMAnswer{TPMKey: said, Answer: proof, ExpiresAt: challenge.ExpiresAt}); err != nil {
		t.Error(err)
	}
}

// FuzzChallenge: whoever has a code can send anything.
func FuzzChallenge(f *testing.F) {
	v, err := attest.New(attest.Config{Key: broker.NewSecret(bytes.Repeat([]byte("k"), 32)), Makers: x509.NewCertPool()})
	if err != nil {
		f.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tpm2.Marshal(tpm2.New2B(tpm2.ECCSRKTemplate)), der, []byte{})
	f.Add(tpm2.Marshal(tpm2.New2B(tpm2.RSAEKTemplate)), der, der)
	f.Fuzz(func(t *testing.T, area, endorsement, certificate []byte) {
		k := &broker.TPMKey{Key: area, EndorsementKey: endorsement, EndorsementCertificate: certificate}
		_, _ = v.Challenge([]byte("code"), "", k)
		_, _ = v.Challenge([]byte("code"), broker.TPMFingerprint(endorsement), k)
	})
}

// maker is a CA that certifies TPMs.
type maker struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newMaker(t *testing.T, name string) *maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &maker{c, key}
}

func (m *maker) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(m.certificate)
	return pool
}

// certify makes a certificate as TPMs' makers do: no subject, and the make in a
// critical alternative name.
func (m *maker) certify(t *testing.T, key []byte, change func(*x509.Certificate)) []byte {
	t.Helper()
	parsed, err := x509.ParsePKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	names, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: directoryName(t)}})
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
		ExtraExtensions:    []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: names}},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, m.certificate, parsed, m.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func directoryName(t *testing.T) []byte {
	t.Helper()
	der, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 23, 133, 2, 1}, Value: "id:54455354"}}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// store puts a certificate where a TPM's maker does, in a place longer than it.
func (m *machine) store(t *testing.T, index tpm2.TPMHandle, certificate []byte) {
	t.Helper()
	tpm, err := m.open()
	if err != nil {
		t.Fatal(err)
	}
	defer tpm.Close()
	info := tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(certificate) + 100),
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true, NT: tpm2.TPMNTOrdinary},
	})
	if _, err := (tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: info}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	data := append(bytes.Clone(certificate), make([]byte, 100)...)
	for offset := 0; offset < len(data); offset += 512 {
		read, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (tpm2.NVWrite{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: read.NVName},
			Data:       tpm2.TPM2BMaxNVBuffer{Buffer: data[offset:min(offset+512, len(data))]}, Offset: uint16(offset),
		}).Execute(tpm); err != nil {
			t.Fatal(err)
		}
	}
}
