// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
)

func newKey(t *testing.T, name string) (note.Signer, string) {
	t.Helper()
	private, public, err := note.GenerateKey(nil, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return s, public
}

func sign(t *testing.T, text string, by ...note.Signer) []byte {
	t.Helper()
	b, err := note.Sign(&note.Note{Text: text}, by...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCheckpoint(t *testing.T) {
	firm := Origin{FirmID: broker.NewID(), Epoch: broker.NewID()}
	restored := Origin{FirmID: firm.FirmID, Epoch: broker.NewID()}
	own := Origin{Epoch: broker.NewID()}
	signer, key := newKey(t, firm.String())
	ownSigner, ownKey := newKey(t, own.String())
	again, _ := newKey(t, restored.String())
	thief, _ := newKey(t, firm.String())
	keys, err := ParseKeys("# the log's keys, one of them twice\n\n" + key + "\n" + ownKey + "\n" + key + "\n")
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{Origin: firm, Size: 7, Root: tlog.RecordHash([]byte("x"))}
	for name, signed := range map[string][]byte{
		"alone":           sign(t, c.Text(), signer),
		"with a new key":  sign(t, c.Text(), thief, signer),
		"with a stranger": sign(t, c.Text(), signer, again),
	} {
		got, err := keys.Open(signed)
		if err != nil || *got != c {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	ownCheckpoint := Checkpoint{Origin: own, Size: 1, Root: c.Root}
	if got, err := keys.Open(sign(t, ownCheckpoint.Text(), ownSigner)); err != nil || *got != ownCheckpoint {
		t.Errorf("the BPO's own: %v %v", got, err)
	}

	var unknown *UnknownKeyError
	if _, err := keys.Open(sign(t, c.Text(), thief)); !errors.As(err, &unknown) || unknown.OtherEpoch {
		t.Errorf("another's key: %v", err)
	}
	// A log's key speaks for no other log.
	if _, err := keys.Open(sign(t, ownCheckpoint.Text(), signer)); !errors.As(err, &unknown) {
		t.Errorf("another log's key: %v", err)
	}
	later := Checkpoint{Origin: restored, Size: 7, Root: c.Root}
	for _, by := range []note.Signer{again, signer} {
		if _, err := keys.Open(sign(t, later.Text(), by)); !errors.As(err, &unknown) || !unknown.OtherEpoch {
			t.Errorf("another epoch: %v", err)
		}
	}
	good := sign(t, c.Text(), signer)
	for name, text := range map[string]string{
		"another size":   strings.Replace(c.Text(), "\n7\n", "\n8\n", 1),
		"another origin": strings.Replace(c.Text(), string(firm.Epoch), string(own.Epoch), 1),
	} {
		if _, err := keys.Open(bytes.Replace(good, []byte(c.Text()), []byte(text), 1)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, text := range []string{
		"x\n7\n", "postern/bpo/x\n1\n" + "\n", strings.Replace(c.Text(), "\n7\n", "\n07\n", 1),
		strings.Replace(c.Text(), "\n7\n", "\n-7\n", 1), strings.Replace(c.Text(), "\n7\n", "\n0\n", 1),
		// Computing with its tree would never end.
		strings.Replace(c.Text(), "\n7\n", "\n9223372036854775807\n", 1),
		c.Text() + "more\n", strings.Replace(c.Text(), "=", "", 1), strings.Replace(c.Text(), "postern/", "", 1),
	} {
		if got, err := keys.Open(sign(t, text, signer)); err == nil {
			t.Errorf("%q was taken for %v", text, got)
		}
	}
	for _, bad := range []string{"", "# none", "x", strings.Replace(key, "postern/", "other/", 1)} {
		if _, err := ParseKeys(bad); err == nil {
			t.Errorf("taken for keys: %q", bad)
		}
	}
}
