// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/policy"
)

func TestUnmatched(t *testing.T) {
	f := policy.FolderPatterns{Allow: []string{"inbox", "Clients/*", "Clinets/*", "Work/%"}, Deny: []string{"Clients", "Old", "*/Board"}}
	folders := map[string]byte{"INBOX": '.', "Clients.Acme": '.', "Work": '.', "a/Board": '.'}
	if diff := cmp.Diff([]string{"Clinets/*", "Work/%", "Old", "*/Board"}, f.Unmatched(maps.All(folders))); diff != "" {
		t.Error(diff)
	}
	if len(f.Allow) != 4 || f.Allow[2] != "Clinets/*" || len(f.Deny) != 3 {
		t.Errorf("the patterns became %+v", f)
	}
}

func TestFoldersVisible(t *testing.T) {
	type names map[string]bool
	tests := []struct {
		title     string
		folders   policy.FolderPatterns
		delimiter byte
		names     names
	}{
		{"all", policy.FolderPatterns{}, '.', names{"INBOX": true, "a/b": true}},
		{"exact", policy.FolderPatterns{Allow: []string{"INBOX", "Büro"}}, '/', names{
			"INBOX": true, "inbox": true, "InBoX": true, "Büro": true, "INBOX/Old": false, "Bu\u0308ro": false, "büro": false, "": false,
		}},
		{"below", policy.FolderPatterns{Allow: []string{"Clients/*"}}, '.', names{
			"Clients.A": true, "Clients.A.B": true, "Clients": false, "Clients/A": false, "clients.A": false, "ClientsX": false,
		}},
		{"one level", policy.FolderPatterns{Allow: []string{"Clients/%"}}, '.', names{"Clients.A": true, "Clients.A.B": false}},
		{"denied", policy.FolderPatterns{Allow: []string{"*"}, Deny: []string{"Private", "inbox/Board"}}, '/', names{
			"INBOX": true, "Private": false, "Private/A": false, "Private/A/B": false, "Privately": true,
			"INBOX/Board": false, "Inbox/Board/2026": false, "INBOX/Boarding": true,
		}},
		{"denied alone", policy.FolderPatterns{Deny: []string{"inbo*"}}, '/', names{"INBOX": true, "inbox2": false, "X": true}},
		{"inbox by a wildcard", policy.FolderPatterns{Deny: []string{"INB*"}}, '/', names{"inbox": false, "Inbox/A": false, "inboxes": true}},
		{"inbox below", policy.FolderPatterns{Allow: []string{"inbox/*"}}, '.', names{"INBOX.A": true, "Inbox.A": true, "INBOX": false, "INBOXES.A": false}},
		{"a slash that separates nothing", policy.FolderPatterns{Deny: []string{"Private/*"}}, '.', names{"Private/A": false, "Other/A": false, "Other": true}},
		{"no hierarchy", policy.FolderPatterns{Allow: []string{"*"}}, 0, names{"INBOX": true, "a.b": true, "a/b": false}},
	}
	for _, test := range tests {
		t.Run(test.title, func(t *testing.T) {
			for name, want := range test.names {
				if got := test.folders.Visible(name, test.delimiter); got != want {
					t.Errorf("%q is visible: %v", name, got)
				}
			}
		})
	}
}

func TestRecipientsAllowed(t *testing.T) {
	allow := policy.RecipientPatterns{Allow: []string{"*@firm.example", "Anna*@other.example", "*@*.firm.example"}, Deny: []string{"boss@firm.example", "*@evil.firm.example"}}
	deny := policy.RecipientPatterns{Deny: []string{"*@rival.example"}}
	tests := []struct {
		rules   policy.RecipientPatterns
		address string
		want    bool
	}{
		{policy.RecipientPatterns{}, `"any thing"@[192.0.2.1]`, true},
		{allow, "info@firm.example", true},
		{allow, "INFO@Firm.Example", true},
		{allow, "anna+x@other.example", true},
		{allow, "berta@other.example", false},
		{allow, "a@b.firm.example", true},
		{allow, "a@evil.firm.example", false},
		{allow, "Boss@FIRM.example", false},
		{allow, "a@firm.example.evil.example", false},
		{allow, "a@evilfirm.example", false},
		{deny, "a@firm.example", true},
		{deny, "a@RIVAL.example", false},
		{deny, "a@rival.example.", false},
		{deny, `"a"@firm.example`, false},
		{deny, "a@[192.0.2.1]", false},
		{deny, "a@büro.example", false},
		{deny, "a@x@rival.example", false},
		{deny, "a", false},
		{deny, "@firm.example", false},
		{deny, "", false},
	}
	for _, test := range tests {
		if got := test.rules.Allowed(test.address); got != test.want {
			t.Errorf("%q by %v: %v", test.address, test.rules, got)
		}
	}
}

func TestValidatePatterns(t *testing.T) {
	long := strings.Repeat("a", policy.MaxPattern+1)
	many := make([]string, policy.MaxPatterns+1)
	for i := range many {
		many[i] = strings.Repeat("a", i+1)
	}
	folders := func(allow []string, deny ...string) policy.Terms {
		return policy.Terms{Actions: policy.List, Folders: policy.FolderPatterns{Allow: allow, Deny: deny}}
	}
	recipients := func(allow []string, deny ...string) policy.Terms {
		return policy.Terms{Actions: policy.Send, Sending: policy.Sending{Recipients: policy.RecipientPatterns{Allow: allow, Deny: deny}}}
	}
	tests := []struct {
		terms         policy.Terms
		field, reason string
	}{
		{folders([]string{"INBOX", "A/*"}, "A/B"), "", ""},
		{folders([]string{"INBOX", ""}), "folders.allow[1]", "matches nothing"},
		{folders(nil, ""), "folders.deny[0]", "matches nothing"},
		{folders([]string{"/A"}), "folders.allow[0]", "matches nothing"},
		{folders([]string{"A/"}), "folders.allow[0]", "matches nothing"},
		{folders([]string{"A//B"}), "folders.allow[0]", "matches nothing"},
		{folders([]string{"A\r\nB"}), "folders.allow[0]", "control"},
		{folders([]string{"A\xff"}), "folders.allow[0]", "UTF-8"},
		{folders([]string{"A", "A"}), "folders.allow[1]", "twice"},
		{folders([]string{long}), "folders.allow[0]", "longer"},
		{folders(many), "folders.allow", "more than"},
		{folders([]string{"INBOX", "A/B"}, "A"), "folders.allow[1]", "is denied"},
		{folders([]string{"inbox"}, "INBOX"), "folders.allow[0]", "denied"},
		{recipients([]string{"*@firm.example"}, "*@*.firm.example"), "", ""},
		{recipients([]string{"firm.example"}), "sending.recipients.allow[0]", "matches nothing"},
		{recipients([]string{"*"}), "sending.recipients.allow[0]", "matches nothing"},
		{recipients([]string{"a@büro.example"}), "sending.recipients.allow[0]", "xn--"},
		{recipients([]string{`"a"@firm.example`}), "sending.recipients.allow[0]", "matches nothing"},
		{recipients([]string{"a@firm.example"}, "*@FIRM.example"), "sending.recipients.allow[0]", "denied"},
	}
	for _, test := range tests {
		if field, reason := test.terms.Validate(); field != test.field || !strings.Contains(reason, test.reason) {
			t.Errorf("%v %v: %q, %q; want %q, %q", test.terms.Folders, test.terms.Sending.Recipients, field, reason, test.field, test.reason)
		}
	}
}

// TestNever5OtherLettersAreNotOne: letters that Unicode takes for one are two
// recipients, so that an assignment cannot pass for its delegation's.
func TestNever5OtherLettersAreNotOne(t *testing.T) {
	outer := policy.Terms{Actions: policy.All, Sending: policy.Sending{Recipients: policy.RecipientPatterns{Allow: []string{"\u212a@firm.example"}}}}
	inner := outer.Clone()
	inner.Sending.Recipients.Allow[0] = "k@firm.example"
	if field, ok := policy.Within(outer, inner); ok || field != "sending.recipients" {
		t.Errorf("Within = %q, %v", field, ok)
	}
	in := granted()
	in.Delegation, in.Assignment = outer, inner
	if d, refusal := policy.Decide(in); refusal != nil || d.MaySendTo("k@firm.example") || d.MaySendTo("\u212a@firm.example") {
		t.Errorf("decided %+v, %v", d, refusal)
	}
}

// The longest lists that there may be are decided by and compared quickly: a
// revoke waits for decisions made anew.
func TestLongestPatternsAreComparedQuickly(t *testing.T) {
	list := func(letter string) []string {
		all := make([]string, policy.MaxPatterns)
		for i := range all {
			all[i] = strings.Repeat(letter+"*", policy.MaxPattern/2-i)
		}
		return all
	}
	in := granted()
	in.Delegation.Folders = policy.FolderPatterns{Allow: list("a"), Deny: list("b")}
	in.Assignment.Folders = policy.FolderPatterns{Allow: list("c"), Deny: list("d")}
	began := time.Now()
	old, refusal := policy.Decide(in)
	if refusal != nil {
		t.Fatal(refusal)
	}
	in.Delegation.Folders.Allow = in.Delegation.Folders.Allow[1:]
	next, _ := policy.Decide(in)
	if next.Covers(old) || !old.Covers(old) {
		t.Error("fewer folders cover more, or a decision not itself")
	}
	if _, ok := policy.Within(in.Delegation, in.Assignment); ok {
		t.Error("other folders are within")
	}
	same := in.Delegation.Clone()
	same.Folders.Allow = same.Folders.Allow[3:]
	if field, ok := policy.Within(in.Delegation, same); !ok {
		t.Errorf("fewer of the same patterns are wider in %s", field)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestCreatable: whether a name may be taken does not depend on how a server
// compares names.
func TestCreatable(t *testing.T) {
	f := policy.FolderPatterns{Allow: []string{"Work", "Work/*", "New*"}, Deny: []string{"Work/Straße", "Work/Closed"}}
	for name, want := range map[string]bool{
		"Work/Open": true, "New1": true, "Work/Closed2": true, "Work/Closed": false, "Work/closed": false, "Work/CLOSED/x": false,
		"Work/Ｃlosed": false, "Work/stra\u00dfe": false, "work/Open": false, "Other": false,
	} {
		if f.Creatable(name, '/') != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
	if !(policy.FolderPatterns{}).Creatable("anything", '/') || (policy.FolderPatterns{Deny: []string{"Sécret"}}).Creatable("se\u0301cret", '.') {
		t.Error("normal forms")
	}
}
