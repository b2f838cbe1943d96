// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/policy"
)

// guardrails reads the file that the configuration names; nil: there is none.
func (c *Config) guardrails() (*policy.Guardrails, error) {
	if c.Guardrails == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.Guardrails)
	if err != nil {
		return nil, fmt.Errorf("guardrails: %w", err)
	}
	g, err := policy.ParseGuardrails(c.Guardrails, text)
	if err != nil {
		return nil, fmt.Errorf("guardrails: %w", err)
	}
	return g, nil
}

func newGuardrailCommand() *cobra.Command {
	return newGroup("guardrail", "Guardrails: what the BPO forbids above all delegations, in Cedar",
		&cobra.Command{
			Use:   "schema",
			Short: "Print the Cedar schema that guardrails keep to, with an example",
			Args:  exactly(),
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := fmt.Fprint(cmd.OutOrStdout(), policy.GuardrailSchema)
				return err
			},
		},
		&cobra.Command{
			Use:   "check FILE",
			Short: "Check a file of guardrails, without a server",
			Long: `Check a file of guardrails: that it parses, keeps to the schema, and holds
nothing but "forbid". What terms grant is permitted already; a guardrail takes
away. The server reads the file that 'guardrails' in its configuration names
when it starts.`,
			Example: "  postern guardrail check /etc/postern/guardrails.cedar",
			Args:    exactly("FILE"),
			RunE: func(cmd *cobra.Command, args []string) error {
				c := Config{Guardrails: args[0]}
				if _, err := c.guardrails(); err != nil {
					return err
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "sound")
				return err
			},
		})
}
