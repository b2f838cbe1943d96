// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

// showCommand describes a command that shows one thing.
type showCommand[T any] struct {
	use, short, example string
	path                func(arg string) string
	write               func(io.Writer, *T)
}

func newShowCommand[T any](a *app, s showCommand[T]) *cobra.Command {
	_, argument, _ := strings.Cut(s.use, " ")
	return &cobra.Command{
		Use: s.use, Short: s.short, Example: s.example,
		Args: exactly(argument),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, thing, err := call[T](cmd, a, http.MethodGet, s.path(args[0]), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { s.write(out, thing) })
		},
	}
}
