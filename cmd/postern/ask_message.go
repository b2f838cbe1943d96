// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newAskMessageCommand(a *app) *cobra.Command {
	var f askFlags
	var mailbox, folder string
	var uidValidity, uid uint32
	cmd := &cobra.Command{
		Use:   "message ([MESSAGE-ID] | --mailbox MAILBOX --folder FOLDER --uidvalidity N --uid N)",
		Short: "Tell who opened a message",
		Long: `Tell who opened a message, from which workstation and how much of it. It is named
by its Message-ID, or by its place: mailbox, folder, UIDVALIDITY and UID.

A Message-ID is followed to all places in which the message was seen, so that
openings count that showed a part without the header. It is the sender's choice,
and may be that of several messages: the places tell them apart. Where a message
was opened as one of many within a minute, as a mail client's download or an
export does, that is a "sync"; else somebody may have read it ("read").`,
		Example: `  postern ask message '<20261104.7731@market.example>'
  postern ask message --mailbox sales@acme.example --folder INBOX --uidvalidity 1730700000 --uid 4711`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := ""
			if len(args) == 1 {
				id = args[0]
				// As it stands in the message (RFC 5322 §3.6.4), or as people copy it.
				if !strings.HasPrefix(id, "<") {
					id = "<" + id + ">"
				}
			}
			where, err := f.path([]string{"messages"}, "message_id", id, "mailbox", mailbox, "folder", folder,
				"uid_validity", number(uidValidity), "uid", number(uid))
			if err != nil {
				return err
			}
			raw, answer, err := ask[httpapi.MessageAnswer](cmd, a, where, f.limit)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				writeGone(out, answer.Gone)
				var rows [][]string
				for i := range answer.Items {
					rows = append(rows, messageRows(&answer.Items[i])...)
				}
				writeTable(out, []string{"TIME", "WHAT", "AGENT", "WORKSTATION", "MAILBOX", "FOLDER", "UID", "SECTION", "OCTETS"}, rows,
					"The record has no opening of it.")
				writeDays(out, answer.Days)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&mailbox, "mailbox", "", "the `mailbox` that the message is in, by address, or by id when it was removed")
	flags.StringVar(&folder, "folder", "", "its `folder`, as the log names it")
	flags.Uint32Var(&uidValidity, "uidvalidity", 0, "the folder's UIDVALIDITY")
	flags.Uint32Var(&uid, "uid", 0, "the message's UID")
	f.register(cmd, broker.ActivityRead, broker.ActivitySync, broker.ActivityAppend, broker.ActivitySubmit, broker.ActivitySent,
		broker.ActivityUnsent, broker.ActivityAlert)
	return cmd
}

func number(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}

// messageRows are a line for each part of the message that an event tells of.
func messageRows(t *httpapi.Told) [][]string {
	who := []string{
		stamp(t.Time), string(t.Activity), nameOr(t.Agent, t.AgentID), nameOr(t.Workstation, t.WorkstationID), nameOr(t.Mailbox, t.MailboxID),
	}
	if len(t.Opened) == 0 {
		return [][]string{append(who, told(t), "", "", "")}
	}
	var rows [][]string
	for _, o := range t.Opened {
		octets := strconv.FormatInt(o.Octets, 10)
		rows = append(rows, append(who[:5:5], o.Folder, number(o.UID), o.Section, octets))
	}
	return rows
}

// told is where something went or came from, in a word or two.
func told(t *httpapi.Told) string {
	var e struct {
		Type broker.EventType `json:"type"`
		Data struct {
			Folder     string   `json:"folder"`
			Recipients []string `json:"recipients"`
			Answer     string   `json:"answer"`
		} `json:"data"`
	}
	if err := json.Unmarshal(t.Record, &e); err != nil {
		return ""
	}
	switch {
	case e.Data.Folder != "":
		return e.Data.Folder
	case len(e.Data.Recipients) > 0:
		return fmt.Sprintf("to %s", strings.Join(e.Data.Recipients, ", "))
	}
	return e.Data.Answer
}
