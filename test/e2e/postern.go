// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/test/servers"
)

const (
	// readyTimeout is for the server to start and to reach its credentials.
	readyTimeout = 2 * time.Minute
	// cliTimeout is for one command; set-credential logs in twice.
	cliTimeout = 60 * time.Second
	pollEvery  = 20 * time.Millisecond
)

// Options say how Postern is set up.
type Options struct {
	// Vault keeps the credentials; nil: the sealed file does.
	Vault *servers.Vault
	// Issuer has Vault sign the workstations' certificates, beside the embedded
	// CA.
	Issuer bool
	// Rotates has the server replace passwords, with Vault.
	Rotates bool
	// Workstations is appended to the configuration's section of that name.
	Workstations string
	// Config is appended to the configuration file: further sections, such as
	// "limits:\n  authenticate_timeout: 2s\n". See Postern.ConfigFile for those
	// that are there.
	Config string
	// StorePath is the database's place; empty: in the data directory.
	StorePath string
	// Database is where the state is instead, and DatabasePort where Postern
	// connects to it; 0: at the server's own port.
	Database     *servers.Database
	DatabasePort uint16
	// Lease is the node's, with a Database; 0: the default.
	Lease time.Duration
	// Node is the node's name; empty: e2e.
	Node string
	// Env is added to the server's environment.
	Env []string
}

// Postern is a server in a process of its own, as one test sees it.
type Postern struct {
	*server
	t testing.TB
}

// For returns the same server for another test, a subtest of the one that
// started it: what fails then fails there.
func (p *Postern) For(t testing.TB) *Postern { return &Postern{p.server, t} }

// server is what all views of a Postern share.
type server struct {
	// Bin is the binary; Dir the data directory that `postern init` made, with
	// ConfigFile in it; Socket the management API's.
	Bin, Dir, ConfigFile, Socket string
	// CAFile is the CA that signed the server's certificate, for localhost and
	// 127.0.0.1: what mail clients must trust.
	CAFile string
	// The listeners' ports on 127.0.0.1.
	IMAPSPort, IMAPPort, SubmissionsPort, SubmissionPort, APIPort uint16
	// MetricsURL has /metrics, /healthz and /readyz below it.
	MetricsURL string
	// LogFile is what the server writes to standard output and error, over all
	// its starts.
	LogFile string

	options Options
	// workstations is the configuration's section of that name.
	workstations string
	child        *servers.Child
}

// StartPostern builds postern, runs `postern init`, writes the configuration
// and starts `postern serve`. It returns when the server is ready, and ends
// it when the test is over.
func StartPostern(t testing.TB, options Options) *Postern {
	t.Helper()
	home := servers.TempDir(t)
	if options.Node == "" {
		options.Node = "e2e"
	}
	p := &Postern{t: t, server: &server{
		options: options, Bin: servers.BuildPostern(t),
		Dir: filepath.Join(home, "data"), Socket: filepath.Join(home, "data", "api.sock"),
		LogFile: filepath.Join(home, "postern.log"),
	}}
	p.ConfigFile = filepath.Join(p.Dir, "e2e.yaml")
	p.CAFile = filepath.Join(p.Dir, "workstation-ca", "workstation-ca.pem")
	p.run("", "init", "--dir", p.Dir, "--hostname", "localhost", "--hostname", "127.0.0.1")
	vault := p.vaultConfig()
	p.workstations = p.workstationsConfig()
	p.startFirst(vault)
	return p
}

// Beside starts a second node on the same database, with the same keys and
// sealed credentials as the first has then.
func (p *Postern) Beside(t testing.TB, node string) *Postern {
	t.Helper()
	home := servers.TempDir(t)
	second := &Postern{t: t, server: &server{
		options: p.options, Bin: p.Bin,
		Dir: filepath.Join(home, "data"), Socket: filepath.Join(home, "data", "api.sock"),
		LogFile: filepath.Join(home, "postern.log"),
	}}
	second.options.Node = node
	second.ConfigFile = filepath.Join(second.Dir, "e2e.yaml")
	second.CAFile = filepath.Join(second.Dir, "workstation-ca", "workstation-ca.pem")
	if err := os.Mkdir(second.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"app-password.key", "credentials.key", "credentials.age", "workstation-ca", "tls"} {
		out, err := exec.Command("cp", "-a", filepath.Join(p.Dir, name), second.Dir).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	second.workstations = p.workstations
	second.startFirst("")
	return second
}

// startFirst starts the server for the first time.
func (p *Postern) startFirst(vault string) {
	t := p.t
	t.Helper()
	t.Cleanup(p.finish)
	// Another program may have taken a port between the choice and the start.
	const attempts = 3
	for attempt := 1; ; attempt++ {
		p.choosePorts()
		p.write(p.ConfigFile, p.config(vault))
		err := p.start()
		if err == nil {
			return
		}
		if attempt == attempts || !bytes.Contains(p.Logs(), []byte("address already in use")) {
			t.Fatal(err)
		}
	}
}

func (p *Postern) choosePorts() {
	p.IMAPSPort, p.IMAPPort = servers.FreePort(p.t), servers.FreePort(p.t)
	p.SubmissionsPort, p.SubmissionPort = servers.FreePort(p.t), servers.FreePort(p.t)
	p.APIPort = servers.FreePort(p.t)
	p.MetricsURL = fmt.Sprintf("http://127.0.0.1:%d", servers.FreePort(p.t))
}

// start starts the server and waits until it is ready.
func (p *Postern) start() error {
	child, err := servers.StartChild(p.LogFile, p.options.Env, p.Bin, "serve", "--config", p.ConfigFile)
	if err != nil {
		return err
	}
	p.child = child
	var answer string
	for end := time.Now().Add(readyTimeout); ; {
		ready := false
		if ready, answer = p.Ready(); ready {
			return nil
		}
		if child.Ended() || time.Now().After(end) {
			err := p.child.Kill()
			p.child = nil
			return fmt.Errorf("postern does not become ready (%v): %s\n%s", err, answer, tail(p.Logs()))
		}
		time.Sleep(pollEvery)
	}
}

// Ready asks /readyz: whether agents could be let in, and the answer.
func (p *Postern) Ready() (bool, string) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(p.MetricsURL + "/readyz")
	if err != nil {
		return false, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, err.Error()
	}
	return resp.StatusCode == http.StatusOK, string(body)
}

// PID is the server's process id.
func (p *Postern) PID() int { return p.child.PID() }

// Signal sends the server a signal.
func (p *Postern) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.child.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// Ended reports whether the server is gone.
func (p *Postern) Ended() bool { return p.child == nil || p.child.Ended() }

// Kill ends the server at once (SIGKILL).
func (p *Postern) Kill() {
	p.t.Helper()
	if p.child == nil {
		return
	}
	if err := p.child.Kill(); err != nil {
		p.t.Errorf("kill postern: %v", err)
	}
	p.child = nil
}

// Stop ends the server in order (SIGTERM): a test fails whose server does not
// stop by itself with exit code 0. Stopping twice does nothing.
func (p *Postern) Stop() {
	p.t.Helper()
	if p.child == nil {
		return
	}
	if err := p.child.Stop(); err != nil {
		p.t.Errorf("postern did not stop in order: %v", err)
	}
	p.child = nil
}

// Restart starts the server again on the same state and ports, after Kill or
// Stop, or stops it first.
func (p *Postern) Restart() {
	p.t.Helper()
	p.Stop()
	if err := p.start(); err != nil {
		p.t.Fatal(err)
	}
}

// finish ends the server with its test, and looks for faults in its log.
func (p *Postern) finish() {
	p.Stop()
	logs := p.Logs()
	for _, fault := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
		if bytes.Contains(logs, []byte(fault)) {
			p.t.Errorf("postern's log has %q", fault)
		}
	}
	if p.t.Failed() {
		p.t.Logf("postern's log:\n%s", tail(logs))
	}
}

// Logs returns all that the server wrote to standard output and error.
func (p *Postern) Logs() []byte {
	p.t.Helper()
	b, err := os.ReadFile(p.LogFile)
	if err != nil && !os.IsNotExist(err) {
		p.t.Fatal(err)
	}
	return b
}

// DatabaseFiles returns the files of the state's database that are there.
func (p *Postern) DatabaseFiles() []string {
	p.t.Helper()
	files, err := filepath.Glob(p.StorePath() + "*")
	if err != nil {
		p.t.Fatal(err)
	}
	return files
}

// StorePath is the database's path.
func (p *Postern) StorePath() string {
	if p.options.StorePath != "" {
		return p.options.StorePath
	}
	return filepath.Join(p.Dir, "postern.db")
}

// Roots holds the CA of the server's certificate.
func (p *Postern) Roots() *x509.CertPool {
	p.t.Helper()
	b, err := os.ReadFile(p.CAFile)
	if err != nil {
		p.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		p.t.Fatalf("%s holds no certificate", p.CAFile)
	}
	return pool
}

// CLI runs a management command against the server and returns its standard
// output; a command that fails ends the test.
func (p *Postern) CLI(args ...string) string {
	p.t.Helper()
	return p.CLIInput("", args...)
}

// CLIInput is CLI with something on standard input.
func (p *Postern) CLIInput(stdin string, args ...string) string {
	p.t.Helper()
	return p.run(stdin, append([]string{"--socket", p.Socket}, args...)...)
}

// TryCLI is CLIInput for a command that may fail: it returns both outputs and
// the exit code.
func (p *Postern) TryCLI(stdin string, args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	return p.exec(stdin, append([]string{"--socket", p.Socket}, args...)...)
}

// Remote runs a management command over TLS, with the token in a file (none if
// it is empty), as somebody elsewhere does.
func (p *Postern) Remote(tokenFile, stdin string, args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	return p.exec(stdin, append([]string{
		"--server", fmt.Sprintf("127.0.0.1:%d", p.APIPort), "--ca", p.CAFile, "--token-file", tokenFile,
	}, args...)...)
}

func (p *Postern) run(stdin string, args ...string) string {
	p.t.Helper()
	stdout, stderr, code := p.exec(stdin, args...)
	if code != 0 {
		p.t.Fatalf("postern %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

func (p *Postern) exec(stdin string, args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	var out, problems bytes.Buffer
	cmd := exec.Command(p.Bin, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &problems
	// What a command leaves running must not hold the test up.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	timer := time.AfterFunc(cliTimeout, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait() // the exit code tells
	return out.String(), problems.String(), cmd.ProcessState.ExitCode()
}

func (p *Postern) write(path, content string) {
	p.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// tail returns the end of a log.
func tail(log []byte) []byte {
	const most = 16 << 10
	if len(log) > most {
		log = log[len(log)-most:]
	}
	return log
}
