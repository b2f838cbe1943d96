// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

const plainOffer = "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hello\n"

func plainPayload(secret string) string { return encoded("\x00" + address + "\x00" + secret) }

func openIMAP(t *testing.T, mode broker.TLSMode, c *broker.Credential, script string) (*broker.IMAPConn, error) {
	t.Helper()
	m := &broker.Mailbox{Address: address, IMAP: serve(t, mode, script)}
	conn, err := newDialer(t, Config{}).OpenIMAP(t.Context(), m, c)
	if err == nil {
		t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

func TestIMAPLogin(t *testing.T) {
	const authenticate = "C: TAG AUTHENTICATE PLAIN "
	plain := plainPayload(marked)
	long := strings.Repeat("t", 9000)
	tests := []struct {
		name       string
		credential *broker.Credential
		mode       broker.TLSMode
		script     string
	}{
		{"capabilities in greeting and answer", password(marked), broker.TLSNone, plainOffer +
			authenticate + plain + "\nS: TAG OK [CAPABILITY IMAP4rev1 IDLE X-Late] in"},
		{
			"capabilities asked before and after", password(marked), broker.TLSNone,
			"S: * OK hello\nC: TAG CAPABILITY\nS: * CAPABILITY IMAP4rev1 auth=plain sasl-ir\nS: TAG OK done\n" +
				authenticate + plain + "\nS: TAG OK in\nC: TAG CAPABILITY\nS: * capability IMAP4rev1 IDLE X-Late\nS: TAG OK done",
		},
		{"capabilities told by themselves", password(marked), broker.TLSNone, plainOffer +
			authenticate + plain + "\nS: * CAPABILITY IMAP4rev1 IDLE X-Late\nS: * OK still busy\nS: TAG OK in"},
		{
			"no SASL-IR", password(marked), broker.TLSNone,
			"S: * OK [CAPABILITY AUTH=PLAIN] hello\nC: TAG AUTHENTICATE PLAIN\nS: + \nC: " + plain +
				"\nS: TAG OK [CAPABILITY IMAP4rev1 IDLE X-Late] in",
		},
		{
			"LOGIN, quoted", password(marked), broker.TLSNone,
			"S: * OK [CAPABILITY IMAP4rev1] hello\nC: TAG LOGIN \"" + address + `" "mArKeD-p4ss \"w\\qd"` +
				"\nS: TAG OK [CAPABILITY IMAP4rev1 IDLE X-Late] in",
		},
		{
			"LOGIN, literal", password("pässwörd"), broker.TLSNone,
			"S: * OK [CAPABILITY IMAP4rev1] hello\nC: TAG LOGIN \"" + address + "\" {10}\nS: + go\nC: pässwörd" +
				"\nS: TAG OK [CAPABILITY IMAP4rev1 IDLE X-Late] in",
		},
		{
			"SASL LOGIN as the last resort", password(marked), broker.TLSNone,
			"S: * OK [CAPABILITY LOGINDISABLED AUTH=LOGIN] hello\nC: TAG AUTHENTICATE LOGIN\nS: + VXNlcm5hbWU6\nC: " +
				encoded(address) + "\nS: + UGFzc3dvcmQ6\nC: " + encoded(marked) + "\nS: TAG OK [CAPABILITY IMAP4rev1 IDLE X-Late] in",
		},
		{"OAUTHBEARER", accessToken("tok.en"), broker.TLSNone, "S: * OK hi\nC: TAG CAPABILITY\n" +
			"S: * CAPABILITY AUTH=XOAUTH2 AUTH=OAUTHBEARER\nS: TAG OK\nC: TAG AUTHENTICATE OAUTHBEARER\nS: +\n" +
			"C: BASE64 n,a=" + address + `,\1host=127.0.0.1\1port=PORT\1auth=Bearer tok.en\1\1` + "\n" +
			"S: TAG OK [CAPABILITY IMAP4rev1 IDLE X-Late] in"},
		{"XOAUTH2", accessToken("tok.en"), broker.TLSNone, "S: * OK [CAPABILITY AUTH=XOAUTH2 SASL-IR] hi\n" +
			"C: TAG AUTHENTICATE XOAUTH2 " + encoded("user="+address+"\x01auth=Bearer tok.en\x01\x01") +
			"\nS: TAG OK [CAPABILITY IMAP4rev1 IDLE X-Late] in"},
		{
			"a token too long for an initial response", accessToken(long), broker.TLSNone,
			"S: * OK [CAPABILITY AUTH=XOAUTH2 SASL-IR] hi\nC: TAG AUTHENTICATE XOAUTH2\nS: + \nC: " +
				encoded("user="+address+"\x01auth=Bearer "+long+"\x01\x01") + "\nS: TAG OK [CAPABILITY IMAP4rev1 IDLE X-Late] in",
		},
		{"implicit TLS", password(marked), broker.TLSImplicit, "TLS\n" + plainOffer +
			authenticate + plain + "\nS: TAG OK [CAPABILITY IMAP4rev1 IDLE X-Late] in"},
		{
			"STARTTLS voids what was said before", password(marked), broker.TLSStartTLS,
			"S: * OK [CAPABILITY STARTTLS AUTH=LOGIN LOGINDISABLED] hello\nC: TAG STARTTLS\nS: TAG OK go\nTLS\n" +
				"C: TAG CAPABILITY\nS: * CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\nS: TAG OK\n" +
				authenticate + plain + "\nS: TAG OK [CAPABILITY IMAP4rev1 IDLE X-Late] in",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn, err := openIMAP(t, test.mode, test.credential, test.script)
			if err != nil {
				t.Fatal(err)
			}
			if want := []string{"IMAP4rev1", "IDLE", "X-Late"}; !slices.Equal(conn.Capabilities, want) {
				t.Errorf("capabilities %q, want %q", conn.Capabilities, want)
			}
			if len(conn.Buffered) > 0 {
				t.Errorf("buffered %q", conn.Buffered)
			}
		})
	}
}

func TestIMAPAnswersThatEndTheLogin(t *testing.T) {
	const attempt = plainOffer + "C: TAG AUTHENTICATE PLAIN <plain>\n"
	tests := []struct {
		name   string
		script string
		code   broker.Code
		reason string
	}{
		{"NO", attempt + "S: TAG NO wrong", broker.CredentialRefused, ReasonRefused},
		{"NO AUTHENTICATIONFAILED", attempt + "S: TAG NO [AUTHENTICATIONFAILED] wrong", broker.CredentialRefused, ReasonRefused},
		{"NO AUTHORIZATIONFAILED", attempt + "S: TAG NO [AUTHORIZATIONFAILED] wrong", broker.CredentialRefused, ReasonRefused},
		{"NO EXPIRED", attempt + "S: TAG NO [EXPIRED] change it", broker.CredentialRefused, ReasonRefused},
		{"NO ALERT", attempt + "S: TAG NO [ALERT] Please log in via your web browser (Failure)", broker.CredentialRefused, ReasonRefused},
		{"BYE, then NO", attempt + "S: * BYE enough\nS: TAG NO [AUTHENTICATIONFAILED] wrong", broker.CredentialRefused, ReasonRefused},
		{"NO UNAVAILABLE", attempt + "S: TAG NO [UNAVAILABLE] later", broker.Unavailable, ReasonBusy},
		{"NO unavailable in lower case", attempt + "S: TAG no [unavailable] later", broker.Unavailable, ReasonBusy},
		{"NO INUSE", attempt + "S: TAG NO [INUSE] later", broker.Unavailable, ReasonBusy},
		{"NO LIMIT", attempt + "S: TAG NO [LIMIT] connections", broker.Unavailable, ReasonBusy},
		{"NO SERVERBUG", attempt + "S: TAG NO [SERVERBUG] oops", broker.Unavailable, ReasonBusy},
		{"NO PRIVACYREQUIRED", attempt + "S: TAG NO [PRIVACYREQUIRED] TLS first", broker.Unavailable, ReasonTLS},
		{"Gmail's connection limit", attempt + "S: TAG NO [ALERT] Too many simultaneous connections. (Failure)", broker.Unavailable, ReasonBusy},
		{"BAD", attempt + "S: TAG BAD User is authenticated but not connected.", broker.Unavailable, ReasonProtocol},
		{"BYE", attempt + "S: * BYE shutting down\nCLOSE", broker.Unavailable, ReasonBusy},
		{"BYE, then OK", attempt + "S: * BYE shutting down\nS: TAG OK in", broker.Unavailable, ReasonBusy},
		{"closed after the credential", attempt + "CLOSE", broker.Unavailable, ReasonConnection},
		{"a challenge too many", attempt + "S: + more", broker.Unavailable, ReasonProtocol},
		{"somebody else's tag", attempt + "S: X9 OK in", broker.Unavailable, ReasonProtocol},
		{"a tagged answer of its own", attempt + "S: TAG MAYBE in", broker.Unavailable, ReasonProtocol},
		{"bare LF", attempt + `S> TAG OK in\n`, broker.Unavailable, ReasonProtocol},
		{"NUL", attempt + `S: TAG OK i\0n`, broker.Unavailable, ReasonProtocol},
		{"a lone CR", attempt + `S: TAG NO x\rTAG OK in`, broker.Unavailable, ReasonProtocol},
		{"a literal in between", attempt + "S: * ID {100}", broker.Unavailable, ReasonProtocol},
		{"a literal in a capability list", "S: * OK hi\nC: TAG CAPABILITY\nS: * CAPABILITY IMAP4rev1 {4}", broker.Unavailable, ReasonProtocol},
		{"capabilities never told", "S: * OK hi\nC: TAG CAPABILITY\nS: TAG OK done", broker.Unavailable, ReasonProtocol},
		{"a continuation nobody asked for", "S: * OK hi\nC: TAG CAPABILITY\nS: + go on", broker.Unavailable, ReasonProtocol},
		{"BYE as the greeting", "S: * BYE too busy", broker.Unavailable, ReasonBusy},
		{"another protocol's greeting", "S: 220 mail ESMTP", broker.Unavailable, ReasonProtocol},
		{"no mechanism", "S: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=GSSAPI] hi", broker.Unavailable, ReasonMechanism},
		{"closed at once", "CLOSE", broker.Unavailable, ReasonConnection},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			script := strings.ReplaceAll(test.script, "<plain>", plainPayload(marked))
			_, err := openIMAP(t, broker.TLSNone, password(marked), script)
			wantError(t, err, test.code, test.reason, marked)
		})
	}
}

// A server that greets with PREAUTH has logged in somebody else, and STARTTLS
// would be skipped (CVE-2020-12398 and its like).
func TestIMAPRefusesPreauth(t *testing.T) {
	for _, mode := range []broker.TLSMode{broker.TLSNone, broker.TLSStartTLS} {
		_, err := openIMAP(t, mode, password(marked), "S: * PREAUTH [CAPABILITY IMAP4rev1] welcome")
		wantError(t, err, broker.Unavailable, ReasonProtocol)
	}
}

// What arrives behind the answer to STARTTLS would otherwise be taken for the
// server's words under TLS (CVE-2011-0411, CVE-2021-33515).
func TestIMAPRefusesInjectionBeforeTLS(t *testing.T) {
	_, err := openIMAP(t, broker.TLSStartTLS, password(marked),
		"S: * OK [CAPABILITY STARTTLS] hi\nC: TAG STARTTLS\n"+`S: TAG OK go\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN`)
	wantError(t, err, broker.Unavailable, ReasonTLS)
}

// A STARTTLS that is not offered, or refused, is never done without.
func TestIMAPStartTLSIsNotOptional(t *testing.T) {
	for name, script := range map[string]string{
		"stripped": "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi",
		"refused":  "S: * OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] hi\nC: TAG STARTTLS\nS: TAG NO not today",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openIMAP(t, broker.TLSStartTLS, password(marked), script)
			wantError(t, err, broker.Unavailable, ReasonTLS)
		})
	}
}

func TestIMAPKeepsWhatCameBehindTheLogin(t *testing.T) {
	conn, err := openIMAP(t, broker.TLSNone, password(marked), plainOffer+
		"C: TAG AUTHENTICATE PLAIN "+plainPayload(marked)+"\n"+`S> TAG OK [CAPABILITY IMAP4rev1] in\r\n* OK not`+"\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(conn.Buffered); got != "* OK not" {
		t.Errorf("buffered %q", got)
	}
}

func TestIMAPOAuthFailureIsAcknowledged(t *testing.T) {
	challenge := encoded(`{"status":"401","schemes":"bearer"}`)
	payload := encoded("user=" + address + "\x01auth=Bearer tok.en-marked\x01\x01")
	head := "S: * OK [CAPABILITY SASL-IR AUTH=XOAUTH2] hi\nC: TAG AUTHENTICATE XOAUTH2 " + payload + "\nS: + " + challenge + "\nC: \n"
	tests := []struct {
		name   string
		tail   string
		code   broker.Code
		reason string
	}{
		{"NO", "S: TAG NO failed", broker.CredentialRefused, ReasonRefused},
		{"BAD", "S: TAG BAD invalid SASL argument", broker.CredentialRefused, ReasonRefused},
		{"NO UNAVAILABLE", "S: TAG NO [UNAVAILABLE] later", broker.Unavailable, ReasonBusy},
		{"again and again", "S: + " + challenge, broker.Unavailable, ReasonProtocol},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := openIMAP(t, broker.TLSNone, accessToken("tok.en-marked"), head+test.tail)
			wantError(t, err, test.code, test.reason, "tok.en-marked")
		})
	}
}

func TestIMAPServerThatNeverAnswers(t *testing.T) {
	for name, chunk := range map[string]string{
		"endless lines": "* OK still working on it\r\n",
		"endless line":  "* OK still working on it",
	} {
		t.Run(name, func(t *testing.T) {
			m := &broker.Mailbox{Address: address, IMAP: flood(t, "* OK hi\r\n", chunk)}
			_, err := newDialer(t, Config{}).OpenIMAP(t.Context(), m, password(marked))
			wantError(t, err, broker.Unavailable, ReasonProtocol)
		})
	}
}

func TestCapabilitiesLeavesOutWhatIsNoAtom(t *testing.T) {
	got := capabilities([]byte(`IMAP4rev1  IDLE x"y {3} (A) ÄB AUTH=PLAIN QUOTA=RES-STORAGE`))
	if want := []string{"IMAP4rev1", "IDLE", "AUTH=PLAIN", "QUOTA=RES-STORAGE"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTagsDifferBetweenLogins(t *testing.T) {
	seen := make(map[string]bool)
	for range 20 {
		tag := (&imapLogin{prefix: newPrefix()}).tag()
		if seen[tag] || strings.ContainsFunc(tag, notInAtom) {
			t.Fatalf("tag %q", tag)
		}
		seen[tag] = true
	}
}

// TestOldTLSIsRefused meets a server that speaks TLS 1.1 alone.
func TestOldTLSIsRefused(t *testing.T) {
	ca := servers.NewCA(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{ca.Issue().TLS}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
	})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		c, err := l.Accept()
		if err != nil {
			t.Errorf("nobody connected: %v", err)
			return
		}
		defer c.Close()
		if err := c.(*tls.Conn).Handshake(); err == nil {
			t.Error("TLS 1.1 was spoken")
		}
	})
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	e := broker.Endpoint{Host: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port), TLS: broker.TLSImplicit, CA: string(ca.PEM)}
	_, err = newDialer(t, Config{}).OpenIMAP(t.Context(), &broker.Mailbox{Address: address, IMAP: e}, password(marked))
	wantError(t, err, broker.Unavailable, ReasonTLS)
}
