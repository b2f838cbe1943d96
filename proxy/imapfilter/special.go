// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// specialFolders knows which folders are Trash, Sent and Drafts. They matter
// to a decision that grants only a part of file, delete and send.
type specialFolders struct {
	// listed says that the upstream told its special-use folders (RFC 6154).
	listed              bool
	trash, sent, drafts []string
}

// trashNames stand for Trash, in lower case: the English names, and those of
// large providers and clients in the languages of the firms' countries, since
// many servers, Exchange among them, tell no special use.
var trashNames = []string{
	"trash", "bin", "deleted", "deleted items", "deleted messages", "wastebasket", "recycle bin",
	"papierkorb", "gelöschte elemente", "gelöschte objekte", "corbeille", "éléments supprimés",
	"papelera", "elementos eliminados", "cestino", "posta eliminata", "lixeira", "lixo",
	"itens excluídos", "itens eliminados", "prullenbak", "verwijderde items", "kosz",
	"elementy usunięte", "papperskorgen", "borttaget", "papirkurv", "slettede elementer", "slettet post",
	"roskakori", "poistetut", "koš", "odstraněná pošta", "lomtár", "törölt elemek", "coș de gunoi",
	"çöp kutusu", "silinmiş öğeler", "корзина", "удаленные", "удалённые", "кошик", "ゴミ箱", "削除済みアイテム",
	"已删除邮件", "已删除", "垃圾箱", "휴지통", "지운 편지함",
}

// Names that stand for Sent and Drafts where the upstream tells none, in lower
// case; they may stand behind a prefix.
var (
	sentNames   = []string{"sent", "sent items", "sent messages", "sent mail"}
	draftsNames = []string{"drafts", "draft"}
	namePrefix  = []string{"", "inbox.", "inbox/", "[gmail]/", "[google mail]/"}
)

// trashActions returns what it takes to put messages into a folder by MOVE or
// COPY: file, delete where it is Trash, and both where it may be. A server may
// know a folder by more than one path, so that whatever has Trash's name among
// its parts may be Trash or lie below it; a name whose encoding is broken may
// be anything.
func (f *specialFolders) trashActions(name []byte) policy.Actions {
	if named(f.trash, name) || (len(f.trash) == 0 && byName(trashNames, name)) {
		return policy.Delete
	}
	decoded, ok := imapwire.ParseMailbox(name)
	if !ok {
		return policy.File | policy.Delete
	}
	for _, part := range parts(decoded) {
		if slices.Contains(trashNames, part) {
			return policy.File | policy.Delete
		}
		for _, trash := range f.trash {
			if p := parts(trash); len(p) > 0 && part == p[len(p)-1] {
				return policy.File | policy.Delete
			}
		}
	}
	return policy.File
}

// parts splits a folder's name at whatever may be a delimiter.
func parts(name string) []string { return strings.FieldsFunc(strings.ToLower(name), isDelimiter) }

func isDelimiter(r rune) bool { return r == '/' || r == '.' || r == '\\' }

// isSentOrDrafts goes by names only where the upstream tells nothing.
func (f *specialFolders) isSentOrDrafts(name []byte) bool {
	if f.listed || len(f.sent)+len(f.drafts) > 0 {
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
	lower := strings.ToLower(imapwire.DecodeMailbox(name))
	for _, prefix := range namePrefix {
		if rest, ok := strings.CutPrefix(lower, prefix); ok && slices.Contains(list, rest) {
			return true
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
		case resp.Kind == imapwire.ResponseBroken, resp.Kind == imapwire.ResponseContinue:
			return errUpstreamBroken
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
