// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newAgentCommand(a *app) *cobra.Command {
	return newGroup("agent", "Agents, who read and write the mail",
		newAgentAddCommand(a), newAgentListCommand(a), newAgentShowCommand(a), newAgentUpdateCommand(a), newAgentRemoveCommand(a), newAgentOffBoardCommand(a))
}

func newAgentAddCommand(a *app) *cobra.Command {
	var in httpapi.AgentInput
	cmd := &cobra.Command{
		Use:     "add NAME",
		Short:   "Add an agent",
		Example: `  postern agent add asha --full-name "Asha Rao"`,
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Name = args[0]
			raw, g, err := call[broker.Agent](cmd, a, http.MethodPost, path("agents"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeAgent(out, g) })
		},
	}
	cmd.Flags().StringVar(&in.FullName, "full-name", "", "the agent's full name")
	return cmd
}

func writeAgent(out io.Writer, g *broker.Agent) {
	writeFields(out, "Agent", g.Name, "Full name", g.FullName, "Id", string(g.ID))
}

func newAgentUpdateCommand(a *app) *cobra.Command {
	var fullName string
	cmd := &cobra.Command{
		Use:   "update AGENT --full-name NAME",
		Short: "Change an agent's full name",
		Long: `Change an agent's full name. The short name stays: records and mail clients name
the agent by it.`,
		Example: `  postern agent update asha --full-name "Asha Rao-Menon"`,
		Args:    exactly("AGENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, g, err := call[broker.Agent](cmd, a, http.MethodPatch, path("agents", args[0]), httpapi.AgentPatch{FullName: &fullName})
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeAgent(out, g) })
		},
	}
	cmd.Flags().StringVar(&fullName, "full-name", "", "the agent's full name (empty: none)")
	_ = cmd.MarkFlagRequired("full-name")
	return cmd
}

func newAgentListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List agents",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, agents, err := call[httpapi.List[*broker.Agent]](cmd, a, http.MethodGet, path("agents"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, g := range agents.Items {
					rows = append(rows, []string{g.Name, g.FullName, stamp(g.CreatedAt), string(g.ID)})
				}
				writeTable(out, []string{"NAME", "FULL NAME", "CREATED", "ID"}, rows,
					"There are no agents yet. Add one with 'postern agent add NAME'.")
			})
		},
	}
}

func newAgentRemoveCommand(a *app) *cobra.Command {
	return newEndingCommand(a, endingCommand{
		use: "remove AGENT", short: "Remove an agent",
		long:    "Remove an agent. His assignments and app passwords are revoked, and his sessions end within a second.",
		example: "  postern agent remove asha", question: "Remove the agent %s for good?",
		method: http.MethodDelete, path: func(arg string) string { return path("agents", arg) },
		done: "agent %s removed",
	})
}

func newAgentShowCommand(a *app) *cobra.Command {
	return newShowCommand(a, showCommand[broker.Agent]{
		use: "show AGENT", short: "Show an agent",
		example: "  postern agent show asha",
		path:    func(arg string) string { return path("agents", arg) },
		write:   writeAgent,
	})
}
