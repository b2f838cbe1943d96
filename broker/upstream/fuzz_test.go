// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// canned is a connection whose other end says what it has to say whatever it
// is told.
type canned struct {
	net.Conn
	octets *bytes.Reader
	sent   bytes.Buffer
}

func (c *canned) Read(b []byte) (int, error)  { return c.octets.Read(b) }
func (c *canned) Write(b []byte) (int, error) { return c.sent.Write(b) }

// A login ends whatever the server says; it succeeds only after an answer that
// says so, with every octet behind that answer handed over.
func FuzzServer(f *testing.F) {
	for _, seed := range []string{
		"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi\r\nP1 OK [CAPABILITY IMAP4rev1] in\r\n* 1 EXISTS\r\n",
		"* OK hi\r\n* CAPABILITY IMAP4rev1\r\nP1 OK\r\n+ go\r\nP2 NO [LIMIT] {3}\r\n",
		"* OK hi\r\n* CAPABILITY AUTH=LOGIN LOGINDISABLED\r\nP1 OK\r\n+ go\r\n+\r\nP2 OK\r\n* CAPABILITY X\r\nP3 OK\r\n",
		"220 hi\r\n250-mail.example\r\n250 AUTH PLAIN LOGIN\r\n235 in\r\n",
		"220-hi\r\n220 hi\r\n250-mail.example\r\n250 AUTH LOGIN\r\n334 x\r\n334\r\n535-5.7.8 no\r\n535 no\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		e := &broker.Endpoint{TLS: broker.TLSNone}
		cred := testCredentials(marked)

		c := &canned{octets: bytes.NewReader(octets)}
		l := &imapLogin{wire: newWire(c, nil), cred: cred, prefix: "P"}
		imap, err := l.toAuthenticated(e)
		if err != nil {
			checkError(t, cred.report(t.Context(), err))
		} else {
			if !strings.Contains(strings.ToUpper(string(octets)), " OK") {
				t.Fatalf("logged in by %q", octets)
			}
			unread := octets[len(octets)-c.octets.Len():]
			if handed := append(bytes.Clone(imap.Buffered), unread...); !bytes.HasSuffix(octets, handed) {
				t.Fatalf("%q is not the end of %q", handed, octets)
			}
		}

		c = &canned{octets: bytes.NewReader(octets)}
		if _, err := loginSubmission(newWire(c, nil), e, "localhost", cred); err != nil {
			checkError(t, cred.report(t.Context(), err))
		} else if !bytes.Contains(octets, []byte("235")) {
			t.Fatalf("logged in by %q", octets)
		}
	})
}

func checkError(t *testing.T, e *broker.Error) {
	t.Helper()
	if e.Code != broker.Unavailable && e.Code != broker.CredentialRefused || e.Reason == "" || e.Public == "" {
		t.Fatalf("error %+v", e)
	}
}
