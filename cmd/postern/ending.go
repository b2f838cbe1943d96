// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
)

// endingCommand describes a command that takes something away from one thing
// and thereby ends sessions.
type endingCommand struct {
	use, short, long, example string
	method                    string
	path                      func(arg string) string
	// done says what was done, with %s for the thing.
	done string
	// question, with %s for the thing, is asked at a terminal; empty: nothing is.
	question string
}

func newEndingCommand(a *app, e endingCommand) *cobra.Command {
	_, argument, _ := strings.Cut(e.use, " ")
	return &cobra.Command{
		Use: e.use, Short: e.short, Long: e.long, Example: e.example,
		Args: exactly(argument),
		RunE: func(cmd *cobra.Command, args []string) error {
			if e.question != "" {
				if err := a.confirm(cmd, fmt.Sprintf(e.question, args[0])); err != nil {
					return err
				}
			}
			raw, ended, err := call[httpapi.Ended](cmd, a, e.method, e.path(args[0]), nil)
			if err != nil {
				return err
			}
			if err := a.show(cmd, raw, func(out io.Writer) {
				showEnded(out, printable(fmt.Sprintf(e.done, args[0]), false), *ended)
			}); err != nil {
				return err
			}
			return stillOpen(*ended)
		},
	}
}

// showUpdated shows what was changed and which sessions that ended.
func (a *app) showUpdated(cmd *cobra.Command, raw []byte, done string, ended httpapi.Ended, words func(io.Writer)) error {
	if err := a.show(cmd, raw, func(out io.Writer) {
		words(out)
		showEnded(out, done, ended)
	}); err != nil {
		return err
	}
	return stillOpen(ended)
}
