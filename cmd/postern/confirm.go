// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/postern-mail/postern/broker"
)

// confirm asks before what cannot be undone, where somebody sits at a terminal.
// A script that calls the command has made up its mind.
func (a *app) confirm(cmd *cobra.Command, question string) error {
	f, ok := cmd.InOrStdin().(*os.File)
	if a.yes || !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", printable(question, false))
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return broker.Errorf(broker.Refused, "nothing was changed")
}
