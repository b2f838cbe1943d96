// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newAskCommand(a *app) *cobra.Command {
	cmd := newGroup("ask", "What the record says: who opened what, who was where, who could", newAskMessageCommand(a), newAskAgentCommand(a),
		newAskWorkstationCommand(a), newAskAlertCommand(a), newAskMailboxCommand(a))
	cmd.Long = `Questions to the record, which is kept of every session: its answers are events
of the logs ('postern log verify' proves those). A firm's people are answered from
their firm's log, the BPO's from all.`
	return cmd
}

// askFlags are what all questions have in common.
type askFlags struct {
	since, until, firm string
	activities         []string
	limit              int
}

func (f *askFlags) register(cmd *cobra.Command, activities ...broker.Activity) {
	flags := cmd.Flags()
	flags.StringVar(&f.since, "since", "", "only what was then or later: a `date`, or a time in RFC 3339")
	flags.StringVar(&f.until, "until", "", "only what was before then: a `date`, which counts, or a time in RFC 3339")
	flags.StringVar(&f.firm, "firm", "", "only this `firm`'s log")
	flags.IntVar(&f.limit, "limit", 1000, "how many events at most; 0: all")
	if len(activities) > 0 {
		words := make([]string, len(activities))
		for i, x := range activities {
			words[i] = string(x)
		}
		flags.StringSliceVar(&f.activities, "activity", nil, "only these `activities`: "+strings.Join(words, ", "))
		_ = cmd.RegisterFlagCompletionFunc("activity", func(_ *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return lastOf(words, toComplete), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}) // the flag is there
	}
}

// path is where a question is asked, with these pairs and the flags.
func (f *askFlags) path(question []string, pairs ...string) (string, error) {
	from, err := parseTime("since", f.since, false)
	if err != nil {
		return "", err
	}
	until, err := parseTime("until", f.until, true)
	if err != nil {
		return "", err
	}
	pairs = append(pairs, "since", instant(from), "until", instant(until), "firm", f.firm, "activity", strings.Join(f.activities, ","))
	return withQuery(path(append([]string{"questions"}, question...)...), pairs...), nil
}

func instant(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}

// ask asks a question page by page, until it has as many items as are wanted.
// The answer is the first page, with the items of all.
func ask[T any](cmd *cobra.Command, a *app, where string, limit int) (raw []byte, out *T, err error) {
	separator := "?"
	if strings.Contains(where, "?") {
		separator = "&"
	}
	var answer map[string]json.RawMessage
	items := []json.RawMessage{}
	for cursor := ""; ; {
		size := maxPage
		if limit > 0 {
			size = min(size, limit-len(items))
		}
		page := where + separator + "page_size=" + strconv.Itoa(size)
		if cursor != "" {
			page += "&cursor=" + url.QueryEscape(cursor)
		}
		raw, err := a.request(cmd.Context(), http.MethodGet, page, nil)
		if err != nil {
			return nil, nil, err
		}
		var got map[string]json.RawMessage
		var more struct {
			Items []json.RawMessage `json:"items"`
			Next  string            `json:"next"`
		}
		if err := errors.Join(json.Unmarshal(raw, &got), json.Unmarshal(raw, &more)); err != nil {
			return nil, nil, fmt.Errorf("the server's answer is not understood; is it of another version? %w", err)
		}
		if answer == nil {
			answer = got
		}
		items = append(items, more.Items...)
		if more.Next == "" {
			break
		}
		if limit > 0 && len(items) >= limit {
			fmt.Fprintln(cmd.ErrOrStderr(), "There is more: --limit 0 prints all; --since and --until narrow it.")
			break
		}
		cursor = more.Next
	}
	delete(answer, "next")
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // records stay as they are in the log
	if err := enc.Encode(items); err != nil {
		return nil, nil, err
	}
	answer["items"] = b.Bytes()
	var whole bytes.Buffer
	enc = json.NewEncoder(&whole)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(answer); err != nil {
		return nil, nil, err
	}
	out = new(T)
	if err := json.Unmarshal(whole.Bytes(), out); err != nil {
		return nil, nil, fmt.Errorf("the server's answer is not understood; is it of another version? %w", err)
	}
	return whole.Bytes(), out, nil
}

// maxPage is how many items the server gives at once.
const maxPage = 10000

// writeGone says what is not in an answer.
func writeGone(out io.Writer, g httpapi.Gone) {
	if !g.PrunedUntil.IsZero() {
		fmt.Fprintf(out, "Records up to %s were pruned, some or all: this is what is left.\n\n", stamp(g.PrunedUntil))
	}
	if len(g.Namesakes) > 0 {
		ids := make([]string, len(g.Namesakes))
		for i, id := range g.Namesakes {
			ids[i] = string(id)
		}
		fmt.Fprintf(out, "This is not about others that had the same name in that time; ask by id: %s\n\n", strings.Join(ids, ", "))
	}
}

// writeDays prints how much there was on each day.
func writeDays(out io.Writer, days []httpapi.DayCount) {
	if len(days) == 0 {
		return
	}
	fmt.Fprintln(out)
	rows := make([][]string, len(days))
	for i, d := range days {
		rows[i] = []string{
			d.Day, string(d.Activity), strconv.FormatInt(d.Events, 10), strconv.FormatInt(d.Messages, 10), strconv.FormatInt(d.Octets, 10),
		}
	}
	writeTable(out, []string{"DAY", "ACTIVITY", "EVENTS", "MESSAGES", "OCTETS"}, rows, "")
}
