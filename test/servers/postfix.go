// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// Postfix is a running Postfix that takes mail from users of a Dovecot, whom
// it authenticates there, and delivers what is for the test's domains into
// their mailboxes. No mail leaves the machine: other domains are bounced.
type Postfix struct {
	// SubmissionsPort is implicit TLS. SubmissionPort demands STARTTLS before
	// AUTH. PlainPort takes AUTH without TLS, for what must be seen on the wire.
	SubmissionsPort uint16
	SubmissionPort  uint16
	PlainPort       uint16
	// LogFile is Postfix's log.
	LogFile string

	t        testing.TB
	dir      string
	dovecot  *Dovecot
	settings postfixSettings
	process  *process
}

type postfixSettings struct {
	ca          *CA
	certificate *Certificate
	logins      map[string]string
	extra       string
}

// PostfixOption changes how Postfix is set up.
type PostfixOption func(*postfixSettings)

// WithPostfixCertificate sets the server's certificate: an expired one, or
// one with a wrong name.
func WithPostfixCertificate(c *Certificate) PostfixOption {
	return func(s *postfixSettings) { s.certificate = c }
}

// WithSenderLogins lets each sender address be used by its login alone, as
// providers do; without it anybody may send as anybody.
func WithSenderLogins(loginOf map[string]string) PostfixOption {
	return func(s *postfixSettings) { s.logins = loginOf }
}

// WithPostfixConfig adds lines to the end of main.cf.
func WithPostfixConfig(lines string) PostfixOption {
	return func(s *postfixSettings) { s.extra += lines + "\n" }
}

// queueFolders and what may be done in them, as `postfix check` makes them;
// those of group are shared with the programs that submit mail locally.
var queueFolders = []struct {
	name  string
	mode  os.FileMode
	owned bool
	group bool
}{
	{"", 0o755, false, false},
	{"pid", 0o755, false, false},
	{"active", 0o700, true, false},
	{"bounce", 0o700, true, false},
	{"corrupt", 0o700, true, false},
	{"defer", 0o700, true, false},
	{"deferred", 0o700, true, false},
	{"flush", 0o700, true, false},
	{"hold", 0o700, true, false},
	{"incoming", 0o700, true, false},
	{"private", 0o700, true, false},
	{"saved", 0o700, true, false},
	{"trace", 0o700, true, false},
	{"maildrop", 0o730, true, true},
	{"public", 0o710, true, true},
}

// StartPostfix starts Postfix before a Dovecot that runs already, and returns
// when it answers. The domains and recipients are those of Dovecot's users at
// that moment. It needs root, as Postfix itself does.
func StartPostfix(t testing.TB, ca *CA, dovecot *Dovecot, options ...PostfixOption) *Postfix {
	t.Helper()
	NeedPrograms(t, map[string]string{"postconf": "postfix"})
	if os.Getuid() != 0 {
		t.Fatal("postfix runs as root alone: run this test as root")
	}
	p := &Postfix{t: t, dovecot: dovecot, settings: postfixSettings{ca: ca}}
	for _, option := range options {
		option(&p.settings)
	}
	if p.settings.certificate == nil {
		p.settings.certificate = ca.Issue()
	}
	p.dir = tempDir(t)
	p.LogFile = filepath.Join(p.dir, "mail.log")
	p.prepareFolders()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("postfix's log:\n%s", logTail(p.LogFile))
		}
	})
	t.Cleanup(p.Stop)
	// Another program may have taken a port between the choice and the start.
	const attempts = 3
	for attempt := 1; ; attempt++ {
		p.SubmissionsPort, p.SubmissionPort, p.PlainPort = FreePort(t), FreePort(t), FreePort(t)
		p.writeConfig()
		if p.start() {
			return p
		}
		if attempt == attempts || !strings.Contains(logTail(p.LogFile), "Address already in use") {
			t.Fatalf("postfix does not start:\n%s", logTail(p.LogFile))
		}
	}
}

func (p *Postfix) prepareFolders() {
	p.t.Helper()
	owner, err := user.Lookup("postfix")
	if err != nil {
		p.t.Fatalf("install postfix: %v", err)
	}
	group, err := user.LookupGroup("postdrop")
	if err != nil {
		p.t.Fatalf("install postfix: %v", err)
	}
	uid, gid, drop := number(p.t, owner.Uid), number(p.t, owner.Gid), number(p.t, group.Gid)
	makeFolder := func(path string, mode os.FileMode, uid, gid int) {
		if err := os.Mkdir(path, 0o700); err != nil {
			p.t.Fatal(err)
		}
		if err := os.Chown(path, uid, gid); err != nil {
			p.t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			p.t.Fatal(err)
		}
	}
	makeFolder(filepath.Join(p.dir, "config"), 0o755, 0, 0)
	makeFolder(filepath.Join(p.dir, "data"), 0o700, uid, gid)
	for _, f := range queueFolders {
		folderUID, folderGID := 0, 0
		if f.owned {
			folderUID = uid
		}
		if f.group {
			folderGID = drop
		}
		makeFolder(filepath.Join(p.dir, "queue", f.name), f.mode, folderUID, folderGID)
	}
}

func number(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (p *Postfix) writeConfig() {
	p.t.Helper()
	config := filepath.Join(p.dir, "config")
	writeFile(p.t, filepath.Join(config, "main.cf"), p.mainConfig(), 0o644)
	writeFile(p.t, filepath.Join(config, "master.cf"), p.masterConfig(), 0o644)
	var recipients, domains strings.Builder
	seen := make(map[string]bool)
	for _, name := range p.dovecot.Users() {
		fmt.Fprintf(&recipients, "%s OK\n", name)
		if _, domain, _ := strings.Cut(name, "@"); domain != "" && !seen[domain] {
			seen[domain] = true
			fmt.Fprintf(&domains, "%s OK\n", domain)
		}
	}
	writeFile(p.t, filepath.Join(config, "recipients"), recipients.String(), 0o644)
	writeFile(p.t, filepath.Join(config, "domains"), domains.String(), 0o644)
	var logins strings.Builder
	for _, sender := range slices.Sorted(maps.Keys(p.settings.logins)) {
		fmt.Fprintf(&logins, "%s %s\n", sender, p.settings.logins[sender])
	}
	writeFile(p.t, filepath.Join(config, "logins"), logins.String(), 0o644)
}

func (p *Postfix) mainConfig() string {
	senderRule := ""
	if p.settings.logins != nil {
		senderRule = "smtpd_sender_restrictions = reject_sender_login_mismatch\n"
	}
	return fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
myhostname = mail.client.example
mydestination =
mynetworks =
inet_interfaces = loopback-only
inet_protocols = ipv4
local_recipient_maps =
alias_maps =
alias_database =
smtp_host_lookup = native
lmtp_host_lookup = native
disable_dns_lookups = yes
default_transport = error:this test sends nothing out
relay_transport = error:this test sends nothing out
virtual_mailbox_domains = texthash:%[1]s/config/domains
virtual_mailbox_maps = texthash:%[1]s/config/recipients
virtual_transport = lmtp:inet:[127.0.0.1]:%[2]d
recipient_delimiter = +
message_size_limit = 67108864
smtpd_tls_cert_file = %[3]s
smtpd_tls_key_file = %[4]s
smtpd_tls_security_level = may
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %[5]s
smtpd_sasl_security_options = noanonymous
smtpd_sender_login_maps = texthash:%[1]s/config/logins
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = reject_unlisted_recipient, permit_sasl_authenticated, reject
smtpd_error_sleep_time = 0
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
default_process_limit = 500
minimal_backoff_time = 1s
maximal_backoff_time = 5s
queue_run_delay = 1s
%[6]s%[7]s`, p.dir, p.dovecot.LMTPPort, p.settings.certificate.CertFile, p.settings.certificate.KeyFile,
		p.dovecot.AuthSocket, senderRule, p.settings.extra)
}

// masterConfig lists the services, none of them in a chroot.
func (p *Postfix) masterConfig() string {
	return fmt.Sprintf(`127.0.0.1:%d inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
127.0.0.1:%d inet n - n - - smtpd
  -o smtpd_tls_auth_only=yes
127.0.0.1:%d inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`, p.SubmissionsPort, p.SubmissionPort, p.PlainPort)
}

func (p *Postfix) start() bool {
	p.t.Helper()
	master := filepath.Join(p.daemonFolder(), "master")
	process, err := startProcess(p.LogFile, master, "-c", filepath.Join(p.dir, "config"), "-d")
	if err != nil {
		p.t.Fatalf("start postfix: %v", err)
	}
	p.process = process
	up := waitFor(startTimeout, func() bool {
		return process.ended() || answers(p.SubmissionsPort) && answers(p.SubmissionPort) && answers(p.PlainPort)
	})
	if up && !process.ended() {
		return true
	}
	if err := process.kill(); err != nil {
		p.t.Errorf("postfix: %v", err)
	}
	return false
}

func (p *Postfix) daemonFolder() string {
	for _, dir := range []string{"/usr/lib/postfix/sbin", "/usr/libexec/postfix"} {
		if _, err := os.Stat(filepath.Join(dir, "master")); err == nil {
			return dir
		}
	}
	p.t.Fatal("programs are missing: install [postfix]")
	return ""
}

// Stop ends Postfix in an orderly way; stopping twice does nothing.
func (p *Postfix) Stop() { p.end((*process).stop) }

// Kill ends Postfix and every process of its at once, without a word to
// clients.
func (p *Postfix) Kill() { p.end((*process).kill) }

func (p *Postfix) end(how func(*process) error) {
	p.t.Helper()
	if p.process == nil {
		return
	}
	if err := how(p.process); err != nil {
		p.t.Errorf("end postfix: %v", err)
	}
	p.process = nil
	WaitFor(p.t, killTimeout, func() bool { return !answers(p.SubmissionsPort) && !answers(p.SubmissionPort) }, "postfix's ports to close")
}

// Restart starts Postfix again on the same ports and the same queue, after
// Stop or Kill, or stops it first.
func (p *Postfix) Restart() {
	p.t.Helper()
	p.Stop()
	if !p.start() {
		p.t.Fatalf("postfix does not start again:\n%s", logTail(p.LogFile))
	}
}

// Submission returns the endpoint for a mailbox: with TLSImplicit,
// TLSStartTLS or TLSNone, and the CA.
func (p *Postfix) Submission(mode broker.TLSMode) broker.Endpoint {
	e := broker.Endpoint{Host: "127.0.0.1", TLS: mode, CA: string(p.settings.ca.PEM)}
	switch mode {
	case broker.TLSImplicit:
		e.Port = p.SubmissionsPort
	case broker.TLSStartTLS:
		e.Port = p.SubmissionPort
	default:
		e.Port, e.CA = p.PlainPort, ""
	}
	return e
}
