// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
)

func newSinkCommand(a *app) *cobra.Command {
	return newGroup("sink", "Where events are sent", newSinkListCommand(a), newSinkTestCommand(a))
}

func newSinkListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List sinks, and how far behind each is",
		Long: `List the sinks of the server's configuration, what of the logs each has not
passed yet, and why not. What was delivered in the last second may not show.`,
		Example: "  postern sink list", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, all, err := call[httpapi.List[*httpapi.Sink]](cmd, a, http.MethodGet, path("sinks"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, s := range all.Items {
					state := "good"
					switch {
					case s.FailingSince != nil:
						state = "failing since " + stamp(*s.FailingSince) + ": " + s.Failure
					case s.Node == "":
						state = "nobody delivers"
					case s.Failure != "":
						state = "good, but: " + s.Failure
					}
					oldest := ""
					if s.Oldest != nil {
						oldest = stamp(*s.Oldest)
					}
					rows = append(rows, []string{s.Name, s.Kind, s.Target, s.Firm, strconv.FormatInt(s.Behind, 10), oldest, s.Node, state})
				}
				writeTable(out, []string{"NAME", "KIND", "TO", "LOG", "BEHIND", "OLDEST", "NODE", "STATE"}, rows, "The server's configuration has no sinks.")
			})
		},
	}
}

func newSinkTestCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "test SINK", Short: "Deliver a test event to a sink",
		Long: `Deliver an event of the type sink.test, which stands in no log, from the node
that is asked, and say what the receiver made of it.`,
		Example: "  postern sink test siem", Args: exactly("SINK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, s, err := call[httpapi.Sink](cmd, a, http.MethodPost, path("sinks", args[0], "test"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { fmt.Fprintf(out, "%s has taken a test event.\n", printable(s.Name, false)) })
		},
	}
}
