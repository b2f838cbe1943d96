// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestSets compares sets with maps.
func TestSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) (uids, map[uint32]bool) {
			var s uids
			m := map[uint32]bool{}
			for _, x := range rapid.SliceOfN(rapid.Uint32Range(1, 40), 0, 30).Draw(t, name) {
				s.add(x)
				m[x] = true
			}
			return normal(s), m
		}
		a, inA := draw("a")
		b, inB := draw("b")
		for name, c := range map[string]struct {
			got  uids
			want func(uint32) bool
		}{
			"a":     {a, func(x uint32) bool { return inA[x] }},
			"union": {a.union(b), func(x uint32) bool { return inA[x] || inB[x] }},
			"minus": {a.minus(b), func(x uint32) bool { return inA[x] && !inB[x] }},
			"and":   {a.and(b), func(x uint32) bool { return inA[x] && inB[x] }},
			"from":  {a.from(7), func(x uint32) bool { return inA[x] && x >= 7 }},
		} {
			n := 0
			got := map[uint32]bool{}
			for x := range c.got.each() {
				got[x] = true
			}
			for x := uint32(0); x <= 41; x++ {
				if c.want(x) != got[x] {
					t.Fatalf("%s of %s and %s: %s: %d", name, a, b, c.got, x)
				}
				if got[x] != c.got.has(x) {
					t.Fatalf("%s of %s and %s: %s has %d: %v", name, a, b, c.got, x, got[x])
				}
				if got[x] {
					n++
				}
			}
			if c.got.len() != n {
				t.Fatalf("%s: %s has %d", name, c.got, c.got.len())
			}
			if again, ok := parseUIDs(c.got.String()); n > 0 && (!ok || again.String() != c.got.String()) {
				t.Fatalf("%s was read as %s", c.got, again)
			}
		}
	})
	for text, want := range map[string]string{
		"5:3,9": "3:5,9", "1:2,3": "1:3", "4:*": "4:4294967295", "*": "1:4294967295", "4294967295,1": "1,4294967295",
		"": "", "$": "", "1,2…": "", "0": "", "x": "", "1:": "",
	} {
		if got, ok := parseUIDs(text); got.String() != want || ok != (want != "") {
			t.Errorf("%q was read as %s, %v", text, got, ok)
		}
	}
}

// TestRepeatedUIDsAreCheap: a server that says of one message again and again how
// it stands does not keep the sentinel busy for hours.
func TestRepeatedUIDsAreCheap(t *testing.T) {
	var s uids
	for uid := range uint32(maxMessages) {
		s.add(2*uid + 1)
	}
	want := s.String()
	began := time.Now()
	for i := range 20_000_000 { // one UID in the octets of a look
		s.add(2*maxMessages - 1)
		if i%1000 == 0 && time.Since(began) > time.Minute {
			t.Fatalf("%d repetitions took a minute", i)
		}
	}
	if s.String() != want {
		t.Errorf("the set became %.100s", s)
	}
}
