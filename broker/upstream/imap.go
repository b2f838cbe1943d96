// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// longestInitialResponse keeps the command within the 8192 octets that servers
// are asked to take (RFC 7162 §4).
const longestInitialResponse = 8000

// imapLogin is the state of an IMAP login (RFC 9051, RFC 3501).
type imapLogin struct {
	*wire
	cred   *credentials
	prefix string
	tags   int
	// capabilities that the server told since they were last forgotten.
	capabilities []string
	// bye is set once the server has said BYE to the command that runs.
	bye error
}

// loginIMAP takes a connection from the greeting to the authenticated state.
func loginIMAP(w *wire, e *broker.Endpoint, cred *credentials) (*broker.IMAPConn, error) {
	l := &imapLogin{wire: w, cred: cred, prefix: newPrefix()}
	return l.toAuthenticated(e)
}

func (l *imapLogin) toAuthenticated(e *broker.Endpoint) (*broker.IMAPConn, error) {
	if err := l.greeting(); err != nil {
		return nil, err
	}
	if e.TLS == broker.TLSStartTLS {
		if err := l.startTLS(); err != nil {
			return nil, err
		}
	}
	if err := l.askCapabilities(); err != nil {
		return nil, err
	}
	if err := l.authenticate(); err != nil {
		return nil, err
	}
	if err := l.askCapabilities(); err != nil {
		return nil, err
	}
	return &broker.IMAPConn{Conn: l.conn, Buffered: l.buffered(), Capabilities: l.capabilities}, nil
}

// newPrefix returns what tags begin with: random, so that no answer can be
// written in advance.
func newPrefix() string { return "P" + rand.Text()[:6] }

func (l *imapLogin) greeting() error {
	line, err := l.line()
	if err != nil {
		return err
	}
	rest, ok := bytes.CutPrefix(line, []byte("* "))
	if !ok {
		return protocolError("the greeting is none of IMAP's")
	}
	r := parseResponse(rest)
	switch r.status {
	case "OK":
		l.learn(r)
		return nil
	case "BYE":
		return busy(r.text)
	case "PREAUTH":
		// Somebody else's account, and one that no STARTTLS could protect.
		return answeredOutOfProtocol(rest)
	}
	return protocolError("the greeting is none of IMAP's")
}

func (l *imapLogin) startTLS() error {
	if err := l.askCapabilities(); err != nil {
		return err
	}
	if !l.offers("STARTTLS") {
		return tlsError(errNoStartTLS)
	}
	r, err := l.simple("STARTTLS")
	if err != nil {
		return err
	}
	if r.status != "OK" {
		return answeredTLS(r.text)
	}
	l.capabilities = nil // RFC 9051 §6.2.1: what was said in plain text is void
	return l.handshake()
}

// askCapabilities asks unless the server told by itself.
func (l *imapLogin) askCapabilities() error {
	if len(l.capabilities) > 0 {
		return nil
	}
	r, err := l.simple("CAPABILITY")
	if err != nil {
		return err
	}
	if r.status != "OK" || len(l.capabilities) == 0 {
		return answeredOutOfProtocol(r.text)
	}
	return nil
}

func (l *imapLogin) offers(capability string) bool {
	return slices.ContainsFunc(l.capabilities, func(c string) bool { return strings.EqualFold(c, capability) })
}

// authenticate logs in by what the server offers.
func (l *imapLogin) authenticate() error {
	has := func(mechanism string) bool { return l.offers("AUTH=" + mechanism) }
	initial := l.offers("SASL-IR")
	if l.cred.kind == broker.KindAccessToken {
		return l.run(l.cred.choose(has, tokenMechanisms...), initial)
	}
	if has("PLAIN") {
		return l.run(l.cred.exchange("PLAIN"), initial)
	}
	if !l.offers("LOGINDISABLED") {
		return l.login()
	}
	return l.run(l.cred.choose(has, "LOGIN"), initial)
}

// run does a SASL exchange (RFC 9051 §6.2.2); nil: there is no mechanism.
func (l *imapLogin) run(x *exchange, initial bool) error {
	if x == nil {
		return errNoMechanism(l.capabilities)
	}
	l.capabilities = nil // they change with the login
	tag := l.tag()
	command := []byte(tag + " AUTHENTICATE " + x.mechanism)
	if initial {
		if response := x.initialResponse(longestInitialResponse); response != nil {
			command = joinSecret(command, []byte(" "), response)
		}
	}
	if err := l.sendSecret(joinSecret(command, []byte("\r\n"))); err != nil {
		return err
	}
	r, err := l.answer(tag, x.respond)
	if err != nil {
		return err
	}
	return l.outcome(r, x.failed)
}

// login uses the LOGIN command. Names and passwords that a quoted string
// cannot hold go as literals, which the server asks for.
func (l *imapLogin) login() error {
	l.capabilities = nil
	tag := l.tag()
	// Each part is sent when the server asks for it, the first at once.
	parts := [][]byte{[]byte(tag + " LOGIN ")}
	defer func() {
		for _, p := range parts {
			clear(p)
		}
	}()
	add := func(s []byte, end string) {
		last := len(parts) - 1
		if quotable(s) {
			quoted := appendQuoted(make([]byte, 0, 2*len(s)+2), s)
			parts[last] = joinSecret(parts[last], quoted, []byte(end))
			return
		}
		parts[last] = joinSecret(parts[last], []byte("{"+strconv.Itoa(len(s))+"}\r\n"))
		parts = append(parts, joinSecret(bytes.Clone(s), []byte(end)))
	}
	add([]byte(l.cred.user), " ")
	add(l.cred.secret.Reveal(), "\r\n")
	next := func() ([]byte, error) {
		if len(parts) == 0 {
			return nil, protocolError("LOGIN: a continuation too many")
		}
		part := parts[0]
		parts = parts[1:]
		return part, nil
	}
	first, _ := next() // there is one
	if err := l.sendSecret(first); err != nil {
		return err
	}
	r, err := l.answer(tag, next)
	if err != nil {
		return err
	}
	return l.outcome(r, false)
}

// quotable reports whether a quoted string can hold s in every IMAP dialect.
func quotable(s []byte) bool {
	for _, octet := range s {
		if octet < ' ' || octet > '~' {
			return false
		}
	}
	return true
}

// transient are response codes that mean "try again" (RFC 5530 §3, and what
// large providers add); a NO with any other code, or none, is a refusal.
var transient = map[string]bool{
	"UNAVAILABLE": true, "INUSE": true, "LIMIT": true, "SERVERBUG": true,
	"OVERQUOTA": true, "THROTTLED": true,
}

// outcome sorts the tagged answer to a login.
func (l *imapLogin) outcome(r response, failureTold bool) error {
	switch {
	case r.status == "OK":
		l.learn(r)
		return nil
	case r.status == "NO" && r.code == "PRIVACYREQUIRED":
		return answeredTLS(r.text)
	case r.status == "NO" && (transient[r.code] || tooManyConnections(r)):
		return busy(r.text)
	case r.status == "NO":
		return refused(r.text)
	case failureTold:
		// The failure was told by a challenge. Some servers then take the
		// answer that it demands for an error of syntax.
		return refused(r.text)
	}
	return answeredOutOfProtocol(r.text)
}

// tooManyConnections knows Gmail's "NO [ALERT] Too many simultaneous
// connections. (Failure)", which says nothing of the password.
func tooManyConnections(r response) bool {
	return r.code == "ALERT" && bytes.Contains(bytes.ToLower(r.text), []byte("too many simultaneous connections"))
}

func (l *imapLogin) tag() string {
	l.tags++
	return l.prefix + strconv.Itoa(l.tags)
}

// simple runs a command without arguments.
func (l *imapLogin) simple(command string) (response, error) {
	tag := l.tag()
	if err := l.send(tag + " " + command + "\r\n"); err != nil {
		return response{}, err
	}
	return l.answer(tag, func() ([]byte, error) {
		return nil, protocolError("%s: a continuation that nobody asked for", command)
	})
}

// answer reads up to the tagged answer. respond makes what answers a
// continuation request; it is wiped.
func (l *imapLogin) answer(tag string, respond func() ([]byte, error)) (response, error) {
	l.left = maxAnswer
	l.bye = nil
	for {
		line, err := l.line()
		if err != nil {
			return response{}, cmp.Or(l.bye, err)
		}
		if rest, ok := bytes.CutPrefix(line, []byte(tag+" ")); ok {
			return l.tagged(rest)
		}
		if rest, ok := bytes.CutPrefix(line, []byte("* ")); ok {
			if err := l.untagged(rest); err != nil {
				return response{}, err
			}
			continue
		}
		// RFC 9051 §2.2.1: "+" stands alone or before a space.
		if len(line) == 0 || line[0] != '+' || len(line) > 1 && line[1] != ' ' {
			return response{}, protocolError("a line that is no answer")
		}
		octets, err := respond()
		if err != nil {
			return response{}, err
		}
		if err := l.sendSecret(octets); err != nil {
			return response{}, err
		}
	}
}

func (l *imapLogin) tagged(rest []byte) (response, error) {
	r := parseResponse(rest)
	switch {
	case r.status == "OK" && l.bye != nil:
		return response{}, l.bye
	case r.status == "OK", r.status == "NO", r.status == "BAD":
		return r, nil
	}
	return response{}, protocolError("a tagged answer that is none of OK, NO, BAD")
}

// untagged takes a line that came by itself: capabilities are kept, BYE counts
// unless a refusal follows it, and anything else is let pass unless it goes on
// in a literal.
func (l *imapLogin) untagged(rest []byte) error {
	r := parseResponse(rest)
	switch r.status {
	case "BYE":
		l.bye = busy(r.text)
		return nil
	case "OK", "NO", "BAD":
		l.learn(r)
		return nil
	}
	if endsInLiteral(rest) {
		return protocolError("a literal before the login")
	}
	if r.status == "CAPABILITY" {
		l.capabilities = capabilities(r.text)
	}
	return nil
}

// endsInLiteral reports whether a line announces a literal (RFC 9051 §4.3).
// It errs towards yes.
func endsInLiteral(line []byte) bool {
	open := bytes.LastIndexByte(line, '{')
	return open >= 0 && line[len(line)-1] == '}' && len(line)-open > 2
}

func (l *imapLogin) learn(r response) {
	if r.code == "CAPABILITY" {
		l.capabilities = capabilities(r.codeText)
	}
}

// capabilities splits a list, leaving out what is no atom: it could not be
// passed on.
func capabilities(list []byte) []string {
	var all []string
	for field := range bytes.SplitSeq(list, []byte(" ")) {
		if len(field) > 0 && !bytes.ContainsFunc(field, notInAtom) {
			all = append(all, string(field))
		}
	}
	return all
}

// notInAtom is the complement of ATOM-CHAR (RFC 9051 §9).
func notInAtom(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune(`(){%*"\]`, r)
}

// response is a status response, or another whose first word is its status.
type response struct {
	status string // in upper case
	// code is the response code's first word in upper case, codeText the rest
	// of it, and text all that stands behind the status; both belong to the
	// line that was read last.
	code     string
	codeText []byte
	text     []byte
}

func parseResponse(line []byte) response {
	status, text, _ := bytes.Cut(line, []byte(" "))
	r := response{status: strings.ToUpper(string(status)), text: text}
	if inner, ok := bytes.CutPrefix(text, []byte("[")); ok {
		if inner, _, ok = bytes.Cut(inner, []byte("]")); ok {
			code, rest, _ := bytes.Cut(inner, []byte(" "))
			r.code, r.codeText = strings.ToUpper(string(code)), rest
		}
	}
	return r
}
