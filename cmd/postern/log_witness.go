// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/witness"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/translog"
)

const (
	// witnessInterval is how often a witness cosigns, unless it is told otherwise;
	// minWitnessInterval the shortest that it can be told.
	witnessInterval    = 5 * time.Second
	minWitnessInterval = time.Second
	// witnessTimeout bounds one round.
	witnessTimeout = 30 * time.Second
)

// Submit hands over a cosignature.
func (s logSource) Submit(ctx context.Context, signed []byte) error {
	body, err := json.Marshal(httpapi.CosignatureInput{Firm: s.firm, Checkpoint: string(signed)})
	if err != nil {
		return err
	}
	_, err = s.app.request(ctx, http.MethodPost, path("log", "cosignatures"), body)
	return err
}

func newLogWitnessCommand(a *app) *cobra.Command {
	var firm string
	var interval time.Duration
	var t trust
	cmd := &cobra.Command{
		Use:   "witness DIR",
		Short: "Cosign a log's checkpoints, each proved to follow from those before",
		Long: `Cosign the checkpoints of one log, every few seconds, until it is interrupted:
each that follows from all that was cosigned before, and no other. What was
cosigned can be rewritten by nobody unseen, not even by whoever runs the server.

Run it on a machine that the BPO has no hand on, with a token of its own
('postern token create --scope read --scope cosignatures') and the log's key, got
by another way than from the server. DIR is of 'postern log witness-key new'. It
holds the witness's memory beside its key: it belongs into no backup.

Outages are waited for. When the log is not what it was, or after a restore, it
ends with exit code 3: ask why before you start it again.`,
		Example: `  postern log witness /var/lib/postern-witness --server mail.bpo.example:8443 --keys acme-log.keys`,
		Args:    exactly("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if interval < minWitnessInterval {
				return usagef("--interval must be %s or more", minWitnessInterval)
			}
			keys, known, err := t.read()
			if err != nil {
				return err
			}
			w, err := witness.Open(witness.Config{Dir: args[0], Keys: keys, Known: known, Source: logSource{a, firm}})
			if err != nil {
				return err
			}
			defer w.Close()
			fmt.Fprintf(cmd.OutOrStdout(), "Witness %s\n", w.Key())
			return witnessLog(cmd, w, interval)
		},
	}
	firmFlag(cmd, &firm)
	t.flags(cmd)
	cmd.Flags().DurationVar(&interval, "interval", witnessInterval, "how often it cosigns, as a `duration`")
	return cmd
}

// witnessLog cosigns until the command is interrupted, or the log cannot be
// believed. It says what changes, and not each cosignature.
func witnessLog(cmd *cobra.Command, w *witness.Witness, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	said := ""
	say := func(text string) {
		if text != said {
			fmt.Fprintln(cmd.OutOrStdout(), printable(text, false))
		}
		said = text
	}
	for {
		ctx, cancel := context.WithTimeout(cmd.Context(), witnessTimeout)
		c, err := w.Round(ctx)
		cancel()
		var unknown *translog.UnknownKeyError
		var no *witness.RefusedError
		switch {
		case cmd.Context().Err() != nil:
			return nil
		case err == nil:
			say("Cosigning " + c.Origin.String() + ".")
		case errors.As(err, &unknown) && !unknown.OtherEpoch:
			// As final as the others: no try again mends it.
			return broker.Errorf(broker.Refused, "%v, and it is not cosigned. If the BPO has told you of another key, get it from them ('postern log key') and add it to yours", err)
		case errors.As(err, &unknown), errors.As(err, &no):
			return logError(err)
		default:
			say("Not cosigned: " + words(err))
		}
		select {
		case <-tick.C:
		case <-cmd.Context().Done():
			return nil
		}
	}
}

func newLogWitnessKeyCommand(a *app) *cobra.Command {
	return newGroup("witness-key", "A log's witnesses, by their keys",
		newWitnessKeyNewCommand(), newWitnessKeyAddCommand(a), newWitnessKeyListCommand(a), newWitnessKeyRemoveCommand(a))
}

func newWitnessKeyNewCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "new DIR",
		Short: "Make a witness: its key, in a new directory",
		Long: `Make a witness in a directory, and print its verifier key, for 'postern log
witness-key add'. No server is needed.`,
		Example: `  postern log witness-key new /var/lib/postern-witness --name witness.acme.example`,
		Args:    exactly("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if name == "" {
				return usagef("--name is missing: a name like a host's, such as witness.acme.example")
			}
			key, err := witness.Create(args[0], name)
			if err != nil {
				return usagef("%v", err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), key)
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the witness's `name`, which its cosignatures bear")
	return cmd
}

func newWitnessKeyAddCommand(a *app) *cobra.Command {
	var in httpapi.WitnessInput
	var rule string
	var silence time.Duration
	cmd := &cobra.Command{
		Use:   "add KEY",
		Short: "Register a witness of a log, by its verifier key",
		Long: `Register a witness, by the verifier key that 'postern log witness-key new' has
printed and that whoever runs it has told you. From then on Postern takes its
cosignatures and publishes them.

When it is silent for longer than --silence, that is an alert; with --rule stop
no new session is opened in the firm's mailboxes besides, until it is heard again
or removed.`,
		Example: `  postern log witness-key add "$(ssh witness.acme.example cat witness.key)" --rule stop --silence 2m`,
		Args:    exactly("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Key, in.Rule, in.Silence = args[0], broker.WitnessRule(rule), int(silence.Seconds())
			raw, w, err := call[httpapi.LogWitness](cmd, a, http.MethodPost, path("log", "witnesses"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) { writeWitness(out, w) })
		},
	}
	firmFlag(cmd, &in.Firm)
	cmd.Flags().StringVar(&rule, "rule", string(broker.WitnessAlarm), "what happens when it falls silent: alarm, or stop")
	cmd.Flags().DurationVar(&silence, "silence", broker.DefaultWitnessSilence, "after how long it is silent, as a `duration`")
	return cmd
}

func writeWitness(out io.Writer, w *httpapi.LogWitness) {
	writeFields(out, "Witness", w.Name, "Key", w.Key, "Firm", nameOr(w.Firm, w.FirmID),
		"When silent", string(w.Rule)+" after "+(time.Duration(w.Silence)*time.Second).String(), "Id", string(w.ID))
}

func newWitnessKeyListCommand(a *app) *cobra.Command {
	var firm string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List a log's witnesses, and what each has not cosigned yet",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, all, err := call[httpapi.List[*httpapi.LogWitness]](cmd, a, http.MethodGet, withQuery(path("log", "witnesses"), "firm", firm), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, w := range all.Items {
					rows = append(rows, []string{
						w.Name, strconv.FormatInt(w.Size, 10), stamp(w.CosignedAt), unwitnessed(w),
						string(w.Rule) + " after " + (time.Duration(w.Silence) * time.Second).String(), witnessStanding(w),
					})
				}
				writeTable(out, []string{"WITNESS", "EVENTS", "COSIGNED", "NOT COSIGNED", "WHEN SILENT", "STANDS"}, rows,
					"Nobody witnesses this log: what is recorded can be rewritten by whoever runs the server, up to the last checkpoint that somebody has pulled.")
			})
		},
	}
	firmFlag(cmd, &firm)
	return cmd
}

// unwitnessed is what a witness has not cosigned, in words.
func unwitnessed(w *httpapi.LogWitness) string {
	if w.UnwitnessedEvents == 0 {
		return "nothing"
	}
	return count(int(w.UnwitnessedEvents), "event") + ", " + count(int(w.UnwitnessedSeconds), "second")
}

func witnessStanding(w *httpapi.LogWitness) string {
	switch {
	case w.RestoreUnconfirmed:
		return "waits for confirm-restore"
	case w.Silent:
		return "silent since " + stamp(w.HeardAt)
	case w.Size == 0:
		return "not heard yet"
	}
	return "cosigns"
}

func newWitnessKeyRemoveCommand(a *app) *cobra.Command {
	var firm string
	cmd := &cobra.Command{
		Use:     "remove WITNESS",
		Short:   "Take no more cosignatures of a witness",
		Example: `  postern log witness-key remove witness.acme.example`,
		Args:    exactly("WITNESS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, w, err := call[httpapi.LogWitness](cmd, a, http.MethodDelete, withQuery(path("log", "witnesses", args[0]), "firm", firm), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				fmt.Fprintf(out, "%s\n", printable("witness "+w.Name+" removed", false))
			})
		},
	}
	firmFlag(cmd, &firm)
	return cmd
}

func newLogConfirmRestoreCommand(a *app) *cobra.Command {
	var in httpapi.RestoreInput
	cmd := &cobra.Command{
		Use:   "confirm-restore",
		Short: "Confirm that a log was restored from a backup, so that it is witnessed again",
		Long: `Confirm for a log that the BPO has restored it from a backup, and has told you
why: since then it is another log, of a new epoch. Witnesses cosign it only after
that, and when they were given its new key ('postern log key').`,
		Example: `  postern log confirm-restore`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, done, err := call[httpapi.RestoreConfirmed](cmd, a, http.MethodPost, path("log", "restore-confirmation"), in)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				fmt.Fprintf(out, "The log %s may be witnessed.\n", printable(done.Origin, false))
			})
		},
	}
	firmFlag(cmd, &in.Firm)
	return cmd
}
