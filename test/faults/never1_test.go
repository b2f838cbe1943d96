// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// TestNever1: a byte of a credential reaches an agent, a log line, an event,
// the database, an API answer.
func TestNever1(t *testing.T) {
	t.Parallel()
	password := newSecret(t, sales, `Pa"ss\wo rd%-`)
	token := newSecret(t, support, "ya29.")
	wrong := newSecret(t, sales, `Wr"ong\`)
	client := newSecret(t, billing, "cl1ent~")
	issuer := servers.StartIssuer(t, servers.NewCA(t), map[string]*servers.IssuerClient{"app": {Secret: client.text}})
	issuer.Grant(token.text, support)
	var imap, smtp *front
	var once sync.Once
	fronts := func(w *e2e.World) {
		once.Do(func() {
			imap, smtp = newFront(t, w.Dovecot.IMAPPort, nil), newFront(t, w.Postfix.PlainPort, nil)
		})
	}
	w := e2e.NewWorld(t, e2e.WorldOptions{
		Mailboxes: []string{sales, support, billing},
		Dovecot:   []servers.DovecotOption{servers.WithOAuth2(issuer.Introspection())},
		Postern:   e2e.Options{Config: roomy + "oauth:\n  ca_file: " + issuer.CA.File + "\n  networks: [" + issuer.Networks() + "]\n"},
		IMAP: func(w *e2e.World) broker.Endpoint {
			fronts(w)
			return broker.Endpoint{Host: "127.0.0.1", Port: imap.port, TLS: broker.TLSNone}
		},
		Submission: func(w *e2e.World) broker.Endpoint {
			fronts(w)
			return broker.Endpoint{Host: "127.0.0.1", Port: smtp.port, TLS: broker.TLSNone}
		},
	})
	o := &outlets{t: t, secrets: []*secret{password, token, wrong, client}}
	seat, other, third := w.Seat(sales), w.Seat(support), w.Seat(billing)
	w.Dovecot.SetPassword(sales, password.text)
	w.Postern.CLIInput(password.text+"\n", "mailbox", "set-credential", sales)
	w.Postern.CLIInput(token.text+"\n", "mailbox", "set-credential", support, "--kind", "access-token")

	setMinting(t, o, w, issuer, client)
	ordinaryWork(t, o, w, seat, password)
	ordinaryWork(t, o, w, other, token)
	minted := issuedTo(issuer, "access-")
	ordinaryWork(t, o, w, third, minted)
	for i, heard := range [][]byte{imap.hears(), smtp.hears()} {
		for _, s := range []*secret{password, token, minted} {
			if s.find(heard) == "" { // or nothing below could find it
				t.Fatalf("provider %d never got the credential of %s", i, s.user)
			}
		}
	}
	o.checkClients()
	t.Run("echoed by the provider", func(t *testing.T) {
		o.t = t
		echoed(t, o, imap, smtp, w, seat, password)
		echoed(t, o, imap, smtp, w, other, token)
		// The forms of a token are known from the one before.
		echoed(t, o, imap, smtp, w, third, minted.in("plain", "hex", "SASL OAUTHBEARER"))
		// Both are refused while they are checked, with all that was sent echoed.
		imap.answer(echoIMAP(wrong, echoes[0].imap, "plain"))
		smtp.answer(echoSMTP(wrong, "535 5.7.8 %s", "plain"))
		o.cli(w.Postern, wrong.text+"\n", "mailbox", "set-credential", sales)
		imap.answer(nil)
		smtp.answer(nil)
		o.checkClients()
	})
	t.Run("wrong and malformed", func(t *testing.T) { o.t = t; malformedInput(o, w, password, wrong) })
	t.Run("consent withdrawn", func(t *testing.T) { o.t = t; consentWithdrawn(t, o, w, third, issuer) })
	t.Run("without Vault", func(t *testing.T) {
		o.t = t
		w.Vault.Kill()
		c, answer := tryLogin(t, seat)
		wantPrefix(t, "a login", answer, "NO [UNAVAILABLE] ")
		o.client(c)
		m, _ := tryAuth(t, seat)
		o.client(m)
		o.cli(w.Postern, password.text+"\n", "mailbox", "set-credential", sales)
		o.checkClients()
		o.pages(w)
		w.Vault.Restart()
		w.Vault.Unseal()
	})
	t.Run("what is kept", func(t *testing.T) {
		o.t = t
		for _, issued := range issuer.Issued() {
			o.secrets = append(o.secrets, asSecret(billing, issued))
		}
		o.pages(w)
		o.everyCommand(w)
		o.files(w)
		w.Postern.Restart()
		o.files(w)
		w.CheckNothingLeaked()
		for _, s := range o.secrets {
			if w.Vault.Holds([]byte(s.text)) {
				t.Errorf("Vault's storage or log holds a credential of %s in the clear", s.user)
			}
		}
	})
	t.Logf("%d outlets, %d octets searched for %d credentials in %d forms", o.checked, o.octets, len(o.secrets), len(password.forms)+3)
}

// ordinaryWork is a day's, with the mistakes that people make: one is to give
// the mailbox's own password as the app password.
func ordinaryWork(t *testing.T, o *outlets, w *e2e.World, s *e2e.Seat, own *secret) {
	t.Helper()
	quoted := own.forms["quoted"]
	bearer := base64.StdEncoding.EncodeToString([]byte("n,a=" + s.Mailbox + ",\x01auth=Bearer " + own.text + "\x01\x01"))
	c := o.client(s.DialIMAP(t))
	// Few of them: each failure is answered later than the one before.
	for _, mistake := range []string{fmt.Sprintf("LOGIN %s \"%s\"", s.Mailbox, quoted), "AUTHENTICATE OAUTHBEARER " + bearer} {
		if _, answer := c.Cmd("%s", mistake); !strings.HasPrefix(answer, "NO [AUTHENTICATIONFAILED]") {
			t.Errorf("the mailbox's own password as app password: %s", answer)
		}
	}
	c.Cmd("LOGIN %s \"%s", s.Mailbox, quoted) // half of a string
	c = o.client(s.DialIMAP(t))
	c.Cmd("%s", quoted)
	c.OK("LOGIN %s %s", s.Mailbox, s.Token)
	for _, command := range []string{
		"CAPABILITY", "ID NIL", "NAMESPACE", `LIST "" *`, "SELECT INBOX", "UID FETCH 1:* (UID FLAGS)", "SEARCH ALL", "NOOP", "STATUS Sent (MESSAGES)",
		"APPEND Drafts {6+}\r\nA: b\r\n", "LOGIN a b", "XUNKNOWN", `GETQUOTAROOT INBOX`, "LOGOUT",
	} {
		c.Cmd("%s", command)
	}
	plain := o.client(w.Postern.DialPlain(t, w.Postern.IMAPPort))
	plain.Expect(`\* OK .*`)
	plain.OK("STARTTLS")
	plain.StartTLS(w.Postern, s.Certificate)
	plain.OK("LOGIN %s %s", s.Mailbox, s.Token)
	plain.OK("LOGOUT")

	m := o.client(s.DialSubmission(t))
	m.Ask(535, "AUTH PLAIN %s", own.forms["SASL PLAIN"])
	m = o.client(s.Submission(t))
	for _, command := range []string{"MAIL FROM:<" + s.Mailbox + ">", "RCPT TO:<nobody@client.example>", "RCPT TO:<" + sales + ">", "DATA"} {
		m.Send("%s\r\n", command)
		m.Reply()
	}
	m.Send("%s.\r\n", message(s.Mailbox, sales, "ordinary-"+own.mark[:6], "work\r\n"))
	m.Want(250)
	m.Ask(221, "QUIT")
}

// echoes are answers to a login, with %[1]s for its tag and %[2]s for what the
// provider repeats of the credential. The last lets the client in.
var echoes = []struct{ imap, smtp string }{
	{"%[1]s NO [AUTHENTICATIONFAILED] no such password: %[2]s\r\n", "535 5.7.8 no such password: %s\r\n"},
	{"%[1]s NO [ALERT] %[2]s\r\n", "454 4.7.0 %s\r\n"},
	{"%[1]s BAD %[2]s\r\n", "501 5.5.2 %s\r\n"},
	{"* BYE %[2]s\r\n", "421 4.7.0 %s\r\n"},
	{"%[1]s NO [REFERRAL imap://%[2]s@elsewhere.example/] elsewhere\r\n", "535-5.7.8 %[1]s\r\n535 5.7.8 %[1]s\r\n"},
	{"+ %[2]s\r\n%[1]s NO %[2]s\r\n", "334 %s\r\n"},
	{"no answer at all: %[2]s\r\n", "no reply at all: %s\r\n"},
	{"* OK [ALERT] %[2]s\r\n%[1]s OK [CAPABILITY IMAP4rev1 %[2]s] %[2]s\r\n", "235 2.7.0 %s\r\n"},
}

// echoed has the provider answer logins with what it was sent, in every form.
func echoed(t *testing.T, o *outlets, imap, smtp *front, w *e2e.World, s *e2e.Seat, own *secret) {
	t.Helper()
	var asked [2]atomic.Int64
	asks := func(n *atomic.Int64, script func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) { n.Add(1); script(c) }
	}
	for form := range own.forms {
		for _, echo := range echoes {
			before := [2]int64{asked[0].Load(), asked[1].Load()}
			imap.answer(asks(&asked[0], echoIMAP(own, echo.imap, form)))
			smtp.answer(asks(&asked[1], echoSMTP(own, echo.smtp, form)))
			c := o.client(s.DialIMAP(t))
			c.Send("a LOGIN %s %s\r\n", s.Mailbox, s.Token)
			if line, err := c.TryLine(patience); err != nil || !strings.HasPrefix(line, "a ") {
				t.Errorf("%q, %q: the client was answered %q, %v", form, echo.imap, line, err)
			}
			m, _ := tryAuth(t, s)
			o.client(m)
			// One that was let in would take a place from those that follow.
			c.Close()
			m.Close()
			for i, protocol := range []string{"IMAP", "submission"} {
				if asked[i].Load() == before[i] {
					t.Errorf("%q, %q: the provider was not asked for %s", form, echo, protocol)
				}
			}
		}
	}
	imap.answer(nil)
	smtp.answer(nil)
}

// echoIMAP greets, and answers whatever logs in.
func echoIMAP(s *secret, answer, form string) func(net.Conn) {
	return func(c net.Conn) {
		fmt.Fprintf(c, "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER] ready\r\n")
		in := bufio.NewReader(c)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			tag, command, _ := strings.Cut(line, " ")
			switch {
			case strings.HasPrefix(command, "CAPABILITY"):
				fmt.Fprintf(c, "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER\r\n%s OK done\r\n", tag)
			case strings.HasPrefix(command, "AUTHENTICATE"), strings.HasPrefix(command, "LOGIN"):
				fmt.Fprintf(c, answer, tag, s.forms[form])
				if !strings.HasPrefix(answer, "* OK") && !strings.HasPrefix(answer, "+") {
					return
				}
			case command == "":
				// the answer to a challenge
			default:
				fmt.Fprintf(c, "%s OK done\r\n", tag)
			}
		}
	}
}

// echoSMTP is the same for submission.
func echoSMTP(s *secret, answer, form string) func(net.Conn) {
	return func(c net.Conn) {
		fmt.Fprintf(c, "220 ready\r\n")
		in := bufio.NewReader(c)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			switch {
			case strings.HasPrefix(line, "EHLO"):
				fmt.Fprintf(c, "250-ready\r\n250 AUTH PLAIN XOAUTH2 OAUTHBEARER\r\n")
			case strings.HasPrefix(line, "AUTH"):
				fmt.Fprintf(c, answer, s.forms[form])
			default:
				fmt.Fprintf(c, "501 5.5.2 no\r\n")
				return
			}
		}
	}
}

// malformedInput gives the credential in every wrong way.
func malformedInput(o *outlets, w *e2e.World, password, wrong *secret) {
	const path = "/v1/mailboxes/" + sales + "/credential"
	inJSON := func(s *secret) string { return string(s.forms["JSON"]) }
	for _, s := range []*secret{password, wrong} {
		for _, body := range []string{
			s.text, `"` + inJSON(s) + `"`, `{"secret":"` + inJSON(s), `{"secret":"` + inJSON(s) + `"}`, `{"kind":"password","secret":["` + inJSON(s) + `"]}`,
			`{"kind":"` + inJSON(s) + `","secret":"x"}`, `{"kind":"password","` + inJSON(s) + `":"x"}`, `{"kind":"password","secret":{"` + inJSON(s) + `":1}}`,
			`{"kind":"password","secret":"` + inJSON(s) + `\u0000"}`, `{"kind":"access-token","secret":"` + inJSON(s) + ` "}`, `{"kind":"password","secret":"` + inJSON(s) + `","secret":5}`,
			`{"kind":"password","username":"` + inJSON(s) + `\n","secret":"` + inJSON(s) + `"}`, `{"kind":"password","secret":"` + inJSON(s) + `","extra":"` + inJSON(s) + `"}`,
			"kind=password&secret=" + url.QueryEscape(s.text), `{"kind":"password","secret":"` + strings.Repeat(inJSON(s), 4000) + `"}`, "\xff\xfe" + s.text, s.mark,
			`{"kind":"password","secret":` + s.mark + `}`,
		} {
			for _, contentType := range []string{"application/json", "text/plain", "application/x-www-form-urlencoded", ""} {
				if status := o.api(w.Postern, http.MethodPut, path, contentType, body); status < 400 {
					o.t.Errorf("a malformed body was taken: %d", status)
				}
			}
		}
		for _, where := range []struct{ method, path string }{
			{http.MethodPost, "/v1/mailboxes"},
			{http.MethodPatch, "/v1/mailboxes/" + sales},
			{http.MethodPost, path},
			{http.MethodGet, path},
			{http.MethodPost, "/v1/agents"},
			{http.MethodPost, "/v1/nothing"},
			{http.MethodPost, "/v1/locks"},
			{http.MethodPatch, "/v1/sites/none"},
		} {
			o.api(w.Postern, where.method, where.path, "application/json", `{"secret":"`+inJSON(s)+`","password":"`+inJSON(s)+`"}`)
			o.api(w.Postern, where.method, where.path, "application/json", `{"target":["`+inJSON(s)+`"],"aliases":"`+inJSON(s)+`","name":{"x":"`+inJSON(s)+`"}}`)
			o.api(w.Postern, where.method, where.path, "application/json", s.text)
		}
	}
	for _, stdin := range []string{wrong.text + "\n", wrong.text + "\n" + wrong.text + "\n", "\xff" + wrong.text + "\n", strings.Repeat(wrong.text, 3000)} {
		o.cli(w.Postern, stdin, "mailbox", "set-credential", sales)
		o.cli(w.Postern, stdin, "--json", "mailbox", "set-credential", sales)
		o.cli(w.Postern, stdin, "mailbox", "set-credential", support, "--kind", "access-token")
	}
	o.cli(w.Postern, wrong.text, "mailbox", "set-credential", sales, "--stdin-raw")
}
