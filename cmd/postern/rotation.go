// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/rotation"
)

// progressInterval is how often a command asks how rotations stand.
const progressInterval = time.Second

func newRotateCommand(a *app) *cobra.Command {
	var in httpapi.RotateInput
	var enter, detach bool
	var username string
	cmd := &cobra.Command{
		Use:   "rotate (MAILBOX... | --firm FIRM | --agent AGENT | --workstation WORKSTATION)",
		Short: "Replace mailboxes' passwords, at the provider and in Vault, until the old ones are dead",
		Long: `Replace passwords. Each is generated, set at the provider by its driver, proved
by logins to IMAP and submission, and made the mailbox's credential when the old
one is refused. Nobody sees it. The command shows the progress until all have
ended, and can be interrupted: the rotations go on.

With --enter you have set the password of one mailbox at the provider yourself
and type it, or give it on standard input: it is proved, and the old one too.`,
		Example: `  postern rotate sales@acme.example
  postern rotate --firm "Acme Pumps" --dry-run
  postern rotate --workstation pune-07
  pass show acme/new | postern rotate sales@acme.example --enter`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Mailboxes = args
			if enter {
				if len(args) != 1 || in.Firm+in.Agent+in.Workstation != "" || in.DryRun {
					return usagef("--enter goes with one mailbox")
				}
				return a.enterPassword(cmd, args[0], username, detach)
			}
			if len(args) == 0 && in.Firm+in.Agent+in.Workstation == "" {
				return usagef("name mailboxes, or --firm, --agent or --workstation")
			}
			raw, begun, err := call[httpapi.List[*httpapi.Rotating]](cmd, a, http.MethodPost, path("rotations"), in)
			if err != nil {
				return err
			}
			if in.DryRun || detach {
				return a.show(cmd, raw, func(out io.Writer) { writeRotating(out, begun.Items, in.DryRun) })
			}
			return a.follow(cmd, begun.Items)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&in.Firm, "firm", "", "all mailboxes of a `firm`")
	flags.StringVar(&in.Agent, "agent", "", "all that an `agent` is or was assigned to")
	flags.StringVar(&in.Workstation, "workstation", "", "all that were worked in from a `workstation`")
	flags.BoolVar(&in.DryRun, "dry-run", false, "only say what would be rotated")
	flags.BoolVar(&detach, "detach", false, "do not wait for the end")
	flags.BoolVar(&enter, "enter", false, "enter a password that you have set at the provider")
	flags.StringVar(&username, "username", "", "with --enter, the login name that goes with it, where it is not the mailbox's")
	return cmd
}

func writeRotating(out io.Writer, all []*httpapi.Rotating, dry bool) {
	var rows [][]string
	for _, x := range all {
		what := "begun"
		switch {
		case x.Refused != "":
			what = "not rotated: " + x.Refused
		case dry:
			what = "would be rotated"
		}
		id := ""
		if x.Rotation != nil {
			id = string(x.Rotation.ID)
		}
		rows = append(rows, []string{x.Mailbox, what, id})
	}
	writeTable(out, []string{"MAILBOX", "WHAT", "ROTATION"}, rows, "There is no such mailbox.")
}

func (a *app) enterPassword(cmd *cobra.Command, mailbox, username string, detach bool) error {
	secret, err := readSecret(cmd, mailbox, "new password", false)
	if err != nil {
		return err
	}
	defer clear(secret)
	if !utf8.Valid(secret) {
		return usagef("the password is not UTF-8")
	}
	raw, r, err := call[httpapi.Rotation](cmd, a, http.MethodPut, path("mailboxes", mailbox, "rotation", "password"),
		httpapi.CredentialInput{Kind: broker.KindPassword, Username: username, Secret: string(secret)})
	if err != nil {
		return err
	}
	if detach {
		return a.show(cmd, raw, func(out io.Writer) { fmt.Fprintf(out, "rotation %s begun\n", r.ID) })
	}
	return a.follow(cmd, []*httpapi.Rotating{{ID: r.MailboxID, Mailbox: r.Mailbox, Rotation: r}})
}

// follow tells on standard error how rotations stand until all have ended: of
// one each step, of many what ends and what waits. A terminal shows below that
// how many there are, in a line that is written over.
func (a *app) follow(cmd *cobra.Command, begun []*httpapi.Rotating) error {
	f := &followed{out: cmd.ErrOrStderr(), said: map[broker.ID]string{}}
	if file, ok := f.out.(*os.File); ok {
		f.terminal = term.IsTerminal(int(file.Fd()))
	}
	refused := 0
	for _, x := range begun {
		if x.Rotation == nil {
			f.say(x.Mailbox, "not rotated: "+x.Refused)
			refused++
			continue
		}
		f.said[x.Rotation.ID] = ""
	}
	f.all = len(f.said)
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for len(f.said) > 0 {
		err := f.look(cmd, a)
		if cmd.Context().Err() != nil {
			f.clear()
			return goesOn()
		}
		if err != nil {
			f.clear()
			return err
		}
		if len(f.said) == 0 {
			break
		}
		select {
		case <-cmd.Context().Done():
			f.clear()
			return goesOn()
		case <-tick.C:
		}
	}
	return a.rotated(cmd, f.ended, refused)
}

// followed are the rotations of one command.
type followed struct {
	out      io.Writer
	terminal bool
	all      int
	// said is what was said last of those that have not ended.
	said  map[broker.ID]string
	ended []*httpapi.Rotation
	shown bool
}

// look asks for all that are open, with one request, and for each of ours that
// is no longer.
func (f *followed) look(cmd *cobra.Command, a *app) error {
	_, open, err := call[httpapi.List[*httpapi.Rotation]](cmd, a, http.MethodGet, withQuery(path("rotations"), "open", "true"), nil)
	if err != nil {
		return err
	}
	still := map[broker.ID]*httpapi.Rotation{}
	for _, r := range open.Items {
		still[r.ID] = r
	}
	working := 0
	for id, said := range f.said {
		r := still[id]
		if r == nil {
			if _, r, err = call[httpapi.Rotation](cmd, a, http.MethodGet, path("rotations", string(id)), nil); err != nil {
				return err
			}
		}
		now := progress(r)
		if now != said && (f.all == 1 || r.Waiting != "" || r.State == broker.RotationEnded) {
			f.say(r.Mailbox, now)
		}
		f.said[id] = now
		switch r.State {
		case broker.RotationEnded:
			delete(f.said, id)
			f.ended = append(f.ended, r)
		case broker.RotationRequested:
		default:
			working++
		}
	}
	if f.terminal && f.all > 1 && len(f.said) > 0 {
		f.clear()
		fmt.Fprintf(f.out, "%d of %d ended, %d under way", len(f.ended), f.all, working)
		f.shown = true
	}
	return nil
}

func (f *followed) say(mailbox, what string) {
	f.clear()
	fmt.Fprintf(f.out, "%s: %s\n", printable(mailbox, false), printable(what, false))
}

// clear takes the last line of a terminal away (ECMA-48 §8.3.41).
func (f *followed) clear() {
	if f.shown {
		fmt.Fprint(f.out, "\r\x1b[K")
	}
	f.shown = false
}

func goesOn() error {
	return fmt.Errorf("interrupted; the rotations go on: see 'postern rotation list'")
}

// progress is how a rotation stands, in a line.
func progress(r *httpapi.Rotation) string {
	switch {
	case r.State == broker.RotationEnded:
		s := string(r.Outcome)
		if len(r.Unproved) > 0 {
			s += ", unproved: " + strings.Join(r.Unproved, ", ")
		}
		if r.Words != "" && r.Outcome != broker.RotationDone {
			s += " (" + r.Words + ")"
		}
		if r.Waiting != "" { // when what it keeps was looked at last
			s += "; " + r.Waiting
		}
		return s
	case r.Waiting != "":
		return string(r.State) + ": " + r.Waiting
	}
	return string(r.State)
}

// rotated tells how all ended.
func (a *app) rotated(cmd *cobra.Command, ended []*httpapi.Rotation, refused int) error {
	slices.SortFunc(ended, func(x, y *httpapi.Rotation) int { return strings.Compare(x.Mailbox, y.Mailbox) })
	raw, err := json.Marshal(httpapi.List[*httpapi.Rotation]{Items: ended})
	if err != nil {
		return err
	}
	alarming := 0
	for _, r := range ended {
		if rotation.Alarming(&r.Rotation) {
			alarming++
		}
	}
	if err := a.show(cmd, raw, func(out io.Writer) {
		fmt.Fprintf(out, "%s rotated", count(len(ended)-alarming, "mailbox"))
		if alarming > 0 {
			fmt.Fprintf(out, ", %d NOT AS WANTED: see 'postern rotation list'", alarming)
		}
		fmt.Fprintln(out)
	}); err != nil {
		return err
	}
	switch {
	case alarming > 0:
		return broker.Errorf(broker.Internal, "%s did not end well", count(alarming, "rotation"))
	case refused > 0:
		return broker.Errorf(broker.Refused, "%s not rotated", count(refused, "mailbox"))
	}
	return nil
}

func newRotationCommand(a *app) *cobra.Command {
	return newGroup("rotation", "How mailboxes' passwords are replaced, and what came of it",
		newRotationListCommand(a), newRotationShowCommand(a), newRotationSetCommand(a), newRotationRemoveCommand(a))
}

func newRotationListCommand(a *app) *cobra.Command {
	var firm, mailbox string
	var open bool
	cmd := &cobra.Command{
		Use: "list", Short: "List rotations, newest first",
		Example: "  postern rotation list --open", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := ""
			if open {
				all = "true"
			}
			raw, rotations, err := call[httpapi.List[*httpapi.Rotation]](cmd, a, http.MethodGet,
				withQuery(path("rotations"), "firm", firm, "mailbox", mailbox, "open", all), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, r := range rotations.Items {
					rows = append(rows, []string{stamp(r.CreatedAt), nameOr(r.Mailbox, r.MailboxID), string(r.Cause), progress(r), string(r.ID)})
				}
				writeTable(out, []string{"BEGUN", "MAILBOX", "CAUSE", "STATE", "ID"}, rows, "There are no rotations.")
			})
		},
	}
	cmd.Flags().StringVar(&firm, "firm", "", "only this `firm`'s")
	cmd.Flags().StringVar(&mailbox, "mailbox", "", "only this `mailbox`'s")
	cmd.Flags().BoolVar(&open, "open", false, "only those that have not ended")
	return cmd
}

func newRotationShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show ROTATION", Short: "Show a rotation",
		Example: "  postern rotation show 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d", Args: exactly("ROTATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, r, err := call[httpapi.Rotation](cmd, a, http.MethodGet, path("rotations", args[0]), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				found := ""
				if r.Inspection != nil {
					b, _ := json.Marshal(r.Inspection) // texts alone
					found = string(b)
				}
				writeFields(out, "Mailbox", nameOr(r.Mailbox, r.MailboxID), "Cause", string(r.Cause), "By", r.By.Kind+" "+r.By.Name,
					"State", progress(r), "Provider said", strings.TrimSpace(string(r.Said)+" "+string(r.Reason)), "Its words", r.Words,
					"Asked", strconv.Itoa(r.Asked), "Passwords", strconv.Itoa(len(r.Pending)), "Found there", found,
					"Begun", stamp(r.CreatedAt), "Next step", stamp(r.NextAt), "Ended", stamp(r.EndedAt), "Id", string(r.ID))
			})
		},
	}
}

func newRotationSetCommand(a *app) *cobra.Command {
	var in httpapi.RotationMethodInput
	var file string
	var on []string
	cmd := &cobra.Command{
		Use:   "set MAILBOX --provider PROVIDER",
		Short: "Say how a mailbox's password is replaced, and when",
		Example: `  postern rotation set sales@acme.example --provider panel --every-days 30 --on off-board --on drift
  postern rotation set info@acme.example --provider by-hand`,
		Args: exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				settings, err := settingsFrom(cmd, file)
				if err != nil {
					return err
				}
				in.Settings = settings
			}
			for _, cause := range on {
				in.On = append(in.On, broker.RotationCause(cause))
			}
			raw, m, err := call[httpapi.Mailbox](cmd, a, http.MethodPut, path("mailboxes", args[0], "rotation"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeMailbox(out, m) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&in.Provider, "provider", "", "the `provider`")
	flags.StringVar(&file, "settings", "", "the `file` with the mailbox's own settings there, a JSON object (-: standard input)")
	flags.IntVar(&in.EveryDays, "every-days", 0, "the schedule, in days (0: none)")
	flags.StringSliceVar(&on, "on", nil, "what else begins a rotation: revoke, off-board, lock or drift; may be repeated")
	flags.BoolVar(&in.FirmOnly, "firm-only", false, "keep the BPO's admins from beginning one")
	flags.BoolVar(&in.LockWhenLost, "lock-when-lost", false, "lock the mailbox when neither password opens it")
	_ = cmd.MarkFlagRequired("provider")
	return cmd
}

func newRotationRemoveCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "remove MAILBOX", Short: "Replace a mailbox's password no more",
		Example: "  postern rotation remove sales@acme.example", Args: exactly("MAILBOX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, m, err := call[httpapi.Mailbox](cmd, a, http.MethodDelete, path("mailboxes", args[0], "rotation"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeMailbox(out, m) })
		},
	}
}
