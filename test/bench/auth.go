// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// authServerFlag makes this program nginx's auth server (ngx_mail_auth_http):
// "address,imap-port,smtp-port".
const authServerFlag = "auth-server"

// authServer is that server in a process of its own.
type authServer struct {
	port  uint16
	child *servers.Child
}

func startAuthServer(h *harness, p *provider) *authServer {
	self, err := os.Executable()
	if err != nil {
		h.Fatal(err)
	}
	a := &authServer{port: servers.FreePort(h)}
	log := filepath.Join(h.TempDir(), "auth.log")
	a.child, err = servers.StartChild(log, nil, self, fmt.Sprintf("-%s=127.0.0.1:%d,%d,%d",
		authServerFlag, a.port, p.dovecot.IMAP(broker.TLSNone).Port, p.submission(broker.TLSNone).Port))
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = a.child.Stop() })
	servers.WaitFor(h, peerStartTimeout, func() bool { return a.child.Ended() || listens(a.port) }, "nginx's auth server")
	if a.child.Ended() {
		b, _ := os.ReadFile(log)
		h.Fatalf("nginx's auth server ended:\n%s", b)
	}
	return a
}

// serveAuth answers nginx: the password is right or not, and where the mailbox
// is with which password. It does the least that such a server can do.
func serveAuth(spec string) error {
	parts := strings.Split(spec, ",")
	if len(parts) != 3 {
		return fmt.Errorf("-%s: address,imap-port,smtp-port", authServerFlag)
	}
	return http.ListenAndServe(parts[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Auth-Pass")), []byte(agentPassword)) != 1 {
			h.Set("Auth-Status", "Invalid login or password")
			return
		}
		port := parts[1]
		if r.Header.Get("Auth-Protocol") == "smtp" {
			port = parts[2]
		}
		h.Set("Auth-Status", "OK")
		h.Set("Auth-Server", "127.0.0.1")
		h.Set("Auth-Port", port)
		h.Set("Auth-Pass", "provider-plain")
	}))
}
