// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/logcopy"
	"github.com/postern-mail/postern/broker/audit/witness"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/translog"
)

// logSource is a log as a server's API has it.
type logSource struct {
	app  *app
	firm string
}

// get asks again where the server says that it is too much at once.
func (s logSource) get(ctx context.Context, what string, pairs ...string) ([]byte, error) {
	where := withQuery(path("log", what), append(pairs, "firm", s.firm)...)
	for tries := 0; ; tries++ {
		raw, err := s.app.requestUpTo(ctx, maxLogAnswer, http.MethodGet, where, nil)
		var problem *httpapi.Problem
		if !errors.As(err, &problem) || problem.Status != http.StatusTooManyRequests || tries >= limitTries {
			return raw, err
		}
		select {
		case <-time.After(limitPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

const (
	// limitPause is how long a server is left alone that was asked too often, and
	// limitTries how often that may be in a row.
	limitPause = time.Second
	limitTries = 120
	// maxLogAnswer bounds what of a log is read at a time, in octets: entries are
	// many times less, unless one is as large as an event can be.
	maxLogAnswer = 32 << 20
)

func (s logSource) Checkpoint(ctx context.Context) ([]byte, error) { return s.get(ctx, "checkpoint") }

// Tile says that hashes are missing in the words of package broker.
func (s logSource) Tile(ctx context.Context, level int, number int64, width int) ([]byte, error) {
	hashes, err := s.get(ctx, "tile", "level", strconv.Itoa(level), "number", strconv.FormatInt(number, 10), "width", strconv.Itoa(width))
	if codeOf(err) == broker.NotFound {
		err = broker.Errorf(broker.NotFound, "hashes of the log are missing: %v", err)
	}
	return hashes, err
}

func (s logSource) Entries(ctx context.Context, first int64) ([]*logcopy.Entry, error) {
	raw, err := s.get(ctx, "entries", "first", strconv.FormatInt(first, 10))
	if err != nil {
		return nil, err
	}
	return entriesOf(raw)
}

// entriesOf reads a page of entries, of which each is there.
func entriesOf(raw []byte) ([]*logcopy.Entry, error) {
	var page struct {
		Items []*logcopy.Entry `json:"items"`
	}
	if err := json.Unmarshal(raw, &page); err != nil {
		return nil, err
	}
	if slices.Contains(page.Items, nil) {
		return nil, errors.New("the server's answer has entries with nothing in them")
	}
	return page.Items, nil
}

// trust is what a check of a log rests on.
type trust struct {
	keys        []string
	keyFile     string
	checkpoints []string
}

func (t *trust) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&t.keys, "key", nil, "a verifier `key` of the log, got by another way than from its server; may be repeated")
	cmd.Flags().StringVar(&t.keyFile, "keys", "", "a `file` with verifier keys, one a line")
	cmd.Flags().StringArrayVar(&t.checkpoints, "checkpoint", nil, "a `file` with an older checkpoint that the log must agree with; may be repeated")
}

// witnesses are those whose cosignatures are asked for.
type witnesses struct{ keys []string }

func (w *witnesses) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&w.keys, "witness", nil, "a witness's verifier `key`: the log must bear its cosignature; may be repeated")
}

func (w *witnesses) read() ([]*translog.WitnessKey, error) {
	all := make([]*translog.WitnessKey, len(w.keys))
	for i, text := range w.keys {
		var err error
		if all[i], err = translog.ParseWitnessKey(text); err != nil {
			return nil, usagef("--witness: %v", err)
		}
	}
	return all, nil
}

// cosigned returns the newest checkpoint that a witness has cosigned, by its name;
// nil: there is none.
func (s logSource) cosigned(ctx context.Context, name string) ([]byte, error) {
	signed, err := s.get(ctx, "checkpoint", "witness", name)
	if codeOf(err) == broker.NotFound {
		return nil, nil
	}
	return signed, err
}

// witnessed adds to a copy the newest checkpoints that witnesses have cosigned.
func (s logSource) witnessed(ctx context.Context, dir string, keys *translog.Keys, all []*translog.WitnessKey) error {
	for _, w := range all {
		signed, err := s.cosigned(ctx, w.Name())
		if err != nil {
			return err
		}
		if signed == nil {
			continue // verify says what is missing
		}
		if err := logcopy.Keep(dir, keys, w, signed); err != nil {
			return err
		}
	}
	return nil
}

// tellCosigned says what witnesses have cosigned of a copy; the error is about the
// first that has cosigned nothing of it.
func tellCosigned(out io.Writer, dir string, keys *translog.Keys, all []*translog.WitnessKey) error {
	for _, w := range all {
		c, at, err := logcopy.Cosigned(dir, keys, w)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s has cosigned %s, at %s.\n", w.Name(), count(int(c.Size), "event"), stamp(at))
	}
	return nil
}

// read returns the keys, and the checkpoints that they have signed.
func (t *trust) read() (*translog.Keys, []*translog.Checkpoint, error) {
	text := strings.Join(t.keys, "\n")
	if t.keyFile != "" {
		b, err := os.ReadFile(t.keyFile)
		if err != nil {
			return nil, nil, usagef("--keys: %v", err)
		}
		text += "\n" + string(b)
	}
	if strings.TrimSpace(text) == "" {
		return nil, nil, usagef("--key or --keys is missing: whoever runs the server prints its keys with 'postern log key'; have them from him by another way, or compare them by one")
	}
	keys, err := translog.ParseKeys(text)
	if err != nil {
		return nil, nil, usagef("--key: %v", err)
	}
	var known []*translog.Checkpoint
	for _, file := range t.checkpoints {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, usagef("--checkpoint: %v", err)
		}
		c, err := keys.Open(b)
		if err != nil {
			return nil, nil, fmt.Errorf("--checkpoint %s: %w", file, err)
		}
		known = append(known, c)
	}
	return keys, known, nil
}

// logError says what to do about a log that cannot be believed.
func logError(err error) error {
	var unknown *translog.UnknownKeyError
	var wrong *logcopy.TamperedError
	var no *witness.RefusedError
	switch {
	case errors.As(err, &no):
		text := "THE LOG WAS TAMPERED WITH, and is not cosigned: " + err.Error()
		if no.Evidence != "" {
			text += ". Both checkpoints are in " + no.Evidence + ": keep it"
		}
		return broker.Errorf(broker.Conflict, "%s", text)
	case errors.As(err, &unknown) && unknown.OtherEpoch:
		return broker.Errorf(broker.Refused, "%v. If the BPO has told you of a restore, get the new key from them ('postern log key') and add it to yours: what is held of the old epoch stays", err)
	case errors.As(err, &wrong):
		return broker.Errorf(broker.Conflict, "THE LOG WAS TAMPERED WITH: %v", err)
	}
	return err
}

func newLogKeyCommand(a *app) *cobra.Command {
	var firm string
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Print the keys that verify a log's checkpoints",
		Long: `Print the verifier keys (C2SP signed-note) of a log, one a line, as the server
tells them. Whoever is to check the log must have them by another way, such as on
paper with the contract: a server that deceives would tell of other keys.`,
		Example: `  postern log key --firm "Acme Pumps" > acme-log.keys`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, keys, err := call[httpapi.LogKeys](cmd, a, http.MethodGet, withQuery(path("log", "keys"), "firm", firm), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				for _, key := range keys.Keys {
					fmt.Fprintln(out, printable(key, false))
				}
			})
		},
	}
	firmFlag(cmd, &firm)
	return cmd
}

func firmFlag(cmd *cobra.Command, firm *string) {
	cmd.Flags().StringVar(firm, "firm", "", "the `firm` whose log it is (without it: the BPO's own or, for a firm's people, their firm's)")
}

func newLogCheckpointCommand(a *app) *cobra.Command {
	var firm string
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "Print a log's newest signed checkpoint",
		Long: `Print the newest checkpoint of a log (C2SP tlog-checkpoint). Whoever keeps one
can prove with it later that nothing up to it was changed.`,
		Example: `  postern log checkpoint --firm "Acme Pumps" > 2026-11-30.checkpoint`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			note, err := logSource{a, firm}.Checkpoint(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := translog.Read(note); err != nil {
				return fmt.Errorf("the server's answer is no checkpoint: %w", err)
			}
			_, err = cmd.OutOrStdout().Write(note)
			return err
		},
	}
	firmFlag(cmd, &firm)
	return cmd
}

func newLogPullCommand(a *app) *cobra.Command {
	var firm string
	var t trust
	var w witnesses
	cmd := &cobra.Command{
		Use:   "pull DIR",
		Short: "Bring a copy of a log up to date, and prove that it only grew",
		Long: `Copy what is new of a log into a directory: entries, the tree's hashes and the
checkpoint, each proved before it counts. What is held already must be the
beginning of what the server has now; if it is not, nothing is replaced, and what
is held is the proof.

It can be killed at any time and run again, such as each hour by cron.`,
		Example: `  postern log pull /srv/acme-log --server mail.bpo.example:8443 --keys acme-log.keys`,
		Args:    exactly("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, known, err := t.read()
			if err != nil {
				return err
			}
			cosigners, err := w.read()
			if err != nil {
				return err
			}
			source := logSource{a, firm}
			p, err := logcopy.Pull(cmd.Context(), args[0], keys, source, known...)
			if err == nil && len(cosigners) > 0 {
				err = source.witnessed(cmd.Context(), args[0], keys, cosigners)
			}
			if err != nil {
				return logError(err)
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s holds %s of the log %s, %d of them new.\n", args[0], count(int(p.Checkpoint.Size), "event"), p.Checkpoint.Origin, p.Checkpoint.Size-p.Before)
			tellPruned(out, p.Pruned)
			if p.Lost != nil {
				return logError(p.Lost)
			}
			return logError(tellCosigned(out, args[0], keys, cosigners))
		},
	}
	firmFlag(cmd, &firm)
	t.flags(cmd)
	w.flags(cmd)
	return cmd
}

func tellPruned(out io.Writer, n int64) {
	if n > 0 {
		fmt.Fprintf(out, "Of %s only the hash is there.\n", count(int(n), "event"))
	}
}

// maxPrunings bounds the lines that tell what was pruned.
const maxPrunings = 20

// tellPrunings says what the log itself tells of what was pruned.
func tellPrunings(out io.Writer, all []logcopy.Pruned) {
	for i, p := range all {
		if i == maxPrunings {
			fmt.Fprintf(out, "And %s more that were pruned.\n", count(len(all)-i, "stretch"))
			return
		}
		fmt.Fprintf(out, "Pruned, as the log tells: %s, of %s to %s.\n", p, stamp(p.Since), stamp(p.Until))
	}
}

func newLogVerifyCommand(_ *app) *cobra.Command {
	var t trust
	var w witnesses
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Check a copy of a log without the server",
		Long: `Check every entry, hash and checkpoint of a copy that 'postern log pull' made,
against the keys alone. Whatever was changed, removed, put in between or reordered
up to the last checkpoint is found, in the copy as in the log that it was pulled
from; a record that is gone must be named by one of the log's own pruning events; and with a checkpoint from elsewhere (--checkpoint), such as a colleague's,
whether both of you were shown the same log. With --witness it says up to where a
witness has cosigned it, and fails where it has not.`,
		Example: `  postern log verify /srv/acme-log --keys acme-log.keys --checkpoint 2026-11-30.checkpoint`,
		Args:    exactly("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, known, err := t.read()
			if err != nil {
				return err
			}
			cosigners, err := w.read()
			if err != nil {
				return err
			}
			all, err := logcopy.Verify(args[0], keys, known...)
			if err != nil {
				return logError(err)
			}
			out := cmd.OutOrStdout()
			for _, v := range all {
				fmt.Fprintf(out, "%s: %s, nothing was changed, removed or put in between; %s agree.\n",
					v.Checkpoint.Origin, count(int(v.Checkpoint.Size), "event"), count(int(v.Agreed), "checkpoint"))
				tellPruned(out, v.Pruned)
				tellPrunings(out, v.Prunings)
			}
			return logError(tellCosigned(out, args[0], keys, cosigners))
		},
	}
	t.flags(cmd)
	w.flags(cmd)
	return cmd
}
