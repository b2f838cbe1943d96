// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// addWithNewKey makes a key on this machine and has the server certify it.
func (f *workstationFlags) addWithNewKey(cmd *cobra.Command, a *app, name string) error {
	if f.class != string(broker.ClassSoftware) {
		return usagef("a key in a file is of class software: for hardware, make the key in the TPM and use --csr")
	}
	key, err := makeKey(f.generate, name)
	if err != nil {
		return err
	}
	in := f.input(name)
	in.CSR = key.csr
	raw, created, err := call[httpapi.WorkstationCreated](cmd, a, http.MethodPost, path("workstations"), in)
	if err != nil {
		return key.failed(err)
	}
	if err := writeNew(key.certificateFile, []byte(created.Certificate), 0o644); err != nil {
		return fmt.Errorf("the workstation is added, but its certificate was not saved; remove and add it again: %w", err)
	}
	return a.show(cmd, raw, func(out io.Writer) {
		writeWorkstation(out, &created.Workstation, "Key", key.keyFile, "Certificate", key.certificateFile)
	})
}

// madeKey is a key that was made on this machine, and the place for its
// certificate.
type madeKey struct {
	keyFile, certificateFile string
	csr                      string
}

// makeKey makes a key for the workstation of that name in a directory.
func makeKey(dir, name string) (*madeKey, error) {
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return nil, usagef("%q cannot be the name of a file: use --csr", name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	k := &madeKey{keyFile: filepath.Join(dir, name+".key"), certificateFile: filepath.Join(dir, name+".crt")}
	for _, file := range []string{k.keyFile, k.certificateFile} {
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			return nil, usagef("%s is there already: name another directory", file)
		}
	}
	csr, err := generateKey(k.keyFile, name)
	if err != nil {
		return nil, err
	}
	k.csr = string(csr)
	return k, nil
}

// failed removes the key, if the server is known to have no use for it. A
// change that may have been made may have made it the workstation's only key.
func (k *madeKey) failed(err error) error {
	var problem *httpapi.Problem
	var network *net.OpError
	switch {
	case errors.As(err, &problem) && problem.Code != broker.Unavailable && problem.Code != broker.Internal,
		errors.As(err, &network) && network.Op == "dial":
		return errors.Join(err, os.Remove(k.keyFile))
	}
	return fmt.Errorf("%w\nit may have been done all the same, so the key stays in %s: see 'postern workstation show'", err, k.keyFile)
}

// generateKey writes a new ECDSA P-256 key into file, which must not exist,
// and returns a PKCS #10 request for it in PEM.
func generateKey(file, name string) (csr []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	defer clear(text)
	if err := writeNew(file, text, 0o600); err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// writeNew writes a file that must not exist; what it cannot finish it
// removes.
func writeNew(file string, content []byte, mode fs.FileMode) error {
	w, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	if err := errors.Join(err, w.Sync(), w.Close()); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return nil
}
