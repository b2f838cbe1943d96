// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"strings"
)

// smuggling is what a client says after its login: it holds a CREATE that some
// reader other than Postern could take for a command.
type smuggling struct{ name, payload string }

var smuggles = []smuggling{
	{"bare LF", "a NOOP\nb CREATE Smuggled\r\n"},
	{"bare CR", "a NOOP\rb CREATE Smuggled\r\n"},
	{"NUL", "a NOOP\x00\r\nb CREATE Smuggled\x00\r\n"},
	{"CRLF in a quoted string", "a SELECT \"x\r\nb CREATE Smuggled\r\n\"\r\n"},
	{"LF in a quoted string", "a SELECT \"x\nb CREATE Smuggled\n\"\r\n"},
	{"escaped quote", "a SELECT \"x\\\"\r\nb CREATE Smuggled\r\n"},
	{"literal with CRLF for a folder", "a SELECT {22+}\r\nx\r\nb CREATE Smuggled\r\n\r\n"},
	{"literal with CRLF to search for", "a SEARCH SUBJECT {24+}\r\nxx\r\nb CREATE Smuggled\r\n\r\n"},
	{"literal that announces another", "a SEARCH SUBJECT {4+}\r\n{20} SUBJECT {22+}\r\n\r\nb CREATE Smuggled\r\n\r\n"},
	{"text that looks like a literal", "a SEARCH SUBJECT \"{20}\"\r\nb SEARCH SUBJECT \"{22+}\"\r\n"},
	{"refused non-synchronising literal", "a APPEND INBOX {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"refused synchronising literal", "a APPEND INBOX {21}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"literal that is too large", "a SELECT {5000000+}\r\nb CREATE Smuggled\r\n"},
	{"literal that is far too large", "a SELECT {99999999999999999999+}\r\nb CREATE Smuggled\r\n"},
	{"negative literal", "a SELECT {-5}\r\nb CREATE Smuggled\r\n"},
	{"literal with a sign", "a SELECT {+5}\r\nb CREATE Smuggled\r\n"},
	{"literal with a space", "a SELECT { 5}\r\nb CREATE Smuggled\r\n"},
	{"literal with a minus", "a SELECT {5-}\r\nINBOX\r\nb CREATE Smuggled\r\n"},
	{"literal with zeros", "a SELECT {0000005+}\r\nINBOX\r\nb CREATE Smuggled\r\n"},
	{"literal behind a literal's end", "a SELECT {5+}x\r\nb CREATE Smuggled\r\n"},
	{"literal8", "a SELECT ~{5+}\r\nINBOX\r\nb CREATE Smuggled\r\n"},
	{"literal with a bare LF", "a SELECT {5+}\nINBOX\r\nb CREATE Smuggled\r\n"},
	{"empty literal", "a SELECT {0+}\r\n\r\nb CREATE Smuggled\r\n"},
	// Dovecot 2.3 knows neither of these two, and takes the literal of a command
	// that it does not know for commands.
	{"literal of a command unknown there", "a REPLACE 1 Archive {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"pattern with a literal", "a XLIST \"\" {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"reference with a literal", "a XLIST {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n *\r\n"},
	{"LSUB with a literal", "a LSUB \"\" {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"quota root with a literal", "a GETQUOTA {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"SORT with a literal", "a SORT (ARRIVAL) UTF-8 SUBJECT {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"X-GM-RAW with a literal", "a SEARCH X-GM-RAW {24+}\r\nx\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"tag with a plus", "+ CREATE Smuggled\r\na+b CREATE Smuggled\r\n"},
	{"tag with a star", "* CREATE Smuggled\r\n"},
	{"IDLE that ends with a command", "a IDLE\r\nb CREATE Smuggled\r\nDONE\r\n"},
	{"IDLE with what follows", "a IDLE\r\nDONE\r\nb CREATE Smuggled\r\n"},
	{"IDLE and bare LF", "a IDLE\r\nDONE\nb CREATE Smuggled\r\n"},
	{"UID and a literal", "a UID {6+}\r\nCREATE Smuggled\r\n"},
	{"name in a literal", "a {6+}\r\nCREATE Smuggled\r\n"},
	{"lower case", "a create Smuggled\r\n"},
	{"two spaces", "a  CREATE Smuggled\r\na CREATE  Smuggled\r\n"},
	{"tab", "a\tCREATE\tSmuggled\r\n"},
	{"other spaces of Unicode", "a\u00a0CREATE\u2028Smuggled\r\na NOOP\u2028b CREATE Smuggled\r\na NOOP\u0085b CREATE Smuggled\r\n"},
	{"overlong UTF-8 line end", "a SEARCH SUBJECT \"\xc0\x8d\xc0\x8ab CREATE Smuggled\"\r\n"},
	{"long line", "a SEARCH SUBJECT \"" + strings.Repeat("x", 70000) + "\"\r\nb CREATE Smuggled\r\n"},
	{"half a line", "a CREATE Smuggled"},
	{"STARTTLS with what follows", "a STARTTLS\r\nb CREATE Smuggled\r\n"},
	{"AUTHENTICATE with what follows", "a AUTHENTICATE PLAIN\r\nb CREATE Smuggled\r\n"},
	{"ID with a command", "a ID (\"name\" \"x\r\nb CREATE Smuggled\")\r\n"},
	{"flag with a command", "a STORE 1 +FLAGS (x) CREATE Smuggled\r\n"},
	{"FETCH section with a literal", "a FETCH 1 BODY.PEEK[HEADER.FIELDS ({23+}\r\nx\r\nb CREATE Smuggled\r\n\r\n)]\r\n"},
	{"ENABLE", "a ENABLE UTF8=ACCEPT\r\nb CREATE Smuggled\r\n"},
	{"many before", strings.Repeat("a NOOP\r\n", 200) + "b CREATE Smuggled\r\n"},
	{"COMPRESS", "a COMPRESS DEFLATE\r\nb CREATE Smuggled\r\n"},
	{"ends with a literal of nothing more", "a SEARCH SUBJECT {100+}\r\nb CREATE Smuggled\r\n"},
	{"tag of Postern's", "pnaaaaaaaaaa-1 CREATE Smuggled\r\npn NOOP\r\npn2345678901-7 IDLE\r\nDONE\r\nb CREATE Smuggled\r\n"},
	{"tag of Postern's login", "PABCDEF1 LOGIN x y\r\nPABCDEF2 CREATE Smuggled\r\nPABCDEF3 NOOP\r\n"},
	{"tag DONE", "DONE NOOP\r\nDONE CREATE Smuggled\r\n"},
	{"tag twice", "a NOOP\r\na NOOP\r\na SEARCH ALL\r\na CREATE Smuggled\r\n"},
	{"tag with a bracket", "a] NOOP\r\n{5} NOOP\r\na{5} CREATE Smuggled\r\n\"a\" CREATE Smuggled\r\n(a) CREATE Smuggled\r\n"},
	{"looks like a continuation", "+ go\r\n+\r\n+ b CREATE Smuggled\r\n"},
	{"looks like an answer", "* OK [CAPABILITY IMAP4rev1] x\r\n* BYE off\r\na OK done\r\n* 1 FETCH (BODY[] {20}\r\nb CREATE Smuggled\r\n)\r\n"},
	{"APPEND and a command behind it", "a APPEND INBOX {3+}\r\nabc\r\nb CREATE Smuggled\r\n"},
	{"APPEND that is too short", "a APPEND INBOX {3+}\r\nabcb CREATE Smuggled\r\n"},
	{"APPEND that is too long", "a APPEND INBOX {300+}\r\nabc\r\nb CREATE Smuggled\r\n"},
	{"APPEND that does not wait", "a APPEND INBOX {21}\r\nb CREATE Smuggled\r\n\r\n\r\nc NOOP\r\n"},
	{"APPEND of nothing", "a APPEND INBOX {0+}\r\n\r\nb CREATE Smuggled\r\n"},
	{"APPEND of nothing that waits", "a APPEND INBOX {0}\r\n\r\nb CREATE Smuggled\r\n"},
	{"APPEND to nowhere", "a APPEND Nowhere {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"APPEND to nowhere that does not wait", "a APPEND Nowhere {21}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"APPEND with a date that is none", "a APPEND INBOX \"99-Jan-2026 00:00:00 +0000\" {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"APPEND with a flag that is none", "a APPEND INBOX (\\Nonsense) {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"APPEND with a flag that is a literal", "a APPEND INBOX ({21+}\r\nb CREATE Smuggled\r\n\r\n) {3+}\r\nabc\r\n"},
	{"APPEND with more behind it", "a APPEND INBOX {3+}\r\nabc CREATE Smuggled\r\nb CREATE Smuggled\r\n"},
	{"MULTIAPPEND", "a APPEND INBOX {3+}\r\nabc {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"MULTIAPPEND with a flag that is none", "a APPEND INBOX {3+}\r\nabc (\\Nonsense) {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"MULTIAPPEND that does not wait", "a APPEND INBOX {3+}\r\nabc {21}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"MULTIAPPEND to nowhere", "a APPEND Nowhere {3+}\r\nabc {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"MULTIAPPEND with a second folder", "a APPEND INBOX {3+}\r\nabc INBOX {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"CATENATE", "a APPEND INBOX CATENATE (TEXT {21+}\r\nb CREATE Smuggled\r\n\r\n)\r\n"},
	{"CATENATE with a URL that leads nowhere", "a APPEND INBOX CATENATE (URL \"/nowhere;UIDVALIDITY=1/;UID=1\" TEXT {21+}\r\nb CREATE Smuggled\r\n\r\n)\r\n"},
	{"CATENATE with a URL in a literal", "a APPEND INBOX CATENATE (URL {22+}\r\n/x\r\nb CREATE Smuggled\r\n)\r\n"},
	{"CATENATE with a host", "a APPEND INBOX CATENATE (URL \"imap://evil.example/INBOX/;UID=1\" TEXT {21+}\r\nb CREATE Smuggled\r\n\r\n)\r\n"},
	{"CATENATE that does not end", "a APPEND INBOX CATENATE (TEXT {3+}\r\nabc\r\nb CREATE Smuggled\r\n"},
	{"CATENATE with a literal8", "a APPEND INBOX CATENATE (TEXT ~{21+}\r\nb CREATE Smuggled\r\n\r\n)\r\n"},
	{"CATENATE of nothing", "a APPEND INBOX CATENATE ()\r\nb CREATE Smuggled\r\n"},
	{"CATENATE and MULTIAPPEND", "a APPEND INBOX CATENATE (TEXT {3+}\r\nabc TEXT {2+}\r\nde) {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"APPEND of a literal8", "a APPEND INBOX ~{21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"APPEND of a literal8 with NUL", "a APPEND INBOX ~{22+}\r\n\x00b CREATE Smuggled\r\n\r\n\r\n"},
	{"APPEND with NUL", "a APPEND INBOX {22+}\r\n\x00b CREATE Smuggled\r\n\r\n\r\n"},
	{"APPEND UTF8", "a APPEND INBOX UTF8 (~{21+}\r\nb CREATE Smuggled\r\n\r\n)\r\n"},
	{"APPEND UTF8 that does not end", "a APPEND INBOX UTF8 (~{3+}\r\nabc\r\nb CREATE Smuggled\r\n"},
	{"REPLACE of nothing", "a UID REPLACE 999 INBOX {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"UTF-8 switched on", "a ENABLE UTF8=ACCEPT IMAP4rev2\r\nb SELECT \"Entw\u00fcrfe\"\r\nc SEARCH SUBJECT \"\u00fc\"\r\nd CREATE Smuggled\r\n"},
	{"UTF-8 switched on behind a literal", "a ENABLE {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"UTF-7 that is none", "a SELECT \"&AAoAYg-\"\r\nb STATUS \"&AA0ACg-x\" (MESSAGES)\r\nc CREATE Smuggled\r\n"},
	{"8 bits in an atom", "a SELECT \xfc\r\nb SEARCH SUBJECT \x8d\x8ac CREATE Smuggled\r\n"},
	{"8 bits in a quoted string", "a SEARCH SUBJECT \"\x8d\x8a\"\r\nb CREATE Smuggled\r\n"},
	{"8 bits in a literal", "a SEARCH SUBJECT {22+}\r\n\xffb CREATE Smuggled\x8d\x8a\r\n\r\n"},
	{"escaped line end", "a SELECT \"x\\\r\nb CREATE Smuggled\"\r\n"},
	{"escaped end of a quoted string", "a SEARCH SUBJECT \"x\\\" FROM \"{21+}\"\r\nb CREATE Smuggled\r\n"},
	{"literal within quotes", "a SEARCH SUBJECT \"x {21+}\r\nb CREATE Smuggled\r\n\r\n\"\r\n"},
	{"literal behind a quote", "a SEARCH SUBJECT \"x\"{21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"literal behind an atom", "a SEARCH SUBJECT x{21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"literal behind a bracket", "a FETCH 1 BODY[{21+}\r\nb CREATE Smuggled\r\n\r\n]\r\n"},
	{"literal for a set", "a FETCH {21+}\r\nb CREATE Smuggled\r\n\r\n FLAGS\r\n"},
	{"literal for a flag", "a STORE 1 +FLAGS {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"literal for an item", "a FETCH 1 ({21+}\r\nb CREATE Smuggled\r\n\r\n)\r\n"},
	{"literal for a keyword", "a SEARCH {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"literal for the tag", "{21+}\r\nb CREATE Smuggled\r\n\r\n NOOP\r\n"},
	{"literal of a command that takes none", "a NOOP {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"literal of one that takes none and waits", "a NOOP {21}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"literal of one that is never forwarded", "a SETACL INBOX {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"literal of one that is unknown", "a FROB {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"literal of one that is refused", "a CREATE {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"literal of a login", "a LOGIN {21+}\r\nb CREATE Smuggled\r\n\r\n {1+}\r\nx\r\n"},
	{"literal8 of nothing", "a SEARCH SUBJECT ~{0+}\r\n\r\nb CREATE Smuggled\r\n"},
	{"two literals", "a SEARCH SUBJECT {1+}\r\nx FROM {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"one that waits, one that does not", "a SEARCH SUBJECT {1}\r\n\xff FROM {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"charset that is none, and a literal", "a SEARCH CHARSET X-NONE SUBJECT {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"literal that is just too large to buffer", "a SEARCH SUBJECT {65537+}\r\n" + strings.Repeat("b CREATE Smuggled\r\n", 3500)},
	{"literal of 2^32 and more", "a SEARCH SUBJECT {4294967317+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"IDLE twice", "a IDLE\r\nDONE\r\nb IDLE\r\nDONE\r\nDONE\r\nc CREATE Smuggled\r\n"},
	{"IDLE and a literal", "a IDLE\r\n{21+}\r\nb CREATE Smuggled\r\n\r\nDONE\r\n"},
	{"IDLE and DONE with more", "a IDLE\r\nDONE b CREATE Smuggled\r\n"},
	{"IDLE and an APPEND", "a IDLE\r\nDONE\r\nb APPEND INBOX {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"IDLE with an argument", "a IDLE x\r\nDONE\r\nb CREATE Smuggled\r\n"},
	{"DONE without IDLE", "DONE\r\nDONE\r\na CREATE Smuggled\r\n"},
	{"commands that stand alone", "a SELECT INBOX\r\nb UNSELECT\r\nc IDLE\r\nDONE\r\nd CLOSE\r\ne CREATE Smuggled\r\n"},
	{"AUTHENTICATE with base64", "a AUTHENTICATE PLAIN AGEAYg0KYiBDUkVBVEUgU211Z2dsZWQNCg==\r\nb CREATE Smuggled\r\n*\r\n"},
	{"behind LOGOUT", "a LOGOUT\r\nb CREATE Smuggled\r\n"},
	{"UNAUTHENTICATE", "a UNAUTHENTICATE\r\nb LOGIN x y\r\nc CREATE Smuggled\r\n"},
	{"NOTIFY with a folder in a literal", "a NOTIFY SET (mailboxes {22+}\r\nx\r\nb CREATE Smuggled\r\n (MessageNew MessageExpunge))\r\n"},
	{"CANCELUPDATE with a literal", "a CANCELUPDATE {21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
	{"many spaces and blanks", "a NOOP \r\n a NOOP\r\n\r\n\r\nb CREATE Smuggled\r\n"},
	{"form feed and vertical tab", "a\fCREATE\fSmuggled\r\na NOOP\vb CREATE Smuggled\r\n"},
	{"backspaces and escapes", "a NOOP\b\b\b\bCREATE Smuggled\r\na \x1b[2JCREATE Smuggled\r\n"},
	{"CR CR LF", "a NOOP\r\r\nb CREATE Smuggled\r\r\n"},
	{"LF CR", "a NOOP\n\rb CREATE Smuggled\n\r"},
	{"line of exactly 64 KiB", "a SEARCH SUBJECT \"" + strings.Repeat("x", 65536-19-1) + "\"\r\nb CREATE Smuggled\r\n"},
	{"parenthesis that does not close", "a FETCH 1 (FLAGS\r\nb CREATE Smuggled)\r\n"},
	{"many parentheses", "a SEARCH " + strings.Repeat("(", 40) + "ALL" + strings.Repeat(")", 40) + "\r\nb CREATE Smuggled\r\n"},
	{"header name with a line end", "a FETCH 1 BODY.PEEK[HEADER.FIELDS (\"x\r\nb CREATE Smuggled\r\n\")]\r\n"},
	{"header name with an escape", "a FETCH 1 BODY.PEEK[HEADER.FIELDS (\"x\\\"]\" {21+}\r\nb CREATE Smuggled\r\n\r\n)]\r\n"},
	{"partial with more", "a FETCH 1 BODY.PEEK[]<0.1>{21+}\r\nb CREATE Smuggled\r\n\r\n\r\n"},
}

// nestedSmuggles put a literal that holds a command into each place that takes
// a string.
func nestedSmuggles() (all []smuggling) {
	for _, place := range []string{
		`SELECT %s`, `EXAMINE %s`, `STATUS %s (MESSAGES)`, `LIST %s *`, `LIST "" %s`, `LIST "" ("x" %s)`, `GETQUOTAROOT %s`, `COPY 1 %s`, `UID MOVE 1 %s`,
		`SEARCH CHARSET %s ALL`, `UID SEARCH HEADER %s ""`, `SEARCH SINCE %s`, `UID SORT (ARRIVAL) %s ALL`, `THREAD REFERENCES %s ALL`, `ID ("a" %s)`, `UID STORE 1 +X-GM-LABELS (%s)`,
		`SEARCH OR (TEXT %s) NOT BODY "x"`, "APPEND %s {3+}\r\nabc",
	} {
		for _, form := range []string{"{%d+}\r\n%s", "~{%d+}\r\n%s", "{%d}\r\n%s"} {
			// With 8 bits it cannot become a quoted string, and without a line end
			// it could be a folder's name.
			octets := "\xff\" {3+} CREATE Smuggled"
			literal := fmt.Sprintf(form, len(octets), octets)
			all = append(all, smuggling{fmt.Sprintf("%q in %s", form, place), "a " + fmt.Sprintf(place, literal) + "\r\nb CREATE Smuggled\r\n"})
		}
		octets := "x\r\nb CREATE Smuggled\r\n"
		for _, size := range []int{len(octets), 1, len(octets) + 9} { // as announced
			literal := fmt.Sprintf("{%d+}\r\n%s", size, octets)
			all = append(all, smuggling{fmt.Sprintf("a literal of %d in %s", size, place), "a " + fmt.Sprintf(place, literal) + "\r\n"})
		}
	}
	return all
}
