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
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return usagef("%q cannot be the name of a file: use --csr", name)
	}
	if err := os.MkdirAll(f.generate, 0o700); err != nil {
		return err
	}
	keyFile := filepath.Join(f.generate, name+".key")
	certificateFile := filepath.Join(f.generate, name+".crt")
	if _, err := os.Lstat(certificateFile); !errors.Is(err, fs.ErrNotExist) {
		return usagef("%s is there already", certificateFile)
	}
	csr, err := generateKey(keyFile, name)
	if err != nil {
		return err
	}
	in := f.input(name)
	in.CSR = string(csr)
	raw, created, err := call[httpapi.WorkstationCreated](cmd, a, http.MethodPost, path("workstations"), in)
	if err != nil {
		return errors.Join(err, os.Remove(keyFile))
	}
	if err := writeNew(certificateFile, []byte(created.Certificate), 0o644); err != nil {
		return fmt.Errorf("the workstation is added, but its certificate was not saved; remove and add it again: %w", err)
	}
	return a.show(cmd, raw, func(out io.Writer) {
		writeWorkstation(out, &created.Workstation)
		writeFields(out, "Key", keyFile, "Certificate", certificateFile)
	})
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
