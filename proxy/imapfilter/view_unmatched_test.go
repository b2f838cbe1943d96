// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// TestPatternsThatMatchNothingAreTold once, in the record: the firm may have
// mistyped what it meant to show or to hide.
func TestPatternsThatMatchNothingAreTold(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		d := policy.Decision{Folders: []policy.FolderPatterns{
			{Allow: []string{"INBOX", "Work", "Work/*", "Wrok/*"}, Deny: []string{"Work/Closed", "Work/Clsoed"}},
		}}
		v := newViewed(t, server, d, secretBox()...)
		v.expect("SELECT INBOX", "OK")
		v.expect(`LIST "" *`, "OK")
		want := []any{broker.FoldersUnmatched{Patterns: []string{"Wrok/*", "Work/Clsoed"}}}
		if diff := cmp.Diff(want, v.rig.gate.last().recorded(broker.EventFoldersUnmatched)); diff != "" {
			t.Error(diff)
		}
		again := v.rig.login()
		exchange(again, "s SELECT INBOX\r\n", "s")
		if told := v.rig.gate.last().recorded(broker.EventFoldersUnmatched); len(told) > 0 {
			t.Errorf("another session tells again: %v", told)
		}
	})
}

func TestUnmatchedIsBounded(t *testing.T) {
	var u unmatched
	for i := range maxUnmatched + 1 {
		if !u.first("m", string(rune(i))) {
			t.Fatal(i)
		}
	}
	if len(u.seen) != 1 || u.first("m", string(rune(maxUnmatched))) || !u.first("n", string(rune(maxUnmatched))) {
		t.Errorf("%d are remembered", len(u.seen))
	}
}
