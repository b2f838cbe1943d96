// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// smuggled is a second message, which a smuggler wants read as commands.
const smuggled = "MAIL FROM:<" + sales + ">\r\nRCPT TO:<" + victim + ">\r\nDATA\r\nFrom: " + sales + "\r\nSubject: smuggled\r\n\r\nx\r\n.\r\nQUIT\r\n"

// endsOfData are what some server takes for the end of a message, or did.
var endsOfData = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r\n.\r\r\n", "\r\n\x00.\r\n", "\r\n.\x00\r\n",
	"\n\n.\n\n", "\r\n .\r\n", "\r\n. \r\n", "\r\n..\r\n", "\r\n.\t\r\n", "\r\n.\v\r\n", "\u2028.\u2028", "\u0085.\u0085",
	"\n\r.\n\r", "\r\n\r.\r\n", "\r\r\n.\r\r\n", "\n.\r", "\r.\n", "\r\n.\n\r\n", "\x00\r\n.\r\x00\n", "\r\n.\b\r\n", "\r\n\xe0.\r\n",
	"\r\n.\f\r\n", "\x8d\x8a.\x8d\x8a", "\xc0\x8d\xc0\x8a.\xc0\x8d\xc0\x8a", "\r\n\u200b.\r\n", "\r\n...\r\n", "\r\n\r\n..\r\n\r\n",
}

// smtpSmuggles are said behind a login.
func smtpSmuggles() []smuggling {
	from, to := "MAIL FROM:<"+sales+">", "RCPT TO:<"+support+">"
	return []smuggling{
		{"bare LF", from + "\nRCPT TO:<" + victim + ">\r\n"},
		{"bare CR", from + "\rRCPT TO:<" + victim + ">\r\n"},
		{"LF in a recipient", from + "\r\n" + to + "\nRCPT TO:<" + victim + ">\r\n"},
		{"NUL", from + "\r\n" + to + "\x00RCPT TO:<" + victim + ">\r\n"},
		{"quoted parameters", from + "\r\nRCPT TO:<\"" + victim + "> NOTIFY=NEVER ORCPT=rfc822;x\"@client.example>\r\n"},
		{"quoted line end", from + "\r\nRCPT TO:<\"x\r\n\"@client.example>\r\nRSET\r\nRCPT TO:<" + victim + ">\r\n"},
		{"escaped line end", from + "\r\nRCPT TO:<\"x\\\r\nRCPT TO:<" + victim + ">\"@client.example>\r\n"},
		{"escaped quote", from + "\r\nRCPT TO:<\"x\\\"> \"@client.example>\r\nRCPT TO:<\"\\\\\"> RCPT TO:<" + victim + ">\r\n"},
		{"bracket in brackets", from + "\r\nRCPT TO:<<" + victim + ">>\r\nRCPT TO:<" + support + "><" + victim + ">\r\nRCPT TO:<" + support + ">,<" + victim + ">\r\n"},
		{"no brackets", from + "\r\nRCPT TO:" + victim + "\r\nRCPT TO: <" + victim + ">\r\nRCPT  TO:<" + victim + "> \r\n"},
		{"source route", from + "\r\nRCPT TO:<@" + "client.example:" + victim + ">\r\nRCPT TO:<@a.example,@b.example:" + victim + ">\r\n"},
		{"percent hack and bang", from + "\r\nRCPT TO:<victim%client.example@client.example>\r\nRCPT TO:<client.example!victim>\r\n"},
		{"comment", from + "\r\nRCPT TO:<" + support + "(" + victim + ")>\r\n" + to + " (x)\r\n"},
		{"address literal", from + "\r\nRCPT TO:<victim@[127.0.0.1]>\r\nRCPT TO:<victim@[x]> x\r\nRCPT TO:<victim@[127.0.0.1\r\n]>\r\n"},
		{"ORCPT with a line end", from + " ENVID=x+0D+0ARCPT\r\n" + to + " ORCPT=rfc822;x\nRCPT\r\n"},
		{"ORCPT that decodes to a line end", from + "\r\n" + to + " ORCPT=rfc822;x+0D+0ARCPT+20TO:+3C" + victim + "+3E\r\n"},
		{"ORCPT with a space", from + "\r\n" + to + " ORCPT=rfc822;x RCPT TO:<" + victim + ">\r\n"},
		{"ENVID with a bracket", from + " ENVID=<x>\r\n" + from + " ENVID=x+3\r\n" + from + " ENVID=\r\n"},
		{"SIZE that is none", from + " SIZE=1x\r\n" + from + " SIZE=-1\r\n" + from + " SIZE=99999999999999999999999\r\n" + from + " SIZE=1 SIZE=2\r\n" + from + " SIZE=+5\r\n"},
		{"sender with more", "MAIL FROM:<" + sales + "> <" + victim + ">\r\nMAIL FROM:<" + sales + ">SIZE=1\r\nMAIL FROM:<" + sales + ",x>\r\nMAIL FROM:<\"" + sales + "\">\r\n"},
		{"sender of another", "MAIL FROM:<" + victim + ">\r\n" + to + "\r\nDATA\r\n" + message(victim, support, "forged", "x\r\n.\r\n")},
		{"sender in another case", "MAIL FROM:<\"sales\"@client.example>\r\nRSET\r\nMAIL FROM:<sales@CLIENT.example.>\r\nMAIL FROM:<sale\u017f@client.example>\r\n"},
		{"BDAT", from + "\r\n" + to + "\r\nBDAT 600 LAST\r\n" + smuggled},
		{"BDAT in pieces", from + "\r\n" + to + "\r\nBDAT 4\r\nab\r\nBDAT 0 LAST\r\n" + smuggled},
		{"DATA refused", "DATA\r\n" + smuggled},
		{"DATA without RCPT", from + "\r\nDATA\r\n" + smuggled},
		{"DATA with a RCPT that is refused", from + "\r\nRCPT TO:<x>\r\nDATA\r\n" + smuggled},
		{"DATA with an argument", from + "\r\n" + to + "\r\nDATA x\r\nQUIT\r\n"},
		{"DATA twice", from + "\r\n" + to + "\r\nDATA\r\n" + message(sales, support, "twice", "x\r\n.\r\nDATA\r\n") + smuggled},
		{"DATA that is pipelined", from + "\r\n" + to + "\r\nDATA\r\n" + message(sales, support, "pipelined", "x\r\n.\r\n") + "RCPT TO:<" + victim + ">\r\nQUIT\r\n"},
		{"DATA with a forged From", from + "\r\n" + to + "\r\nDATA\r\n" + message(victim, support, "forged", "x\r\n.\r\n") + "RCPT TO:<" + victim + ">\r\nDATA\r\nx\r\n.\r\n"},
		{"header with a bare CR", from + "\r\n" + to + "\r\nDATA\r\nX: y\rFrom: " + victim + "\r\n" + message(sales, support, "cr", "x\r\n.\r\n") + "QUIT\r\n"},
		{"header with another From", from + "\r\n" + to + "\r\nDATA\r\nFrom : " + victim + "\r\n" + message(sales, support, "from", "x\r\n.\r\n") + "QUIT\r\n"},
		{"header without end", from + "\r\n" + to + "\r\nDATA\r\nFrom: " + sales + "\r\n.\r\n" + "RCPT TO:<" + victim + ">\r\nQUIT\r\n"},
		{"line of 100 KB", from + "\r\n" + to + "\r\nDATA\r\n" + message(sales, support, "long", strings.Repeat("x", 100000)+"\r\n.\r\n") + "QUIT\r\n"},
		{"RSET and the rest", from + "\r\n" + to + "\r\nRSET\r\nRCPT TO:<" + victim + ">\r\nDATA\r\n" + smuggled},
		{"EHLO in between", from + "\r\n" + to + "\r\nEHLO x\r\nRCPT TO:<" + victim + ">\r\nDATA\r\n" + smuggled},
		{"AUTH twice", "AUTH PLAIN\r\nRCPT TO:<" + victim + ">\r\n"},
		{"AUTH with commands in base64", "AUTH LOGIN\r\nTUFJTCBGUk9NOjx4Pg0K\r\nUkNQVCBUTzo8eD4NCg==\r\n"},
		{"AUTH in a transaction", from + "\r\nAUTH PLAIN AHgAeA==\r\nRCPT TO:<" + victim + ">\n\r\n"},
		{"AUTH as a parameter", from + " AUTH=<" + victim + ">\r\n" + from + " AUTH=x+0D+0ARCPT\r\nRSET\r\n" + from + " AUTH=x@y.example RET=FULL\r\n"},
		{"XCLIENT", "XCLIENT ADDR=192.0.2.1\r\nXFORWARD NAME=x\r\nXCLIENT LOGIN=" + victim + "\r\nXEXCH50 2 2\r\nxx\r\n"},
		{"other commands", "ETRN client.example\r\nTURN\r\nVRFY victim\r\nEXPN all\r\nHELP\r\nSEND FROM:<x>\r\nSOML FROM:<x>\r\nSAML FROM:<x>\r\nGET / HTTP/1.1\r\n"},
		{"unknown parameter", from + " XVERP=+-\r\n" + from + " AUTH=<>\r\n"},
		{"parameters of the server's", from + " MT-PRIORITY=9 DELIVERBY=1;R HOLDFOR=60 REQUIRETLS BY=1;R SOLICIT=x\r\n" + to + " NOTIFY=SUCCESS,NEVER\r\n" + to + " XOORG=x\r\n"},
		{"long line", from + " " + strings.Repeat("x", 4000) + "\r\nRCPT TO:<" + victim + ">\r\n"},
		{"half a line", from + "\r\nRCPT TO:<" + victim + ">"},
		{"HELO with a line", "EHLO x\nRCPT TO:<" + victim + ">\r\n"},
		{"HELO with a name that is none", "EHLO x y\r\nHELO <x>\r\nEHLO \xff\r\nLHLO x\r\n"},
		{"STARTTLS", "STARTTLS\r\n" + from + "\r\n"},
		{"bytes of 8 bits", from + "\r\n" + to[:len(to)-1] + "\x85RCPT TO:<" + victim + ">\r\n"},
		{"SMTPUTF8", from + " SMTPUTF8\r\nRCPT TO:<v\u0131ctim@client.example>\r\nRCPT TO:<\uff56ictim@client.example>\r\nRCPT TO:<x\u2028RCPT@client.example>\r\nRCPT TO:<x@client\u3002example>\r\n"},
		{"SMTPUTF8 that was not asked for", from + "\r\nRCPT TO:<\u00e9@client.example>\r\nRCPT TO:<x@\u00e9.example>\r\n" + from + " SMTPUTF8=x\r\n"},
		{"overlong UTF-8", from + " SMTPUTF8\r\nRCPT TO:<x\xc0\x8d\xc0\x8aRCPT TO:<" + victim + ">@client.example>\r\n"},
		{"looks like answers", "250 ok\r\n354 go\r\n235 2.7.0 in\r\n221 bye\r\n"},
		{"backspaces", from + "\b\b\r\n" + to + "\x7f\x7f\r\nRCPT TO:<" + support + "\x1b[2K" + victim + ">\r\n"},
		{"tabs", "MAIL\tFROM:<" + sales + ">\r\n" + from + "\tSIZE=1\r\nRCPT\tTO:<" + victim + ">\r\n"},
	}
}

func smugglesSMTP(r *rig) {
	t := r.t
	s := r.Seat(sales)
	r.noSessions()
	refused := 0
	for i, end := range endsOfData {
		c := s.Submission(t)
		from := len(r.smtp.Seen(servers.ToServer)) // what the login says was said
		c.Ask(250, "MAIL FROM:<%s>", sales)
		c.Ask(250, "RCPT TO:<%s>", support)
		c.Ask(354, "DATA")
		// The smuggled message has an end of data of its own, with which the
		// whole of it is one message, if Postern takes it at all.
		c.Send("%s", message(sales, support, fmt.Sprintf("smuggle-%d-%s", i, mark(t)), "x"+end+smuggled))
		if !strings.HasPrefix(c.Reply(), "250") {
			refused++
		}
		c.Close()
		r.checkSMTP(fmt.Sprintf("DATA ending in %q", end), from, 1)
	}
	attempts := smtpSmuggles()
	for _, a := range attempts {
		r.trySMTP(s, a)
	}
	seed := *smuggleSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range *smuggleMutations {
		payload := mutateSMTP(random, attempts)
		r.trySMTP(s, smuggling{fmt.Sprintf("mutation %d of -smuggle.seed=%d, %q", i, seed, payload), payload})
	}
	servers.WaitFor(t, patience, func() bool { return r.queued() == 0 }, "Postfix to deliver what it has")
	if got := r.Dovecot.Messages(victim, "INBOX", "ALL"); len(got) != 0 {
		t.Errorf("the victim got mail: %v", got)
	}
	t.Logf("%d ends of data, %d of them refused, %d attempts and %d mutations, -smuggle.seed=%d", len(endsOfData), refused, len(attempts), *smuggleMutations, seed)
}

// trySMTP lets a client say something behind its login, and hang up.
func (r *rig) trySMTP(s *e2e.Seat, a smuggling) {
	r.t.Helper()
	c := s.Submission(r.t)
	from := len(r.smtp.Seen(servers.ToServer))
	_, _ = c.Conn.Write([]byte(a.payload)) // Postern may hang up first
	_ = c.Conn.(*tls.Conn).CloseWrite()
	c.ExpectClosed(patience)
	// A mutation may make two messages of one, in order.
	r.checkSMTP(a.name, from, strings.Count(a.payload, "\r\n.\r\n"))
}

// mutateSMTP makes an attempt out of others. It does not name the victim, whom
// it could well address in order by chance.
func mutateSMTP(random *rand.Rand, attempts []smuggling) string {
	whole := "MAIL FROM:<" + sales + ">\r\nRCPT TO:<" + support + ">\r\nDATA\r\n" + message(sales, support, fmt.Sprintf("mutated-%d", random.Uint64()), "x\r\n.\r\n")
	scraps := append([]string{"\r\n", "\n", "\r", "\x00", "<", ">", "\"", "\\", " ", "\t", "+0D+0A", "\x80", "\u2028", "DATA\r\n", "RSET\r\n", ".", "\r\nQUIT\r\n", "\x1b", "@", ":", ",", " SIZE=1", " ORCPT=rfc822;x"}, endsOfData...)
	p := whole
	for range 1 + random.IntN(4) {
		i := random.IntN(len(p) + 1)
		j := min(len(p), i+random.IntN(8))
		switch random.IntN(5) {
		case 0:
			p = p[:i] + p[j:]
		case 1:
			p = p[:j] + p[i:j] + p[j:]
		default:
			p = p[:i] + scraps[random.IntN(len(scraps))] + p[i:]
		}
	}
	if random.IntN(2) == 0 {
		p += strings.ReplaceAll(attempts[random.IntN(len(attempts))].payload, victim, support)
	}
	return p
}

// checkSMTP waits for the end of a session, and reads what Postfix got of it:
// most messages, and none to the victim.
func (r *rig) checkSMTP(name string, from, most int) {
	r.t.Helper()
	servers.WaitFor(r.t, patience, func() bool { return r.smtp.Connections() == 0 }, "the provider's connection to close")
	got, err := parseSMTP(said(r.smtp, from))
	if err != nil && !errors.Is(err, errUnended) {
		r.t.Errorf("%s: %v", name, err)
	}
	for _, command := range got.commands {
		if strings.HasPrefix(command, "RCPT TO:<"+victim) || strings.HasPrefix(command, "EHLO") {
			r.t.Errorf("%s: the provider got %q", name, command)
		}
	}
	if len(got.messages) > most {
		r.t.Errorf("%s: the provider got %d messages", name, len(got.messages))
	}
}
