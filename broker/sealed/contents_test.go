// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-mail/postern/broker"
)

// TestFindIsParse: one entry that is found by itself is what parsing the whole
// file gives, whatever the user names and secrets beside it hold.
func TestFindIsParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := make(contents)
		var keys []string
		for range rapid.IntRange(1, 5).Draw(t, "entries") {
			keys = append(keys, string(broker.NewID())+"/"+string(broker.NewID()))
		}
		tricky := rapid.SampledFrom([]string{"", "box@firm.example", `"},"`, `\","secret":"`, `"` + keys[0] + `":{`, keys[0], `,"secret":"}`, "}", "{"})
		for i, key := range keys {
			all[key] = &entry{
				Version: i + 1, Kind: broker.KindPassword, Username: tricky.Draw(t, "username"),
				Secret: rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "secret"),
			}
			if !wellFormed(key, all[key]) {
				all[key].Username, all[key].Secret = "", []byte("x")
			}
		}
		plain, err := all.marshal()
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := parse(plain)
		if err != nil {
			t.Fatal(err)
		}
		for key, want := range parsed {
			got, ok := find(plain, key)
			if !ok || got.Version != want.Version || got.Kind != want.Kind || got.Username != want.Username || !bytes.Equal(got.Secret, want.Secret) {
				t.Fatalf("%q: %+v, %v, want %+v", plain, got, ok, want)
			}
		}
		if e, ok := find(plain, string(broker.NewID())+"/"+string(broker.NewID())); ok {
			t.Fatalf("found %+v", e)
		}
	})
}
