// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/retention"
	"github.com/postern-mail/postern/broker/httpapi"
)

// openRetention makes what prunes the logs.
func (s *server) openRetention() (err error) {
	s.pruner, err = retention.New(retention.Config{
		Store: s.store, Node: s.config.Node, Logger: s.logger.Named("retention"), Registerer: s.registry,
	})
	return err
}

func newRetentionCommand(a *app) *cobra.Command {
	return newGroup("retention", "How long records are kept", newRetentionShowCommand(a), newRetentionSetCommand(a), newRetentionRulesCommand(a))
}

func newRetentionShowCommand(a *app) *cobra.Command {
	var firm string
	cmd := &cobra.Command{
		Use: "show", Short: "Show how long the records of a log are kept",
		Example: `  postern retention show --firm "Acme Pumps"`, Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, r, err := call[httpapi.Retention](cmd, a, http.MethodGet, withQuery(path("retention"), "firm", firm), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeRetention(out, r) })
		},
	}
	firmFlag(cmd, &firm)
	return cmd
}

func writeRetention(out io.Writer, r *httpapi.Retention) {
	log, set := "the BPO's own", ""
	if r.FirmID != "" {
		log, set = nameOr(r.Firm, r.FirmID), "nothing: the BPO's default counts"
		if r.Set != nil {
			set = keptFor(*r.Set)
		}
	}
	next := ""
	if r.Next != nil {
		next = keptFor(*r.Next) + ", from " + stamp(r.NextFrom)
	}
	writeFields(out, "Log", log, "Kept", keptFor(r.Days), "Then", next, "The firm has set", set,
		"Minimum for firms", keptFor(r.Minimum), "Default for firms", keptFor(r.Default), "Pruned up to", stamp(r.PrunedUntil))
}

func keptFor(days int) string {
	if days == 0 {
		return "for ever"
	}
	return count(days, "day")
}

// forEver and asDefault are what stands in the place of a number of days.
const (
	forEver   = "for-ever"
	asDefault = "default"
)

// parseDays reads a number of days.
func parseDays(text string) (int, error) {
	if text == forEver {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < broker.MinRetentionDays || n > broker.MaxRetentionDays {
		return 0, usagef("%q is no number of days from %d to %d, nor %s", text, broker.MinRetentionDays, broker.MaxRetentionDays, forEver)
	}
	return n, nil
}

func newRetentionSetCommand(a *app) *cobra.Command {
	var in httpapi.RetentionInput
	cmd := &cobra.Command{
		Use: "set DAYS", Short: "Set how long a firm's records are kept",
		Long: fmt.Sprintf(`Set for how many days the records of a firm's log are kept: %d or more, %s, or
%s, which is what the BPO's rules say. What is older is pruned: of each record its
hash stays, so that the rest of the log still verifies, and an event of the log
tells which were pruned. What says who could do what in which mailbox, and what was
pruned or held, is kept for ever.

The BPO's minimum holds where it is longer. A shorter time than before counts seven
days later. Until then anybody of the firm can set it back, or place a hold.`, broker.MinRetentionDays, forEver, asDefault),
		Example: `  postern retention set 365
  postern retention set for-ever`,
		Args: exactly("DAYS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != asDefault {
				days, err := parseDays(args[0])
				if err != nil {
					return err
				}
				in.Days = &days
			}
			if in.Days == nil || *in.Days != 0 {
				if err := a.confirm(cmd, "What is older is pruned, and nobody can bring it back. Set it?"); err != nil {
					return err
				}
			}
			raw, r, err := call[httpapi.Retention](cmd, a, http.MethodPut, path("retention"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeRetention(out, r) })
		},
	}
	cmd.Flags().StringVar(&in.Firm, "firm", "", "the `firm` whose records they are (a firm's people need not give it)")
	return cmd
}

func newRetentionRulesCommand(a *app) *cobra.Command {
	var minimum, standard, own string
	cmd := &cobra.Command{
		Use: "rules", Short: "Set the BPO's minimum and default for firms, and how long its own records are kept",
		Long: `Set the BPO's rules, in days: what is not given stays as it is. A firm that has set
a shorter time than the minimum has its records kept for the minimum. Each firm
finds the change in its own log. A shorter time than before counts seven days later.`,
		Example: `  postern retention rules --minimum 180 --default 1095 --own for-ever`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var in httpapi.RetentionRulesInput
			asked := false
			for _, f := range []struct {
				text string
				into **int
			}{{minimum, &in.Minimum}, {standard, &in.Default}, {own, &in.Own}} {
				if f.text == "" {
					continue
				}
				days, err := parseDays(f.text)
				if err != nil {
					return err
				}
				*f.into, asked = &days, true
			}
			if !asked {
				return usagef("nothing to change: give --minimum, --default or --own")
			}
			raw, r, err := call[httpapi.Retention](cmd, a, http.MethodPut, path("retention", "rules"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeRetention(out, r) })
		},
	}
	cmd.Flags().StringVar(&minimum, "minimum", "", "for how many `days` any firm's records are kept at least")
	cmd.Flags().StringVar(&standard, "default", "", "for how many `days` where the firm has set nothing, or for-ever")
	cmd.Flags().StringVar(&own, "own", "", "for how many `days` those of the BPO's own log, or for-ever")
	return cmd
}

func newHoldCommand(a *app) *cobra.Command {
	return newGroup("hold", "Legal holds: records that are not pruned", newHoldAddCommand(a), newHoldListCommand(a), newHoldReleaseCommand(a))
}

func newHoldAddCommand(a *app) *cobra.Command {
	var in httpapi.HoldInput
	var since, until string
	cmd := &cobra.Command{
		Use: "add", Short: "Place a hold on records, so that they are not pruned",
		Long: `Place a hold on the records of a log, all of them or those of a time. The firm and
the BPO both can; each releases its own alone, and the other reads of it.`,
		Example: `  postern hold add --firm "Acme Pumps" --reason "FIR 212/2026, Pune" --since 2026-03-01 --until 2026-04-15`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if in.Since, err = parseTime("since", since, false); err != nil {
				return err
			}
			if in.Until, err = parseTime("until", until, true); err != nil {
				return err
			}
			if in.Reason == "" {
				return usagef("--reason is missing")
			}
			raw, h, err := call[httpapi.Hold](cmd, a, http.MethodPost, path("holds"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeHold(out, h) })
		},
	}
	firmFlag(cmd, &in.Firm)
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why: a court's reference, say; both sides read it")
	cmd.Flags().StringVar(&since, "since", "", "keep records of this `time` (RFC 3339), or of this date, and later")
	cmd.Flags().StringVar(&until, "until", "", "keep records of before this `time` (RFC 3339), or up to the end of this date")
	return cmd
}

func writeHold(out io.Writer, h *httpapi.Hold) {
	writeFields(out, "Hold", string(h.ID), "On", heldLog(h), "Reason", h.Reason, "Since", stamp(h.Since), "Until", stamp(h.Until),
		"Placed by", h.By.Kind+" "+h.By.Name, "Released", h.ReleaseReason, "Ends", stamp(h.EndsAt))
}

func heldLog(h *httpapi.Hold) string {
	if h.FirmID == "" {
		return "the BPO's own log"
	}
	return nameOr(h.Firm, h.FirmID)
}

func newHoldListCommand(a *app) *cobra.Command {
	var firm string
	var all bool
	cmd := &cobra.Command{
		Use: "list", Short: "List holds", Example: "  postern hold list --all", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ended := ""
			if all {
				ended = "true"
			}
			raw, holds, err := call[httpapi.List[*httpapi.Hold]](cmd, a, http.MethodGet, withQuery(path("holds"), "firm", firm, "all", ended), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, h := range holds.Items {
					rows = append(rows, []string{string(h.ID), heldLog(h), stamp(h.Since), stamp(h.Until), h.Reason, h.By.Kind + " " + h.By.Name, holdStanding(h)})
				}
				writeTable(out, []string{"ID", "LOG", "SINCE", "UNTIL", "REASON", "BY", "STANDS"}, rows, "There are no holds.")
			})
		},
	}
	cmd.Flags().StringVar(&firm, "firm", "", "only holds on this `firm`'s log")
	cmd.Flags().BoolVar(&all, "all", false, "those that have ended as well")
	return cmd
}

func holdStanding(h *httpapi.Hold) string {
	switch {
	case h.ReleasedAt.IsZero():
		return "yes"
	case h.Stands(time.Now()):
		return "until " + stamp(h.EndsAt) + ", released: " + h.ReleaseReason
	}
	return "no, released: " + h.ReleaseReason
}

func newHoldReleaseCommand(a *app) *cobra.Command {
	var in httpapi.HoldRelease
	cmd := &cobra.Command{
		Use: "release HOLD", Short: "Release a hold that your side has placed",
		Long: `Release a hold that your side has placed, and say why. It goes on for seven days:
until then the other side can place one of its own.`,
		Example: `  postern hold release 0199f3a2-5d7e-7c11-9a43-1f6f4d1b2c3d --reason "the case is closed"`,
		Args:    exactly("HOLD"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.Reason == "" {
				return usagef("--reason is missing")
			}
			raw, h, err := call[httpapi.Hold](cmd, a, http.MethodPost, path("holds", args[0], "release"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeHold(out, h) })
		},
	}
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why it is not needed any more")
	return cmd
}
