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
		Use:   "add NAME",
		Short: "Add an agent",
		Long: `Add an agent. With --authentication ldap he has no app password: he signs in as
AGENT/MAILBOX with the password that he has in the company's directory, which the
server's configuration names.`,
		Example: `  postern agent add asha --full-name "Asha Rao"
  postern agent add asha --authentication ldap --directory-account arao`,
		Args: exactly("NAME"),
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
	cmd.Flags().StringVar((*string)(&in.Authentication), "authentication", "", authenticationHelp)
	cmd.Flags().StringVar(&in.DirectoryAccount, "directory-account", "", "what the directory calls the agent (without it: by the short name)")
	return cmd
}

const authenticationHelp = "app-password, or ldap: the password that the agent has in the company's directory"

func writeAgent(out io.Writer, g *broker.Agent) {
	writeFields(out, "Agent", g.Name, "Full name", g.FullName, "Authentication", authentication(g),
		"Directory account", g.DirectoryAccount, "Id", string(g.ID))
}

func authentication(g *broker.Agent) string {
	if g.Authentication == "" {
		return string(broker.AuthAppPassword)
	}
	return string(g.Authentication)
}

func newAgentUpdateCommand(a *app) *cobra.Command {
	var fullName, authentication, account string
	cmd := &cobra.Command{
		Use:   "update AGENT",
		Short: "Change an agent's full name, or what lets him in",
		Long: `Change an agent's full name, or what lets him in; what no flag names stays as it
is. The short name stays: records and mail clients name the agent by it. With
--authentication ldap his app passwords are revoked, and whenever it changes his
sessions end.`,
		Example: `  postern agent update asha --full-name "Asha Rao-Menon"
  postern agent update asha --authentication ldap`,
		Args: exactly("AGENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var patch httpapi.AgentPatch
			if cmd.Flags().Changed("full-name") {
				patch.FullName = &fullName
			}
			if cmd.Flags().Changed("authentication") {
				patch.Authentication = (*broker.Authentication)(&authentication)
			}
			if cmd.Flags().Changed("directory-account") {
				patch.DirectoryAccount = &account
			}
			if patch == (httpapi.AgentPatch{}) {
				return usagef("nothing to change: give --full-name, --authentication or --directory-account")
			}
			raw, updated, err := call[httpapi.AgentUpdated](cmd, a, http.MethodPatch, path("agents", args[0]), patch)
			if err != nil {
				return err
			}
			return a.showUpdated(cmd, raw, "agent changed", updated.Ended, func(out io.Writer) { writeAgent(out, &updated.Agent) })
		},
	}
	cmd.Flags().StringVar(&fullName, "full-name", "", "the agent's full name (empty: none)")
	cmd.Flags().StringVar(&authentication, "authentication", "", authenticationHelp)
	cmd.Flags().StringVar(&account, "directory-account", "", "what the directory calls the agent (empty: by the short name)")
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
					rows = append(rows, []string{g.Name, g.FullName, authentication(g), stamp(g.CreatedAt), string(g.ID)})
				}
				writeTable(out, []string{"NAME", "FULL NAME", "SIGN-IN", "CREATED", "ID"}, rows,
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
