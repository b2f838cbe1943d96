// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Rsyslog is a log host: rsyslogd that takes syslog over TLS from clients with a
// certificate of its CA for the name "postern".
type Rsyslog struct {
	CA   *CA
	Port uint16
	// File has a line for each message: its STRUCTURED-DATA and its text.
	File string

	t       testing.TB
	dir     string
	logFile string
	process *process
}

// StartRsyslog starts one on 127.0.0.1, and ends it when the test is over.
func StartRsyslog(t testing.TB) *Rsyslog {
	t.Helper()
	NeedPrograms(t, map[string]string{"rsyslogd": "rsyslog"})
	const driver = "/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so"
	if found, err := filepath.Glob(strings.Replace(driver, "x86_64-linux-gnu", "*", 1)); err != nil || len(found) == 0 {
		t.Fatalf("rsyslogd has no TLS: install the package rsyslog-gnutls")
	}
	r := &Rsyslog{t: t, CA: NewCA(t), dir: tempDir(t)}
	r.File, r.logFile = filepath.Join(r.dir, "messages"), filepath.Join(r.dir, "rsyslogd.log")
	t.Cleanup(func() {
		r.Kill()
		if t.Failed() {
			t.Logf("rsyslogd's log:\n%s", logTail(r.logFile))
		}
	})
	certificate := r.CA.Issue("localhost", "127.0.0.1")
	// Another program may have taken a port between the choice and the start.
	const attempts = 3
	for attempt := 1; ; attempt++ {
		r.Port = FreePort(t)
		writeFile(t, filepath.Join(r.dir, "rsyslog.conf"), fmt.Sprintf(`
global(workDirectory=%q maxMessageSize="64k" defaultNetstreamDriver="gtls"
       defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/name" permittedPeer=["postern"])
input(type="imtcp" address="127.0.0.1" port="%d")
template(name="line" type="string" string="%%structured-data%% %%msg%%\n")
action(type="omfile" file=%q template="line")
`, r.dir, r.CA.File, certificate.CertFile, certificate.KeyFile, r.Port, r.File), 0o600)
		if r.Start() {
			return r
		}
		if attempt == attempts {
			t.Fatalf("rsyslogd does not start:\n%s", logTail(r.logFile))
		}
	}
}

// Start starts it, again after Kill, and reports whether it listens.
func (r *Rsyslog) Start() bool {
	r.t.Helper()
	p, err := startProcess(r.logFile, "rsyslogd", "-n", "-f", filepath.Join(r.dir, "rsyslog.conf"), "-i", filepath.Join(r.dir, "rsyslogd.pid"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.process = p
	for end := time.Now().Add(startTimeout); time.Now().Before(end) && !p.ended(); time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.Port))
		if err == nil {
			_ = conn.Close()
			return true
		}
	}
	r.Kill()
	return false
}

// Kill ends it at once.
func (r *Rsyslog) Kill() {
	r.t.Helper()
	if r.process == nil {
		return
	}
	if err := r.process.kill(); err != nil {
		r.t.Errorf("kill rsyslogd: %v", err)
	}
	r.process = nil
	if err := os.Remove(filepath.Join(r.dir, "rsyslogd.pid")); err != nil && !os.IsNotExist(err) {
		r.t.Error(err)
	}
}
