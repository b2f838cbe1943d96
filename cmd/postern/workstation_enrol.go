// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
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
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/proxy/connect"
	"github.com/postern-mail/postern/proxy/connect/tpmkey"
)

func newWorkstationCodeCommand(a *app) *cobra.Command {
	var in httpapi.EnrolmentCodeInput
	var class, notAfter, save string
	cmd := &cobra.Command{
		Use:   "code NAME",
		Short: "Make a one-time code by which a machine becomes a workstation",
		Long: `Make a one-time code by which a machine becomes a workstation: on it, somebody
runs 'postern workstation enrol' and types the code. It is good for a day unless
--not-after says otherwise, and takes the place of an older one for the same
name. Whoever has the code can make his own machine the workstation: give it to
nobody but him who sits there.

With --class hardware the machine's TPM must prove that the key is in it. Which
TPM that may be, --tpm says, by the fingerprint that 'postern workstation tpm'
prints on the machine; without it, any whose maker the server's configuration
trusts (workstations.tpm_ca_files).`,
		Example: `  postern workstation code pune-07 --site Pune --group day
  postern workstation code pune-08 --class hardware --tpm 3f5b…90ce`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Name, in.Class = args[0], broker.WorkstationClass(class)
			if notAfter != "" {
				if in.ExpiresAt, err = parseTime("not-after", notAfter, true); err != nil {
					return err
				}
			}
			file, err := newTokenFile(save)
			if err != nil {
				return err
			}
			raw, c, err := call[httpapi.EnrolmentCodeCreated](cmd, a, http.MethodPost, path("workstations", "codes"), in)
			if err != nil {
				return file.discard(err)
			}
			if raw, err = file.save(raw, c, &c.Code); err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				shown := c.Code
				if save != "" {
					shown = "in " + save
				}
				writeFields(out, "Workstation", c.Name, "Code", shown, "Until", stamp(c.ExpiresAt))
				fmt.Fprint(out, "\nOn the machine: postern workstation enrol --server HOST:PORT\n")
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&class, "class", string(broker.ClassSoftware), "where its key must be: hardware (the TPM) or software (a file)")
	flags.StringVar(&in.TPM, "tpm", "", "the TPM that its key must be in, by its `fingerprint`")
	flags.StringVar(&in.Site, "site", "", "bind it to a `site`'s networks")
	flags.StringSliceVar(&in.Groups, "group", nil, "a `group` that app passwords can be limited to; may be repeated")
	flags.StringVar(&in.Agent, "agent", "", agentHelp)
	flags.StringVar(&notAfter, "not-after", "", "until when the code is good: a `time`, at most thirty days from now (without it, a day)")
	flags.StringVar(&save, "save", "", "write the code into this `file`, of mode 0600, and do not show it")
	return cmd
}

// enrolFlags are those of workstation enrol.
type enrolFlags struct {
	dir, mailServer, device string
	tpm                     bool
}

func newWorkstationEnrolCommand(a *app) *cobra.Command {
	var f enrolFlags
	cmd := &cobra.Command{
		Use:   "enrol",
		Short: "Make this machine a workstation, with a code",
		Long: `Make this machine a workstation, with the code that the administrator made. The
key is made here and never leaves: with --tpm in the machine's TPM, else in a
file of mode 0600. The code is read from the terminal or from standard input.
Afterwards 'postern workstation connect' carries mail clients, and renews the
certificate in time.`,
		Example: `  postern workstation enrol --server mail.bpo.example:8443 --tpm
  postern workstation enrol --server mail.bpo.example:8443 --ca ca.pem <code`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, a) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", defaultProfileDir(), "the `directory` to make, for key and certificate")
	flags.BoolVar(&f.tpm, "tpm", false, "make the key in this machine's TPM")
	flags.StringVar(&f.device, "tpm-device", tpmkey.DefaultDevice, "the TPM's `device`")
	flags.StringVar(&f.mailServer, "mail-server", "", "the `host` of the mail ports (without it: that of --server)")
	return cmd
}

func (f *enrolFlags) run(cmd *cobra.Command, a *app) error {
	if f.dir == "" {
		return usagef("--dir is missing")
	}
	if _, err := os.Lstat(f.dir); !errors.Is(err, fs.ErrNotExist) {
		return usagef("%s is there already: this machine is enrolled; name another --dir, or remove it first", f.dir)
	}
	w := localWorkstation{APIServer: a.server, MailServer: f.mailServer}
	if w.MailServer == "" && a.server != "" {
		host, _, err := net.SplitHostPort(a.server)
		if err != nil {
			return usagef("--server %q is not HOST:PORT, such as mail.bpo.example:8443", a.server)
		}
		w.MailServer = host
	}
	code, err := readSecret(cmd, "this machine", "code", false)
	if err != nil {
		return err
	}
	defer clear(code)
	// All files become the directory together, by a rename: a machine is either
	// enrolled or it is not.
	if err := os.MkdirAll(filepath.Dir(f.dir), 0o700); err != nil {
		return err
	}
	making, err := os.MkdirTemp(filepath.Dir(f.dir), ".enrolling-*")
	if err != nil {
		return err
	}
	raw, err := f.enrol(cmd, a, &w, strings.TrimSpace(string(code)), making)
	if err != nil {
		var problem *httpapi.Problem
		if errors.As(err, &problem) && (problem.Undone || problem.Code != broker.Internal && problem.Code != broker.Unavailable) {
			return errors.Join(err, os.RemoveAll(making))
		}
		return fmt.Errorf("%w\nwhat was made stays in %s; if the workstation exists by now, remove it and ask for another code", err, making)
	}
	if err := os.Rename(making, f.dir); err != nil {
		return fmt.Errorf("the machine is enrolled, but its files stay in %s: %w", making, err)
	}
	if err := syncDir(filepath.Dir(f.dir)); err != nil {
		return err
	}
	return a.show(cmd, raw, func(out io.Writer) {
		writeFields(out, "Workstation", w.Name, "Class", string(w.Class), "Files", f.dir)
	})
}

// enrol makes the key and redeems the code; dir holds all files afterwards.
func (f *enrolFlags) enrol(cmd *cobra.Command, a *app, w *localWorkstation, code, dir string) ([]byte, error) {
	// Whatever token is at hand has nothing to do with it.
	nobody := *a
	nobody.tokenFile, nobody.anonymous = "", true
	in := httpapi.Enrolment{Code: code, Class: broker.ClassSoftware}
	var key crypto.Signer
	var kept []byte
	var err error
	if f.tpm {
		in.Class, w.TPMDevice = broker.ClassHardware, f.device
		key, kept, in.TPM, err = f.proveKey(cmd, &nobody, code)
	} else {
		key, kept, err = newFileKey()
	}
	if err != nil {
		return nil, err
	}
	defer clear(kept)
	// Before the code is used up.
	if err := writeNew(filepath.Join(dir, profileKeyFile), kept, 0o600); err != nil {
		return nil, err
	}
	if in.CSR, err = requestFor(key); err != nil {
		return nil, err
	}
	raw, e, err := call[httpapi.Enrolled](cmd, &nobody, http.MethodPost, "/v1/enrolments", in)
	if err != nil {
		return nil, err
	}
	w.Name, w.Class = e.Name, e.Class
	profile, err := json.MarshalIndent(w, "", "  ")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{profileCertificateFile: []byte(e.Certificate), profileFile: append(profile, '\n')}
	if a.ca != "" {
		if files[profileCAFile], err = os.ReadFile(a.ca); err != nil {
			return nil, err
		}
	}
	for name, content := range files {
		if err := writeNew(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	return raw, syncDir(dir)
}

// proveKey makes a key in the TPM and has the TPM answer the server's challenge
// with it. It returns what is to be kept of the key in a file as well.
func (f *enrolFlags) proveKey(cmd *cobra.Command, a *app, code string) (crypto.Signer, []byte, *broker.TPMAnswer, error) {
	tpm := tpmkey.At(f.device)
	key, kept, err := tpmkey.Create(tpm)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("--tpm: %w", err)
	}
	endorsed, err := tpmkey.Endorse(tpm)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("--tpm: %w", err)
	}
	said := broker.TPMKey{Key: key.Area(), EndorsementKey: endorsed.Key, EndorsementCertificate: endorsed.Certificate}
	_, challenge, err := call[broker.TPMChallenge](cmd, a, http.MethodPost, "/v1/enrolments/challenges", httpapi.TPMChallengeInput{Code: code, TPM: said})
	if err != nil {
		return nil, nil, nil, err
	}
	proof, err := key.Activate(endorsed, challenge.CredentialBlob, challenge.EncryptedSecret)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("--tpm: %w", err)
	}
	return key, kept, &broker.TPMAnswer{TPMKey: said, Answer: proof, ExpiresAt: challenge.ExpiresAt}, nil
}

// newFileKey makes a key, and returns it as it is kept in a file.
func newFileKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	defer clear(private)
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), nil
}

// requestFor makes a PKCS #10 request in PEM. Its names are the server's affair.
func requestFor(key crypto.Signer) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "workstation"}, SignatureAlgorithm: x509.ECDSAWithSHA256,
	}, key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// renewed gets this machine a new certificate for its key, and puts it in the
// present one's place.
func (w *localWorkstation) renewed(ctx context.Context, a *app) error {
	identity, err := w.identity()
	if err != nil {
		return err
	}
	key, ok := identity.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("the key cannot sign")
	}
	csr, err := requestFor(key)
	if err != nil {
		return err
	}
	present, err := os.ReadFile(w.certificateFile)
	if err != nil {
		return err
	}
	body, err := json.Marshal(httpapi.CertificateRenewal{Certificate: string(present), CSR: csr})
	if err != nil {
		return err
	}
	server := app{socket: a.socket, server: w.APIServer, ca: w.caFile, anonymous: true}
	raw, err := server.request(ctx, http.MethodPost, "/v1/enrolments/renew", body)
	var problem *httpapi.Problem
	if errors.As(err, &problem) && problem.Code == broker.Denied {
		return fmt.Errorf("%w: %w", connect.ErrRenewalRefused, err)
	}
	if err != nil {
		return err
	}
	var e httpapi.Enrolled
	if err := json.Unmarshal(raw, &e); err != nil {
		return fmt.Errorf("the server's answer is not understood: %w", err)
	}
	if err := replaces(identity.Leaf, e.Certificate); err != nil {
		return fmt.Errorf("the server's answer is not used: %w", err)
	}
	next := w.certificateFile + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeNew(next, []byte(e.Certificate), 0o600); err != nil {
		return err
	}
	if err := os.Rename(next, w.certificateFile); err != nil {
		return err
	}
	return syncDir(filepath.Dir(w.certificateFile))
}

// replaces checks that a new certificate can take the present one's place: a
// wrong one there would shut the machine out.
func replaces(present *x509.Certificate, next string) error {
	block, _ := pem.Decode([]byte(next))
	if block == nil {
		return errors.New("it holds no certificate")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return err
	case broker.KeyPin(c) != broker.KeyPin(present):
		return errors.New("it is a certificate for another key")
	case !time.Now().Before(c.NotAfter):
		return fmt.Errorf("its certificate expired on %s", stamp(c.NotAfter))
	}
	return nil
}

func newWorkstationRefreshCommand(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "refresh",
		Short: "Renew this machine's own certificate now",
		Long: `Renew the certificate of this machine's own key now, while it is still valid.
'workstation connect' does it by itself when a third of its time is left; this is
for machines whose mail clients use the key without it.`,
		Example: `  postern workstation refresh`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := loadProfile(dir)
			if err != nil {
				return err
			}
			if err := w.renewed(cmd.Context(), a); err != nil {
				return err
			}
			c, err := w.identity()
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The certificate of %s is good until %s.\n", w.Name, stamp(c.Leaf.NotAfter))
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", defaultProfileDir(), "the `directory` that 'workstation enrol' made")
	return cmd
}
