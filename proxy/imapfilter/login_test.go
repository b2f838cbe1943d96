// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy"
)

// FuzzDecodeSASL: what decodes is what encodes to the same.
func FuzzDecodeSASL(f *testing.F) {
	for _, s := range []string{"", "=", "AGJveABzZWNyZXQ=", "AGJv\r\neABz", "AA", "AB==", "A===", "*", "AA==AA==", "AGJv ABz", "AGJv-_A=", "AGJv\x00", "dXNlcj1ib3gBYXV0aD1CZWFyZXIgeAEB", "YQ==\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := decodeSASL(in)
		if err == nil && string(in) != "=" && base64.StdEncoding.EncodeToString(out) != string(in) {
			t.Fatalf("%q decoded to %q", in, out)
		}
	})
}

// FuzzParseBearer: what is taken out stands in what came in, and holds no
// separator.
func FuzzParseBearer(f *testing.F) {
	for _, s := range []string{
		"n,a=box@firm.example,\x01auth=Bearer secret\x01\x01", "n,a=a=2Cb=3D2C,\x01host=x\x01port=1\x01AUTH=bearer  t \x01\x01",
		"n,,\x01auth=Bearer x\x01\x01", "y,a=x,\x01\x01", "n,a=x=41,\x01auth=Bearer x\x01\x01", "\x01",
		"n,a=x,\x01auth=Bearer x\x01auth=Bearer y\x01\x01", "n,a=x,y,\x01auth=Bearer x\x01\x01", "n,a=x,\x01auth=Bearer\x01\x01", "n,a=,\x01auth=Bearer x\x01\x01\x01", "n,a=x,\x01auth=Bearer x\x01\x01a\x01\x01",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		id, token, ok := parseBearer(in)
		if !ok {
			return
		}
		escaped := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(id)
		if !bytes.HasPrefix(in, []byte("n,a="+escaped+",\x01")) || !bytes.HasSuffix(in, []byte("\x01\x01")) {
			t.Fatalf("%q: name %q", in, id)
		}
		if bytes.IndexByte(token, 1) >= 0 || !bytes.Contains(in, token) {
			t.Fatalf("%q: token %q", in, token)
		}
	})
}

func TestParseBearer(t *testing.T) {
	for in, want := range map[string]string{
		"n,a=box@firm.example,\x01auth=Bearer secret\x01\x01":            "box@firm.example secret",
		"n,a=a=2Cb=3D2C,\x01host=x\x01port=1\x01AUTH=bearer  t \x01\x01": "a,b=2C t",
		"n,,\x01auth=Bearer x\x01\x01":                                   "",
		"n,a=x=41,\x01auth=Bearer x\x01\x01":                             "",
		"n,a=x,\x01auth=Bearer x\x01":                                    "",
		"p=tls-unique,a=x,\x01auth=Bearer x\x01\x01":                     "",
		"n,a=x,\x01auth=Basic x\x01\x01":                                 "",
	} {
		id, token, ok := parseBearer([]byte(in))
		if got := fmt.Sprintf("%s %s", id, token); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q %v, want %q", in, got, ok, want)
		}
	}
}

// TestBeforeLogin: what a stranger may say, and what he hears. The session is
// over after "* BYE".
func TestBeforeLogin(t *testing.T) {
	const bad = "a BAD "
	for _, tc := range []struct{ name, says, hears string }{
		{"a command of later", "a SELECT INBOX\r\n", "a BAD log in first"},
		{"an unknown one", "a FROBNICATE\r\n", "a BAD unknown command"},
		{"LOGIN without a password", "a LOGIN box\r\n", bad},
		{"LOGIN with too much", "a LOGIN box secret more\r\n", bad},
		{"LOGIN with NUL in a literal", "a LOGIN {3+}\r\na\x00b x\r\n", "* BYE "},
		{"LOGIN with NUL in the line", "a LOGIN a\x00b x\r\n", "* BYE "},
		{"LOGIN with a huge literal", "a LOGIN {16385}\r\n", "* BYE "},
		{"LOGIN with many literals", "a LOGIN" + strings.Repeat(" {16000+}\r\n"+strings.Repeat("x", 16000), 5) + "\r\n", "* BYE "},
		{"LOGIN with a literal8", "a LOGIN ~{3+}\r\nbox secret\r\n", bad},
		{"nobody", "a LOGIN \"\" \"\"\r\n", "a NO [AUTHENTICATIONFAILED] "},
		{"a wrong password", "a LOGIN box wrong\r\n", "a NO [AUTHENTICATIONFAILED] "},
		{"a huge line", "a AUTHENTICATE PLAIN " + strings.Repeat("A", maxAuthLine) + "\r\n", "* BYE "},
		{"a huge line without end", strings.Repeat("A", 10*maxAuthLine), "* BYE "},
		{"a huge response", "a AUTHENTICATE PLAIN\r\n" + strings.Repeat("A", maxAuthLine) + "\r\n", "+ "},
		{"cancelled", "a AUTHENTICATE PLAIN\r\n*\r\n", "+ |a BAD authentication cancelled"},
		{"cancelled at the password", "a AUTHENTICATE LOGIN\r\nYm94\r\n*\r\n", "+ VXNlcm5hbWU6|+ UGFzc3dvcmQ6|a BAD authentication cancelled"},
		{"no base64", "a AUTHENTICATE PLAIN !!\r\n", bad},
		{"base64 over two lines", "a AUTHENTICATE PLAIN {18+}\r\nAGJv\r\neABzZWNyZXQ=\r\n", bad},
		{"PLAIN with one NUL", "a AUTHENTICATE PLAIN Ym94AHNlY3JldA==\r\n", bad},
		{"PLAIN with three", "a AUTHENTICATE PLAIN AGJveABzZWNyZXQA\r\n", bad},
		{"PLAIN, empty", "a AUTHENTICATE PLAIN =\r\n", bad},
		{"an unknown mechanism", "a AUTHENTICATE CRAM-MD5\r\n", "a NO [CANNOT] "},
		{"a response that ends in LF", "a AUTHENTICATE PLAIN\r\nAGJveABzZWNyZXQ=\n", "+ |* BYE "},
		{"STARTTLS under TLS", "a STARTTLS\r\n", "a BAD "},
		{"NOOP with arguments", "a NOOP x\r\n", bad},
		{"ten bad ones", strings.Repeat("a FROBNICATE\r\n", maxBadCommands), strings.Repeat("a BAD unknown|", maxBadCommands-1) + "* BYE "},
		{"three wrong ones", strings.Repeat("a LOGIN box wrong\r\n", maxLoginTries+1), strings.Repeat("a NO |", maxLoginTries) + "* BYE too many"},
		{"capabilities", "a CAPABILITY\r\n", "* CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID AUTH=PLAIN AUTH=LOGIN AUTH=OAUTHBEARER|a OK"},
		{"ID", "a ID NIL\r\n", "* ID (\"name\" \"Postern\")|a OK"},
		{"LOGOUT", "a LOGOUT\r\nb NOOP\r\n", "* BYE |a OK"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			gate, _ := scripted(t)
			c := newRig(t, gate).connect()
			go func() { _, _ = c.conn.Write([]byte(tc.says)) }()
			for _, want := range strings.Split(strings.TrimSuffix(tc.hears, "|"), "|") {
				c.expect(want)
			}
			if len(gate.sessions) != 0 {
				t.Error("somebody is logged in")
			}
		})
	}
}

// Commands behind a LOGIN are carried out in the session.
func TestPipelinedBehindLogin(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).connect()
	c.raw("a LOGIN {3+}\r\nbox secret\r\nb SELECT INBOX\r\nc SEARCH TEXT {" + fmt.Sprint(3000) + "+}\r\n" + strings.Repeat("x", 3000) + "\r\nd NOOP\r\n")
	u := <-upstreams
	u.expect("b SELECT INBOX")
	u.raw("b OK\r\n")
	u.expect("c SEARCH TEXT {3000}")
	u.raw("+ go\r\n")
	u.expect(strings.Repeat("x", 3000))
	u.raw("c OK\r\n")
	u.expect("d NOOP")
	c.expect("a OK [CAPABILITY IMAP4rev1 IDLE LITERAL+ UIDPLUS MOVE UNSELECT ENABLE MULTIAPPEND CATENATE BINARY UTF8=ACCEPT]")
}

// In plain text no password is taken, whatever way it comes.
func TestPlainTextLogin(t *testing.T) {
	gate, _ := scripted(t)
	rig := newRig(t, gate)
	client, server := tcpPair(t)
	defer client.Close()
	go func() {
		rig.filter.ServeConn(context.Background(), proxy.NewConn(server, proxy.ConnConfig{}))
		linger(server)
	}()
	c := newPeer(t, client)
	if got := c.expect("* OK [CAPABILITY "); !strings.Contains(got, "LOGINDISABLED") || strings.Contains(got, "AUTH=") {
		t.Error(got)
	}
	for _, command := range []string{"a LOGIN box secret", "a AUTHENTICATE PLAIN AGJveABzZWNyZXQ=", "a AUTHENTICATE LOGIN"} {
		c.send("%s", command)
		c.expect("a NO [PRIVACYREQUIRED]")
	}
	if len(gate.sessions) != 0 {
		t.Error("somebody is logged in")
	}
}

// An upstream that cannot be reached is no refusal, and no drift.
func TestOutageIsNoRefusal(t *testing.T) {
	gate, _ := scripted(t)
	gate.dial = func(context.Context) (*broker.IMAPConn, error) {
		return nil, broker.Errorf(broker.Unavailable, "the mail server is out of reach")
	}
	c := newRig(t, gate).connect()
	c.send("a LOGIN box secret")
	c.expect("a NO [UNAVAILABLE] the mail server is out of reach")
	if r := gate.last().endReason(); r != broker.EndUpstreamFailed {
		t.Errorf("ended for %s", r)
	}
}
