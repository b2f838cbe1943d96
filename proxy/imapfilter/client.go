// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// clientSide is the goroutine that reads what the client sends; it alone
// writes upstream.
type clientSide struct {
	r     *relay
	lines *lineReader
	lexer imapwire.Lexer
	parse parser
	// judged is what was found out about the command at hand.
	judged judgement
	out    imapwire.Writer
	// scratch is for rewritten arguments.
	scratch []imapwire.Token
	// refused remembers which refusals were recorded.
	refused map[string]bool
	own     int // counts Postern's own tags
	bad     int // lines in a row that were no command
	// alone says that the last command must be answered before the next.
	alone    bool
	deadline time.Time
	// writeBy is the deadline for writes upstream; timer is wait's.
	writeBy time.Time
	timer   *time.Timer
}

// run ends with the session over.
func (s *clientSide) run() {
	for {
		line, err := s.readLine()
		if err == nil {
			err = s.command(line)
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// fail ends the session for what went wrong on the client's side.
func (s *clientSide) fail(err error) {
	var syntax *imapwire.SyntaxError
	switch {
	case errors.Is(err, errOver):
	case errors.As(err, &syntax):
		s.r.stop(&broker.End{Reason: broker.EndProtocol, Detail: syntax.Text},
			"* BYE "+syntax.Text+"\r\n", lastWords)
	case errors.Is(err, errUpstreamWrite):
		s.r.stop(&broker.End{Reason: broker.EndUpstreamClosed, Detail: "write failed"},
			"* BYE [UNAVAILABLE] the mail server closed the connection\r\n", lastWords)
	case errors.Is(err, errFolders):
		s.r.stop(&broker.End{Reason: broker.EndUpstreamClosed, Detail: "no list of folders"},
			"* BYE [UNAVAILABLE] the mail server does not tell its folders\r\n", lastWords)
	case errors.Is(err, errUpstreamSilent):
		s.r.stop(&broker.End{Reason: broker.EndUpstreamClosed, Detail: "no answer"},
			"* BYE [UNAVAILABLE] the mail server does not answer\r\n", lastWords)
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.r.stop(&broker.End{Reason: broker.EndIdle}, "* BYE [UNAVAILABLE] silent for too long\r\n", lastWords)
	case errors.Is(err, io.EOF) && s.r.loggingOut():
		// It closes its side behind LOGOUT, and may still read the answer.
		select {
		case <-s.r.over:
		case <-time.After(lastWords):
		}
		s.r.stop(&broker.End{Reason: broker.EndLogout}, "", 0)
	default:
		s.identifyLast()
		s.r.stop(&broker.End{Reason: broker.EndClientClosed}, "", 0)
	}
}

var errUpstreamWrite = errors.New("writing upstream failed")

// readLine returns the client's next line. Before it blocks, what is queued
// goes upstream.
func (s *clientSide) readLine() ([]byte, error) {
	if line, err := s.lines.buffered(imapwire.MaxLine); line != nil || err != nil {
		return line, err
	}
	if err := s.flush(); err != nil {
		return nil, err
	}
	if now := time.Now(); s.deadline.Sub(now) < s.f().silence*30/31 {
		s.deadline = now.Add(s.f().silence)
		if err := s.r.readBy(s.deadline); err != nil {
			return nil, err
		}
	}
	s.r.session.SetIdle(true)
	line, err := s.lines.read(imapwire.MaxLine)
	s.r.session.SetIdle(false)
	return line, err
}

// flush writes what was serialised.
func (s *clientSide) flush() error {
	b := s.out.Bytes()
	if len(b) == 0 {
		return nil
	}
	err := s.write(b)
	s.out.Reset()
	return err
}

func (s *clientSide) write(b []byte) error {
	if now := time.Now(); s.writeBy.Sub(now) < s.f().silence*30/31 {
		s.writeBy = now.Add(s.f().silence)
		if err := s.r.up.SetWriteDeadline(s.writeBy); err != nil {
			return fmt.Errorf("%w: %w", errUpstreamWrite, err)
		}
	}
	n, err := s.r.up.Write(b)
	s.r.octetsUp.Add(int64(n))
	if err != nil {
		return fmt.Errorf("%w: %w", errUpstreamWrite, err)
	}
	return nil
}

// command handles one command, from its first line to its end.
func (s *clientSide) command(line []byte) error {
	s.lexer.Reset()
	done, err := s.lexer.Line(line)
	if err == nil && s.ownTag(s.lexer.Command().Tag()) {
		// Where a literal follows, it would be read as commands.
		err = &imapwire.SyntaxError{Text: "choose another tag", Fatal: !done}
	}
	if err != nil {
		return s.notACommand(line, err)
	}
	if s.alone {
		if err := s.barrier(); err != nil {
			return err
		}
		s.alone = false
	}
	entry, skip := s.lookUp()
	for !done {
		if entry != nil && entry.streams && s.streamsHere(skip) {
			return s.appendCommand(entry, skip)
		}
		if done, err = s.bufferLiteral(); err != nil {
			return s.notACommand(nil, err)
		}
		if entry == nil && skip == 0 { // UID {5}: the sub-command came late
			entry, skip = s.lookUp()
		}
	}
	s.bad = 0
	if entry == nil {
		s.f().metrics.command(unknownCommand, outcomeBad)
		return s.answer("BAD", "unknown command")
	}
	return s.dispatch(entry, skip)
}

func (s *clientSide) f() *Filter { return s.r.f }

// ownTag reports whether a tag is Postern's to use. DONE is, in a way: a DONE that
// crosses the upstream's own end of IDLE is answered as a command of that tag.
func (s *clientSide) ownTag(tag []byte) bool {
	return bytes.EqualFold(tag, []byte("DONE")) || len(tag) >= len(s.r.prefix) && strings.EqualFold(string(tag[:len(s.r.prefix)]), s.r.prefix)
}

// notACommand answers a line that does not lex.
func (s *clientSide) notACommand(line []byte, err error) error {
	var syntax *imapwire.SyntaxError
	if !errors.As(err, &syntax) {
		return err
	}
	if s.alone && bytes.EqualFold(line, []byte("DONE\r\n")) {
		return nil // it crossed the upstream's own end of IDLE
	}
	s.f().metrics.command(malformedCommand, outcomeBad)
	if s.bad++; syntax.Fatal || s.bad >= maxBadCommands {
		if err := s.barrier(); err != nil {
			return err
		}
		s.r.say("%s BAD %s\r\n", s.tag(), syntax.Text)
		return &imapwire.SyntaxError{Text: syntax.Text, Fatal: true}
	}
	return s.answer("BAD", syntax.Text)
}

func (s *clientSide) tag() []byte {
	if t := s.lexer.Command().Tag(); len(t) > 0 {
		return t
	}
	return []byte("*")
}

// answer gives Postern's own tagged answer, behind those of the commands
// before.
func (s *clientSide) answer(status, text string) error {
	if err := s.barrier(); err != nil {
		return err
	}
	if err := s.wait(nothingToSay); err != nil {
		return err
	}
	s.r.say("%s %s %s\r\n", s.tag(), status, text)
	return nil
}

// barrier waits until everything under way was answered.
func (s *clientSide) barrier() error {
	if err := s.flush(); err != nil {
		return err
	}
	return s.wait(nothingPending)
}

// lookUp finds the command's entry in the table, and how many arguments its
// name takes: 1 for UID commands.
func (s *clientSide) lookUp() (*command, int) {
	cmd := s.lexer.Command()
	name := cmd.Name()
	if string(name) != "UID" {
		return s.f().table[string(name)], 0
	}
	s.parse.begin(cmd)
	sub, ok := s.parse.keyword()
	if !ok {
		return nil, 0
	}
	var buf [40]byte
	full := append(append(buf[:0], "UID "...), sub[:min(len(sub), 32)]...)
	return s.f().table[string(full)], 1
}

// bufferLiteral takes the literal that the line ended with into the command,
// and lexes what follows it.
func (s *clientSide) bufferLiteral() (done bool, err error) {
	t := s.lexer.Pending()
	b, err := s.lexer.BufferLiteral()
	if err != nil {
		return false, err
	}
	if err := s.flush(); err != nil {
		return false, err
	}
	if !t.NonSync {
		s.r.say("+ go on\r\n")
	}
	if err := s.lines.readFull(b); err != nil {
		return false, err
	}
	if err := s.lexer.CheckLiteral(); err != nil {
		return false, err
	}
	line, err := s.lines.read(imapwire.MaxLine)
	if err != nil {
		return false, err
	}
	return s.lexer.Line(line)
}

// closeNow closes a connection without waiting for a peer: the TCP connection
// under TLS, where there is one.
func closeNow(c net.Conn) {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		_ = t.NetConn().Close()
		return
	}
	_ = c.Close()
}
