// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/sealed"
	"github.com/postern-mail/postern/broker/workstationca"
)

const (
	configFile      = "postern.yaml"
	tlsDir          = "tls"
	certificateFile = "server.pem"
	certificateKey  = "server.key"
)

// initConfig is the configuration that `postern init` writes. Paths are
// relative to it, so that the directory can be moved.
const initConfig = `# Every key is explained in deployments/postern.example.yaml.
data_dir: .
hostname: {{.Hostname}}
listeners:
  imaps: "{{.IMAPS}}"
  submissions: "{{.Submissions}}"
tls:
  # Made by 'postern init' and signed by the workstation CA: mail clients must
  # be told to trust workstation-ca/workstation-ca.pem. Put a certificate of a
  # public CA into its place when there is one.
  certificate: tls/server.pem
  key: tls/server.key
workstations:
  embedded_ca: workstation-ca
credentials:
  # For trying out and small sites. Larger ones keep credentials in Vault.
  sealed: {}
api:
  socket: postern.sock
{{- with .API}}
  listen: "{{.}}"
{{- end}}
`

// initOptions are the flags of `postern init`.
type initOptions struct {
	dir                string
	program            string
	hostnames          []string
	imaps, submissions string
	// api may be empty: then there is the socket alone.
	api string
}

func newInitCommand() *cobra.Command {
	o := initOptions{program: calledAs(os.Args[0])}
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a data directory with keys, a workstation CA and a configuration",
		Long: `Make a data directory (mode 0700) with all that 'postern serve' needs: the key
of the app passwords, an encrypted file for credentials and its key, a CA for
workstations, a first server certificate, the token of a first admin, and a
configuration. Nothing that is there already is overwritten.`,
		Example: `  postern init --dir /var/lib/postern --hostname mail.bpo.example
  postern init --dir ./try --hostname localhost --hostname 127.0.0.1 --imaps 127.0.0.1:1993 --submissions 127.0.0.1:1465`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			if err := o.make(); err != nil {
				return err
			}
			o.tell(cmd.OutOrStdout())
			return nil
		},
	}
	cmd.Flags().StringVar(&o.dir, "dir", "", "the `directory` to make")
	cmd.Flags().StringArrayVar(&o.hostnames, "hostname", nil, "a host `name` or IP address that mail clients connect to; may be repeated (default: the machine's)")
	cmd.Flags().StringVar(&o.imaps, "imaps", ":993", "the `address` for IMAP over TLS")
	cmd.Flags().StringVar(&o.submissions, "submissions", ":465", "the `address` for submission over TLS")
	cmd.Flags().StringVar(&o.api, "api", ":8443", "the `address` of the management API over HTTPS, for client firms; empty: the Unix socket alone")
	return cmd
}

// hostnamePattern is RFC 1123 §2.1's.
const hostnamePattern = `^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`

// complete checks the flags and fills in what they leave out.
func (o *initOptions) complete() error {
	if o.dir == "" {
		return usagef("--dir is missing: name the directory to make, such as /var/lib/postern")
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	o.dir = dir
	if len(o.hostnames) == 0 {
		name, err := os.Hostname()
		if err != nil || name == "" {
			return usagef("the machine has no host name: give --hostname")
		}
		o.hostnames = []string{name}
	}
	pattern := regexp.MustCompile(hostnamePattern)
	for _, name := range o.hostnames {
		if net.ParseIP(name) == nil && (len(name) > 253 || !pattern.MatchString(name)) {
			return usagef("--hostname %q is neither a host name nor an IP address", name)
		}
	}
	v := &validator{}
	v.address("--imaps", o.imaps)
	v.address("--submissions", o.submissions)
	if o.api != "" {
		v.address("--api", o.api)
	}
	if len(v.problems) > 0 {
		return usagef("%s: %s", v.problems[0].key, v.problems[0].text)
	}
	return nil
}

func (o *initOptions) path(parts ...string) string {
	return filepath.Join(append([]string{o.dir}, parts...)...)
}

// madeFile is one of the things that init makes.
type madeFile struct {
	path, what string
}

// files lists what init makes; the configuration comes last, so that a
// directory that has one is whole.
func (o *initOptions) files() []madeFile {
	return []madeFile{
		{o.path(appPasswordKeyFile), "key of the app passwords: keep a copy, or all are void"},
		{o.path(adminTokenFile), "API token of the first admin: root and the server's user need none on this machine"},
		{o.path(sealedIdentityFile), "key of the credentials' file: keep a copy elsewhere"},
		{o.path(sealedFile), "mailboxes' credentials, encrypted; empty so far"},
		{o.path(workstationCADir, workstationca.KeyFile), "key of the workstation CA"},
		{o.path(workstationCADir, workstationca.CertificateFile), "certificate of the workstation CA: mail clients must trust it"},
		{o.path(tlsDir, certificateKey), "key of the server's certificate"},
		{o.path(tlsDir, certificateFile), "server's certificate for " + strings.Join(o.hostnames, ", ")},
		{o.path(configFile), "configuration"},
	}
}

// make makes everything, or leaves nothing of it behind.
func (o *initOptions) make() (err error) {
	for _, f := range o.files() {
		if _, err := os.Lstat(f.path); !errors.Is(err, fs.ErrNotExist) {
			return usagef("%s is there already; 'postern init' overwrites nothing", f.path)
		}
	}
	var made []string
	defer func() {
		// What is there all of a sudden is somebody else's.
		if err != nil && !errors.Is(err, fs.ErrExist) {
			for _, path := range slices.Backward(made) {
				err = errors.Join(err, ignoreNotExist(os.Remove(path)))
			}
		}
	}()
	for _, dir := range []string{o.dir, o.path(workstationCADir), o.path(tlsDir)} {
		isNew, err := makePrivateDir(dir)
		if err != nil {
			return err
		}
		if isNew {
			made = append(made, dir)
		}
	}
	for _, f := range o.files() {
		made = append(made, f.path)
	}
	made = append(made, o.path(sealedFile)+".lock") // broker/sealed's
	return o.write()
}

// makePrivateDir makes a directory of mode 0700, or finds it empty enough for
// others to have no business in it.
func makePrivateDir(dir string) (isNew bool, err error) {
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return false, err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if err == nil {
		return true, os.Chmod(dir, 0o700) // whatever the umask
	}
	if !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return false, usagef("%s is there and open to others (mode %04o): chmod 0700 it, or name another directory", dir, info.Mode().Perm())
	}
	return false, nil
}

// write makes the files. None of them is there.
func (o *initOptions) write() error {
	key := make([]byte, appPasswordKeySize)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	defer clear(key)
	if err := writeNew(o.path(appPasswordKeyFile), key, 0o600); err != nil {
		return err
	}
	token, err := newAdminToken(broker.NewSecret(key))
	if err != nil {
		return err
	}
	if err := writeNew(o.path(adminTokenFile), []byte(token+"\n"), 0o600); err != nil {
		return err
	}
	if _, err := sealed.Create(sealed.Config{Path: o.path(sealedFile), IdentityFile: o.path(sealedIdentityFile)}); err != nil {
		return err
	}
	ca, err := workstationca.Create(o.path(workstationCADir), workstationca.Config{})
	if err != nil {
		return err
	}
	certificate, certificateKeyPEM, err := ca.IssueServer(o.hostnames)
	if err != nil {
		return err
	}
	defer clear(certificateKeyPEM)
	if err := writeNew(o.path(tlsDir, certificateKey), certificateKeyPEM, 0o600); err != nil {
		return err
	}
	if err := writeNew(o.path(tlsDir, certificateFile), certificate, 0o644); err != nil {
		return err
	}
	text, err := template.New(configFile).Parse(initConfig)
	if err != nil {
		return err
	}
	var config bytes.Buffer
	if err := text.Execute(&config, map[string]string{
		"Hostname": o.greetingName(), "IMAPS": o.imaps, "Submissions": o.submissions, "API": o.api,
	}); err != nil {
		return err
	}
	return writeNew(o.path(configFile), config.Bytes(), 0o644)
}

// greetingName is what the server calls itself: a name, not an address.
func (o *initOptions) greetingName() string {
	for _, name := range o.hostnames {
		if net.ParseIP(name) == nil {
			return name
		}
	}
	return "localhost"
}

// tell says what was made, and what to do next.
func (o *initOptions) tell(out io.Writer) {
	fmt.Fprintf(out, "Made in %s:\n\n", o.dir)
	var rows [][]string
	for _, f := range o.files() {
		relative, err := filepath.Rel(o.dir, f.path)
		if err != nil {
			relative = f.path
		}
		rows = append(rows, []string{"  " + relative, f.what})
	}
	writeTable(out, []string{"  FILE", "WHAT IT IS"}, rows, "")
	next := fmt.Sprintf(`
Next, start the server, and in another terminal make a first firm:

  postern serve --config %[1]s

  export POSTERN_SOCKET=%[2]s
  postern firm create "Acme Pumps" --contact it@acme.example --domain acme.example

It prints a claim, for the firm. There, or here in a third terminal with the
same POSTERN_SOCKET for a trial, somebody redeems it and speaks for the firm from
then on. From elsewhere, --server HOST:8443 takes the socket's place, and
--ca names workstation-ca.pem.

  postern claim --name priya --save ./acme.token
  export POSTERN_TOKEN_FILE=./acme.token
  postern mailbox add sales@acme.example \
      --imap imap.provider.example --submission smtp.provider.example
  postern mailbox set-credential sales@acme.example
  postern delegation create sales@acme.example

Back in the second terminal, put an agent on it:

  postern agent add asha
  postern workstation add pune-07 --generate-key ./pune-07
  postern assignment create asha --mailbox sales@acme.example
  postern app-password create asha
`, shellQuote(o.path(configFile)), shellQuote(o.path(socketFile)))
	fmt.Fprint(out, strings.ReplaceAll(next, "\n  postern ", "\n  "+o.program+" "))
}

// calledAs is what a shell takes for this program: "postern" where that is
// installed, else how it was called.
func calledAs(argument string) string {
	if _, err := exec.LookPath("postern"); err != nil && filepath.Base(argument) == "postern" {
		return shellQuote(argument)
	}
	return "postern"
}

// shellQuote quotes what a POSIX shell would take for more than a word.
func shellQuote(s string) string {
	if regexp.MustCompile(`^[A-Za-z0-9_./@%+=:,-]+$`).MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
