// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy/connect/tpmkey"
)

const (
	// exportIterations makes a guess at an exported file's passphrase cost some
	// tenths of a second, as it does the mail client that opens it.
	exportIterations = 600_000
	// minPassphrase is in characters: whoever has the file can guess without end.
	minPassphrase = 12
)

// exportFlags are those of workstation export.
type exportFlags struct {
	dir, certificate, key, pkcs12 string
}

func newWorkstationExportCommand() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export --pkcs12 FILE",
		Short: "Put this machine's key and certificate into a PKCS #12 file, for a mail client",
		Long: `Put this machine's key and certificate into one PKCS #12 file (.p12), for a mail
client that takes client certificates in no other form. It exists for keys of
class software alone: one in a TPM cannot be copied, which is what it is there
for. Where 'postern workstation connect' can be used, use that: the copy in the
mail client is another one to be lost, and is not renewed by itself.

The file has mode 0600 and is encrypted with a passphrase (AES-256, PBKDF2 with
SHA-256), which is asked for at the terminal, or is one line of standard input;
it is never an argument.`,
		Example: `  postern workstation export --pkcs12 pune-07.p12
  postern workstation export --certificate pune-07.crt --key pune-07.key --pkcs12 pune-07.p12`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.pkcs12, "pkcs12", "", "the `file` to make")
	flags.StringVar(&f.dir, "dir", defaultProfileDir(), "the `directory` that 'workstation enrol' made")
	flags.StringVar(&f.certificate, "certificate", "", "a certificate in PEM, in this `file`, in place of the directory's")
	flags.StringVar(&f.key, "key", "", "its key in PEM, in this `file` of mode 0600")
	cmd.MarkFlagsRequiredTogether("certificate", "key")
	return cmd
}

func (f *exportFlags) run(cmd *cobra.Command) error {
	if f.pkcs12 == "" {
		return usagef("--pkcs12 is missing: name the file to make")
	}
	if _, err := os.Lstat(f.pkcs12); err == nil {
		return usagef("--pkcs12: %s is there already", f.pkcs12)
	}
	w := &localWorkstation{Name: "workstation", Class: broker.ClassSoftware, certificateFile: f.certificate, keyFile: f.key}
	if f.certificate == "" {
		var err error
		if w, err = loadProfile(f.dir); err != nil {
			return err
		}
	}
	kept, err := os.ReadFile(w.keyFile)
	if err != nil {
		return err
	}
	inTPM := tpmkey.Is(kept)
	clear(kept)
	if w.Class != broker.ClassSoftware || inTPM {
		return broker.Errorf(broker.Refused, "this workstation is of class %s: its key is not to be copied; use 'postern workstation connect'", broker.ClassHardware)
	}
	pair, err := w.identity()
	if err != nil {
		return err
	}
	var issuers []*x509.Certificate
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		issuers = append(issuers, c)
	}
	passphrase, err := newPassphrase(cmd)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	content, err := pkcs12.Modern2023.WithIterations(exportIterations).Encode(pair.PrivateKey, pair.Leaf, issuers, string(passphrase))
	if err != nil {
		return fmt.Errorf("PKCS #12: %w", err)
	}
	if err := writeNew(f.pkcs12, content, 0o600); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s holds the key, and the certificate until %s.\n", f.pkcs12, stamp(pair.Leaf.NotAfter))
	return nil
}

// newPassphrase asks for a passphrase, twice at a terminal.
func newPassphrase(cmd *cobra.Command) ([]byte, error) {
	const what = "the PKCS #12 file"
	passphrase, err := readSecret(cmd, what, "passphrase", false)
	if err != nil {
		return nil, err
	}
	switch {
	case len(passphrase) < minPassphrase:
		err = usagef("the passphrase has fewer than %d characters: whoever finds the file can guess as often as he likes", minPassphrase)
	// RFC 7292 has passphrases in UTF-16, RFC 8018 in anything: clients differ.
	case strings.ContainsFunc(string(passphrase), func(r rune) bool { return r < ' ' || r > '~' }):
		err = usagef("the passphrase has characters that are not ASCII: not all mail clients would read it alike")
	}
	if in, ok := cmd.InOrStdin().(*os.File); err == nil && ok && term.IsTerminal(int(in.Fd())) {
		var again []byte
		if again, err = readSecret(cmd, what, "passphrase, again,", false); err == nil && string(again) != string(passphrase) {
			err = errors.New("the two passphrases differ; nothing was made")
		}
		clear(again)
	}
	if err != nil {
		clear(passphrase)
		return nil, err
	}
	return passphrase, nil
}
