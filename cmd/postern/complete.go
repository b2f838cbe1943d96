// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// completionTimeout bounds the question to the server that a press of the tab
// key makes, unless POSTERN_COMPLETION_TIMEOUT says otherwise; without its
// answer nothing is offered.
const completionTimeout = 2 * time.Second

// complete has the shell offer what every argument and flag of a command tree
// can be. An argument says what it is by its name in the usage (AGENT), a flag
// by its own name.
func (a *app) complete(cmd *cobra.Command) {
	cmd.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	if !cmd.HasSubCommands() {
		cmd.ValidArgsFunction = a.completeArguments(argumentsOf(cmd.Use))
	}
	flag := func(f *pflag.Flag) {
		if complete := a.completeFlag(f); complete != nil {
			// It fails for a flag that has one already, or is not there.
			_ = cmd.RegisterFlagCompletionFunc(f.Name, complete)
		}
	}
	cmd.LocalNonPersistentFlags().VisitAll(flag)
	cmd.PersistentFlags().VisitAll(flag)
	for _, sub := range cmd.Commands() {
		a.complete(sub)
	}
}

// argumentsOf returns the positional arguments of a usage line, in lower case:
// words, and alternatives such as agent|site.
func argumentsOf(use string) []string {
	var arguments []string
	for _, word := range strings.Fields(use)[1:] {
		if strings.HasPrefix(word, "(") && strings.HasSuffix(word, ")") {
			word = strings.Trim(word, "()")
		}
		if strings.ContainsAny(word[:1], "([-") {
			break // flags follow
		}
		arguments = append(arguments, strings.TrimSuffix(strings.ToLower(word), "..."))
	}
	return arguments
}

func (a *app) completeArguments(arguments []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= len(arguments) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		argument := arguments[len(args)]
		if strings.Contains(argument, "|") {
			return among(strings.Split(argument, "|"), toComplete), cobra.ShellCompDirectiveNoFileComp
		}
		if argument == "file" {
			return nil, cobra.ShellCompDirectiveDefault
		}
		if argument == "name" && len(args) > 0 && strings.Contains(arguments[len(args)-1], "|") {
			argument = args[len(args)-1] // lock add agent NAME
		}
		return a.names(cmd, argument, toComplete), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag returns what completes a flag's value; nil: nothing does.
func (a *app) completeFlag(f *pflag.Flag) cobra.CompletionFunc {
	placeholder, _ := pflag.UnquoteUsage(f)
	if words := flagWords(f.Name); words != nil {
		return func(_ *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if f.Value.Type() != "stringSlice" {
				return among(words, toComplete), cobra.ShellCompDirectiveNoFileComp
			}
			return lastOf(words, toComplete), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
	}
	if where, _ := completed(f.Name); where != "" {
		return func(cmd *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return a.names(cmd, f.Name, toComplete), cobra.ShellCompDirectiveNoFileComp
		}
	}
	switch placeholder {
	case "file", "directory", "socket", "device":
		return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		}
	}
	switch f.Name {
	case "csr", "certificate", "ca-file":
		return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		}
	}
	return nil
}

// lastOf completes the last of words that commas separate.
func lastOf(words []string, toComplete string) []cobra.Completion {
	before := toComplete[:strings.LastIndexByte(toComplete, ',')+1]
	offered := among(words, toComplete[len(before):])
	for i := range offered {
		offered[i] = before + offered[i]
	}
	return offered
}

// flagWords are the values of flags that have few.
func flagWords(flag string) []string {
	switch flag {
	case "actions":
		return append([]string{"all"}, policy.All.Names()...)
	case "class":
		return []string{string(broker.ClassHardware), string(broker.ClassSoftware)}
	case "imap-tls", "submission-tls":
		return []string{string(broker.TLSImplicit), string(broker.TLSStartTLS), string(broker.TLSNone)}
	case "severity":
		return []string{string(broker.SeverityInfo), string(broker.SeverityWarning), string(broker.SeverityCritical)}
	case "rule":
		return []string{string(broker.WitnessAlarm), string(broker.WitnessStop)}
	case "role":
		return []string{string(broker.RoleAdmin), string(broker.RoleAuditor), string(broker.RoleFirmAdmin), string(broker.RoleFirmAuditor)}
	case "recovery-mail":
		return []string{"hidden", "shown", "default"}
	case "default", "own":
		return []string{forEver}
	case "kind":
		return []string{
			string(broker.KindPassword), string(broker.KindAccessToken), string(broker.KindOAuth2Client),
			string(broker.KindOAuth2Refresh), string(broker.KindGoogleServiceAccount),
		}
	case "type":
		var types []string
		for _, spec := range broker.Catalogue() {
			types = append(types, string(spec.Type))
		}
		return types
	}
	return nil
}

// listed is of a thing in a list what it can be named and known by.
type listed struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	FullName string `json:"full_name"`
	Address  string `json:"address"`
	Firm     string `json:"firm"`
	Agent    string `json:"agent"`
	Mailbox  string `json:"mailbox"`
	Label    string `json:"label"`
	Person   string `json:"person"`
	Protocol string `json:"protocol"`
	Target   string `json:"target"`
	Role     string `json:"role"`
	State    string `json:"state"`
	Kind     string `json:"kind"`
	Reason   string `json:"reason"`
}

// completed says where things of a kind are listed, and what names one and
// describes it; where is empty for what is no kind.
func completed(kind string) (where string, offer func(*listed) (name, about string)) {
	switch kind {
	case "agent":
		return path("agents"), func(l *listed) (string, string) { return l.Name, l.FullName }
	case "workstation":
		return path("workstations"), func(l *listed) (string, string) { return l.Name, "" }
	case "site":
		return path("sites"), func(l *listed) (string, string) { return l.Name, "" }
	case "firm":
		return path("firms"), func(l *listed) (string, string) { return l.Name, "" }
	case "person":
		return path("people"), func(l *listed) (string, string) { return l.Name, l.Role }
	case "mailbox":
		return path("mailboxes"), func(l *listed) (string, string) { return l.Address, l.Firm }
	case "delegation":
		return path("delegations"), func(l *listed) (string, string) { return l.ID, l.Mailbox + " " + l.State }
	case "assignment":
		return path("assignments"), func(l *listed) (string, string) { return l.ID, l.Agent + " on " + l.Mailbox + " " + l.State }
	case "app-password":
		return path("app-passwords"), func(l *listed) (string, string) { return l.ID, l.Agent + " " + l.Label }
	case "token":
		return path("tokens"), func(l *listed) (string, string) { return l.ID, l.Person + " " + l.Label }
	case "session":
		return path("sessions"), func(l *listed) (string, string) { return l.ID, l.Protocol + " " + l.Agent + " on " + l.Mailbox }
	case "alert":
		return path("alerts"), func(l *listed) (string, string) { return l.ID, l.Kind + " " + l.Mailbox + " " + l.State }
	case "sink":
		return path("sinks"), func(l *listed) (string, string) { return l.Name, l.Kind }
	case "hold":
		return path("holds"), func(l *listed) (string, string) { return l.ID, l.Firm + " " + l.Reason }
	case "lock":
		return path("locks"), func(l *listed) (string, string) { return l.ID, l.Target + " " + l.Name }
	}
	return "", nil
}

// names asks the server for the names of a kind that begin so. Whatever keeps
// it from an answer keeps it silent: this is the middle of somebody's typing.
func (a *app) names(cmd *cobra.Command, kind, begin string) []cobra.Completion {
	where, offer := completed(kind)
	if where == "" {
		return nil
	}
	timeout, err := time.ParseDuration(os.Getenv("POSTERN_COMPLETION_TIMEOUT"))
	if err != nil || timeout <= 0 {
		timeout = completionTimeout
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	raw, err := a.request(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil
	}
	var answer struct {
		Items []listed `json:"items"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil
	}
	var offered []cobra.Completion
	for i := range answer.Items {
		name, about := offer(&answer.Items[i])
		if hasPrefixFold(name, begin) && plain(name) {
			offered = append(offered, cobra.CompletionWithDesc(name, printable(strings.TrimSpace(about), false)))
		}
	}
	return offered
}

// plain reports whether a name can be offered: what a terminal or cobra's own
// line format would take for more than text cannot.
func plain(name string) bool { return name != "" && printable(name, false) == name }

func hasPrefixFold(text, prefix string) bool {
	return len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix)
}

// among returns those of the words that begin so.
func among(words []string, begin string) []cobra.Completion {
	return slices.DeleteFunc(slices.Clone(words), func(word string) bool { return !strings.HasPrefix(word, begin) })
}
