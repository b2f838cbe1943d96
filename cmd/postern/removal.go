// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

// removalCommand describes a command that takes one thing away, whose document
// the server answers with; what ends sessions is an endingCommand.
type removalCommand[T any] struct {
	use, short, example string
	// method is DELETE where it is empty.
	method string
	path   func(arg string) string
	// done says what was done.
	done func(*T) string
	// question, with %s for the thing, is asked at a terminal; empty: nothing is,
	// since the thing can be made again as it was.
	question string
}

func newRemovalCommand[T any](a *app, r removalCommand[T]) *cobra.Command {
	_, argument, _ := strings.Cut(r.use, " ")
	if r.method == "" {
		r.method = http.MethodDelete
	}
	return &cobra.Command{
		Use: r.use, Short: r.short, Example: r.example,
		Args: exactly(argument),
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.question != "" {
				if err := a.confirm(cmd, fmt.Sprintf(r.question, args[0])); err != nil {
					return err
				}
			}
			raw, thing, err := call[T](cmd, a, r.method, r.path(args[0]), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { fmt.Fprintln(out, printable(r.done(thing), false)) })
		},
	}
}
