// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/workstationca"
)

// remote runs the command line over TLS, with a token from a file.
func (r *running) remote(stdin, tokenFile string, args ...string) (code int, stdout, stderr string) {
	r.t.Helper()
	args = append(args, "--server", r.APIAddr().String(), "--ca", filepath.Join(r.dir, workstationCADir, "workstation-ca.pem"),
		"--token-file", tokenFile)
	var out, errs bytes.Buffer
	code = run(r.t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// TestFirmClaimsOverTLS: the BPO makes a firm, whose admin redeems the claim
// from elsewhere and then speaks for it, while the BPO no longer can.
func TestFirmClaimsOverTLS(t *testing.T) {
	r := startServer(t, nil)
	files := t.TempDir()
	claimFile, token := filepath.Join(files, "claim"), filepath.Join(files, "token")
	r.command("firm", "create", "Acme Pumps", "--domain", "acme.example", "--save", claimFile)
	if info, err := os.Stat(claimFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the claim's file: %v, %v", info, err)
	}
	claim, err := os.ReadFile(claimFile)
	if err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := r.remote(string(claim), "", "whoami"); code != exitRefused {
		t.Errorf("without a token: exit code %d: %s", code, stderr)
	}
	if code, stdout, stderr := r.remote(string(claim), "", "claim", "--name", "priya", "--save", token); code != exitOK ||
		!strings.Contains(stdout, "Acme Pumps") || strings.Contains(stdout, "postern_api_") {
		t.Fatalf("claim: exit code %d: %s%s", code, stdout, stderr)
	}
	other := filepath.Join(files, "other")
	if code, _, stderr := r.remote(string(claim), "", "claim", "--name", "mallory", "--save", other); code != exitRefused {
		t.Errorf("a second redemption: exit code %d: %s", code, stderr)
	}
	if _, err := os.Stat(other); err == nil {
		t.Error("a token's file is left without a token")
	}
	code, stdout, stderr := r.remote("", token, "whoami", "--json")
	var self httpapi.Self
	if err := json.Unmarshal([]byte(stdout), &self); err != nil || self.Role != broker.RoleFirmAdmin || self.Firm != "Acme Pumps" || self.Name != "priya" {
		t.Errorf("whoami: exit code %d: %s%s", code, stdout, stderr)
	}
	add := []string{"mailbox", "add", "sales@acme.example", "--imap", "imap.acme.example", "--submission", "smtp.acme.example"}
	if code, stdout, _ := postern(t, append(add, "--firm", "Acme Pumps", "--socket", r.Socket())...); code != exitRefused {
		t.Errorf("the BPO adds a mailbox: exit code %d: %s", code, stdout)
	}
	if code, _, stderr := r.remote("", token, add...); code != exitOK {
		t.Errorf("the firm adds a mailbox: exit code %d: %s", code, stderr)
	}
	// Over the socket too, a token says who somebody is.
	if code, stdout, _ := postern(t, "whoami", "--token-file", token, "--socket", r.Socket()); code != exitOK || !strings.Contains(stdout, "firm-admin") {
		t.Errorf("over the socket: exit code %d: %s", code, stdout)
	}
	if code, stdout, stderr := r.remote("", filepath.Join(r.dir, adminTokenFile), "whoami"); code != exitOK || !strings.Contains(stdout, "admin") {
		t.Errorf("the first admin: exit code %d: %s%s", code, stdout, stderr)
	}
	if err := os.Chmod(token, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := r.remote("", token, "whoami"); code != exitUsage || !strings.Contains(stderr, "chmod 0600") {
		t.Errorf("a token that others can read: exit code %d: %s", code, stderr)
	}
}

// TestAPICertificateFollowsReload: the API shows the certificate that mail
// clients are shown.
func TestAPICertificateFollowsReload(t *testing.T) {
	r := startServer(t, nil)
	shown := func() string {
		c, err := tls.Dial("tcp", r.APIAddr().String(), r.clientTLS())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := shown()
	ca, err := workstationca.Load(filepath.Join(r.dir, workstationCADir), workstationca.Config{})
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := ca.IssueServer([]string{"mail.postern.example"})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{certificateKey: key, certificateFile: certificate} {
		if err := os.WriteFile(filepath.Join(r.dir, tlsDir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("the pair to be taken over", func() bool { return r.Reload() == nil })
	r.eventually("the new certificate", func() bool { return shown() != before })
	old := r.clientTLS()
	old.MaxVersion = tls.VersionTLS11
	if c, err := tls.Dial("tcp", r.APIAddr().String(), old); err == nil {
		_ = c.Close()
		t.Error("TLS 1.1 is spoken")
	}
}
