// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// clientSide is the goroutine that reads what the client sends; it alone
// writes upstream.
type clientSide struct {
	r     *relay
	lines *lineReader
	lexer imapwire.Lexer
	parse parser
	out   imapwire.Writer
	// scratch is for rewritten arguments.
	scratch []imapwire.Token
	// refused remembers which refusals were recorded.
	refused map[string]bool
	own     int // counts Postern's own tags
	bad     int // lines in a row that were no command
	// alone says that the last command must be answered before the next.
	alone    bool
	deadline time.Time
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
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.r.stop(&broker.End{Reason: broker.EndIdle}, "* BYE [UNAVAILABLE] silent for too long\r\n", lastWords)
	case errors.Is(err, errUpstreamWrite):
		s.r.stop(&broker.End{Reason: broker.EndUpstreamClosed, Detail: "write failed"},
			"* BYE [UNAVAILABLE] the mail server closed the connection\r\n", lastWords)
	default:
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
	if now := time.Now(); s.deadline.Sub(now) < silence-time.Minute {
		s.deadline = now.Add(silence)
		if err := s.r.down.SetReadDeadline(s.deadline); err != nil {
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
		err = &imapwire.SyntaxError{Text: "choose another tag"}
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
		s.f().metrics.command("unknown", "bad")
		return s.answer("BAD", "unknown command")
	}
	return s.dispatch(entry, skip)
}

func (s *clientSide) f() *Filter { return s.r.f }

func (s *clientSide) ownTag(tag []byte) bool {
	return len(tag) >= len(s.r.prefix) && strings.EqualFold(string(tag[:len(s.r.prefix)]), s.r.prefix)
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
	s.f().metrics.command("malformed", "bad")
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
	if err := s.r.wait(nothingToSay); err != nil {
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
	return s.r.wait(nothingPending)
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
	if t.NonSync && !s.r.server.Allows(t.Size()) && !imapwire.NonSyncSmall.Allows(t.Size()) {
		return false, &imapwire.SyntaxError{Text: "a non-synchronising literal that is too large", Fatal: true}
	}
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

// dispatch judges a complete command and sends it on.
func (s *clientSide) dispatch(entry *command, skip int) error {
	cmd := s.lexer.Command()
	if entry.judge == nil {
		s.f().metrics.command(entry.name, "never")
		return s.answer("BAD", "never here: "+entry.never)
	}
	var j judgement
	if err := s.judge(entry, skip, &j); err != nil {
		s.f().metrics.command(entry.name, "bad")
		return s.answer("BAD", err.Error())
	}
	if !j.allowed(s.r.decision) {
		if entry.name == "CLOSE" {
			return s.closeWithoutExpunge(cmd)
		}
		return s.refuse(entry, &j)
	}
	s.f().metrics.command(entry.name, "forwarded")
	if entry.alone || s.r.wantsIdentify() {
		if err := s.barrier(); err != nil {
			return err
		}
		if err := s.identifyOpened(); err != nil {
			return err
		}
	}
	switch entry.name {
	case "ENABLE":
		if !s.keepEnableable(cmd) {
			return s.answer("OK", "nothing to enable")
		}
	case "FETCH", "UID FETCH":
		peek := j.fetch.seen && !s.r.decision.Actions.Has(policy.Flag)
		s.scratch = rewriteFetch(cmd, &j.fetch, skip == 0, peek, s.scratch)
	case "IDLE":
		return s.idle(cmd)
	}
	flight := inFlight{kind: kindOf(entry.name)}
	flight.change = s.changeFor(entry.name, &j)
	flight.setTag(cmd.Tag())
	s.alone = entry.alone
	return s.forward(cmd, flight)
}

func kindOf(name string) inFlightKind {
	switch name {
	case "SELECT", "EXAMINE":
		return selecting
	case "CLOSE", "UNSELECT":
		return closing
	case "LOGOUT":
		return logout
	}
	return plain
}

// judge runs the command's grammar, and adds what only the session knows.
func (s *clientSide) judge(entry *command, skip int, j *judgement) error {
	s.parse.begin(s.lexer.Command())
	s.parse.pos = skip
	j.uids = skip > 0
	if err := entry.judge(&s.parse, j); err != nil {
		return err
	}
	special := &s.r.special
	switch entry.name {
	case "MOVE", "UID MOVE":
		if special.isTrash(j.target) {
			j.needs = policy.Delete
		}
	case "APPEND":
		if special.isSentOrDrafts(j.folder) {
			j.alternative = policy.Send
		}
	case "REPLACE", "UID REPLACE":
		if special.isSentOrDrafts(j.folder) {
			j.alternative = policy.Send | policy.Delete
		}
	case "FETCH", "UID FETCH":
		if j.fetch.seen && !j.fetch.rewritable && !s.r.decision.Actions.Has(policy.Flag) {
			j.need(policy.Flag) // RFC822 sets \Seen and has no PEEK form
		}
	}
	return nil
}

// refuse answers a command that the decision does not allow. The first of its
// kind in a session is recorded.
func (s *clientSide) refuse(entry *command, j *judgement) error {
	s.f().metrics.command(entry.name, "refused")
	missing := j.needs &^ s.r.decision.Actions
	if key := entry.name + " " + missing.String(); !s.refused[key] {
		if s.refused == nil {
			s.refused = make(map[string]bool)
		}
		s.refused[key] = true
		folder := j.folder
		if folder == nil {
			folder = j.target
		}
		s.r.session.Submit(broker.EventCommandRefused, broker.CommandRefused{
			Command: entry.name, Needs: missing, Folder: printable(folder),
		})
	}
	return s.answer("NO", fmt.Sprintf("[NOPERM] %s needs the action %q, which the mailbox's owner did not grant you", entry.name, missing.String()))
}

// closeWithoutExpunge turns CLOSE into UNSELECT for a session that may not
// delete.
func (s *clientSide) closeWithoutExpunge(cmd *imapwire.Command) error {
	if !s.r.upstream.has("UNSELECT") && !s.r.upstream.has("IMAP4REV2") {
		return s.answer("NO", "[NOPERM] CLOSE would expunge, which the mailbox's owner did not grant you; select another folder instead")
	}
	s.f().metrics.command("CLOSE", "rewritten")
	if err := s.barrier(); err != nil {
		return err
	}
	cmd.SetName("UNSELECT")
	flight := inFlight{kind: closing}
	flight.setTag(cmd.Tag())
	s.alone = true
	return s.forward(cmd, flight)
}

// keepEnableable drops extensions that the table does not know; false: none
// is left.
func (s *clientSide) keepEnableable(cmd *imapwire.Command) bool {
	kept := s.scratch[:0]
	for _, t := range cmd.Args() {
		if onList(enableable, cmd.Value(t)) {
			kept = append(kept, t)
		}
	}
	s.scratch = kept
	cmd.SetArgs(kept)
	return len(kept) > 0
}

// forward serialises the command and queues it for the upstream. Only a
// command with literals that must be waited for is written at once.
func (s *clientSide) forward(cmd *imapwire.Command, flight inFlight) error {
	if !s.r.roomToPipeline() {
		if err := s.flush(); err != nil {
			return err
		}
		if err := s.r.wait(roomToPipeline); err != nil {
			return err
		}
	}
	start := len(s.out.Bytes())
	s.out.Head(cmd.Tag(), cmd.Name())
	s.out.Args(cmd, 0, s.r.server)
	if len(s.out.Breaks()) == 0 {
		s.r.push(flight, expectNothing)
		if len(s.out.Bytes()) > smallBuffer || s.alone {
			return s.flush()
		}
		return nil
	}
	return s.forwardInPieces(start, flight)
}

// forwardInPieces sends a command that has synchronising literals: at each it
// waits until the upstream is ready, or has answered.
func (s *clientSide) forwardInPieces(start int, flight inFlight) error {
	whole := s.out.Bytes()
	if start > 0 {
		if err := s.write(whole[:start]); err != nil {
			return err
		}
	}
	if err := s.r.wait(nothingPending); err != nil {
		return err
	}
	s.r.push(flight, expectForPostern)
	for _, end := range s.out.Breaks() {
		if err := s.write(whole[start:end]); err != nil {
			return err
		}
		granted, err := s.awaitContinuation()
		if err != nil {
			return err
		}
		if !granted { // the upstream refused; its answer has gone to the client
			s.out.Reset()
			return nil
		}
		s.r.mu.Lock()
		s.r.expect, s.r.granted = expectForPostern, false
		s.r.mu.Unlock()
		start = end
	}
	s.r.mu.Lock()
	s.r.expect = expectNothing
	s.r.mu.Unlock()
	err := s.write(whole[start:])
	s.out.Reset()
	return err
}

// awaitContinuation waits for a continuation request; false: the command was
// answered instead.
func (s *clientSide) awaitContinuation() (bool, error) {
	if err := s.r.wait(continued); err != nil {
		return false, err
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	return s.r.granted, nil
}

// nextTag makes a tag for a command of Postern's own.
func (s *clientSide) nextTag() string {
	s.own++
	return fmt.Sprintf("%s%d", s.r.prefix, s.own)
}

// idle hands IDLE over and waits for DONE, renewing the upstream's IDLE
// meanwhile (RFC 2177; servers drop it after 29 to 60 minutes).
func (s *clientSide) idle(cmd *imapwire.Command) error {
	tag := bytes.Clone(cmd.Tag())
	flight := inFlight{}
	flight.setTag(tag)
	s.out.Head(cmd.Tag(), cmd.Name())
	s.out.Args(cmd, 0, s.r.server)
	s.r.push(flight, expectForClient)
	if err := s.flush(); err != nil {
		return err
	}
	s.alone = true
	granted, err := s.awaitContinuation()
	if err != nil || !granted {
		return err
	}
	s.r.setIdling(true)
	defer s.r.setIdling(false)
	return s.idleUntilDone(tag)
}

func (s *clientSide) idleUntilDone(tag []byte) error {
	limit := time.Now().Add(silence)
	for {
		renew := time.Now().Add(s.f().reIdle - rand.N(s.f().reIdleJitter))
		wake := renew
		if limit.Before(renew) {
			wake = limit
		}
		s.deadline = time.Time{}
		if err := s.r.down.SetReadDeadline(wake); err != nil {
			return err
		}
		s.r.session.SetIdle(true)
		line, err := s.lines.read(imapwire.MaxLine)
		s.r.session.SetIdle(false)
		switch {
		case err == nil:
			return s.done(line)
		case !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(limit):
			return err
		}
		alive, err := s.renewIdle(tag)
		if err != nil || !alive {
			return err
		}
	}
}

// done ends IDLE upstream. A line that is not DONE is BAD, and ends it too.
func (s *clientSide) done(line []byte) error {
	if s.r.idleOver() {
		// The upstream has ended it; DONE may have crossed that.
		if bytes.EqualFold(line, []byte("DONE\r\n")) {
			return nil
		}
		s.r.setIdling(false)
		return s.command(line)
	}
	s.r.setIdling(false)
	s.out.Raw("DONE\r\n")
	if err := s.flush(); err != nil {
		return err
	}
	if !bytes.EqualFold(line, []byte("DONE\r\n")) {
		s.lexer.Reset()
		return s.notACommand(nil, &imapwire.SyntaxError{Text: "only DONE ends IDLE", Fatal: true})
	}
	return nil
}

// renewIdle ends the upstream's IDLE and begins it anew, unseen by the client.
// false: the upstream has ended it, or would not begin it again; the client
// has its answer.
func (s *clientSide) renewIdle(tag []byte) (bool, error) {
	if !s.r.hideIdleAnswer() {
		return false, nil
	}
	s.out.Raw("DONE\r\n")
	if err := s.barrier(); err != nil {
		return false, err
	}
	own := s.nextTag()
	s.r.push(inFlight{tag: own, retag: tag}, expectForPostern)
	s.out.Raw(own + " IDLE\r\n")
	if err := s.flush(); err != nil {
		return false, err
	}
	return s.awaitContinuation()
}

// appendCommand carries a command whose messages pass by as literals.
func (s *clientSide) appendCommand(entry *command, skip int) error {
	cmd := s.lexer.Command()
	var j judgement
	if err := s.judge(entry, skip, &j); err != nil {
		return s.swallow("BAD", err.Error())
	}
	if !j.allowed(s.r.decision) {
		s.f().metrics.command(entry.name, "refused")
		return s.swallowRefused(entry, &j)
	}
	t := s.lexer.Pending()
	if t.NonSync && !s.r.server.Allows(t.Size()) {
		return s.notACommand(nil, &imapwire.SyntaxError{Text: "a non-synchronising literal that was not offered", Fatal: true})
	}
	if err := s.barrier(); err != nil {
		return err
	}
	if err := s.identifyOpened(); err != nil {
		return err
	}
	s.f().metrics.command(entry.name, "forwarded")
	s.alone = true
	flight := inFlight{change: &change{kind: broker.EventMessageAppend, folder: printable(j.folder)}}
	flight.setTag(cmd.Tag())
	s.out.Head(cmd.Tag(), cmd.Name())
	next, pushed := 0, false
	for {
		catenate, utf8 := streamContext(cmd)
		t := s.lexer.Pending()
		next = s.out.Args(cmd, next, s.r.server)
		if !pushed {
			pushed = true
			s.r.push(flight, expectNothing)
		}
		granted, err := s.announceAndStream(t, flight.change)
		if err != nil || !granted {
			return err
		}
		line, err := s.lines.read(imapwire.MaxLine)
		if err != nil {
			return err
		}
		from := len(cmd.Args())
		done, err := s.lexer.Line(line)
		for err == nil && !done && !s.streamsHere(skip) {
			done, err = s.bufferLiteral()
		}
		if err == nil {
			s.parse.begin(cmd)
			if err = appendRest(&s.parse, from, catenate, utf8); err != nil {
				err = &imapwire.SyntaxError{Text: err.Error()}
			}
		}
		if err != nil {
			// Half a command is upstream: it can only be cut off.
			s.r.say("%s BAD %s\r\n", s.tag(), err.Error())
			return &imapwire.SyntaxError{Text: "an APPEND that is not one", Fatal: true}
		}
		if done && next == len(cmd.Args()) {
			s.out.Raw("\r\n")
			return s.flush()
		}
		if s.r.nothingUnderWay() {
			// The upstream gave its answer early and is past this command: what
			// is left of it must not be read as another.
			return &imapwire.SyntaxError{Text: "the mail server refused the message before it was complete", Fatal: true}
		}
		if done {
			s.out.Args(cmd, next, s.r.server)
			return s.flush()
		}
	}
}

// announceAndStream sends what leads up to a message, waits for leave where
// the literal is synchronising, and lets the message pass. false: the upstream
// refused it, and the client knows.
func (s *clientSide) announceAndStream(t imapwire.Token, c *change) (bool, error) {
	sync := !t.NonSync || !s.r.server.Allows(t.Size())
	if sync {
		s.r.mu.Lock()
		s.r.expect, s.r.granted = expectForClient, false
		s.r.mu.Unlock()
	}
	if err := s.flushInPieces(); err != nil {
		return false, err
	}
	if sync {
		granted, err := s.awaitContinuation()
		if err != nil || !granted {
			return false, err
		}
	}
	message := appendedMessage{octets: t.Size(), hash: sha256.New(), sniff: headerSniffer{active: true}}
	if err := s.stream(t.Size(), &message); err != nil {
		return false, err
	}
	c.messages = append(c.messages, message.data())
	return true, nil
}

// flushInPieces writes an APPEND's head, whose mailbox may be a literal that
// must be waited for.
func (s *clientSide) flushInPieces() error {
	breaks, whole := s.out.Breaks(), s.out.Bytes()
	if len(breaks) == 0 {
		return s.flush()
	}
	s.r.mu.Lock()
	after := s.r.expect
	s.r.expect, s.r.granted = expectForPostern, false
	s.r.mu.Unlock()
	start := 0
	for _, end := range breaks {
		if err := s.write(whole[start:end]); err != nil {
			return err
		}
		if granted, err := s.awaitContinuation(); err != nil || !granted {
			s.out.Reset()
			return err
		}
		s.r.mu.Lock()
		s.r.granted = false
		s.r.mu.Unlock()
		start = end
	}
	s.r.mu.Lock()
	s.r.expect = after
	s.r.mu.Unlock()
	err := s.write(whole[start:])
	s.out.Reset()
	return err
}

// stream lets size octets of a literal pass upstream.
func (s *clientSide) stream(size int64, message *appendedMessage) error {
	big := s.f().buffers.get()
	defer s.f().buffers.put(big)
	for size > 0 {
		s.deadline = time.Now().Add(silence)
		if err := s.r.down.SetReadDeadline(s.deadline); err != nil {
			return err
		}
		n, err := s.lines.readSome((*big)[:min(size, int64(len(*big)))])
		if n > 0 {
			message.write((*big)[:n])
			if err := s.write((*big)[:n]); err != nil {
				return err
			}
			size -= int64(n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// swallowRefused refuses an APPEND, and lets the octets by that a client
// sends without waiting.
func (s *clientSide) swallowRefused(entry *command, j *judgement) error {
	if err := s.swallowLiterals(); err != nil {
		return err
	}
	return s.refuse(entry, j)
}

func (s *clientSide) swallow(status, text string) error {
	if err := s.swallowLiterals(); err != nil {
		return err
	}
	return s.answer(status, text)
}

// swallowLiterals reads a refused command to its end. A synchronising literal
// is never sent, so that the command ends at its announcement.
func (s *clientSide) swallowLiterals() error {
	for {
		t := s.lexer.Pending()
		if t.Kind != imapwire.Stream || !t.NonSync {
			return nil
		}
		if t.Size() > s.f().maxSwallow {
			return &imapwire.SyntaxError{Text: "a refused literal that is too large to read past", Fatal: true}
		}
		if err := s.flush(); err != nil {
			return err
		}
		if err := s.lines.discard(t.Size()); err != nil {
			return err
		}
		line, err := s.lines.read(imapwire.MaxLine)
		if err != nil {
			return err
		}
		done, err := s.lexer.Line(line)
		if err != nil {
			return &imapwire.SyntaxError{Text: err.Error(), Fatal: true}
		}
		if done {
			return nil
		}
	}
}

func (s *clientSide) streamsHere(skip int) bool {
	name := "APPEND"
	if string(s.lexer.Command().Name()) != "APPEND" {
		name = "REPLACE"
	}
	return streamsHere(name, skip, s.lexer.Command())
}

// appendedMessage gathers what is recorded of a message on its way up.
type appendedMessage struct {
	octets int64
	hash   hash.Hash
	sniff  headerSniffer
}

func (m *appendedMessage) write(b []byte) {
	_, _ = m.hash.Write(b)
	_, _ = m.sniff.Write(b)
}

func (m *appendedMessage) data() broker.MessageAppend {
	return broker.MessageAppend{
		Octets: m.octets, SHA256: fmt.Sprintf("%x", m.hash.Sum(nil)), MessageID: m.sniff.messageID(),
	}
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

var _ io.Writer = (*headerSniffer)(nil)
