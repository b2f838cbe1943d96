// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestSameAsTheServer runs one script directly and through Postern and
// compares every answer. It fails as well when a command or an extension of
// the table that the server has is not exercised.
func TestSameAsTheServer(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		s := newTwoSides(t, server)
		s.script()
		for name, c := range newTable() {
			extension := commandOf[name]
			if c.never != "" || slices.Contains(server.reserved, name) || extension != "" && !s.offers(extension) {
				continue
			}
			if !s.succeeded(name) {
				t.Errorf("nothing in the script is a %s that the server carries out", name)
			}
		}
		for _, extension := range s.offered {
			if !s.proved(extension) {
				t.Errorf("nothing in the script uses %s with success", extension)
			}
		}
	})
}

// commandOf names the extension that a command belongs to, where a server may
// lack it.
var commandOf = map[string]string{
	"XLIST": "XLIST", "NOTIFY": "NOTIFY", "CANCELUPDATE": "CONTEXT=SEARCH", "REPLACE": "REPLACE", "UID REPLACE": "REPLACE",
}

// transcriptOf names the transcripts that show the extensions which neither
// server has.
var transcriptOf = map[string]string{
	"IMAP4REV2": "imap4rev2.txt", "UTF8=ACCEPT": "utf8.txt", "UTF8=ONLY": "utf8.txt", "REPLACE": "imap4rev2.txt", "X-GM-EXT-1": "gmail.txt",
	"LITERAL-": "imap4rev2.txt", "SASL-IR": "gmail.txt", "QUOTA=RES-*": "imap4rev2.txt", "SNIPPET": "gmail.txt", "APPENDLIMIT": "imap4rev2.txt",
}

// TestEachExtensionIsCompared: each extension of the table has an exchange in
// the script, or a transcript whose upstream offers it.
func TestEachExtensionIsCompared(t *testing.T) {
	for _, extension := range offeredExtensions {
		if proofs()[extension] != nil {
			continue
		}
		file := transcriptOf[extension]
		if file == "" {
			t.Errorf("%s is neither in the script nor in a transcript", extension)
			continue
		}
		if !slices.ContainsFunc(readTranscript(t, file).capabilities, func(c string) bool { return onList([]string{extension}, []byte(c)) }) {
			t.Errorf("the upstream of %s does not offer %s", file, extension)
		}
	}
}

// proofs are what an exchange must hold to use an extension.
func proofs() map[string]*regexp.Regexp {
	list := map[string]string{
		"IMAP4REV1": ` NOOP`, "IDLE": ` IDLE`, "CONDSTORE": `CHANGEDSINCE`, "QRESYNC": `QRESYNC \(`, "ENABLE": `ENABLE`, "MOVE": ` MOVE `, "UIDPLUS": `UID EXPUNGE`,
		"UNSELECT": `UNSELECT`, "NAMESPACE": `NAMESPACE`, "CHILDREN": `RETURN \(.*CHILDREN`, "ID": ` ID `, "LIST-EXTENDED": `LIST \(SUBSCRIBED`, "LIST-STATUS": `RETURN \(.*STATUS \(`,
		"SPECIAL-USE": `LIST \(SPECIAL-USE\)`, "CREATE-SPECIAL-USE": `CREATE .*\(USE`, "ESEARCH": `SEARCH RETURN`, "SEARCHRES": `FETCH \$`, "ESORT": `SORT RETURN`, "SORT": ` SORT \(`,
		"SORT=DISPLAY": `DISPLAYFROM`, "THREAD=*": `THREAD *`, "CONTEXT=*": `RETURN \(UPDATE`, "WITHIN": `OLDER 1`, "I18NLEVEL=*": `CHARSET UTF-8`, "MULTIAPPEND": `(?s)APPEND .*\{\d+\+?\}.*\} ?\r\n.*\(\\Flagged\)`,
		"CATENATE": `CATENATE`, "URL-PARTIAL": `;PARTIAL=`, "BINARY": `BINARY\.PEEK`, "LITERAL+": `\{\d+\+\}`, "QUOTA": `GETQUOTAROOT`, "NOTIFY": `NOTIFY SET`, "PREVIEW": `PREVIEW\)`, "PREVIEW=*": `PREVIEW \(*\)`,
		"SNIPPET=*": `SNIPPET \(*\)`, "SAVEDATE": `SAVEDATE`, "STATUS=SIZE": `STATUS .*SIZE`, "APPENDLIMIT=*": `CAPABILITY`, "OBJECTID": `EMAILID`, "XLIST": `XLIST`,
	}
	all := make(map[string]*regexp.Regexp, len(list))
	for extension, pattern := range list {
		all[extension] = regexp.MustCompile(pattern)
	}
	return all
}

// proved reports whether the server carried out an exchange that uses an
// extension.
func (s *twoSides) proved(extension string) bool {
	for name, pattern := range proofs() {
		if !onList([]string{name}, []byte(extension)) {
			continue
		}
		// The one ending of THREAD=*, PREVIEW=* and SNIPPET=* that it is.
		if _, ending, found := strings.Cut(extension, "="); found && strings.HasSuffix(name, "*") && strings.Contains(pattern.String(), "*") {
			pattern = regexp.MustCompile(strings.Replace(pattern.String(), "*", ending, 1))
		}
		for _, e := range s.said {
			if last := e.heard[len(e.heard)-1]; pattern.MatchString(e.raw) && strings.Contains(last, " OK") {
				return true
			}
		}
	}
	return transcriptOf[strings.ToUpper(extension)] != ""
}

var commandLine = regexp.MustCompile(`(?m)^([a-z]\d+) (UID \w+|\w+)`)

// succeeded reports whether the server carried out a command.
func (s *twoSides) succeeded(name string) bool {
	for _, e := range s.said {
		for _, m := range commandLine.FindAllStringSubmatch(e.raw, -1) {
			for _, line := range e.heard {
				if m[2] == name && strings.HasPrefix(line, m[1]+" OK") {
					return true
				}
			}
		}
	}
	return false
}
