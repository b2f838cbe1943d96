// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// login speaks with a client that is not authenticated. It runs on one
// goroutine and writes to the client directly.
type login struct {
	f     *Filter
	conn  *proxy.Conn
	lines *lineReader
	lexer imapwire.Lexer
	parse parser
	tries int
	bad   int
	// external says that EXTERNAL is offered: see broker.Gate.
	external bool
}

// errClosed says that the client is done for, and knows.
var errClosed = errors.New("closed")

// run returns the session of a client that logged in; nil: there is none, and
// the connection is over.
func (l *login) run(ctx context.Context) *admitted {
	l.external = l.offersExternal(ctx)
	if err := l.say("* OK [CAPABILITY %s] %s Postern ready\r\n", l.capabilities(), l.f.hostname); err != nil {
		return nil
	}
	for {
		in, err := l.command(ctx)
		if in != nil {
			return in
		}
		var syntax *imapwire.SyntaxError
		switch {
		case err == nil:
			continue
		case errors.As(err, &syntax):
			if l.bad++; !syntax.Fatal && l.bad < maxBadCommands {
				if l.say("%s BAD %s\r\n", l.tag(), syntax.Text) == nil {
					continue
				}
			}
			_ = l.say("* BYE %s\r\n", syntax.Text)
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = l.say("* BYE [UNAVAILABLE] the login took too long\r\n")
		}
		return nil
	}
}

func (l *login) say(format string, args ...any) error {
	_, err := fmt.Fprintf(l.conn, format, args...)
	return err
}

func (l *login) tag() []byte {
	if t := l.lexer.Command().Tag(); len(t) > 0 {
		return t
	}
	return []byte("*")
}

// capabilities are those before login.
func (l *login) capabilities() string {
	const always = "IMAP4rev1 LITERAL+ SASL-IR ID"
	if l.conn.IsTLS() {
		const passwords = always + " AUTH=PLAIN AUTH=LOGIN AUTH=OAUTHBEARER"
		if l.external {
			return passwords + " AUTH=EXTERNAL"
		}
		return passwords
	}
	if l.f.startTLS {
		return always + " STARTTLS LOGINDISABLED"
	}
	return always + " LOGINDISABLED"
}

// command handles one command before login. errClosed, or any error that is
// not a *imapwire.SyntaxError, ends the connection.
func (l *login) command(ctx context.Context) (*admitted, error) {
	l.lexer.Reset()
	line, err := l.lines.read(maxAuthLine)
	if err != nil {
		return nil, err
	}
	done, err := l.lexer.Line(line)
	for err == nil && !done {
		done, err = l.literal()
	}
	if err != nil {
		return nil, err
	}
	cmd := l.lexer.Command()
	l.parse.begin(cmd)
	switch string(cmd.Name()) {
	case "CAPABILITY", "NOOP", "LOGOUT", "STARTTLS":
		if err := l.parse.end(); err != nil {
			return nil, l.syntax(err)
		}
	}
	switch string(cmd.Name()) {
	case "CAPABILITY":
		return nil, l.say("* CAPABILITY %s\r\n%s OK done\r\n", l.capabilities(), l.tag())
	case "NOOP":
		return nil, l.say("%s OK done\r\n", l.tag())
	case "ID":
		if err := judgeID(&l.parse, nil); err != nil {
			return nil, l.syntax(err)
		}
		return nil, l.say("* ID (\"name\" \"Postern\")\r\n%s OK done\r\n", l.tag())
	case "LOGOUT":
		_ = l.say("* BYE Logging out\r\n%s OK done\r\n", l.tag())
		return nil, errClosed
	case "STARTTLS":
		return nil, l.startTLS(ctx)
	case "LOGIN":
		user, ok := l.parse.astring()
		token, ok2 := l.parse.astring()
		if !ok || !ok2 || l.parse.more() {
			return nil, l.syntax(errSyntax)
		}
		return l.authenticate(ctx, string(user), "", broker.NewSecret(bytes.Clone(token)))
	case "AUTHENTICATE":
		return l.sasl(ctx)
	}
	if entry := l.f.table[string(cmd.Name())]; entry != nil {
		return nil, l.answerBad("log in first")
	}
	return nil, l.answerBad("unknown command")
}

func (l *login) syntax(err error) error { return &imapwire.SyntaxError{Text: err.Error()} }

func (l *login) answerBad(text string) error {
	if l.bad++; l.bad >= maxBadCommands {
		return &imapwire.SyntaxError{Text: "too many bad commands", Fatal: true}
	}
	return l.say("%s BAD %s\r\n", l.tag(), text)
}

// literal takes the literal that the line ended with, and the next line.
func (l *login) literal() (bool, error) {
	t := l.lexer.Pending()
	if t.Size() > maxAuthLine {
		return false, &imapwire.SyntaxError{Text: "a literal that is too large before login", Fatal: true}
	}
	b, err := l.lexer.BufferLiteral()
	if err != nil {
		return false, err
	}
	if !t.NonSync {
		if err := l.say("+ go on\r\n"); err != nil {
			return false, err
		}
	}
	if err := l.lines.readFull(b); err != nil {
		return false, err
	}
	if err := l.lexer.CheckLiteral(); err != nil {
		return false, err
	}
	line, err := l.lines.read(maxAuthLine)
	if err != nil {
		return false, err
	}
	return l.lexer.Line(line)
}

// startTLS: what the client sent behind STARTTLS in the clear could have been
// put there by somebody else, so that it ends the connection (RFC 9051
// §6.2.1).
func (l *login) startTLS(ctx context.Context) error {
	if l.conn.IsTLS() || !l.f.startTLS {
		return l.answerBad("TLS is active already, or not offered")
	}
	if !l.lines.empty() {
		return &imapwire.SyntaxError{Text: "nothing may follow STARTTLS", Fatal: true}
	}
	if err := l.say("%s OK begin TLS now\r\n", l.tag()); err != nil {
		return err
	}
	if err := l.conn.StartTLS(ctx); err != nil {
		return err
	}
	l.lines = newLineReader(l.conn)
	l.external = l.offersExternal(ctx)
	return nil
}

func (l *login) offersExternal(ctx context.Context) bool {
	return l.conn.IsTLS() && l.f.gate.OffersExternal(ctx, l.conn.Certificate())
}

// sasl: RFC 9051 §6.2.2, RFC 4616, RFC 7628, RFC 4422 appendix A.
func (l *login) sasl(ctx context.Context) (*admitted, error) {
	mechanism, ok := l.parse.keyword()
	if !ok {
		return nil, l.syntax(errSyntax)
	}
	name := string(mechanism)
	if name != "PLAIN" && name != "LOGIN" && name != "OAUTHBEARER" && !(name == "EXTERNAL" && l.external) {
		return nil, l.say("%s NO [CANNOT] use AUTH=PLAIN, LOGIN or OAUTHBEARER\r\n", l.tag())
	}
	if !l.conn.IsTLS() {
		return nil, l.privacy()
	}
	var response []byte
	var err error
	switch {
	case !l.parse.more():
		prompt := ""
		if name == "LOGIN" {
			prompt = "Username:"
		}
		if response, err = l.challenge(prompt); err != nil {
			return nil, err
		}
	default:
		v, ok := l.parse.astring()
		if !ok || l.parse.more() {
			return nil, l.syntax(errSyntax)
		}
		if response, err = decodeSASL(v); err != nil {
			return nil, l.syntax(err)
		}
	}
	defer clear(response)
	return l.saslResponse(ctx, name, response)
}

func (l *login) saslResponse(ctx context.Context, mechanism string, response []byte) (*admitted, error) {
	switch mechanism {
	case "LOGIN":
		password, err := l.challenge("Password:")
		if err != nil {
			return nil, err
		}
		return l.authenticate(ctx, string(response), "", broker.NewSecret(password))
	case "EXTERNAL":
		return l.open(ctx, broker.Login{AuthorizationID: string(response), External: true})
	case "OAUTHBEARER":
		authzid, token, ok := parseBearer(response)
		if !ok {
			return nil, l.syntax(errSyntax)
		}
		return l.authenticate(ctx, authzid, "", broker.NewSecret(bytes.Clone(token)))
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return nil, l.syntax(errSyntax)
	}
	return l.authenticate(ctx, string(parts[1]), string(parts[0]), broker.NewSecret(bytes.Clone(parts[2])))
}

// challenge asks and returns what the client answers, decoded.
func (l *login) challenge(prompt string) ([]byte, error) {
	if err := l.say("+ %s\r\n", base64.StdEncoding.EncodeToString([]byte(prompt))); err != nil {
		return nil, err
	}
	line, err := l.lines.read(maxAuthLine)
	if err != nil {
		return nil, err
	}
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		return nil, &imapwire.SyntaxError{Text: "lines end in CRLF", Fatal: true}
	}
	if string(text) == "*" {
		return nil, &imapwire.SyntaxError{Text: "authentication cancelled"}
	}
	b, err := decodeSASL(text)
	if err != nil {
		return nil, l.syntax(err)
	}
	return b, nil
}

// decodeSASL decodes base64; "=" is the empty response (RFC 4959 §3).
func decodeSASL(v []byte) ([]byte, error) {
	if string(v) == "=" {
		return []byte{}, nil
	}
	if bytes.ContainsAny(v, "\r\n") { // which the decoder would skip
		return nil, errors.New("not base64")
	}
	b := make([]byte, base64.StdEncoding.DecodedLen(len(v)))
	n, err := base64.StdEncoding.Strict().Decode(b, v)
	if err != nil {
		return nil, errors.New("not base64")
	}
	return b[:n], nil
}

// parseBearer reads an OAUTHBEARER response (RFC 7628 §3.1): the token is the
// app password, the user name the authorization identity.
func parseBearer(b []byte) (authzid string, token []byte, ok bool) {
	header, rest, ok := bytes.Cut(b, []byte{1})
	if !ok {
		return "", nil, false
	}
	gs2 := bytes.Split(header, []byte(","))
	if len(gs2) != 3 || string(gs2[0]) != "n" || len(gs2[2]) != 0 {
		return "", nil, false
	}
	id, ok := bytes.CutPrefix(gs2[1], []byte("a="))
	if !ok {
		return "", nil, false
	}
	if authzid, ok = decodeSASLName(id); !ok {
		return "", nil, false
	}
	pairs, ok := bytes.CutSuffix(rest, []byte{1, 1})
	if !ok {
		return "", nil, false
	}
	for _, kv := range bytes.Split(pairs, []byte{1}) {
		key, value, _ := bytes.Cut(kv, []byte("="))
		scheme, bearer, _ := bytes.Cut(value, []byte(" "))
		if bytes.EqualFold(key, []byte("auth")) && bytes.EqualFold(scheme, []byte("bearer")) {
			return authzid, bytes.TrimSpace(bearer), true
		}
	}
	return "", nil, false
}

// decodeSASLName decodes a saslname (RFC 5801 §4): ',' and '=' are escaped,
// and nothing else is.
func decodeSASLName(v []byte) (string, bool) {
	var name []byte
	for len(v) > 0 {
		switch {
		case v[0] != '=':
			name = append(name, v[0])
			v = v[1:]
		case bytes.HasPrefix(v, []byte("=2C")):
			name = append(name, ',')
			v = v[3:]
		case bytes.HasPrefix(v, []byte("=3D")):
			name = append(name, '=')
			v = v[3:]
		default:
			return "", false
		}
	}
	return string(name), true
}

func (l *login) privacy() error {
	return l.say("%s NO [PRIVACYREQUIRED] begin TLS first\r\n", l.tag())
}

func (l *login) authenticate(ctx context.Context, user, authzid string, token broker.Secret) (*admitted, error) {
	defer token.Wipe()
	return l.open(ctx, broker.Login{Username: user, AuthorizationID: authzid, Token: token})
}

// open opens the session and the upstream, and answers.
func (l *login) open(ctx context.Context, as broker.Login) (*admitted, error) {
	if !l.conn.IsTLS() {
		return nil, l.privacy()
	}
	tag := string(l.tag())
	as.Protocol, as.Certificate, as.RemoteAddr = broker.ProtocolIMAP, l.conn.Certificate(), l.conn.RemoteAddrPort()
	session, err := l.f.gate.Open(ctx, as)
	if err != nil {
		return nil, l.refused(tag, err)
	}
	in, err := l.connect(ctx, session)
	if err != nil {
		session.End(&broker.End{Reason: broker.EndUpstreamFailed, Detail: string(broker.CodeOf(err))}, nil)
		return nil, l.refused(tag, err)
	}
	if err := l.say("%s OK [CAPABILITY %s] logged in\r\n", tag, offered(in.relay.extensions(), in.relay.up.Capabilities)); err != nil {
		closeNow(in.relay.up.Conn)
		session.End(&broker.End{Reason: broker.EndClientClosed}, nil)
		return nil, err
	}
	in.relay.up.Capabilities = nil // the client was told; what the relay goes by it has
	return in, nil
}

// connect logs in upstream for a session, unless it ends meanwhile.
func (l *login) connect(ctx context.Context, session broker.LiveSession) (*admitted, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(session.Context(), func() { cancel(context.Cause(session.Context())) })()
	failed := func(err error) error {
		if end := (*broker.End)(nil); errors.As(context.Cause(ctx), &end) {
			return broker.Errorf(broker.Refused, "%s", end.Text).WithCause(err)
		}
		return err
	}
	up, err := session.DialIMAP(ctx)
	if err != nil {
		return nil, failed(err)
	}
	v, err := newView(session.Decision(), up.Capabilities)
	if err == nil && v.counted() && l.f.counts == nil {
		err = errors.New("nothing counts what is opened")
	}
	if err != nil {
		closeNow(up.Conn)
		return nil, broker.Errorf(broker.Internal, "what may be seen here cannot be read").WithCause(err)
	}
	prefix := newPrefix()
	var special specialFolders
	if !session.Decision().Actions.Has(policy.All) {
		// The session may end while the upstream keeps Postern waiting.
		stop := context.AfterFunc(ctx, func() { closeNow(up.Conn) })
		err := special.learn(up, prefix+"0", 15*time.Second)
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			closeNow(up.Conn)
			return nil, failed(broker.Errorf(broker.Unavailable, "the mail server does not tell its folders").WithCause(err))
		}
	}
	return &admitted{l.f.newRelay(session, l.conn, up, l.handOver(), prefix, special, v)}, nil
}

// handOver returns a line reader with what the client sent behind its login,
// free of the login itself.
func (l *login) handOver() *lineReader {
	fresh := newLineReader(l.conn)
	fresh.pool = &l.f.buffers
	rest := l.lines.buf[l.lines.start:l.lines.end]
	if len(rest) > len(fresh.buf) {
		fresh.buf = make([]byte, len(rest))
	}
	fresh.end = copy(fresh.buf, rest)
	clear(l.lines.buf)
	return fresh
}

// refused answers a login that failed. It is the one place where errors
// become IMAP's (RFC 5530).
func (l *login) refused(tag string, err error) error {
	code := "UNAVAILABLE"
	switch broker.CodeOf(err) {
	case broker.Denied:
		code = "AUTHENTICATIONFAILED"
	case broker.Refused:
		code = "AUTHORIZATIONFAILED"
	case broker.Limit:
		code = "LIMIT"
	case broker.CredentialRefused:
		code = "CONTACTADMIN"
	case broker.Unavailable:
	default:
		l.f.log.Error("login failed", zap.Error(err))
	}
	if err := l.say("%s NO [%s] %s\r\n", tag, code, clean(broker.PublicText(err))); err != nil {
		return err
	}
	if l.tries++; l.tries >= maxLoginTries {
		_ = l.say("* BYE too many failed logins\r\n")
		return errClosed
	}
	return nil
}
