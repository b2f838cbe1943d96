// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"regexp"
	"strings"
)

// difference is one way in which an answer through Postern may differ from the
// direct one. This list is all that a client can notice in the answers to
// valid commands.
type difference struct {
	why  string
	take func(line string) string
}

func allowedDifferences() []difference {
	return []difference{
		{
			why: "Postern offers what it can judge and record: extensions outside its table (ACL, COMPRESS, URLAUTH …) are left out",
			take: func(line string) string {
				if words, ok := strings.CutPrefix(line, "* CAPABILITY "); ok {
					return "* CAPABILITY" + string(appendOffered(nil, offeredExtensions, []byte(words)))
				}
				return line
			},
		},
		{
			why:  "response codes of those extensions are left out with them: a client that sees URLMECH would use URLAUTH",
			take: func(line string) string { return foreignCode.ReplaceAllString(line, "$1") },
		},
		{
			why: "BYE tells why Postern ends the session; the server's own words could name it",
			take: func(line string) string {
				if strings.HasPrefix(line, "* BYE ") {
					return "* BYE"
				}
				return line
			},
		},
		{
			why: "a FETCH of a body bears the UID, which the record needs (RFC 9051 §7.5.2 lets a server send any item)",
			take: func(line string) string {
				if bodyItem.MatchString(line) {
					return fetchUID.ReplaceAllString(line, "$1")
				}
				return line
			},
		},
	}
}

var (
	foreignCode = regexp.MustCompile(`^(\* OK )\[(?:URLMECH|ANNOTATIONS) [^]]*\] `)
	// A line that ends in a literal goes on, perhaps with a body.
	bodyItem = regexp.MustCompile(`FETCH \(.*(BODY\[|BINARY\[|RFC822|\}$)`)
	fetchUID = regexp.MustCompile(`^(\* \d+ FETCH \((?:.*?[ )])??)UID \d+ ?`)
)

// twoRuns is what differs between any two runs, with Postern or without: the
// time, and what a server chooses anew for each mailbox.
var twoRuns = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(` \(\d+\.\d+ \+ \d+\.\d+( \+ \d+\.\d+)? secs\)`), ""},   // Dovecot
	{regexp.MustCompile(` \((\d+ msgs in )?\d+\.\d+ secs?( \d+ calls)?\)`), ""}, // Cyrus
	{regexp.MustCompile(`(UIDVALIDITY|COPYUID|APPENDUID) \d+`), "$1 N"},
	{regexp.MustCompile(`SAVEDATE "[^"]*"`), "SAVEDATE X"},
	{regexp.MustCompile(`INTERNALDATE "[^"]*"`), "INTERNALDATE X"},
	{regexp.MustCompile(`(?i)(MODSEQ \(|HIGHESTMODSEQ |MODSEQ )\d+`), "${1}N"},
	{regexp.MustCompile(`(MAILBOXID) \([^)]*\)`), "$1 (N)"},
}

// normalise takes out what differs between two runs, and what may differ
// through Postern.
func normalise(lines []string) []string {
	out := make([]string, 0, len(lines))
	for _, line := range lines {
		for _, r := range twoRuns {
			line = r.pattern.ReplaceAllString(line, r.instead)
		}
		for _, d := range allowedDifferences() {
			line = d.take(line)
		}
		out = append(out, line)
	}
	return out
}
