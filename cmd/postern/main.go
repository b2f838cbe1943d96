// SPDX-License-Identifier: Apache-2.0

// Command postern is a credential-brokering mail proxy and the tool that
// manages it.
//
// The commands of the groups person, token, firm, mailbox, agent, workstation,
// site, delegation, assignment, app-password, provider, rotation, sentinel, canary,
// session, sink, lock, log, evidence, import, claim, rotate and whoami talk to a running server over its Unix
// socket or (--server) over HTTPS. Exit codes:
//
//	0  done
//	1  failed: a fault of Postern's or of this machine's
//	2  usage: the command or what it was given is wrong
//	3  refused, or in conflict with what is there
//	4  there is no such thing
//	5  unavailable: the server, or what it needs, cannot be reached; try again
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// The exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3
	exitNotFound    = 4
	exitUnavailable = 5
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		coarsenTimers()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end, a second one ends at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run does what args say and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	started := false
	markStart(root, &started)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "postern: %s\n", printable(words(err), true))
	code := exitCode(err)
	if !started && code == exitFailed {
		// cobra's own errors, before a command ran, have no type.
		code = exitUsage
	}
	if code == exitUsage {
		fmt.Fprintf(stderr, "See '%s --help'.\n", cmd.CommandPath())
	}
	return code
}

// words says what is wrong. Errors of the client's own tell all in their
// public text; a code before it and a cause behind it are for logs.
func words(err error) string {
	if own, ok := err.(*broker.Error); ok {
		return own.Public
	}
	return err.Error()
}

// markStart makes every command say when it has begun to run.
func markStart(cmd *cobra.Command, started *bool) {
	if runE := cmd.RunE; runE != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return runE(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		markStart(sub, started)
	}
}

// usageError is a fault in how the command was called.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// exitCode is the one mapping from errors to exit codes.
func exitCode(err error) int {
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	switch codeOf(err) {
	case broker.Invalid:
		return exitUsage
	case broker.Conflict, broker.Denied, broker.Refused, broker.Limit, broker.CredentialRefused:
		return exitRefused
	case broker.NotFound:
		return exitNotFound
	case broker.Unavailable:
		return exitUnavailable
	}
	return exitFailed
}

// codeOf is an error's code, the server's or this side's.
func codeOf(err error) broker.Code {
	var problem *httpapi.Problem
	if errors.As(err, &problem) {
		return problem.Code
	}
	return broker.CodeOf(err)
}

// newCommand builds the whole command line.
func newCommand() *cobra.Command {
	a := &app{}
	root := &cobra.Command{
		Use:   "postern",
		Short: "A credential-brokering mail proxy, and the tool that manages it",
		Long: `Postern lets agents work in a client firm's mailboxes from their ordinary mail
clients without ever holding the mailboxes' passwords.

A first mailbox, on a running server. The BPO's admin:

  postern firm create "Acme Pumps" --contact it@acme.example --domain acme.example

The firm, with the claim that was printed:

  postern claim --name priya --save ./acme.token
  export POSTERN_TOKEN_FILE=./acme.token
  postern mailbox add sales@acme.example \
      --imap imap.provider.example --submission smtp.provider.example
  postern mailbox set-credential sales@acme.example
  postern delegation create sales@acme.example

The BPO's admin again:

  postern agent add asha
  postern workstation add pune-07 --generate-key ./pune-07
  postern assignment create asha --mailbox sales@acme.example
  postern app-password create asha

Things are named by what people call them (a mailbox by its address) or by id.

Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 refused or in conflict,
4 no such thing, 5 the server or what it needs cannot be reached.`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          groupHelp,
		// groupHelp refuses them, in words of ours.
		Args:                       cobra.ArbitraryArgs,
		SuggestionsMinimumDistance: suggestionDistance,
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", defaultSocket(), "the server's management `socket` (or POSTERN_SOCKET)")
	root.PersistentFlags().StringVar(&a.server, "server", os.Getenv("POSTERN_SERVER"), "a remote server's `host:port`, in place of the socket (or POSTERN_SERVER)")
	root.PersistentFlags().StringVar(&a.ca, "ca", os.Getenv("POSTERN_CA"), "the `file` with the CA of the remote server's certificate (or POSTERN_CA; without it, the system's)")
	root.PersistentFlags().StringVar(&a.tokenFile, "token-file", os.Getenv("POSTERN_TOKEN_FILE"), "the `file` with your API token (or POSTERN_TOKEN_FILE, or the token itself in POSTERN_TOKEN)")
	root.PersistentFlags().BoolVarP(&a.yes, "yes", "y", false, "do not ask before what cannot be undone")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print the server's answer as JSON")
	root.AddCommand(
		newServeCommand(), newRotatorCommand(), newInitCommand(), newBackupCommand(), newRestoreCommand(), newDemoCommand(),
		newClaimCommand(a), newWhoamiCommand(a), newPersonCommand(a), newTokenCommand(a),
		newFirmCommand(a), newMailboxCommand(a), newAgentCommand(a), newWorkstationCommand(a), newSiteCommand(a),
		newDelegationCommand(a), newAssignmentCommand(a), newAppPasswordCommand(a),
		newProviderCommand(a), newRotateCommand(a), newRotationCommand(a), newSentinelCommand(a), newCanaryCommand(a),
		newAlertCommand(a), newSinkCommand(a), newSessionCommand(a), newLockCommand(a), newGuardrailCommand(), newLogCommand(a), newEvidenceCommand(a), newRetentionCommand(a), newHoldCommand(a), newAskCommand(a), newImportCommand(a),
	)
	groupCommands(root)
	a.complete(root)
	return root
}

// groupCommands sorts the root's commands in its help.
func groupCommands(root *cobra.Command) {
	for _, group := range []struct{ id, title, commands string }{
		{"server", "The server:", "serve init backup restore guardrail demo"},
		{"firms", "Firms, and what they grant:", "firm claim mailbox delegation"},
		{"work", "Agents, and from where they work:", "agent assignment app-password workstation site import"},
		{"watch", "What goes on:", "alert ask session lock log evidence retention hold sentinel canary sink"},
		{"people", "Who manages it:", "person token whoami"},
	} {
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		for _, cmd := range root.Commands() {
			if slices.Contains(strings.Fields(group.commands), cmd.Name()) {
				cmd.GroupID = group.id
			}
		}
	}
}

// suggestionDistance is how many slips a mistyped command may have to be
// guessed (Levenshtein distance).
const suggestionDistance = 2

// newGroup makes a command that only holds others.
func newGroup(use, short string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
		Use: use, Short: short, RunE: groupHelp,
		Args: cobra.ArbitraryArgs, SuggestionsMinimumDistance: suggestionDistance,
	}
	group.AddCommand(commands...)
	return group
}

// groupHelp is what a group does by itself.
func groupHelp(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	text := fmt.Sprintf("there is no command %q", cmd.CommandPath()+" "+args[0])
	for _, s := range cmd.SuggestionsFor(args[0]) {
		text += fmt.Sprintf("; did you mean %q?", s)
	}
	return &usageError{text}
}

// exactly takes arguments of these names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef("%s is missing: %s", names[len(args)], cmd.UseLine())
		}
		if len(args) > len(names) {
			return usagef("%q is one argument too many (names with spaces need quotes)", args[len(names)])
		}
		return nil
	}
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
