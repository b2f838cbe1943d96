// SPDX-License-Identifier: Apache-2.0

package companyca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/companyca"
	"github.com/postern-mail/postern/broker/companyca/companycatest"
)

// maxList is how long a list may be in tests, in octets.
const maxList = 64 << 10

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// revoking is an authority whose list is in a file, under a clock.
type revoking struct {
	*companyca.CAs
	t      *testing.T
	ca     *companycatest.CA
	file   string
	ahead  atomic.Int64 // how far the clock is
	logger *zap.Logger

	mu   sync.Mutex
	told []broker.AuthorityList
}

func newRevoking(t *testing.T, change ...func(*companyca.Revocation)) *revoking {
	t.Helper()
	r := &revoking{t: t, ca: companycatest.New(t, "Issuing CA", longer), file: filepath.Join(t.TempDir(), "ca.crl")}
	r.start(change...)
	return r
}

func (r *revoking) start(change ...func(*companyca.Revocation)) {
	r.t.Helper()
	a := authority("head-office", r.ca.File(), companyca.RuleDNS)
	a.Revocation = &companyca.Revocation{Files: []string{r.file}, Interval: 250 * time.Millisecond, Directory: filepath.Join(r.t.TempDir(), "kept")}
	for _, f := range change {
		f(a.Revocation)
	}
	var err error
	r.CAs, err = companyca.New(companyca.Config{
		Authorities: []companyca.Authority{a},
		MaxList:     maxList,
		Logger:      r.logger,
		Now:         func() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) },
		Record: func(told broker.AuthorityList) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.told = append(r.told, told)
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *revoking) publish(content []byte) error {
	r.t.Helper()
	companycatest.Replace(r.t, r.file, content)
	return r.Reload()
}

func (r *revoking) standing(c *x509.Certificate) broker.Code {
	r.t.Helper()
	found, err := r.Identify(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return broker.CodeOf(r.Standing(found))
}

func (r *revoking) states() (states []broker.ListState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, told := range r.told {
		states = append(states, told.State)
	}
	return states
}

// run runs it until the test is over.
func (r *revoking) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
}

func (r *revoking) eventually(what string, f func() bool) {
	r.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// TestWithoutAListNobodyIsIn: until it is known what the CA has revoked, its
// certificates open nothing.
func TestWithoutAListNobodyIsIn(t *testing.T) {
	r := newRevoking(t)
	good, bad := r.ca.Issue(dns("pune-07")).Leaf, r.ca.Issue(dns("goa-01")).Leaf
	if code := r.standing(good); code != broker.Unavailable || r.CheckLists() == nil {
		t.Errorf("without a list: %q, %v", code, r.CheckLists())
	}
	if err := r.publish(r.ca.SignList(companycatest.List(1, bad))); err != nil {
		t.Fatal(err)
	}
	if a, b := r.standing(good), r.standing(bad); a != "" || b != broker.Denied || r.CheckLists() != nil {
		t.Errorf("good: %q, revoked: %q, %v", a, b, r.CheckLists())
	}
	// A file that is away for a moment changes nothing, and comes back.
	if err := os.Rename(r.file, r.file+".away"); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(); !errors.Is(err, os.ErrNotExist) || r.standing(good) != "" {
		t.Errorf("%v, %q", err, r.standing(good))
	}
	if err := os.Rename(r.file+".away", r.file); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(); err != nil || r.standing(bad) != broker.Denied {
		t.Errorf("%v, %q", err, r.standing(bad))
	}
}

// TestListsThatAreRefused: lists that are not the CA's, or not complete, or older
// than the one in use, change nothing, and are refused by name.
func TestListsThatAreRefused(t *testing.T) {
	twin, other := companycatest.New(t, "Issuing CA"), companycatest.New(t, "Other CA")
	type change = func(*x509.RevocationList)
	extension := func(critical bool, value []byte, id ...int) change {
		return func(rl *x509.RevocationList) {
			rl.ExtraExtensions = append(rl.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: value})
		}
	}
	number := []byte{2, 1, 1}
	scope := func(fields ...byte) []byte { return append([]byte{0x30, byte(len(fields))}, fields...) }
	entry := func(e pkix.Extension) change {
		return func(rl *x509.RevocationList) {
			rl.RevokedCertificateEntries = []x509.RevocationListEntry{{
				SerialNumber: big.NewInt(7), RevocationTime: time.Now(), ExtraExtensions: []pkix.Extension{e},
			}}
		}
	}
	signed := func(changes ...change) func(r *revoking) []byte {
		return func(r *revoking) []byte {
			rl := companycatest.List(10)
			for _, f := range changes {
				f(rl)
			}
			return r.ca.SignList(rl)
		}
	}
	for name, test := range map[string]struct {
		content func(r *revoking) []byte
		want    string
	}{
		"a delta list":               {signed(extension(true, number, 2, 5, 29, 27)), "delta"},
		"a delta list, not critical": {signed(extension(false, number, 2, 5, 29, 27)), "delta"},
		"an indirect list":           {signed(extension(true, scope(0x84, 1, 0xff), 2, 5, 29, 28)), "indirect"},
		"an entry of another CA":     {signed(entry(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}})), "indirect"},
		"for CAs alone":              {signed(extension(true, scope(0x82, 1, 0xff), 2, 5, 29, 28)), "a part of"},
		"for some reasons alone":     {signed(extension(true, scope(0x83, 2, 6, 0x40), 2, 5, 29, 28)), "a part of"},
		"for one distribution point": {signed(extension(true, scope(0xa0, 2, 0xa0, 0), 2, 5, 29, 28)), "a part of"},
		"a scope of garbage":         {signed(extension(true, []byte{4, 0}, 2, 5, 29, 28)), "cannot be read"},
		"an unknown extension":       {signed(extension(true, []byte{5, 0}, 1, 2, 3, 4)), "critical extension"},
		"an unknown entry":           {signed(entry(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})), "critical extension"},
		"one that takes off": {signed(func(rl *x509.RevocationList) {
			rl.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: time.Now(), ReasonCode: 8}}
		}), "delta"},
		"of the future":            {signed(func(rl *x509.RevocationList) { rl.ThisUpdate = time.Now().Add(time.Hour) }), "future"},
		"under SHA-1":              {signed(func(rl *x509.RevocationList) { rl.SignatureAlgorithm = x509.ECDSAWithSHA1 }), "SHA-1"},
		"without an end":           {func(r *revoking) []byte { return endless(t, r.ca) }, "nextUpdate"},
		"of another CA":            {func(*revoking) []byte { return other.SignList(companycatest.List(10)) }, "no CA of head-office"},
		"of another of that name":  {func(*revoking) []byte { return twin.SignList(companycatest.List(10)) }, "not signed by"},
		"older by its number":      {signed(func(rl *x509.RevocationList) { rl.Number = big.NewInt(4) }), "older"},
		"older by its date":        {signed(func(rl *x509.RevocationList) { rl.ThisUpdate = time.Now().Add(-time.Hour) }), "older"},
		"cut off":                  {func(r *revoking) []byte { b := r.ca.SignList(companycatest.List(10)); return b[:len(b)-1] }, "no revocation list"},
		"with something behind it": {func(r *revoking) []byte { return append(r.ca.SignList(companycatest.List(10)), 0) }, "no revocation list"},
		"with a changed octet":     {func(r *revoking) []byte { b := r.ca.SignList(companycatest.List(10)); b[len(b)-1] ^= 1; return b }, "not signed by"},
		"empty":                    {func(*revoking) []byte { return nil }, "no revocation list"},
		"a certificate": {func(r *revoking) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.ca.Certificate.Raw})
		}, "only X509 CRL"},
		"too long": {func(*revoking) []byte { return make([]byte, maxList+1) }, "more than"},
		"in PEM, and then another's": {func(r *revoking) []byte {
			return append(inPEM(r.ca.SignList(companycatest.List(10))), inPEM(other.SignList(companycatest.List(10)))...)
		}, "no CA of head-office"},
		"in PEM, and half of another": {func(r *revoking) []byte {
			b := inPEM(r.ca.SignList(companycatest.List(10)))
			return append(b, b[:40]...)
		}, "no whole"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRevoking(t)
			bad := r.ca.Issue(dns("goa-01")).Leaf
			if err := r.publish(r.ca.SignList(companycatest.List(5, bad))); err != nil {
				t.Fatal(err)
			}
			err := r.publish(test.content(r))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want one that says %q", err, test.want)
			}
			// What comes first in PEM is taken before what is wrong is found.
			if got := r.standing(bad); got != broker.Denied && name != "in PEM, and then another's" {
				t.Errorf("the revoked one is %q", got)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if last := r.told[len(r.told)-1]; last.State != broker.ListRefused || !strings.Contains(last.Detail, test.want) {
				t.Errorf("on record is %+v", last)
			}
		})
	}
}

func inPEM(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}) }

// endless makes a list without nextUpdate, which Go does not.
func endless(t *testing.T, ca *companycatest.CA) []byte {
	t.Helper()
	type algorithm struct{ Algorithm asn1.ObjectIdentifier }
	ecdsaWithSHA256 := algorithm{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	tbs, err := asn1.Marshal(struct {
		Version    int
		Signature  algorithm
		Issuer     asn1.RawValue
		ThisUpdate time.Time
	}{1, ecdsaWithSHA256, asn1.RawValue{FullBytes: ca.Certificate.RawSubject}, time.Now().UTC()})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(tbs)
	signature, err := ca.Key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm algorithm
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, ecdsaWithSHA256, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestListOutOfDate: its end is announced, and then closes the authority's
// certificates, or not, as the configuration says; what was revoked stays so.
func TestListOutOfDate(t *testing.T) {
	for _, allow := range []bool{false, true} {
		r := newRevoking(t, func(c *companyca.Revocation) { c.AllowStale = allow })
		good, bad := r.ca.Issue(dns("pune-07"), longer).Leaf, r.ca.Issue(dns("goa-01"), longer).Leaf
		if err := r.publish(r.ca.SignList(companycatest.List(1, bad))); err != nil {
			t.Fatal(err)
		}
		changes := make(chan struct{}, 16)
		defer r.Subscribe(func() { changes <- struct{}{} })()
		r.run()
		r.ahead.Store(int64(23 * time.Hour))
		r.eventually("its end is announced", func() bool { return slices.Contains(r.states(), broker.ListExpiring) })
		if code := r.standing(good); code != "" {
			t.Errorf("until it ends: %q", code)
		}
		for len(changes) > 0 {
			<-changes
		}
		r.ahead.Store(int64(25 * time.Hour))
		<-changes // whoever has sessions looks at them again
		r.eventually("its end is told", func() bool { return slices.Contains(r.states(), broker.ListStale) })
		want := map[bool]broker.Code{false: broker.Unavailable, true: ""}[allow]
		if a, b := r.standing(good), r.standing(bad); a != want || b != broker.Denied {
			t.Errorf("allowed %t: good %q, revoked %q", allow, a, b)
		}
		next := companycatest.List(2)
		next.NextUpdate = time.Now().Add(72 * time.Hour)
		companycatest.Replace(t, r.file, r.ca.SignList(next))
		r.eventually("a new list is taken over", func() bool { return r.standing(good) == "" && r.standing(bad) == "" })
		if states := r.states(); !slices.Equal(states[len(states)-3:], []broker.ListState{broker.ListExpiring, broker.ListStale, broker.ListTaken}) {
			t.Errorf("on record are %v", states)
		}
	}
}

func longer(c *x509.Certificate) { c.NotAfter = time.Now().Add(100 * time.Hour) }

// TestListInAFolderThatComesLater: a folder that is not there when the server
// starts, and so cannot be watched, hides no list that is put there.
func TestListInAFolderThatComesLater(t *testing.T) {
	r := &revoking{t: t, ca: companycatest.New(t, "Issuing CA"), file: filepath.Join(t.TempDir(), "later", "ca.crl")}
	core, said := observer.New(zap.ErrorLevel)
	r.logger = zap.New(core)
	r.start()
	bad := r.ca.Issue(dns("goa-01")).Leaf
	r.run()
	r.eventually("the folder cannot be watched", func() bool { return said.FilterMessageSnippet("not watched").Len() > 0 })
	if code := r.standing(bad); code != broker.Unavailable {
		t.Errorf("without a list: %q", code)
	}
	if err := os.Mkdir(filepath.Dir(r.file), 0o700); err != nil {
		t.Fatal(err)
	}
	companycatest.Replace(t, r.file, r.ca.SignList(companycatest.List(1, bad)))
	r.eventually("the list is taken over", func() bool { return r.standing(bad) == broker.Denied })
}

// TestEachKeyOfACAHasItsList: of an authority with two CAs, the list of one says
// nothing about the other's certificates, though they bear one name.
func TestEachKeyOfACAHasItsList(t *testing.T) {
	old, next := companycatest.New(t, "Issuing CA"), companycatest.New(t, "Issuing CA")
	file := filepath.Join(t.TempDir(), "both.crl")
	a := authority("head-office", old.File(next.Certificate), companyca.RuleDNS)
	a.Revocation = &companyca.Revocation{Files: []string{file}}
	one := func() *x509.Certificate { return old.Issue(dns("pune-07")).Leaf }()
	// The same serial number under the other key is another certificate.
	two := next.Issue(dns("goa-01"), func(c *x509.Certificate) { c.SerialNumber = one.SerialNumber }).Leaf
	if err := os.WriteFile(file, old.SignList(companycatest.List(1, one)), 0o600); err != nil {
		t.Fatal(err)
	}
	cas := trust(t, a)
	standing := func(c *x509.Certificate) broker.Code {
		found, err := cas.Identify(c)
		if err != nil {
			t.Fatal(err)
		}
		return broker.CodeOf(cas.Standing(found))
	}
	if a, b := standing(one), standing(two); a != broker.Denied || b != broker.Unavailable {
		t.Errorf("with one list: %q, %q", a, b)
	}
	both := slices.Concat(inPEM(old.SignList(companycatest.List(2, one))), inPEM(next.SignList(companycatest.List(1))))
	companycatest.Replace(t, file, both)
	if err := cas.Reload(); err != nil {
		t.Fatal(err)
	}
	if a, b := standing(one), standing(two); a != broker.Denied || b != "" {
		t.Errorf("with both: %q, %q", a, b)
	}
}

// TestListByHTTP: a list is fetched, kept over a restart, and no older one is put
// in its place; nothing that is no list of the CA's harms.
func TestListByHTTP(t *testing.T) {
	var answer atomic.Pointer[http.HandlerFunc]
	serve := func(f http.HandlerFunc) { answer.Store(&f) }
	list := func(b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }
	}
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		(*answer.Load())(w, q)
		asked.Add(1)
	}))
	defer server.Close()
	kept := filepath.Join(t.TempDir(), "kept")
	remote := func(c *companyca.Revocation) {
		c.Files, c.URLs, c.Directory = nil, []string{server.URL + "/ca.crl"}, kept
	}
	r := &revoking{t: t, ca: companycatest.New(t, "Issuing CA")}
	good, bad := r.ca.Issue(dns("pune-07")).Leaf, r.ca.Issue(dns("goa-01")).Leaf
	first, second := r.ca.SignList(companycatest.List(1)), r.ca.SignList(companycatest.List(2, bad))
	serve(list(first))
	r.start(remote)
	if code := r.standing(good); code != broker.Unavailable {
		t.Errorf("before it was fetched: %q", code)
	}
	r.run()
	r.eventually("the list is fetched", func() bool { return r.standing(bad) == "" })
	serve(list(second))
	r.eventually("the next list is fetched", func() bool { return r.standing(bad) == broker.Denied })
	r.eventually("it is kept", func() bool {
		files, err := filepath.Glob(filepath.Join(kept, "*.crl"))
		if err != nil || len(files) != 1 {
			return false
		}
		b, err := os.ReadFile(files[0])
		return err == nil && bytes.Equal(b, second)
	})

	// After a restart nobody answers, or somebody with the list before it.
	for name, f := range map[string]http.HandlerFunc{
		"an older list": list(first),
		"an error": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write(first)
		},
		"a redirect": func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/ca.crl" {
				http.Redirect(w, q, "/elsewhere", http.StatusFound)
				return
			}
			t.Error("the redirect was followed")
		},
		"something endless": func(w http.ResponseWriter, _ *http.Request) {
			for block := make([]byte, 16<<10); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		},
		"another CA's": list(companycatest.New(t, "Issuing CA").SignList(companycatest.List(3))),
	} {
		t.Run(name, func(t *testing.T) {
			serve(f)
			again := &revoking{t: t, ca: r.ca}
			again.start(remote)
			before := asked.Load()
			again.run()
			again.eventually("it was asked", func() bool { return asked.Load() > before })
			if a, b := again.standing(good), again.standing(bad); a != "" || b != broker.Denied {
				t.Errorf("good: %q, revoked: %q", a, b)
			}
		})
	}
}
