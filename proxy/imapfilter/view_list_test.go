// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestMatchList compares list patterns with the same ones as regular
// expressions.
func TestMatchList(t *testing.T) {
	fewSessions(t)
	rapid.Check(t, func(rt *rapid.T) {
		pattern := rapid.StringMatching(`[ab/*%]{0,8}`).Draw(rt, "pattern")
		name := rapid.StringMatching(`[ab/]{0,8}`).Draw(rt, "name")
		want := regexp.MustCompile("^" + strings.NewReplacer("*", ".*", "%", "[^/]*").Replace(pattern) + "$").MatchString(name)
		if matchList(pattern, name, '/') != want {
			rt.Fatalf("%q, %q: %v", pattern, name, !want)
		}
	})
}
