// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy/imapwire"
)

const (
	// maxNames is how many folders a server may list, maxNamesRead the octets that
	// it may take for it.
	maxNames     = 5000
	maxNamesRead = 2 << 20
	// maxNameRead bounds one of them, in octets.
	maxNameRead = 16 << 10
)

// listedName is a name in the answer to LIST.
type listedName struct {
	name string
	// writable says that it can be written in commands, since it came as RFC 3501
	// §5.1.3 has it: servers differ in what they take other octets for.
	writable   bool
	delimiter  byte
	attributes []string
}

func (n *listedName) has(a imap.MailboxAttr) bool { return holds(n.attributes, string(a)) }

func holds(all []string, s string) bool {
	return slices.ContainsFunc(all, func(x string) bool { return strings.EqualFold(x, s) })
}

// askNames lists a mailbox's folders. It reads the answer itself: imapclient ends
// the connection at a name that is no modified UTF-7, such as "R&D", and one
// folder would keep all others from being looked at.
func askNames(c *broker.IMAPConn) ([]listedName, error) {
	command := `names LIST "" "*"`
	if holds(c.Capabilities, "LIST-EXTENDED") && holds(c.Capabilities, "SPECIAL-USE") {
		command += " RETURN (SPECIAL-USE)"
	}
	if _, err := io.WriteString(c.Conn, command+"\r\n"); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(io.LimitReader(io.MultiReader(bytes.NewReader(c.Buffered), c.Conn), maxNamesRead), maxNameRead)
	var names []listedName
	for {
		line, resp, err := readResponse(r)
		switch {
		case err != nil:
			return nil, fmt.Errorf("in the answer to LIST: %w", err)
		case resp.Kind == imapwire.ResponseTagged && string(resp.Tag) == "names":
			if !resp.Is("OK") {
				return nil, errors.New("the server lists no folders")
			}
			c.Buffered, err = r.Peek(r.Buffered())
			return names, err
		case resp.Kind == imapwire.ResponseData && resp.Is("LIST"):
			if n, ok := parseName(line[resp.Len:]); ok {
				names = append(names, n)
			}
			if len(names) > maxNames {
				return nil, errors.New("the server lists too many folders")
			}
		case resp.Is("BYE") || resp.Kind != imapwire.ResponseData && resp.Kind != imapwire.ResponseFetch && resp.Kind != imapwire.ResponseStatus:
			return nil, errors.New("the server answers LIST with something else")
		}
	}
}

// readResponse reads a response with its literals.
func readResponse(r *bufio.Reader) (response []byte, head imapwire.Response, err error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, head, err
		}
		response = append(response, line...)
		head = imapwire.ParseResponse(response)
		if head.Kind != imapwire.ResponseData && head.Kind != imapwire.ResponseFetch {
			return response, head, nil
		}
		n := imapwire.TrailingLiteral(line)
		if n < 0 {
			return response, head, nil
		}
		if int64(len(response))+n > maxNameRead {
			return nil, head, bufio.ErrBufferFull
		}
		from := len(response)
		response = append(response, make([]byte, n)...)
		if _, err := io.ReadFull(r, response[from:]); err != nil {
			return nil, head, err
		}
	}
}

// parseName reads what follows LIST (RFC 9051 §7.3.1).
func parseName(b []byte) (n listedName, ok bool) {
	attributes, rest, ok := bytes.Cut(bytes.TrimLeft(b, " "), []byte(")"))
	if !ok || !bytes.HasPrefix(attributes, []byte("(")) {
		return n, false
	}
	n.attributes = strings.Fields(string(attributes[1:]))
	delimiter, rest, ok := parseString(rest)
	if !ok {
		return n, false
	}
	if len(delimiter) == 1 && delimiter[0] < utf8.RuneSelf { // NIL, which is longer, is none
		n.delimiter = delimiter[0]
	}
	raw, _, ok := parseString(rest)
	if !ok {
		return n, false
	}
	n.name, n.writable = imapwire.ParseMailbox(raw)
	n.writable = n.writable && !bytes.ContainsFunc(raw, func(r rune) bool { return r < ' ' || r > '~' })
	return n, true
}

// parseString reads a quoted string, a literal, or an atom up to a space, whatever
// it holds.
func parseString(b []byte) (value, rest []byte, ok bool) {
	b = bytes.TrimLeft(b, " ")
	switch {
	case bytes.HasPrefix(b, []byte(`"`)):
		for i := 1; i < len(b); i++ {
			switch b[i] {
			case '"':
				return value, b[i+1:], true
			case '\\':
				i++
			}
			if i < len(b) {
				value = append(value, b[i])
			}
		}
		return nil, nil, false
	case bytes.HasPrefix(b, []byte("{")):
		size, rest, _ := bytes.Cut(b[1:], []byte("}\r\n"))
		n, err := strconv.Atoi(strings.TrimSuffix(string(size), "+"))
		if err != nil || n < 0 || n > len(rest) {
			return nil, nil, false
		}
		return rest[:n], rest[n:], true
	}
	end := bytes.IndexAny(b, " \r\n")
	if end <= 0 {
		return nil, nil, false
	}
	return b[:end], b[end:], true
}
