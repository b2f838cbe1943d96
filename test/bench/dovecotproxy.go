// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// dovecotHow says what Dovecot's proxy was configured to do.
const dovecotHow = "Dovecot's proxy: an instance of its own, login processes in high-performance mode (`service_count = 0`, 2 of each), " +
	"users, their passwords and the mailboxes' in a passwd-file, its records in its log file. No policy, no client certificate."

// startDovecotProxy starts a Dovecot that has no mail and passes every login
// on to the provider.
func startDovecotProxy(h *harness, p *provider, agents int) *proxy {
	servers.NeedPrograms(h, map[string]string{"dovecot": "dovecot-imapd"})
	if _, err := os.Stat("/usr/lib/dovecot/submission-login"); err != nil {
		h.Fatal("programs are missing: install [dovecot-submissiond]")
	}
	d := newPeer(h, "Dovecot", "/usr/sbin/dovecot", agents, p.ca.Pool())
	d.args = []string{"-F", "-c", d.config}
	for service, port := range map[string]uint16{
		"imap": p.dovecot.IMAP(broker.TLSNone).Port, "submission": p.submission(broker.TLSNone).Port,
	} {
		var users strings.Builder
		for i := range mailboxes {
			address := mailbox("plain", i)
			fmt.Fprintf(&users, "%s:{PLAIN}%s::::::proxy=y host=127.0.0.1 port=%d pass=%s\n", address, agentPassword, port, p.passwords[address])
		}
		if err := os.WriteFile(filepath.Join(d.dir, "users."+service), []byte(users.String()), 0o644); err != nil {
			h.Fatal(err)
		}
	}
	certificate := p.ca.Issue()
	d.text = func(imaps, submissions uint16) string {
		return fmt.Sprintf(dovecotProxyConfig, d.dir, certificate.CertFile, certificate.KeyFile, imaps, submissions)
	}
	d.start()
	return &d.proxy
}

const dovecotProxyConfig = `
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = imap submission
listen = 127.0.0.1
hostname = localhost
submission_relay_host = 127.0.0.1
ssl = required
ssl_cert = <%[2]s
ssl_key = <%[3]s
ssl_options = no_ticket
auth_mechanisms = plain login
auth_failure_delay = 0
passdb {
  driver = passwd-file
  args = %[1]s/users.%%s
}
userdb {
  driver = static
  args = uid=mail gid=mail home=/nonexistent
}
service imap-login {
  service_count = 0
  client_limit = 9000
  process_min_avail = 2
  process_limit = 2
  vsz_limit = 1G
  inet_listener imap {
    port = 0
  }
  inet_listener imaps {
    port = %[4]d
    ssl = yes
  }
}
service submission-login {
  service_count = 0
  client_limit = 9000
  process_min_avail = 2
  process_limit = 2
  vsz_limit = 1G
  inet_listener submission {
    port = 0
  }
  inet_listener submissions {
    port = %[5]d
    ssl = yes
  }
}
service anvil {
  client_limit = 20000
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  client_limit = 20000
}
`
