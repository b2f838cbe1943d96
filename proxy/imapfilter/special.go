// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// specialFolders knows which folders are Trash, Sent and Drafts. They matter
// to a decision that grants only a part of file, delete and send.
type specialFolders struct {
	// listed says that the upstream told its special-use folders (RFC 6154).
	listed              bool
	trash, sent, drafts []string
}

// Names that stand for a special folder where the upstream tells none, in
// lower case; they may stand behind "INBOX." and the like.
var (
	trashNames  = []string{"trash", "bin", "deleted", "deleted items", "deleted messages"}
	sentNames   = []string{"sent", "sent items", "sent messages", "sent mail"}
	draftsNames = []string{"drafts", "draft"}
	namePrefix  = []string{"", "inbox.", "inbox/", "[gmail]/", "[google mail]/"}
)

// isTrash errs on the side of Trash: by special use, or by name.
func (f *specialFolders) isTrash(name []byte) bool {
	return named(f.trash, name) || byName(trashNames, name)
}

// isSentOrDrafts goes by names only where the upstream tells nothing.
func (f *specialFolders) isSentOrDrafts(name []byte) bool {
	if f.listed {
		return named(f.sent, name) || named(f.drafts, name)
	}
	return byName(sentNames, name) || byName(draftsNames, name)
}

func named(list []string, name []byte) bool {
	decoded := imapwire.DecodeMailbox(name)
	for _, f := range list {
		if strings.EqualFold(f, decoded) {
			return true
		}
	}
	return false
}

func byName(list []string, name []byte) bool {
	lower := strings.ToLower(string(name))
	for _, prefix := range namePrefix {
		if rest, ok := strings.CutPrefix(lower, prefix); ok {
			for _, n := range list {
				if rest == n {
					return true
				}
			}
		}
	}
	return false
}

// learn asks the upstream for its special folders, before the relay begins.
func (f *specialFolders) learn(conn *broker.IMAPConn, tag string, timeout time.Duration) error {
	command := tag + ` LIST "" "*"`
	for _, c := range conn.Capabilities {
		if strings.EqualFold(c, "SPECIAL-USE") {
			command = tag + ` LIST (SPECIAL-USE) "" "*" RETURN (SPECIAL-USE)`
			f.listed = true
		}
	}
	_ = conn.SetDeadline(time.Now().Add(timeout))
	defer conn.SetDeadline(time.Time{})
	if _, err := conn.Write([]byte(command + "\r\n")); err != nil {
		return err
	}
	lines := newLineReader(conn)
	lines.buf = append(make([]byte, 0, max(smallBuffer, len(conn.Buffered))), conn.Buffered...)
	lines.end = len(lines.buf)
	lines.buf = lines.buf[:cap(lines.buf)]
	for n := 0; n < 20000; n++ {
		line, err := lines.read(bigBuffer)
		if err != nil {
			return err
		}
		resp := imapwire.ParseResponse(line)
		switch {
		case resp.Kind == imapwire.ResponseTagged && string(resp.Tag) == tag:
			conn.Buffered = bytes.Clone(lines.buf[lines.start:lines.end])
			if !resp.Is("OK") {
				return fmt.Errorf("LIST was refused")
			}
			return nil
		case resp.Kind == imapwire.ResponseData && resp.Is("LIST"):
			if err := f.add(lines, bytes.Clone(line[resp.Len:])); err != nil {
				return err
			}
		case resp.Kind == imapwire.ResponseData && imapwire.TrailingLiteral(line) >= 0, resp.Kind == imapwire.ResponseFetch:
			return errUpstreamBroken
		}
	}
	return errUpstreamBroken
}

// add notes one LIST response: what follows the keyword.
func (f *specialFolders) add(lines *lineReader, rest []byte) error {
	open, end := bytes.IndexByte(rest, '('), bytes.IndexByte(rest, ')')
	if open < 0 || end < open {
		return errUpstreamBroken
	}
	flags := strings.ToLower(string(rest[open+1 : end]))
	rest = bytes.TrimLeft(rest[end+1:], " ")
	sp := bytes.IndexByte(rest, ' ') // behind the delimiter, "/" or NIL
	if sp < 0 {
		return errUpstreamBroken
	}
	name := bytes.TrimSpace(rest[sp:])
	if size := imapwire.TrailingLiteral(rest); size >= 0 {
		if size > 4096 {
			return errUpstreamBroken
		}
		name = make([]byte, size)
		if err := lines.readFull(name); err != nil {
			return err
		}
		if _, err := lines.read(bigBuffer); err != nil {
			return err
		}
	} else if len(name) >= 2 && name[0] == '"' {
		name = []byte(strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(string(name[1 : len(name)-1])))
	}
	decoded := imapwire.DecodeMailbox(name)
	for _, flag := range strings.Fields(flags) {
		switch flag {
		case `\trash`:
			f.trash = append(f.trash, decoded)
		case `\sent`:
			f.sent = append(f.sent, decoded)
		case `\drafts`:
			f.drafts = append(f.drafts, decoded)
		}
	}
	return nil
}
