// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// longestCommand is RFC 5321 §4.5.3.1.4's limit, which AUTH is under as well
// (RFC 4954 §4); a longer initial response waits to be asked for.
const longestCommand = 512

// smtpLogin is the state of a submission login (RFC 6409, RFC 5321, RFC 4954).
type smtpLogin struct {
	*wire
	hostname   string
	cred       *credentials
	extensions map[string]string
}

// loginSubmission takes a connection from the greeting through EHLO and AUTH.
func loginSubmission(w *wire, e *broker.Endpoint, hostname string, cred *credentials) (*broker.SubmissionConn, error) {
	l := &smtpLogin{wire: w, hostname: hostname, cred: cred}
	r, err := l.reply()
	if err != nil {
		return nil, err
	}
	if r.code != 220 {
		return nil, r.unexpected()
	}
	if err := l.ehlo(); err != nil {
		return nil, err
	}
	if e.TLS == broker.TLSStartTLS {
		if err := l.startTLS(); err != nil {
			return nil, err
		}
	}
	if err := l.authenticate(); err != nil {
		return nil, err
	}
	if w.r.Buffered() > 0 {
		return nil, protocolError("octets behind the answer to AUTH")
	}
	return &broker.SubmissionConn{Conn: w.conn, Extensions: l.extensions}, nil
}

func (l *smtpLogin) ehlo() error {
	r, err := l.command("EHLO " + l.hostname)
	if err != nil {
		return err
	}
	if r.code != 250 {
		return r.unexpected()
	}
	l.extensions = make(map[string]string)
	// The first line is the server's name.
	for _, line := range r.lines[1:] {
		keyword, parameters, _ := strings.Cut(line, " ")
		l.extensions[strings.ToUpper(keyword)] = parameters
	}
	return nil
}

func (l *smtpLogin) startTLS() error {
	if _, ok := l.extensions["STARTTLS"]; !ok {
		return tlsError(errNoStartTLS)
	}
	r, err := l.command("STARTTLS")
	if err != nil {
		return err
	}
	if r.code != 220 {
		return answeredTLS(r.words())
	}
	if err := l.handshake(); err != nil {
		return err
	}
	return l.ehlo() // RFC 3207 §4.2: what was said in plain text is void
}

func (l *smtpLogin) authenticate() error {
	offered := strings.Fields(strings.ToUpper(l.extensions["AUTH"]))
	has := func(mechanism string) bool { return slices.Contains(offered, mechanism) }
	names := tokenMechanisms
	if l.cred.kind == broker.KindPassword {
		names = []string{"PLAIN", "LOGIN"}
	}
	x := l.cred.choose(has, names...)
	if x == nil {
		return errNoMechanism(offered)
	}
	return l.run(x)
}

func (l *smtpLogin) run(x *exchange) error {
	command := []byte("AUTH " + x.mechanism)
	if response := x.initialResponse(longestCommand - len(command) - len(" \r\n")); response != nil {
		command = joinSecret(command, []byte(" "), response)
	}
	if err := l.sendSecret(joinSecret(command, []byte("\r\n"))); err != nil {
		return err
	}
	for {
		r, err := l.reply()
		if err != nil {
			return err
		}
		if r.code != 334 {
			return r.outcome()
		}
		octets, err := x.respond()
		if err != nil {
			return err
		}
		if err := l.sendSecret(octets); err != nil {
			return err
		}
	}
}

// smtpReply is one reply, of one line or more.
type smtpReply struct {
	code  int
	lines []string
}

// outcome sorts the reply to AUTH (RFC 4954 §6). 500 to 504 are complaints
// about the command, and 523 and 538 about the connection: none of them judges
// the credential.
func (r smtpReply) outcome() error {
	switch {
	case r.code == 235:
		return nil
	case r.code == 523, r.code == 538:
		return answeredTLS(r.words())
	case r.code >= 500 && r.code <= 504:
		return answeredOutOfProtocol(r.words())
	case r.code >= 500:
		return refused(r.words())
	}
	return r.unexpected()
}

// unexpected sorts a reply that ends the login before the credential counted.
func (r smtpReply) unexpected() error {
	if r.code >= 400 && r.code < 500 || r.code == 554 { // RFC 5321 §3.1: no service here
		return busy(r.words())
	}
	return answeredOutOfProtocol(r.words())
}

func (r smtpReply) words() []byte {
	return []byte(strconv.Itoa(r.code) + " " + strings.Join(r.lines, " "))
}

func (l *smtpLogin) command(command string) (smtpReply, error) {
	if err := l.send(command + "\r\n"); err != nil {
		return smtpReply{}, err
	}
	return l.reply()
}

// reply reads a reply (RFC 5321 §4.2): each line has the same code, and the
// last a space or nothing behind it.
func (l *smtpLogin) reply() (smtpReply, error) {
	var r smtpReply
	l.left = maxAnswer
	for {
		line, err := l.line()
		if err != nil {
			return r, err
		}
		code := replyCode(line)
		if code == 0 || r.code != 0 && code != r.code {
			return r, protocolError("a line that is no part of a reply")
		}
		r.code = code
		last := len(line) == 3 || line[3] == ' '
		r.lines = append(r.lines, string(line[min(4, len(line)):]))
		if last {
			return r, nil
		}
	}
}

// replyCode returns 0 unless the line begins as a reply does.
func replyCode(line []byte) int {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0
	}
	code := 0
	for _, octet := range line[:3] {
		if octet < '0' || octet > '9' {
			return 0
		}
		code = code*10 + int(octet-'0')
	}
	if code < 200 || code > 599 {
		return 0
	}
	return code
}
