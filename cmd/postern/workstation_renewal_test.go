// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/workstationca"
	"github.com/postern-mail/postern/proxy/connect"
)

// enrolled enrols a machine over TLS, and returns its directory.
func (r *running) enrolled(name string) string {
	r.t.Helper()
	var code httpapi.EnrolmentCodeCreated
	if err := json.Unmarshal([]byte(r.command("workstation", "code", name, "--json")), &code); err != nil {
		r.t.Fatal(err)
	}
	dir := filepath.Join(r.t.TempDir(), "enrolled")
	if exit, stdout, stderr := r.remote(code.Code+"\n", "", "workstation", "enrol", "--dir", dir); exit != exitOK {
		r.t.Fatalf("enrol: exit code %d: %s%s", exit, stdout, stderr)
	}
	return dir
}

// nearlyOver replaces a machine's certificate by one of the same CA that has
// ten minutes left of its hour.
func (r *running) nearlyOver(dir string) *x509.Certificate {
	r.t.Helper()
	w, err := loadProfile(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	identity, err := w.pair()
	if err != nil {
		r.t.Fatal(err)
	}
	ca, err := workstationca.Load(filepath.Join(r.dir, workstationCADir), workstationca.Config{
		Validity: time.Hour, Now: func() time.Time { return time.Now().Add(-50 * time.Minute) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	csr, err := requestFor(identity.PrivateKey.(crypto.Signer))
	if err != nil {
		r.t.Fatal(err)
	}
	certificate, err := ca.Issue(r.t.Context(), []byte(csr), &broker.Workstation{ID: broker.NewID(), Name: w.Name})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(w.certificateFile, certificate, 0o600); err != nil {
		r.t.Fatal(err)
	}
	if identity, err = w.identity(); err != nil {
		r.t.Fatal(err)
	}
	return identity.Leaf
}

// renewer does what 'workstation connect' does about the certificate, until
// stop is called.
func (r *running) renewer(dir string) (log *observer.ObservedLogs, stop func()) {
	r.t.Helper()
	w, err := loadProfile(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	core, log := observer.New(zapcore.DebugLevel)
	renewer := &connect.Renewer{
		Identity: w.identity, Renew: func(ctx context.Context) error { return w.renewed(ctx, &app{}) }, Logger: zap.New(core),
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- renewer.Run(ctx) }()
	return log, func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
}

// TestRenewalAcrossRestarts: what was due while the machine was off is done at
// the start, over whatever a crash left; and a workstation that was removed is
// told so.
func TestRenewalAcrossRestarts(t *testing.T) {
	r := startServer(t, nil)
	dir := r.enrolled("pune-07")
	old := r.nearlyOver(dir)
	file := filepath.Join(dir, profileCertificateFile)
	if err := os.WriteFile(file+".next", []byte("half of a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, stop := r.renewer(dir)
	r.eventually("the certificate to be renewed", func() bool { return log.FilterMessageSnippet("was renewed").Len() == 1 })
	stop()
	if _, err := os.Stat(file + ".next"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a crash left is still there: %v", err)
	}
	w, err := loadProfile(dir)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := w.identity()
	if err != nil {
		t.Fatal(err)
	}
	if !identity.Leaf.NotAfter.After(old.NotAfter) || broker.KeyPin(identity.Leaf) != broker.KeyPin(old) {
		t.Errorf("renewed until %s with the key %s", identity.Leaf.NotAfter, broker.KeyPin(identity.Leaf))
	}
	if connect.RenewalDue(identity.Leaf, time.Now()) {
		t.Error("a new certificate is due at once")
	}

	r.nearlyOver(dir)
	r.command("workstation", "remove", "pune-07", "--yes")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	log, stop = r.renewer(dir)
	r.eventually("the machine to be told", func() bool { return log.FilterMessageSnippet("not renewed any more").Len() == 1 })
	stop()
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the certificate was changed: %v", err)
	}
}

// TestAWrongAnswerDoesNotReplaceTheCertificate that works.
func TestAWrongAnswerDoesNotReplaceTheCertificate(t *testing.T) {
	r := startServer(t, nil)
	mine, other := r.nearlyOver(r.enrolled("pune-07")), r.enrolled("pune-08")
	theirs, err := os.ReadFile(filepath.Join(other, profileCertificateFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, answer := range map[string]string{"nothing": "", "no certificate": "hello", "another key's": string(theirs)} {
		if err := replaces(mine, answer); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
