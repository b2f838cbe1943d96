// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// line is a mail program's connection. It tells of failures by errors, unlike
// e2e.Conn, which ends its test: many of them run at once, and some must fail.
type line struct {
	net.Conn
	in *bufio.Reader
}

func newLine(c net.Conn) *line { return &line{c, bufio.NewReaderSize(c, 16<<10)} }

// checked returns the connection, or closes it for an error.
func (l *line) checked(err error) (*line, error) {
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *line) send(format string, args ...any) error {
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(l.Conn, format, args...)
	return err
}

// until reads lines, and the literals that they end in, up to one that begins
// so. A line that answers otherwise is an error.
func (l *line) until(prefix string) error {
	tag, _, _ := strings.Cut(prefix, " ")
	goodbye := ""
	for {
		text, err := l.in.ReadString('\n')
		switch {
		case err != nil:
			return fmt.Errorf("%w %s", err, goodbye)
		case strings.HasPrefix(text, prefix):
			return nil
		case strings.HasPrefix(text, "* BYE"):
			goodbye = strings.TrimSpace(text)
		case strings.HasPrefix(text, tag+" ") && tag != "*" && tag != "220":
			return errors.New(strings.TrimSpace(text))
		}
		if n := octetsOfLiteral(text); n > 0 {
			if _, err := l.in.Discard(n); err != nil {
				return err
			}
		}
	}
}

// octetsOfLiteral is of the literal that a line of data ends in; 0: there is none.
func octetsOfLiteral(text string) int {
	text, ok := strings.CutSuffix(text, "}\r\n")
	if !ok || strings.HasPrefix(text, "* OK") {
		return 0
	}
	n, err := strconv.Atoi(text[strings.LastIndexByte(text, '{')+1:])
	if err != nil {
		return 0
	}
	return n
}

// imap runs one command, which must succeed.
func (l *line) imap(format string, args ...any) error {
	if err := l.send("t "+format+"\r\n", args...); err != nil {
		return err
	}
	return l.until("t OK")
}

// smtp sends a line, whose reply must have this code.
func (l *line) smtp(code, format string, args ...any) error {
	if err := l.send(format+"\r\n", args...); err != nil {
		return err
	}
	return l.reply(code)
}

func (l *line) reply(code string) error {
	for {
		text, err := l.in.ReadString('\n')
		switch {
		case err != nil:
			return err
		case !strings.HasPrefix(text, code):
			return errors.New(strings.TrimSpace(text))
		case len(text) > 3 && text[3] != '-':
			return nil
		}
	}
}

// submit sends one message.
func (l *line) submit(from, to, id, body string) error {
	for _, step := range []struct{ code, text string }{
		{"250", "MAIL FROM:<" + from + ">"},
		{"250", "RCPT TO:<" + to + ">"},
		{"354", "DATA"},
		{"250", message(from, to, id, body) + "."},
	} {
		if err := l.smtp(step.code, "%s", step.text); err != nil {
			return fmt.Errorf("%.10s: %w", step.text, err)
		}
	}
	return nil
}

// idle begins to wait for news.
func (l *line) idle() error {
	if err := l.send("i IDLE\r\n"); err != nil {
		return err
	}
	return l.until("+")
}

// done ends it.
func (l *line) done() error {
	if err := l.send("DONE\r\n"); err != nil {
		return err
	}
	return l.until("i OK")
}

// news waits in IDLE for a message to arrive.
func (l *line) news() error {
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for {
		text, err := l.in.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.HasSuffix(text, " EXISTS\r\n") {
			return nil
		}
		if strings.HasPrefix(text, "* BYE") || strings.HasPrefix(text, "i ") {
			return errors.New(strings.TrimSpace(text))
		}
	}
}

// logout ends the session, and waits until the server has closed.
func (l *line) logout() error {
	defer l.Close()
	if err := l.imap("LOGOUT"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, l.in)
	return err
}

// quit is the same for submission.
func (l *line) quit() error {
	defer l.Close()
	return l.smtp("221", "QUIT")
}
