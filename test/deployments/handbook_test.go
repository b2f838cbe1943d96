// SPDX-License-Identifier: Apache-2.0

package deployments

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// The handbook's mailbox.
const (
	mailbox  = "sales@acme.example"
	password = "Marked?handbook"
)

// TestHandbook is an operator who has deployments/README.md and nothing else:
// he sets Vault up, starts the unit, and an agent works in a mailbox; then the
// handbook's reload, upgrade, backup and restore.
func TestHandbook(t *testing.T) {
	bin := servers.BuildPostern(t)
	vault := servers.StartVault(t)
	dovecot := servers.StartDovecot(t, servers.WithUser(mailbox, password))
	postfix := servers.StartPostfix(t, dovecot.CA, dovecot, servers.WithSenderLogins(map[string]string{mailbox: mailbox}))
	m := newMachine(t)
	o := &operator{t: t, machine: m, dir: servers.TempDir(t), address: loopback(t)}
	for _, cp := range [][]string{{"-a", deployed(), o.dir + "/deployments"}, {bin, o.dir + "/postern"}, {vault.CAFile, o.dir + "/vault-ca.pem"}} {
		if out, err := exec.Command("cp", cp...).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
	}
	imap, submission := dovecot.IMAP(broker.TLSImplicit), postfix.Submission(broker.TLSImplicit)
	o.replace = strings.NewReplacer(
		// This machine's other services may have the ports of all addresses.
		`":993"`, fmt.Sprintf("%q", o.address+":993"), `":465"`, fmt.Sprintf("%q", o.address+":465"),
		`":8443"`, fmt.Sprintf("%q", o.address+":8443"),
		"127.0.0.1:9464", o.address+":9464",
		"https://vault.example:8200", vault.Addr,
		"/var/log/vault-audit.log", filepath.Join(t.TempDir(), "audit.log"),
		"imap.provider.example", fmt.Sprintf("%s:%d --ca-file %s", imap.Host, imap.Port, dovecot.CA.File),
		"smtp.provider.example", fmt.Sprintf("%s:%d", submission.Host, submission.Port),
	)
	// The journal is not there: what the unit says goes to a file.
	log := filepath.Join(o.dir, "postern.log")
	m.run("mkdir -p /etc/systemd/system/postern.service.d\nprintf '[Service]\\nStandardError=append:" + log + "\\n' >/etc/systemd/system/postern.service.d/log.conf")
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(log)
			t.Logf("postern's log:\n%s", b)
		}
	})

	blocks := testedBlocks(t)
	out := o.follow("VAULT_TOKEN="+vault.RootToken, blocks)
	token := regexp.MustCompile(`(?m)^App password:\s+(\S+)$`).FindStringSubmatch(out)
	if token == nil {
		t.Fatalf("no app password in:\n%s", out)
	}
	o.confined()
	o.session(token[1])
	for _, line := range strings.Split(read(t, log), "\n") {
		if regexp.MustCompile(`"level":"(warn|error)"`).MatchString(line) && !strings.Contains(line, "not ready") {
			t.Errorf("the unit's rules, or something else, are in the way: %s", line)
		}
	}
	if got := strings.TrimSpace(m.run("systemctl show --property NRestarts --value postern")); got != "0" {
		t.Errorf("systemd restarted it %s times", got)
	}
	if events := m.run("postern log events --type state.restored"); !strings.Contains(events, "state.restored") {
		t.Errorf("the restore is not in the log:\n%s", events)
	}
	// A crash is no reason to stay down.
	m.run("kill -KILL $(systemctl show --property MainPID --value postern)")
	servers.WaitFor(t, bootTimeout, func() bool {
		return strings.TrimSpace(m.run("systemctl show --property NRestarts --property ActiveState --value postern | tr '\\n' ' '")) == "1 active"
	}, "systemd to restart it")
	o.session(token[1])
	m.run("systemctl stop postern")
	if state := m.run("systemctl show --property Result --value postern"); strings.TrimSpace(state) != "success" {
		t.Errorf("stopping: %s", state)
	}
}

// loopback is an address of this machine's own where the standard ports are
// free.
func loopback(t *testing.T) string {
	t.Helper()
next:
	for i := 1; i < 250; i++ {
		address := fmt.Sprintf("127.93.46.%d", i)
		for _, port := range []string{"993", "465", "8443", "9464"} {
			l, err := net.Listen("tcp", net.JoinHostPort(address, port))
			if err != nil {
				continue next
			}
			l.Close()
		}
		return address
	}
	t.Fatal("no loopback address has free ports")
	return ""
}

// testedBlocks returns the handbook's blocks that are marked.
func testedBlocks(t *testing.T) []string {
	t.Helper()
	var blocks []string
	for _, found := range regexp.MustCompile("(?ms)^```sh tested\n(.*?)^```$").FindAllStringSubmatch(read(t, deployed("README.md")), -1) {
		blocks = append(blocks, found[1])
	}
	if len(blocks) < 10 {
		t.Fatalf("the handbook has %d tested blocks", len(blocks))
	}
	return blocks
}

// operator follows the handbook on a machine.
type operator struct {
	t            *testing.T
	machine      *machine
	dir, address string
	replace      *strings.Replacer
}

// follow runs the blocks in one shell, with the mailbox's password on its
// standard input, as he types it.
func (o *operator) follow(env string, blocks []string) string {
	o.t.Helper()
	script := "export " + env + "\ncd " + o.dir + "\n" + o.replace.Replace(strings.Join(blocks, "\n"))
	file := filepath.Join(o.dir, "handbook.sh")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		o.t.Fatal(err)
	}
	return o.machine.run("echo '" + password + "' | sh -eux " + file)
}

// confined finds the unit's rules in force, and them alone.
func (o *operator) confined() {
	o.t.Helper()
	status := o.machine.run("cat /proc/$(systemctl show --property MainPID --value postern)/status")
	for field, want := range map[string]string{
		"NoNewPrivs": "1", "Seccomp": "2",
		// CAP_NET_BIND_SERVICE is number 10.
		"CapEff": "0000000000000400", "CapBnd": "0000000000000400", "CapAmb": "0000000000000400",
	} {
		if !regexp.MustCompile(`(?m)^` + field + `:\s+` + want + `$`).MatchString(status) {
			o.t.Errorf("%s is not %s:\n%s", field, want, status)
		}
	}
	if regexp.MustCompile(`(?m)^Uid:\s+0\b`).MatchString(status) {
		o.t.Error("it runs as root")
	}
	metrics := o.machine.run("curl -sf http://" + o.address + ":9464/metrics")
	for _, metric := range []string{"process_open_fds", "process_resident_memory_bytes"} {
		if !strings.Contains(metrics, "\n"+metric) {
			o.t.Errorf("no metric %s under the unit's rules: %s", metric, regexp.MustCompile(`(?m)^process_.*$`).FindAllString(metrics, -1))
		}
	}
}

// session is the agent's: his workstation's key, his app password.
func (o *operator) session(token string) {
	o.t.Helper()
	pem := o.machine.run("cat /var/lib/postern/workstation-ca/workstation-ca.pem")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(pem))
	certificate, err := tls.LoadX509KeyPair(filepath.Join(o.dir, "pune-07", "pune-07.crt"), filepath.Join(o.dir, "pune-07", "pune-07.key"))
	if err != nil {
		o.t.Fatal(err)
	}
	dialer := &tls.Dialer{
		NetDialer: &net.Dialer{Timeout: bootTimeout},
		Config:    &tls.Config{RootCAs: roots, ServerName: "mail.bpo.example", Certificates: []tls.Certificate{certificate}},
	}
	for port, talk := range map[string][][2]string{
		"993": {
			{"", "* OK"},
			{"a LOGIN " + mailbox + " " + token, "a OK"},
			{"b SELECT INBOX", "b OK"},
			{"c LOGOUT", "c OK"},
		},
		"465": {
			{"", "220 "},
			{"EHLO pune-07.example", "250 "},
			{"QUIT", "221 "},
		},
	} {
		c, err := dialer.DialContext(o.t.Context(), "tcp", net.JoinHostPort(o.address, port))
		if err != nil {
			o.t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(bootTimeout)); err != nil {
			o.t.Fatal(err)
		}
		lines := bufio.NewReader(c)
		for _, step := range talk {
			if step[0] != "" {
				fmt.Fprintf(c, "%s\r\n", step[0])
			}
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					o.t.Fatalf("after %q: %v", step[0], err)
				}
				if strings.HasPrefix(line, step[1]) {
					break
				}
				if strings.HasPrefix(line, step[1][:2]) && !strings.HasPrefix(line, "* ") && line[3] != '-' {
					o.t.Fatalf("after %q: %s", step[0], line)
				}
			}
		}
	}
}
