// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

func portOf(e broker.Endpoint) string { return strconv.Itoa(int(e.Port)) }

// silent is a server whose connections are accepted by the kernel, and nobody
// else.
func silent(t *testing.T) broker.Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return broker.Endpoint{Host: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port), TLS: broker.TLSNone}
}

func TestNewRefusesWrongSettings(t *testing.T) {
	for field, c := range map[string]Config{
		"dial_timeout":  {DialTimeout: -1},
		"login_timeout": {LoginTimeout: -1},
		"hostname":      {Hostname: "x\r\nMAIL FROM:<a@b.example>"},
	} {
		_, err := New(c)
		if broker.CodeOf(err) != broker.Invalid || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestCredentialsThatNoServerCouldTake(t *testing.T) {
	good := password(marked)
	named := password(marked)
	named.Username = "x\x01auth=Bearer y"
	tests := map[string]struct {
		mailbox    broker.Mailbox
		credential *broker.Credential
	}{
		"NUL in a password":      {broker.Mailbox{Address: address}, password("marked-\x00-secret")},
		"space in a token":       {broker.Mailbox{Address: address}, accessToken("marked secret")},
		"^A in a token":          {broker.Mailbox{Address: address}, accessToken("marked\x01secret")},
		"no secret":              {broker.Mailbox{Address: address}, password("")},
		"unknown kind":           {broker.Mailbox{Address: address}, &broker.Credential{Kind: "x", Secret: good.Secret}},
		"what mints tokens":      {broker.Mailbox{Address: address}, &broker.Credential{Kind: broker.KindOAuth2Client, Secret: broker.NewSecret([]byte(`{"client_secret":"marked-secret"}`))}},
		"^A in the login name":   {broker.Mailbox{Address: address}, named},
		"CRLF in the login name": {broker.Mailbox{Address: address, Username: "x\r\nA1 LOGOUT"}, good},
		"no login name":          {broker.Mailbox{}, good},
	}
	d := newDialer(t, Config{})
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.mailbox.IMAP = silent(t)
			test.mailbox.Submission = test.mailbox.IMAP
			_, imap := d.OpenIMAP(t.Context(), &test.mailbox, test.credential)
			_, submission := d.OpenSubmission(t.Context(), &test.mailbox, test.credential)
			for _, err := range []error{imap, submission, d.Probe(t.Context(), &test.mailbox, test.credential)} {
				wantError(t, err, broker.Invalid, "", marked, "marked-\x00-secret", "marked secret", "marked\x01secret")
			}
		})
	}
}

// Plain text is judged by the address that was dialled, not by the name.
func TestPlainTextIsForLoopbackAlone(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:143": true, "[::1]:143": true, "127.8.9.1:1": true,
		"192.0.2.1:143": false, "0.0.0.0:143": false, "[fe80::1]:143": false,
	} {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := isLoopback(a); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
	own := ownAddress(t)
	if own == "" {
		t.Log("this machine has loopback alone: the table above must do")
		return
	}
	l, err := net.Listen("tcp", net.JoinHostPort(own, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := broker.Endpoint{Host: own, Port: uint16(l.Addr().(*net.TCPAddr).Port), TLS: broker.TLSNone}
	_, err = newDialer(t, Config{}).OpenIMAP(t.Context(), &broker.Mailbox{Address: address, IMAP: e}, password(marked))
	wantError(t, err, broker.Unavailable, ReasonTLS)
}

func TestUnknownTLSModeIsRefused(t *testing.T) {
	e := silent(t)
	e.TLS = ""
	_, err := newDialer(t, Config{}).OpenIMAP(t.Context(), &broker.Mailbox{Address: address, IMAP: e}, password(marked))
	if broker.CodeOf(err) != broker.Invalid {
		t.Errorf("got %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	e := silent(t)
	e.Host = "no-such-host.invalid"
	began := time.Now()
	_, err := newDialer(t, Config{DialTimeout: time.Second}).OpenIMAP(t.Context(), &broker.Mailbox{Address: address, IMAP: e}, password(marked))
	if broker.CodeOf(err) != broker.Unavailable {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestProbeNamesTheLoginThatFailed(t *testing.T) {
	m := &broker.Mailbox{
		Address:    address,
		IMAP:       serve(t, broker.TLSNone, "S: * BYE busy"),
		Submission: serve(t, broker.TLSNone, smtpPlainOffer+"C: AUTH PLAIN "+plainPayload(marked)+"\nS: 535 no"),
	}
	err := newDialer(t, Config{}).Probe(t.Context(), m, password(marked))
	wantError(t, err, broker.CredentialRefused, ReasonRefused, marked)
	if !strings.HasPrefix(broker.PublicText(err), "submission: ") {
		t.Errorf("public text %q", broker.PublicText(err))
	}
}

func TestEndpointsAreCached(t *testing.T) {
	d := newDialer(t, Config{})
	e := &broker.Endpoint{Host: "mail.example", Port: 993, TLS: broker.TLSImplicit}
	first, err := d.tlsConfig(e)
	if err != nil {
		t.Fatal(err)
	}
	same := *e
	if again, _ := d.tlsConfig(&same); again != first {
		t.Error("the same endpoint got another configuration")
	}
	same.Host = "other.example"
	if other, _ := d.tlsConfig(&same); other == first || other.ServerName != "other.example" {
		t.Error("another endpoint shares the configuration")
	}
}

// ownAddress returns an address of this machine that is not loopback; empty:
// it has no other.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	return ""
}
