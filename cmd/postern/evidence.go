// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/evidence"
	"github.com/postern-mail/postern/broker/translog"
)

func newEvidenceCommand(a *app) *cobra.Command {
	return newGroup("evidence", "What is handed to others: proved, and to be read and printed", newEvidenceMakeCommand(a), newEvidenceVerifyCommand(a))
}

// evidenceError says what to do about a bundle, or a log, that cannot be
// believed.
func evidenceError(err error) error {
	var wrong *evidence.Fault
	if errors.As(err, &wrong) {
		return broker.Errorf(broker.Conflict, "THE EVIDENCE IS NOT GOOD: %v", err)
	}
	return logError(err)
}

// verifyTrust reads what the check of a bundle rests on.
func (t *trust) verifyTrust(manifest string) (*evidence.Trust, error) {
	given := &evidence.Trust{Manifest: manifest, Postern: version()}
	var err error
	if len(t.keys) > 0 || t.keyFile != "" {
		given.Keys, given.Checkpoints, err = t.read()
		return given, err
	}
	// A checkpoint that somebody kept himself pins the log as well as a key does,
	// as far as it goes.
	for _, file := range t.checkpoints {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, usagef("--checkpoint: %v", err)
		}
		c, err := translog.Read(b)
		if err != nil {
			return nil, usagef("--checkpoint %s: %v", file, err)
		}
		given.Checkpoints = append(given.Checkpoints, c)
	}
	return given, nil
}

func newEvidenceVerifyCommand(a *app) *cobra.Command {
	var t trust
	var w witnesses
	var manifest string
	cmd := &cobra.Command{
		Use:   "verify PATH",
		Short: "Check an evidence bundle without the server",
		Long: `Check a bundle that 'postern evidence make' made: a directory or a ZIP archive.
No server is needed. Every file is held against the manifest, every event against
the log's signed checkpoint, and the report is made anew from the events.

The log's key must come from elsewhere than from the bundle: from the contract, or
from the firm. Without --key or --keys only what is in the bundle is held against
itself, which whoever made it could have made up altogether.

With --witness it fails unless that witness has cosigned a checkpoint of the bundle
that covers all of its events: then not even who has the log's key can have
rewritten them since, unseen.`,
		Example: `  postern evidence verify acme-2026-11.zip --keys acme-log.keys
  postern evidence verify acme-2026-11.zip --keys acme-log.keys --checkpoint 2026-11-01.checkpoint
  postern evidence verify acme-2026-11.zip --keys acme-log.keys --witness "$(cat witness.key)"`,
		Args: exactly("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			given, err := t.verifyTrust(manifest)
			if err != nil {
				return err
			}
			if given.Witnesses, err = w.read(); err != nil {
				return err
			}
			if len(given.Witnesses) > 0 && given.Keys == nil {
				return usagef("--witness needs the log's key as well: --key or --keys")
			}
			v, err := evidence.Verify(args[0], given)
			if err != nil {
				return evidenceError(err)
			}
			out := cmd.OutOrStdout()
			if a.json {
				b, err := json.Marshal(evidenceFound{v.Manifest, v.ManifestSHA256, v.Trusted, v.KeyLines, len(v.Older), v.Cosigned, v.Unrendered})
				if err == nil {
					_, err = fmt.Fprintf(out, "%s\n", b)
				}
				return err
			}
			tellEvidence(out, v)
			return nil
		},
	}
	t.flags(cmd)
	w.flags(cmd)
	cmd.Flags().StringVar(&manifest, "manifest-sha256", "", "the `hash` of manifest.json, as a certificate names it")
	return cmd
}

// evidenceFound is what verify finds, in JSON.
type evidenceFound struct {
	Manifest       *evidence.Manifest `json:"manifest"`
	ManifestSHA256 string             `json:"manifest_sha256"`
	// Trusted: a key that was given signed it.
	Trusted bool     `json:"trusted"`
	Keys    []string `json:"keys"`
	Older   int      `json:"older_checkpoints"`
	// Cosigned: what witnesses have cosigned, verified or by its own word.
	Cosigned   []evidence.Cosigned `json:"cosigned,omitempty"`
	Unrendered string              `json:"not_rendered,omitempty"`
}

func tellEvidence(out io.Writer, v *evidence.Verified) {
	m := v.Manifest
	if v.Trusted {
		fmt.Fprintf(out, "GOOD: %s of the log %s, signed by a key that was given. Nothing was changed, removed, put in between or reordered.\n", count(int(m.Disclosed), "event"), m.Origin)
	} else {
		fmt.Fprintf(out, "The bundle agrees with itself: %s of the log %s. THAT IS NO PROOF: no key was given (--key), and who made the bundle could have made the log. Compare the keys below with the firm's, or with the contract.\n", count(int(m.Disclosed), "event"), m.Origin)
	}
	fmt.Fprintln(out)
	period := "from the first event"
	if !m.From.IsZero() {
		period = "from " + m.From.Format(utcForm)
	}
	switch {
	case m.Until.IsZero():
		period += " to the last of the checkpoint"
	case m.Last == m.Size-1:
		period += " until " + m.Until.Format(utcForm) + ", as far as the checkpoint goes"
	default:
		period += " until " + m.Until.Format(utcForm)
	}
	narrowed := ""
	if n := m.Narrowed; n != nil {
		for _, to := range []struct {
			what string
			id   broker.ID
		}{{"agent", n.AgentID}, {"mailbox", n.MailboxID}, {"workstation", n.WorkstationID}} {
			if to.id != "" {
				narrowed += to.what + " " + nameOr(m.Names[to.id], to.id) + ", "
			}
		}
		narrowed += fmt.Sprintf("with %s of others left out", count(int(m.Withheld), "event"))
	}
	rendered := "what the events make"
	if v.Unrendered != "" {
		rendered = "NOT COMPARED with the events, which alone count: " + v.Unrendered
	}
	pruned := ""
	if m.Pruned > 0 {
		pruned = count(int(m.Pruned), "event")
		if m.Last < m.Size-1 || m.Narrowed != nil {
			pruned += ": that they were pruned is the maker's word"
		}
	}
	older := ""
	if len(v.Older) > 0 {
		older = count(len(v.Older), "checkpoint") + ", from which the log grew"
	}
	writeFields(out, "Firm", m.Firm, "Period", period, "Narrowed to", narrowed,
		"Entries", fmt.Sprintf("%d to %d of %d", m.First, m.Last, m.Size), "Only the hash", pruned, "Older", older,
		"Report", rendered, "Made", m.Made.Format(utcForm)+", by "+m.Maker+" (their word)", "Manifest", "SHA-256 "+v.ManifestSHA256)
	tellWitnesses(out, v.Cosigned)
	if v.Trusted {
		return
	}
	fmt.Fprintln(out, "\nThe keys that the bundle names, each with its SHA-256:")
	for _, key := range v.KeyLines {
		fmt.Fprintf(out, "  %s\n    %x\n", printable(key, false), sha256.Sum256([]byte(key)))
	}
}

// tellWitnesses says what witnesses have cosigned.
func tellWitnesses(out io.Writer, all []evidence.Cosigned) {
	for _, c := range all {
		text := fmt.Sprintf("%s has cosigned %s of the log, at %s", c.Witness, count(int(c.Size), "event"), c.At.Format(utcForm))
		if !c.Verified {
			text += ": NOT CHECKED, for no key of it was given (--witness)"
		}
		fmt.Fprintf(out, "%s.\n", printable(text, false))
	}
}

// utcForm is how times of a bundle are told: not in this machine's zone, which is
// nobody's concern.
const utcForm = "2006-01-02 15:04:05 UTC"

// olderCheckpoints reads files of checkpoints.
func (t *trust) olderCheckpoints() ([][]byte, error) {
	var all [][]byte
	for _, file := range t.checkpoints {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, usagef("--checkpoint: %v", err)
		}
		all = append(all, b)
	}
	return all, nil
}

// keyLines reads the keys that were given.
func (t *trust) keyLines() ([]string, error) {
	text := strings.Join(t.keys, "\n")
	if t.keyFile != "" {
		b, err := os.ReadFile(t.keyFile)
		if err != nil {
			return nil, usagef("--keys: %v", err)
		}
		text += "\n" + string(b)
	}
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

var _ evidence.Source = logSource{}
