// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newCanaryCommand(a *app) *cobra.Command {
	return newGroup("canary", "Messages whose opening raises an alert: for a firm's own people",
		newCanaryAddCommand(a), newCanaryListCommand(a), newCanaryRemoveCommand(a))
}

func newCanaryAddCommand(a *app) *cobra.Command {
	var in httpapi.CanaryInput
	cmd := &cobra.Command{
		Use:   "add MAILBOX (--message-id ID | --folder FOLDER --uid UID)",
		Short: "Have the opening of a message raise an alert",
		Long: `Have the opening of a message raise an alert, which names the agent and the
workstation. Take a message that nobody has a reason to open. Neither agents nor the
BPO can see which it is. A mail client that keeps whole folders opens it as well: the
alert then says that it was part of a bulk download.

Name it in both ways where you can: its place still tells when somebody reads it
without its header, its Message-ID when somebody has moved it. Without
--uid-validity, the folder is the one that the sentinel has read last.`,
		Example: `  postern canary add sales@acme.example --folder Board --uid 17 --message-id "<minutes@acme.example>"
  postern canary add sales@acme.example --message-id "<minutes@acme.example>" --note "in Board"`,
		Args: exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, c, err := call[broker.Canary](cmd, a, http.MethodPost, path("mailboxes", args[0], "canaries"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { fmt.Fprintf(out, "canary %s added\n", c.ID) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&in.MessageID, "message-id", "", "its `Message-ID`: its copies are canaries too")
	flags.StringVar(&in.Folder, "folder", "", "the `folder` that it is in")
	flags.Uint32Var(&in.UID, "uid", 0, "its `UID` there")
	flags.Uint32Var(&in.UIDValidity, "uid-validity", 0, "the folder's `UIDVALIDITY`")
	flags.StringVar(&in.Note, "note", "", "a `note` for yourselves")
	return cmd
}

func newCanaryListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list MAILBOX", Short: "List the messages whose opening raises an alert",
		Example: "  postern canary list sales@acme.example", Args: exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, all, err := call[httpapi.List[*broker.Canary]](cmd, a, http.MethodGet, path("mailboxes", args[0], "canaries"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, c := range all.Items {
					rows = append(rows, []string{canaryPlace(c), c.MessageID, c.Note, stamp(c.CreatedAt), string(c.ID)})
				}
				writeTable(out, []string{"PLACE", "MESSAGE-ID", "NOTE", "SINCE", "ID"}, rows, "There are no canaries.")
			})
		},
	}
}

// canaryPlace is where a canary is, in a line; empty: that is not known.
func canaryPlace(c *broker.Canary) string {
	if c.UID == 0 {
		return ""
	}
	return fmt.Sprintf("%s, UID %d", c.Folder, c.UID)
}

func newCanaryRemoveCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "remove CANARY", Short: "Have the opening of a message raise an alert no more",
		Example: "  postern canary remove 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d", Args: exactly("CANARY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, c, err := call[broker.Canary](cmd, a, http.MethodDelete, path("canaries", args[0]), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { fmt.Fprintf(out, "canary %s removed\n", c.ID) })
		},
	}
}
