// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
)

const (
	// originPrefix begins every log's origin; ownLog stands for a firm's id in
	// the BPO's own.
	originPrefix = "postern/"
	ownLog       = "bpo"
	// MaxCheckpoint bounds a checkpoint with its signatures, in octets.
	MaxCheckpoint = 16 << 10
)

// Origin names a log.
type Origin struct {
	// FirmID is empty for the BPO's own log.
	FirmID, Epoch broker.ID
}

func (o Origin) String() string {
	firm := string(o.FirmID)
	if firm == "" {
		firm = ownLog
	}
	return originPrefix + firm + "/" + string(o.Epoch)
}

// ParseOrigin reads what String returns.
func ParseOrigin(s string) (o Origin, err error) {
	rest, ok := strings.CutPrefix(s, originPrefix)
	firm, epoch, both := strings.Cut(rest, "/")
	if !ok || !both {
		return o, fmt.Errorf("%q is not the name of one of Postern's logs", s)
	}
	if firm != ownLog {
		if o.FirmID, err = broker.ParseID(firm); err != nil {
			return o, err
		}
	}
	o.Epoch, err = broker.ParseID(epoch)
	return o, err
}

// Checkpoint says what a log was at some time.
type Checkpoint struct {
	Origin Origin
	Size   int64
	Root   tlog.Hash
}

// Text is a checkpoint's note text, which signatures cover.
func (c *Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// maxSize is more events than a log can ever have, and few enough for whoever
// computes with trees: what a lying log signs must end.
const maxSize = 1 << 48

// parseText reads a note's text. Lines after the third are extensions, of
// which Postern makes none.
func parseText(text string) (*Checkpoint, error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 || lines[3] != "" {
		return nil, errors.New("a checkpoint has three lines")
	}
	origin, err := ParseOrigin(lines[0])
	if err != nil {
		return nil, err
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 1 || size > maxSize || strconv.FormatInt(size, 10) != lines[1] {
		return nil, fmt.Errorf("the size of a log cannot be %q", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return nil, errors.New("a checkpoint's root is not a hash")
	}
	return &Checkpoint{Origin: origin, Size: size, Root: tlog.Hash(root)}, nil
}

// Keys are the verifier keys of logs that somebody trusts.
type Keys struct {
	list []note.Verifier
}

// ParseKeys reads verifier keys (C2SP signed-note), one a line; lines that are
// empty or begin with #, or were there before, say nothing.
func ParseKeys(text string) (*Keys, error) {
	k := new(Keys)
	seen := make(map[string]bool)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || seen[line] {
			continue
		}
		seen[line] = true
		v, err := note.NewVerifier(line)
		if err != nil {
			return nil, fmt.Errorf("%q is not a log's key: 'postern log key' prints it", line)
		}
		if _, err := ParseOrigin(v.Name()); err != nil {
			return nil, err
		}
		k.list = append(k.list, v)
	}
	if len(k.list) == 0 {
		return nil, errors.New("there is no key")
	}
	return k, nil
}

// UnknownKeyError says that none of the keys signed a checkpoint.
type UnknownKeyError struct {
	// Origin is what the checkpoint claims.
	Origin Origin
	// OtherEpoch says that there is a key of another epoch of the same log.
	OtherEpoch bool
}

func (e *UnknownKeyError) Error() string {
	if e.OtherEpoch {
		return fmt.Sprintf("the log began a new epoch, %s: it was restored from a backup, or somebody says so", e.Origin.Epoch)
	}
	return fmt.Sprintf("the checkpoint of %s is signed by none of the keys", e.Origin)
}

// Open returns what a checkpoint says, if one of the keys has signed it as its
// log. The error is *UnknownKeyError where it has another's signature.
func (k *Keys) Open(signed []byte) (*Checkpoint, error) {
	if len(signed) > MaxCheckpoint {
		return nil, errors.New("too long for a checkpoint")
	}
	n, err := note.Open(signed, note.VerifierList(k.list...))
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) {
		c, err := parseText(unverified.Note.Text)
		if err != nil {
			return nil, err
		}
		return nil, k.unknown(c.Origin)
	}
	if err != nil {
		return nil, fmt.Errorf("not a checkpoint that its log signed: %w", err)
	}
	c, err := parseText(n.Text)
	if err != nil {
		return nil, err
	}
	for _, s := range n.Sigs {
		if s.Name == c.Origin.String() {
			return c, nil
		}
	}
	return nil, k.unknown(c.Origin)
}

// Read returns what a checkpoint says, whoever signed it.
func Read(signed []byte) (*Checkpoint, error) {
	var unverified *note.UnverifiedNoteError
	if _, err := note.Open(signed, note.VerifierList()); !errors.As(err, &unverified) {
		return nil, fmt.Errorf("not a checkpoint: %w", err)
	}
	return parseText(unverified.Note.Text)
}

func (k *Keys) unknown(o Origin) error {
	e := &UnknownKeyError{Origin: o}
	for _, v := range k.list {
		known, err := ParseOrigin(v.Name())
		e.OtherEpoch = e.OtherEpoch || err == nil && known.FirmID == o.FirmID && known.Epoch != o.Epoch
	}
	return e
}
