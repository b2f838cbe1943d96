// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
)

func newWitness(t *testing.T, name string) *WitnessSigner {
	t.Helper()
	s, err := NewWitnessSigner(name, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCosignature(t *testing.T) {
	origin := Origin{FirmID: broker.NewID(), Epoch: broker.NewID()}
	signer, key := newKey(t, origin.String())
	keys, err := ParseKeys(key)
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{Origin: origin, Size: 7, Root: tlog.RecordHash([]byte("x"))}
	signed := sign(t, c.Text(), signer)
	one, other := newWitness(t, "witness.example/1"), newWitness(t, "other.example")
	at := time.Unix(1_800_000_000, 0).UTC()
	cosigned, err := one.Cosign(signed, at)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := one.Key().Cosignature(cosigned); err != nil || !got.Equal(at) {
		t.Errorf("cosigned at %v: %v", got, err)
	}
	if got, err := keys.Open(cosigned); err != nil || *got != c {
		t.Errorf("with a cosignature: %v %v", got, err)
	}
	// The octets are C2SP's: key id, time, Ed25519 over header and text.
	line := strings.Split(strings.TrimSpace(string(cosigned[bytes.LastIndex(cosigned, []byte("— ")):])), " ")
	raw, err := base64.StdEncoding.DecodeString(line[2])
	if err != nil || line[1] != "witness.example/1" || len(raw) != 4+8+64 || binary.BigEndian.Uint32(raw) != one.Key().KeyHash() {
		t.Fatalf("the line is %q: %v", line, err)
	}
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", at.Unix(), c.Text())
	if binary.BigEndian.Uint64(raw[4:]) != uint64(at.Unix()) || !ed25519.Verify(one.Key().public, []byte(message), raw[12:]) {
		t.Error("the signature does not cover time and checkpoint")
	}

	if _, err := other.Key().Cosignature(cosigned); err == nil {
		t.Error("another witness's was found")
	}
	if _, err := one.Key().Cosignature(signed); err == nil {
		t.Error("a cosignature was found where there is none")
	}
	posing, err := newWitness(t, "witness.example/1").Cosign(signed, at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.Key().Cosignature(posing); err == nil {
		t.Error("another key of the same name was taken")
	}
	for i := range raw[4:] {
		changed := bytes.Clone(raw)
		changed[4+i] ^= 1
		note := bytes.Replace(cosigned, []byte(line[2]), []byte(base64.StdEncoding.EncodeToString(changed)), 1)
		if _, err := one.Key().Cosignature(note); err == nil {
			t.Errorf("octet %d changed: taken", i)
		}
	}
	again, err := one.Cosign(cosigned, at.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := one.Key().Cosignature(again); err != nil || !got.Equal(at.Add(time.Second)) || bytes.Count(again, []byte("— ")) != 2 {
		t.Errorf("a later cosignature: %v %v\n%s", got, err, again)
	}
}

// What strangers have added to a checkpoint is not kept, and signatures of one
// text are put together.
func TestCosignaturesTogether(t *testing.T) {
	origin := Origin{Epoch: broker.NewID()}
	signer, key := newKey(t, origin.String())
	stranger, _ := newKey(t, "stranger.example")
	keys, err := ParseKeys(key)
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{Origin: origin, Size: 7, Root: tlog.RecordHash([]byte("x"))}
	one, two := newWitness(t, "one.example"), newWitness(t, "two.example")
	cosign := func(w *WitnessSigner, note []byte) []byte {
		t.Helper()
		b, err := w.Cosign(note, time.Unix(1_800_000_000, 0))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	signed := sign(t, c.Text(), signer)
	crowded := cosign(two, cosign(one, sign(t, c.Text(), stranger, signer)))
	only, err := keys.Only(crowded, one.Key())
	if err != nil {
		t.Fatal(err)
	}
	if want := cosign(one, signed); !bytes.Equal(sorted(only), sorted(want)) {
		t.Errorf("kept:\n%s\nwant:\n%s", only, want)
	}
	c.Size++
	unrelated := cosign(two, sign(t, c.Text(), signer))
	merged, err := Merge(signed, cosign(one, signed), unrelated, cosign(two, signed), cosign(one, signed))
	if err != nil {
		t.Fatal(err)
	}
	if want := cosign(two, cosign(one, signed)); !bytes.Equal(sorted(merged), sorted(want)) {
		t.Errorf("merged:\n%s\nwant:\n%s", merged, want)
	}
	if _, err := keys.Open(merged); err != nil {
		t.Error(err)
	}

	// What they say of themselves, whoever made them; the log's own signature says
	// nothing of the kind.
	at := time.Unix(1_800_000_000, 0).UTC()
	forever, err := two.Cosign(signed, time.Unix(1<<60, 0))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		note []byte
		want []Claim
	}{
		"both":                 {merged, []Claim{{"one.example", one.Key().KeyHash(), at}, {"two.example", two.Key().KeyHash(), at}}},
		"none":                 {signed, nil},
		"a year without words": {forever, nil},
	} {
		claims, err := Claims(test.note)
		slices.SortFunc(claims, func(a, b Claim) int { return strings.Compare(a.Name, b.Name) })
		if err != nil || !slices.Equal(claims, test.want) {
			t.Errorf("%s: %+v %v", name, claims, err)
		}
	}
	if _, err := Claims([]byte("no note")); err == nil {
		t.Error("what is no note has claims")
	}
}

// sorted has the lines of a note in an order of their own.
func sorted(note []byte) []byte {
	lines := strings.Split(string(note), "\n")
	for i := range lines {
		for j := range lines[:i] {
			if lines[i] < lines[j] {
				lines[i], lines[j] = lines[j], lines[i]
			}
		}
	}
	return []byte(strings.Join(lines, "\n"))
}

func TestWitnessKeys(t *testing.T) {
	s := newWitness(t, "witness.example")
	k, err := ParseWitnessKey(" " + s.Key().String() + "\n")
	if err != nil || k.String() != s.Key().String() || !k.Is(s.Key().public) {
		t.Fatalf("%v %v", k, err)
	}
	back, err := ParseWitnessSigner(s.Secret())
	if err != nil || back.Secret() != s.Secret() || back.Key().String() != k.String() {
		t.Fatalf("%v %v", back, err)
	}
	_, logKey := newKey(t, Origin{Epoch: broker.NewID()}.String())
	name, rest, _ := strings.Cut(k.String(), "+")
	for _, bad := range []string{
		"", "x", logKey, s.Secret(), "postern/" + k.String(), "+" + rest, "two words+" + rest, name + "2+" + rest,
		strings.Replace(k.String(), "+", "+0", 1), k.String()[:len(k.String())-4], k.String() + "+x", strings.Repeat("n", 201) + "+" + rest,
	} {
		if _, err := ParseWitnessKey(bad); err == nil {
			t.Errorf("taken for a witness's key: %q", bad)
		}
	}
	for _, bad := range []string{"", k.String(), "PRIVATE+KEY+" + k.String() + "x", strings.Replace(s.Secret(), "witness", "w", 1)} {
		if _, err := ParseWitnessSigner(bad); err == nil {
			t.Errorf("taken for a secret key: %q", bad)
		}
	}
	if public, err := PublicKey(logKey); err != nil || len(public) != 32 {
		t.Errorf("a log's public key: %v %v", public, err)
	}
	for _, bad := range []string{"", k.String(), "x+y+z"} {
		if _, err := PublicKey(bad); err == nil {
			t.Errorf("taken for a log's key: %q", bad)
		}
	}
}
