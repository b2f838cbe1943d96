// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/postern-mail/postern/test/servers"
)

// nginxHow says what nginx was configured to do.
const nginxHow = "nginx's mail proxy: 2 workers, `ssl_session_cache off`, `ssl_session_tickets off`, `xclient off`, " +
	"`proxy_smtp_auth on`, its default buffers (one page); each login asks an auth server written in Go, in a process of its own, which " +
	"compares one password and answers with the mailbox's. No policy, no record, no client certificate."

const nginxModule = "/usr/lib/nginx/modules/ngx_mail_module.so"

// startNginx starts nginx as a mail proxy before the provider, with its auth
// server.
func startNginx(h *harness, p *provider, agents int) *proxy {
	servers.NeedPrograms(h, map[string]string{"nginx": "nginx"})
	if _, err := os.Stat(nginxModule); err != nil {
		h.Fatal("programs are missing: install [libnginx-mod-mail]")
	}
	auth := startAuthServer(h, p)
	n := newPeer(h, "nginx", "/usr/sbin/nginx", agents, p.ca.Pool())
	n.args = []string{"-c", n.config, "-p", n.dir, "-g", "daemon off;"}
	certificate := p.ca.Issue()
	n.text = func(imaps, submissions uint16) string {
		return fmt.Sprintf(`load_module %[1]s;
user www-data;
worker_processes 2;
worker_rlimit_nofile 20000;
pid %[2]s/pid;
error_log %[2]s/log warn;
events {
  worker_connections 9000;
}
mail {
  server_name localhost;
  auth_http 127.0.0.1:%[3]d/;
  ssl_certificate %[4]s;
  ssl_certificate_key %[5]s;
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_cache off;
  ssl_session_tickets off;
  xclient off;
  proxy_timeout 1h;
  imap_auth plain login;
  smtp_auth plain login;
  server {
    listen 127.0.0.1:%[6]d ssl backlog=4096;
    protocol imap;
    proxy on;
  }
  server {
    listen 127.0.0.1:%[7]d ssl backlog=4096;
    protocol smtp;
    proxy on;
    proxy_smtp_auth on;
  }
}
`, nginxModule, n.dir, auth.port, certificate.CertFile, certificate.KeyFile, imaps, submissions)
	}
	n.proxy.helpers = func() ([]int, error) { return []int{auth.child.PID()}, nil }
	n.start()
	return &n.proxy
}
