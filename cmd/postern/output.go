// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// show prints the server's answer when JSON is wanted, else words. The answer
// is printed octet by octet as it came: the leaf hashes of events cover theirs.
func (a *app) show(cmd *cobra.Command, raw []byte, words func(io.Writer)) error {
	out := cmd.OutOrStdout()
	if !a.json {
		words(out)
		return nil
	}
	_, err := fmt.Fprintf(out, "%s\n", bytes.TrimSpace(raw))
	return err
}

// writeTable prints rows under headings; without rows, what to do instead.
func writeTable(out io.Writer, headings []string, rows [][]string, empty string) {
	if len(rows) == 0 {
		fmt.Fprintln(out, empty)
		return
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(cells []string) {
		shown := make([]string, len(cells))
		for i, c := range cells {
			if shown[i] = printable(c, false); shown[i] == "" {
				shown[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(shown, "\t"))
	}
	line(headings)
	for _, r := range rows {
		line(r)
	}
	_ = w.Flush()
}

// writeFields prints one thing, a line per field; empty ones are left out.
func writeFields(out io.Writer, pairs ...string) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s:\t%s\n", pairs[i], printable(pairs[i+1], false))
		}
	}
	_ = w.Flush()
}

// printable escapes what could drive a terminal: names and log entries hold
// what strangers wrote.
func printable(s string, lines bool) string {
	safe := func(r rune) bool { return unicode.IsPrint(r) || lines && r == '\n' }
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if safe(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// stamp shows a time in this machine's zone.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05 -07:00")
}

func list(items []string) string { return strings.Join(items, ", ") }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// showEnded tells what a revoke, lock or removal did to sessions. Sessions
// that live on make the command fail: they should not.
func showEnded(out io.Writer, done string, e httpapi.Ended) {
	fmt.Fprintf(out, "%s; %s ended\n", done, count(len(e.EndedSessions), "live session"))
	for _, id := range e.OpenSessions {
		fmt.Fprintf(out, "STILL OPEN after a second: session %s\n", id)
	}
}

// stillOpen is the error for sessions that outlived what should have ended
// them.
func stillOpen(e httpapi.Ended) error {
	if len(e.OpenSessions) == 0 {
		return nil
	}
	return broker.Errorf(broker.Internal, "%s had not ended a second later: look at the server's log", count(len(e.OpenSessions), "session"))
}

func count(n int, what string) string {
	switch n {
	case 0:
		return "no " + what
	case 1:
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// parseTime reads an instant for a flag: RFC 3339, or a date, which stands for
// its first moment in this machine's zone, or (end) for its last.
func parseTime(flag, text string, end bool) (*time.Time, error) {
	return parseTimeIn(time.Local, flag, text, end)
}

// parseTimeIn is parseTime with another zone for dates.
func parseTimeIn(zone *time.Location, flag, text string, end bool) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return &t, nil
	}
	t, err := time.ParseInLocation(time.DateOnly, text, zone)
	if err != nil {
		return nil, usagef("--%s %q is neither a date such as 2026-12-31 nor a time such as 2026-12-31T18:00:00+05:30", flag, text)
	}
	if end {
		t = t.AddDate(0, 0, 1)
	}
	return &t, nil
}

// nameOr shows a name, or the id of what has none any more.
func nameOr(name string, id broker.ID) string {
	if name == "" {
		return string(id)
	}
	return name
}
