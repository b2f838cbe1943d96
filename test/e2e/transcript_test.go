// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"testing"
)

// TestTranscripts plays every conversation of test/testdata against Postern
// before Dovecot and Postfix.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("../testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	// The peer is the transcript's own, so that what arrives is too.
	peer := func(tr *Transcript) string { return tr.Name + "@market.example" }
	options := WorldOptions{
		Mailboxes: []string{otherMailbox},
		Aliases:   make(map[string][]string),
		Postern:   Options{Config: "limits:\n  message_size: 256KB\n  message_recipients: 3\n"},
	}
	var transcripts []*Transcript
	for _, file := range files {
		tr, err := ReadTranscript(file)
		if err != nil {
			t.Fatal(err)
		}
		transcripts = append(transcripts, tr)
		options.Mailboxes = append(options.Mailboxes, tr.Mailbox(), peer(tr))
		options.Aliases[tr.Mailbox()] = tr.Aliases
	}
	w := NewWorld(t, options)
	w.AddMailbox(otherMailbox)
	t.Run("each", func(t *testing.T) {
		for _, tr := range transcripts {
			t.Run(tr.Name, func(t *testing.T) {
				t.Parallel()
				tr.Play(t, w.For(t), peer(tr))
			})
		}
	})
	w.CheckNothingLeaked()
}
