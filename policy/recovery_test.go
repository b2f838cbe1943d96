// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/policy"
)

// TestRecoveryMailIsHidden where the provider is known and nothing is said, and
// wherever a firm says so; an assignment can only hide more.
func TestRecoveryMailIsHidden(t *testing.T) {
	google := policy.RecoverySenders("imap.gmail.com")
	for _, test := range []struct {
		name                   string
		senders                []string
		delegation, assignment policy.RecoveryMail
		from, subject          bool
	}{
		{"by default, of a known provider", google, "", "", true, false},
		{"by default, of an unknown one", nil, "", "", false, false},
		{"by the delegation", google, policy.RecoveryHidden, "", true, true},
		{"by the delegation, of an unknown provider", nil, policy.RecoveryHidden, "", false, true},
		{"by the assignment", google, "", policy.RecoveryHidden, true, true},
		{"though the assignment says otherwise", google, policy.RecoveryHidden, policy.RecoveryShown, true, true},
		{"by default, though the assignment says otherwise", google, "", policy.RecoveryShown, true, false},
		{"by the assignment alone", google, policy.RecoveryShown, policy.RecoveryHidden, true, true},
		{"not: the firm shows it", google, policy.RecoveryShown, policy.RecoveryShown, false, false},
		{"by a value that is not known", google, "what", policy.RecoveryShown, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := granted()
			in.RecoverySenders, in.Delegation.RecoveryMail, in.Assignment.RecoveryMail = test.senders, test.delegation, test.assignment
			in.Delegation.Slice = "SINCE @-30d"
			d, refusal := policy.Decide(in)
			if refusal != nil {
				t.Fatal(refusal)
			}
			var from, subject, slice bool
			for _, s := range d.Slices {
				if _, err := s.Parse(); err != nil {
					t.Errorf("%s: %v", s, err)
				}
				from = from || s == `NOT FROM "accounts.google.com"`
				subject = subject || strings.Contains(string(s), `NOT SUBJECT "verification code"`)
				slice = slice || s == "SINCE @-30d"
			}
			if from != test.from || subject != test.subject || !slice {
				t.Errorf("slices %q", d.Slices)
			}
		})
	}
}

// TestHidingRecoveryMailEndsSessions that were shown it, and showing it none.
func TestHidingRecoveryMailEndsSessions(t *testing.T) {
	decide := func(r policy.RecoveryMail, senders ...string) *policy.Decision {
		in := granted()
		in.Delegation.RecoveryMail, in.Assignment.RecoveryMail, in.RecoverySenders = r, r, senders
		d, _ := policy.Decide(in)
		return d
	}
	shown, byDefault, hidden := decide("shown", "a.example"), decide("", "a.example"), decide("hidden", "a.example")
	more := decide("", "a.example", "b.example")
	for i, d := range []*policy.Decision{shown, byDefault, hidden} {
		for j, before := range []*policy.Decision{shown, byDefault, hidden} {
			if d.Covers(before) != (i <= j) {
				t.Errorf("decision %d covers %d: %v", i, j, d.Covers(before))
			}
		}
	}
	if more.Covers(byDefault) || !byDefault.Covers(more) {
		t.Error("another sender is hidden, and the session lives on")
	}
	if shown.Restricted() || !byDefault.Restricted() {
		t.Error("restricted is what hides nothing, or not what does")
	}
}

func TestRecoverySenders(t *testing.T) {
	for host, known := range map[string]bool{
		"imap.gmail.com": true, "IMAP.Gmail.Com.": true, "outlook.office365.com": true, "imap-mail.outlook.com": true,
		"imap.provider.example": false, "notgmail.com": false, "gmail.com.evil.example": false, "127.0.0.1": false, "": false,
	} {
		if got := policy.RecoverySenders(host); (len(got) > 0) != known {
			t.Errorf("%q: %q", host, got)
		}
	}
	d, _ := policy.Decide(&policy.Input{
		Now: now, Delegation: policy.Terms{Actions: policy.All}, Assignment: policy.Terms{Actions: policy.All},
		RecoverySenders: []string{`a"b\c.example`}, // which no store takes
	})
	if _, err := d.Slices[0].Parse(); err != nil {
		t.Error(err)
	}
}

func TestSees(t *testing.T) {
	for _, test := range []struct {
		terms   policy.Terms
		senders []string
		want    string
	}{
		{policy.Terms{Actions: policy.All}, nil, "all folders; all messages; mail for account recovery and one-time codes as well, by which a reader may take the mailbox over"},
		{policy.Terms{Actions: policy.All, RecoveryMail: policy.RecoveryShown}, []string{"a.example"}, "all folders; all messages; mail for account recovery and one-time codes as well, by which a reader may take the mailbox over"},
		{policy.Terms{Actions: policy.All}, []string{"a.example", "b@c.example"}, "all folders; all messages; no mail for account recovery and one-time codes: none from a.example, b@c.example"},
		{
			policy.Terms{Actions: policy.List | policy.Headers, Slice: "SEEN", RecoveryMail: policy.RecoveryHidden, Folders: policy.FolderPatterns{Allow: []string{"A", "B"}, Deny: []string{"B/C"}}},
			nil,
			"the folders A, B but not B/C; the headers of messages that SEEN finds; no mail for account recovery and one-time codes: none with a subject that speaks of codes or of passwords to reset",
		},
		{
			policy.Terms{Actions: policy.Read, RecoveryMail: policy.RecoveryHidden},
			[]string{"a.example"},
			"all folders; all messages; no mail for account recovery and one-time codes: none from a.example, or with a subject that speaks of codes or of passwords to reset",
		},
		{policy.Terms{Actions: policy.List}, nil, "all folders; flags, dates and sizes of all messages"},
		{policy.Terms{Actions: policy.Send}, nil, "nothing"},
	} {
		if diff := cmp.Diff(test.want, test.terms.Sees(test.senders)); diff != "" {
			t.Error(diff)
		}
	}
}
