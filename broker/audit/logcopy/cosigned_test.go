// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// TestNever6CosignedCopy: a copy tells up to where a witness has cosigned it; and
// two readers who were shown two logs find it by the witness that saw only one.
func TestNever6CosignedCopy(t *testing.T) {
	w, err := translog.NewWitnessSigner("witness.example", rand.Reader)
	must(t, err)
	s := serve(t, 300)
	dir := t.TempDir()
	pull := func() {
		t.Helper()
		_, err := Pull(ctx, dir, s.keys(), s)
		must(t, err)
	}
	pull()
	if _, _, err := Cosigned(dir, s.keys(), w.Key()); broker.CodeOf(err) != broker.Conflict {
		t.Errorf("cosigned by nobody: %v", err)
	}
	at := time.Unix(1_800_000_000, 0).UTC()
	cosign := func(at time.Time) []byte {
		t.Helper()
		signed, err := s.Checkpoint(ctx)
		must(t, err)
		cosigned, err := w.Cosign(signed, at)
		must(t, err)
		return cosigned
	}
	s.append(30)
	first := cosign(at)
	must(t, Keep(dir, s.keys(), w.Key(), first)) // more than is held
	if _, _, err := Cosigned(dir, s.keys(), w.Key()); broker.CodeOf(err) != broker.Conflict {
		t.Errorf("more than is held was kept: %v", err)
	}
	s.append(30)
	pull()
	second := cosign(at.Add(time.Minute))
	for i, note := range [][]byte{first, second} {
		must(t, Keep(dir, s.keys(), w.Key(), note))
		c, when, err := Cosigned(dir, s.keys(), w.Key())
		want, _ := s.keys().Open(note)
		if err != nil || *c != *want || !when.Equal(at.Add(time.Duration(i)*time.Minute)) {
			t.Errorf("cosigned: %v at %v: %v", c, when, err)
		}
		_, err = Verify(dir, s.keys())
		must(t, err)
	}

	// The other reader's log, which the same key signs.
	s.stop()
	other := s.fork(t)
	other.rebuild(200)
	other.append(300)
	theirs := t.TempDir()
	_, err = Pull(ctx, theirs, other.keys(), other)
	must(t, err)
	var wrong *TamperedError
	for _, note := range [][]byte{first, second} {
		if err := Keep(theirs, other.keys(), w.Key(), note); !errors.As(err, &wrong) {
			t.Errorf("a cosigned checkpoint of the other log: %v", err)
		}
	}
}

// noted is a server that serves other checkpoints.
type noted struct {
	*served
	note func(signed []byte) []byte
}

func (n *noted) Checkpoint(ctx context.Context) ([]byte, error) {
	signed, err := n.served.Checkpoint(ctx)
	return n.note(signed), err
}

// TestNever6CosignatureIsKept: a server that serves a checkpoint without what
// witnesses have cosigned, or with a cosignature of its own make, takes none from
// a copy.
func TestNever6CosignatureIsKept(t *testing.T) {
	w, err := translog.NewWitnessSigner("witness.example", rand.Reader)
	must(t, err)
	cosign := func(signed []byte) []byte {
		t.Helper()
		cosigned, err := w.Cosign(signed, time.Unix(1_800_000_000, 0))
		must(t, err)
		return cosigned
	}
	// forge says of a checkpoint that the witness has cosigned it.
	forge := func(signed []byte) []byte {
		t.Helper()
		cosigned := cosign(signed)
		at := bytes.LastIndexByte(cosigned, ' ') + 1
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(cosigned[at:])))
		must(t, err)
		raw[len(raw)-1] ^= 1
		return append(cosigned[:at], base64.StdEncoding.EncodeToString(raw)+"\n"...)
	}
	for name, note := range map[string]func([]byte) []byte{
		"none":  func(signed []byte) []byte { return signed },
		"false": forge,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, 300)
			dir := t.TempDir()
			server := &noted{s, note}
			pull := func() {
				t.Helper()
				_, err := Pull(ctx, dir, s.keys(), server)
				must(t, err)
			}
			wantCosigned := func(size int64) {
				t.Helper()
				if c, _, err := Cosigned(dir, s.keys(), w.Key()); err != nil || c.Size != size {
					t.Errorf("cosigned: %v %v", c, err)
				}
				_, err := Verify(dir, s.keys())
				must(t, err)
			}
			pull()
			signed, err := s.Checkpoint(ctx)
			must(t, err)
			size := int64(s.size())
			must(t, Keep(dir, s.keys(), w.Key(), forge(signed)))
			must(t, Keep(dir, s.keys(), w.Key(), cosign(signed)))
			wantCosigned(size)
			pull()
			wantCosigned(size)
			s.append(10)
			pull()
			wantCosigned(size)
			c, err := Open(dir, w.Key())
			must(t, err)
			defer c.Close()
			witnessed, err := c.Witnessed(ctx)
			must(t, err)
			if len(witnessed) != 1 {
				t.Fatalf("%d checkpoints that the witness has cosigned", len(witnessed))
			}
			if _, err := w.Key().Cosignature(witnessed[0]); err != nil {
				t.Error(err)
			}
		})
	}
}
