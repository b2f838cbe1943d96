// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"maps"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

const smtpPlainOffer = "S: 220 mail.example ESMTP\nC: EHLO localhost\nS: 250-mail.example\nS: 250-SIZE 1000\nS: 250 AUTH PLAIN LOGIN\n"

func openSubmission(t *testing.T, mode broker.TLSMode, c *broker.Credential, script string) (*broker.SubmissionConn, error) {
	t.Helper()
	m := &broker.Mailbox{Address: address, Submission: serve(t, mode, script)}
	conn, err := newDialer(t, Config{}).OpenSubmission(t.Context(), m, c)
	if err == nil {
		t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

func TestSubmissionLogin(t *testing.T) {
	const head = "S: 220-mail.example\nS: 220 ESMTP\nC: EHLO localhost\nS: 250-mail.example\n"
	long := strings.Repeat("t", 3000)
	tests := []struct {
		name       string
		credential *broker.Credential
		mode       broker.TLSMode
		script     string
		extensions map[string]string
	}{
		{
			"PLAIN", password(marked), broker.TLSNone, head + "S: 250-size 1000\nS: 250-8BITMIME\nS: 250 AUTH LOGIN PLAIN\n" +
				"C: AUTH PLAIN " + plainPayload(marked) + "\nS: 235-welcome\nS: 235 in",
			map[string]string{"SIZE": "1000", "8BITMIME": "", "AUTH": "LOGIN PLAIN"},
		},
		{
			"LOGIN", password(marked), broker.TLSNone, head + "S: 250 AUTH login\n" +
				"C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: " + encoded(address) + "\nS: 334 UGFzc3dvcmQ6\nC: " + encoded(marked) + "\nS: 235 in",
			map[string]string{"AUTH": "login"},
		},
		{
			"OAUTHBEARER", accessToken("tok.en"), broker.TLSNone, head + "S: 250 AUTH XOAUTH2 OAUTHBEARER PLAIN\n" +
				"C: AUTH OAUTHBEARER " + "<oauthbearer>" + "\nS: 235",
			map[string]string{"AUTH": "XOAUTH2 OAUTHBEARER PLAIN"},
		},
		{
			"XOAUTH2, too long for one line", accessToken(long), broker.TLSNone, head + "S: 250 AUTH XOAUTH2\n" +
				"C: AUTH XOAUTH2\nS: 334 \nC: " + encoded("user="+address+"\x01auth=Bearer "+long+"\x01\x01") + "\nS: 235 in",
			map[string]string{"AUTH": "XOAUTH2"},
		},
		{
			"STARTTLS voids what was said before", password(marked), broker.TLSStartTLS, head + "S: 250-OLD\nS: 250 STARTTLS\n" +
				"C: STARTTLS\nS: 220 go\nTLS\nC: EHLO localhost\nS: 250-mail.example\nS: 250 AUTH PLAIN\n" +
				"C: AUTH PLAIN " + plainPayload(marked) + "\nS: 235 in",
			map[string]string{"AUTH": "PLAIN"},
		},
		{
			"implicit TLS", password(marked), broker.TLSImplicit, "TLS\n" + head + "S: 250 AUTH PLAIN\n" +
				"C: AUTH PLAIN " + plainPayload(marked) + "\nS: 235 in",
			map[string]string{"AUTH": "PLAIN"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			script := strings.ReplaceAll(test.script, "<oauthbearer>",
				"BASE64 n,a="+address+`,\1host=127.0.0.1\1port=PORT\1auth=Bearer tok.en\1\1`)
			conn, err := openSubmission(t, test.mode, test.credential, script)
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(conn.Extensions, test.extensions) {
				t.Errorf("extensions %q, want %q", conn.Extensions, test.extensions)
			}
		})
	}
}

func TestSubmissionRepliesThatEndTheLogin(t *testing.T) {
	attempt := smtpPlainOffer + "C: AUTH PLAIN " + plainPayload(marked) + "\n"
	tests := []struct {
		name   string
		script string
		code   broker.Code
		reason string
	}{
		{"535", attempt + "S: 535 5.7.8 wrong", broker.CredentialRefused, ReasonRefused},
		{"535 in lines", attempt + "S: 535-5.7.8 wrong\nS: 535 5.7.8 see us", broker.CredentialRefused, ReasonRefused},
		{"534", attempt + "S: 534 5.7.9 Application-specific password required", broker.CredentialRefused, ReasonRefused},
		{"530", attempt + "S: 530 5.7.0 no", broker.CredentialRefused, ReasonRefused},
		{"550", attempt + "S: 550 account closed", broker.CredentialRefused, ReasonRefused},
		{"454", attempt + "S: 454 4.7.0 temporary failure", broker.Unavailable, ReasonBusy},
		{"421", attempt + "S: 421 shutting down", broker.Unavailable, ReasonBusy},
		{"538", attempt + "S: 538 5.7.11 encryption required", broker.Unavailable, ReasonTLS},
		{"501", attempt + "S: 501 5.5.2 cannot decode", broker.Unavailable, ReasonProtocol},
		{"250", attempt + "S: 250 whatever", broker.Unavailable, ReasonProtocol},
		{"closed after the credential", attempt + "CLOSE", broker.Unavailable, ReasonConnection},
		{"a challenge too many", attempt + "S: 334 more", broker.Unavailable, ReasonProtocol},
		{"octets behind the answer", attempt + `S: 235 in\r\n250 more`, broker.Unavailable, ReasonProtocol},
		{"two codes in one reply", attempt + "S: 535-wrong\nS: 235 in", broker.Unavailable, ReasonProtocol},
		{"bare LF", attempt + `S> 235 in\n`, broker.Unavailable, ReasonProtocol},
		{"NUL", attempt + `S: 235 i\0n`, broker.Unavailable, ReasonProtocol},
		{"554 as the greeting", "S: 554 no service", broker.Unavailable, ReasonBusy},
		{"421 as the greeting", "S: 421 too busy", broker.Unavailable, ReasonBusy},
		{"another protocol's greeting", "S: * OK IMAP", broker.Unavailable, ReasonProtocol},
		{"no EHLO", "S: 220 hi\nC: EHLO localhost\nS: 502 what", broker.Unavailable, ReasonProtocol},
		{"no AUTH", "S: 220 hi\nC: EHLO localhost\nS: 250 mail.example", broker.Unavailable, ReasonMechanism},
		{"no mechanism", "S: 220 hi\nC: EHLO localhost\nS: 250-mail.example\nS: 250 AUTH GSSAPI", broker.Unavailable, ReasonMechanism},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := openSubmission(t, broker.TLSNone, password(marked), test.script)
			wantError(t, err, test.code, test.reason, marked)
		})
	}
}

func TestSubmissionOAuthFailureIsAcknowledged(t *testing.T) {
	const offer = "S: 220 hi\nC: EHLO localhost\nS: 250-mail.example\nS: 250 AUTH "
	challenge := "S: 334 " + encoded(`{"status":"401"}`) + "\n"
	for name, script := range map[string]string{
		"XOAUTH2": offer + "XOAUTH2\nC: AUTH XOAUTH2 " + encoded("user="+address+"\x01auth=Bearer tok.en-marked\x01\x01") + "\n" + challenge +
			"C: \nS: 535 5.7.8 no",
		"OAUTHBEARER": offer + "OAUTHBEARER\nC: AUTH OAUTHBEARER BASE64 n,a=" + address +
			`,\1host=127.0.0.1\1port=PORT\1auth=Bearer tok.en-marked\1\1` + "\n" + challenge + "C: AQ==\nS: 535 5.7.8 no",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openSubmission(t, broker.TLSNone, accessToken("tok.en-marked"), script)
			wantError(t, err, broker.CredentialRefused, ReasonRefused, "tok.en-marked")
		})
	}
}

// What arrives behind the answer to STARTTLS would otherwise be taken for the
// server's words under TLS (CVE-2011-0411).
func TestSubmissionRefusesInjectionBeforeTLS(t *testing.T) {
	_, err := openSubmission(t, broker.TLSStartTLS, password(marked),
		"S: 220 hi\nC: EHLO localhost\nS: 250-mail.example\nS: 250 STARTTLS\nC: STARTTLS\n"+`S: 220 go\r\n250 AUTH PLAIN`)
	wantError(t, err, broker.Unavailable, ReasonTLS)
}

// A STARTTLS that is not offered, or refused, is never done without.
func TestSubmissionStartTLSIsNotOptional(t *testing.T) {
	for name, script := range map[string]string{
		"stripped": smtpPlainOffer,
		"refused":  "S: 220 hi\nC: EHLO localhost\nS: 250-mail.example\nS: 250-STARTTLS\nS: 250 AUTH PLAIN\nC: STARTTLS\nS: 454 not today",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openSubmission(t, broker.TLSStartTLS, password(marked), script)
			wantError(t, err, broker.Unavailable, ReasonTLS)
		})
	}
}

func TestSubmissionServerThatNeverAnswers(t *testing.T) {
	for name, chunk := range map[string]string{
		"endless reply": "220-wait\r\n",
		"endless line":  "220-wait",
	} {
		t.Run(name, func(t *testing.T) {
			m := &broker.Mailbox{Address: address, Submission: flood(t, "220-hi\r\n", chunk)}
			_, err := newDialer(t, Config{}).OpenSubmission(t.Context(), m, password(marked))
			wantError(t, err, broker.Unavailable, ReasonProtocol)
		})
	}
}
