// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newLockCommand(a *app) *cobra.Command {
	return newGroup("lock", "Locks: instant refusals", newLockAddCommand(a), newLockListCommand(a), newLockRemoveCommand(a))
}

func newLockAddCommand(a *app) *cobra.Command {
	var in httpapi.LockInput
	var until string
	cmd := &cobra.Command{
		Use:   "add (agent|workstation|mailbox|firm|site) NAME",
		Short: "Lock something; its sessions end within a second",
		Example: `  postern lock add agent asha --message "Laptop lost: call the service desk, 1234"
  postern lock add mailbox sales@acme.example --until 2026-12-31T18:00:00+05:30`,
		Args: exactly("what to lock (agent, workstation, mailbox, firm or site)", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			in.Target, in.Name = broker.LockTarget(args[0]), args[1]
			if in.Until, err = parseTime("until", until, true); err != nil {
				return err
			}
			raw, added, err := call[httpapi.LockAdded](cmd, a, http.MethodPost, path("locks"), in)
			if err != nil {
				return err
			}
			if err := a.show(cmd, raw, func(out io.Writer) {
				l := added.Lock
				writeFields(out, "Lock", string(l.ID), "On", string(l.Target)+" "+nameOr(l.Name, l.TargetID), "Message", l.Message, "Until", stamp(l.Until))
				showEnded(out, "locked", added.Ended)
			}); err != nil {
				return err
			}
			return stillOpen(added.Ended)
		},
	}
	cmd.Flags().StringVar(&in.Message, "message", "", "what a refused agent is told: why, and whom to ask")
	cmd.Flags().StringVar(&until, "until", "", "when it ends by itself: a `date`, whose whole day it holds, or a time in RFC 3339")
	return cmd
}

func newLockListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List locks that were not removed",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, locks, err := call[httpapi.List[*httpapi.Lock]](cmd, a, http.MethodGet, path("locks"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, l := range locks.Items {
					until := stamp(l.Until)
					if l.Over {
						until += " (over)"
					}
					rows = append(rows, []string{string(l.ID), string(l.Target), nameOr(l.Name, l.TargetID), l.Message, stamp(l.CreatedAt), until})
				}
				writeTable(out, []string{"ID", "TARGET", "NAME", "MESSAGE", "CREATED", "UNTIL"}, rows, "There are no locks.")
			})
		},
	}
}

func newLockRemoveCommand(a *app) *cobra.Command {
	return newRemovalCommand(a, removalCommand[httpapi.Lock]{
		use: "remove LOCK", short: "Remove a lock",
		example: "  postern lock remove 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d",
		path:    func(arg string) string { return path("locks", arg) },
		done: func(l *httpapi.Lock) string {
			return "lock on " + string(l.Target) + " " + nameOr(l.Name, l.TargetID) + " removed"
		},
	})
}
