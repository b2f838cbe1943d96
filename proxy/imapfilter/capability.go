// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"strings"
)

// offeredExtensions are the capabilities of the command table: what Postern
// passes on when the upstream has it. A trailing '*' matches any ending of
// letters, digits, dots and hyphens.
var offeredExtensions = []string{
	"IMAP4REV1", "IMAP4REV2", "IDLE", "CONDSTORE", "QRESYNC", "ENABLE", "MOVE", "UIDPLUS",
	"UNSELECT", "NAMESPACE", "CHILDREN", "ID", "LIST-EXTENDED", "LIST-STATUS", "SPECIAL-USE",
	"CREATE-SPECIAL-USE", "ESEARCH", "SEARCHRES", "ESORT", "SORT", "SORT=DISPLAY", "THREAD=*",
	"CONTEXT=*", "WITHIN", "I18NLEVEL=*", "MULTIAPPEND", "CATENATE", "URL-PARTIAL", "BINARY",
	"LITERAL+", "LITERAL-", "SASL-IR", "QUOTA", "QUOTA=RES-*", "NOTIFY", "PREVIEW", "PREVIEW=*",
	"SNIPPET", "SNIPPET=*", "SAVEDATE", "STATUS=SIZE", "APPENDLIMIT", "APPENDLIMIT=*", "OBJECTID",
	"REPLACE", "UTF8=ACCEPT", "UTF8=ONLY", "XLIST", "X-GM-EXT-1",
}

// enableable are the extensions that ENABLE may name (RFC 5161).
var enableable = []string{"CONDSTORE", "QRESYNC", "UTF8=ACCEPT", "IMAP4REV2"}

// passedCodes are the response codes that reach a client. CAPABILITY is
// rewritten; REFERRAL would name the upstream.
var passedCodes = []string{
	"ALERT", "ALREADYEXISTS", "APPENDUID", "AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED",
	"BADCHARSET", "BADCOMPARATOR", "BADEVENT", "BADURL", "CANNOT", "CLIENTBUG", "CLOSED",
	"CONTACTADMIN", "COPYUID", "CORRUPTION", "EXPIRED", "EXPUNGEISSUED", "HASCHILDREN",
	"HIGHESTMODSEQ", "INUSE", "LIMIT", "MAILBOXID", "MODIFIED", "NOMODSEQ", "NONEXISTENT",
	"NOPERM", "NOTIFICATIONOVERFLOW", "NOTSAVED", "NOUPDATE", "OVERQUOTA", "PARSE",
	"PERMANENTFLAGS", "PRIVACYREQUIRED", "READ-ONLY", "READ-WRITE", "SERVERBUG", "THROTTLED",
	"TOOBIG", "TRYCREATE", "UIDNEXT", "UIDNOTSTICKY", "UIDVALIDITY", "UNAVAILABLE", "UNKNOWN-CTE",
	"UNSEEN", "USEATTR",
}

// offers are the capabilities of an upstream that decide what Postern sends it.
type offers uint8

const (
	offersRev2 offers = 1 << iota
	offersBinary
	offersUTF8
	offersCatenate
	offersMultiAppend
	offersUnselect
)

// offersOf finds them among an upstream's capabilities.
func offersOf(capabilities []string) (o offers) {
	for _, c := range capabilities {
		switch strings.ToUpper(c) {
		case "IMAP4REV2":
			o |= offersRev2
		case "BINARY":
			o |= offersBinary
		case "UTF8=ACCEPT", "UTF8=ONLY":
			o |= offersUTF8
		case "CATENATE":
			o |= offersCatenate
		case "MULTIAPPEND":
			o |= offersMultiAppend
		case "UNSELECT":
			o |= offersUnselect
		}
	}
	return o
}

func onList(list []string, word []byte) bool {
	var buf [64]byte
	if len(word) > len(buf) {
		return false
	}
	up := buf[:len(word)]
	for i, c := range word {
		if c >= 'a' && c <= 'z' {
			c -= 32
		}
		up[i] = c
	}
	for _, entry := range list {
		if prefix, wild := strings.CutSuffix(entry, "*"); wild {
			if ending, ok := bytes.CutPrefix(up, []byte(prefix)); ok && len(ending) > 0 && !bytes.ContainsFunc(ending, notInEnding) {
				return true
			}
		} else if string(up) == entry {
			return true
		}
	}
	return false
}

func notInEnding(r rune) bool {
	return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
}

// appendOffered appends those of words that are on a list of what Postern
// offers, each after a space.
func appendOffered(dst []byte, list []string, words []byte) []byte {
	for len(words) > 0 {
		var w []byte
		w, words, _ = bytes.Cut(words, []byte(" "))
		if len(w) > 0 && onList(list, w) {
			dst = append(append(dst, ' '), w...)
		}
	}
	return dst
}
