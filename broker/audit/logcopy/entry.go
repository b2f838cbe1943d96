// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker/translog"
)

// Entry is one entry of a log, as its server has it and as a line of a copy.
type Entry struct {
	Seq int64 `json:"seq"`
	// Record is null for an entry that was pruned; then Salt is empty.
	Record json.RawMessage `json:"record"`
	Salt   string          `json:"salt"`
	Leaf   string          `json:"leaf_hash"`
}

// Pruned says that of an entry only its hash is left.
func (e *Entry) Pruned() bool {
	return e.Salt == "" && (len(e.Record) == 0 || string(e.Record) == "null")
}

// LeafOf returns the hash of the entry that ought to be the seq-th, in the one form
// that Postern gives it.
func (e *Entry) LeafOf(seq int64) (tlog.Hash, error) {
	if e.Seq != seq {
		return tlog.Hash{}, fmt.Errorf("event %d stands in the place of event %d", e.Seq, seq)
	}
	said, err := hex.DecodeString(e.Leaf)
	if err != nil || len(said) != tlog.HashSize || e.Leaf != strings.ToLower(e.Leaf) {
		return tlog.Hash{}, fmt.Errorf("the leaf hash of event %d is none", seq)
	}
	if e.Pruned() {
		return tlog.Hash(said), nil
	}
	salt, err := hex.DecodeString(e.Salt)
	if err != nil || len(salt) != translog.SaltSize || e.Salt != strings.ToLower(e.Salt) {
		return tlog.Hash{}, fmt.Errorf("the salt of event %d is none", seq)
	}
	if bytes.ContainsRune(e.Record, '\n') {
		return tlog.Hash{}, fmt.Errorf("the record of event %d is not one line", seq)
	}
	hash := tlog.RecordHash(append(salt, e.Record...))
	if hash != tlog.Hash(said) {
		return hash, fmt.Errorf("event %d is not what its leaf hash covers", seq)
	}
	var fields struct {
		Seq *int64 `json:"seq"`
	}
	if err := json.Unmarshal(e.Record, &fields); err != nil || fields.Seq == nil || *fields.Seq != seq {
		return hash, fmt.Errorf("the record of event %d is another's", seq)
	}
	return hash, nil
}

// AppendLine appends the entry as a line. The record's octets stay as they are.
func (e *Entry) AppendLine(to []byte) []byte {
	record := []byte(e.Record)
	if e.Pruned() {
		record = []byte("null")
	}
	return fmt.Appendf(to, "{\"seq\":%d,\"salt\":%q,\"leaf_hash\":%q,\"record\":%s}\n", e.Seq, e.Salt, e.Leaf, record)
}

// parseLines reads the lines of a file of entries.
func parseLines(content []byte) ([]*Entry, error) {
	var all []*Entry
	for line := range bytes.Lines(content) {
		if line[len(line)-1] != '\n' {
			return all, fmt.Errorf("the line after entry %d is cut off", len(all))
		}
		e := new(Entry)
		if err := json.Unmarshal(line, e); err != nil {
			return all, fmt.Errorf("a line is not an entry: %w", err)
		}
		all = append(all, e)
	}
	return all, nil
}
