// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/policy"
)

// TestAlertChanges: what each type of event does to alerts, from its struct and
// from its JSON, and that nothing in a subject is a stranger's or an agent's.
func TestAlertChanges(t *testing.T) {
	const hostile = "hostile\r\n\x00words"
	mailbox, agent, workstation, password := NewID(), NewID(), NewID(), NewID()
	both := string(mailbox) + "/" + string(agent)
	canary := NewID()
	trap := string(mailbox) + "/" + string(canary) + "/" + string(agent)
	lock := Lock{ID: NewID(), Target: LockMailbox, TargetID: mailbox, Message: "closed"}
	after, err := json.Marshal(lock)
	if err != nil {
		t.Fatal(err)
	}
	ended := func(o RotationOutcome, unproved ...string) Rotation {
		return Rotation{ID: NewID(), MailboxID: mailbox, Outcome: o, Words: "too short", Unproved: unproved}
	}
	ends := func(kinds ...AlertKind) []AlertChange { return resolve(mailbox, kinds...) }
	change := func(before, after any) StateChange {
		b, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		a, err := json.Marshal(after)
		if err != nil {
			t.Fatal(err)
		}
		return StateChange{Before: b, After: a}
	}
	since := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		typ  EventType
		data any
		want []AlertChange
	}{
		"drift":   {EventDrift, Drift{Answer: hostile}, []AlertChange{{Kind: AlertDrift, Severity: SeverityCritical, Subject: string(mailbox), Detail: hostile}}},
		"consent": {EventConsentWithdrawn, ConsentWithdrawn{Answer: "400"}, []AlertChange{{Kind: AlertConsent, Severity: SeverityCritical, Subject: string(mailbox), Detail: "400"}}},
		"astray": {
			EventAppPasswordAstray,
			AppPasswordAstray{AppPasswordID: password, RemoteAddr: hostile, Cause: "no-certificate", KeyPin: hostile},
			[]AlertChange{{Kind: AlertAppPasswordAstray, Severity: SeverityCritical, Subject: string(password), Detail: "no-certificate"}},
		},
		"elsewhere": {
			EventSessionRefused,
			SessionRefused{RemoteAddr: hostile, Reason: policy.ReasonSite, Text: "not here"},
			[]AlertChange{{Kind: AlertOutsideSite, Severity: SeverityWarning, Subject: string(agent) + "/" + string(workstation), Detail: "not here"}},
		},
		"refused otherwise": {EventSessionRefused, SessionRefused{Reason: policy.ReasonHours}, nil},
		"failed sign-in":    {EventAuthFailed, AuthFailed{Username: hostile}, nil},
		"quota":             {EventQuotaReached, QuotaReached{Quota: "octets.day", Folder: hostile}, []AlertChange{{Kind: AlertQuota, Severity: SeverityWarning, Subject: both, Detail: "octets.day"}}},
		"flagged":           {EventSendFlagged, SendFlagged{Rule: "cards", MessageID: hostile}, []AlertChange{{Kind: AlertContent, Severity: SeverityWarning, Subject: both, Detail: "cards"}}},
		"sent":              {EventSendResult, SendResult{Outcome: "accepted", MessageID: hostile}, nil},
		"perhaps sent":      {EventSendResult, SendResult{Outcome: "unknown", MessageID: hostile}, []AlertChange{{Kind: AlertSendUnknown, Severity: SeverityWarning, Subject: both}}},
		"canary":            {EventCanaryOpened, CanaryOpened{Canary: canary, How: CanaryCopied, Messages: 1}, []AlertChange{{Kind: AlertCanary, Severity: SeverityCritical, Subject: trap, Detail: "copied"}}},
		"canary downloaded": {
			EventCanaryDownloaded,
			CanaryOpened{Canary: canary, How: CanaryRead, Messages: CanaryBulk},
			[]AlertChange{{Kind: AlertCanary, Severity: SeverityCritical, Subject: trap, Detail: "read in a bulk download: with it 10 messages within 60 s", Amends: true}},
		},
		"folders":    {EventFoldersUnmatched, FoldersUnmatched{Patterns: []string{"A", "B/*"}}, []AlertChange{{Kind: AlertFoldersUnmatched, Severity: SeverityInfo, Subject: both, Detail: "A, B/*"}}},
		"credential": {EventCredentialSet, CredentialSetData{Version: 2}, ends(AlertDrift, AlertConsent, AlertRotationLost)},
		"rotated":    {EventRotationEnded, ended(RotationDone), ends(AlertDrift, AlertRotationFailed, AlertRotationLost, AlertRotationUnproved)},
		"sessions unproved": {
			EventRotationEnded, ended(RotationDone, UnprovedOldSessions),
			append(ends(AlertDrift, AlertRotationFailed, AlertRotationLost),
				AlertChange{Kind: AlertRotationUnproved, Severity: SeverityWarning, Subject: string(mailbox), Detail: UnprovedOldSessions}),
		},
		"old password unproved": {
			EventRotationEnded, ended(RotationDone, UnprovedSubmission, UnprovedOldDead),
			append(ends(AlertDrift, AlertRotationFailed, AlertRotationLost),
				AlertChange{Kind: AlertRotationUnproved, Severity: SeverityCritical, Subject: string(mailbox), Detail: UnprovedSubmission + ", " + UnprovedOldDead}),
		},
		"superseded":     {EventRotationEnded, ended(RotationSuperseded), ends(AlertDrift, AlertRotationLost)},
		"lost":           {EventRotationEnded, ended(RotationLost), []AlertChange{{Kind: AlertRotationLost, Severity: SeverityCritical, Subject: string(mailbox), Detail: "too short"}}},
		"kept":           {EventRotationEnded, ended(RotationKeptOld), []AlertChange{{Kind: AlertRotationFailed, Severity: SeverityWarning, Subject: string(mailbox), Detail: "too short"}}},
		"restored":       {EventStateRestored, StateRestored{}, []AlertChange{{Kind: AlertRestored, Severity: SeverityCritical}}},
		"locked":         {"lock.created", StateChange{After: after}, []AlertChange{{Kind: AlertLocked, Severity: SeverityInfo, Subject: string(lock.ID), Detail: "closed"}}},
		"unlocked":       {"lock.removed", StateChange{Before: after, After: after}, []AlertChange{{Kind: AlertLocked, Severity: SeverityInfo, Subject: string(lock.ID), Detail: "closed", Resolves: true}}},
		"outage":         {EventOutage, Outage{Node: "a", Component: "credentials", Since: since, Text: "no"}, []AlertChange{{Kind: AlertOutage, Severity: SeverityCritical, Subject: "credentials@a", Detail: "credentials on a: no"}}},
		"witness silent": {EventWitnessSilent, WitnessSilent{WitnessID: password, Name: "w", Rule: WitnessAlarm}, []AlertChange{{Kind: AlertWitnessSilent, Severity: SeverityWarning, Subject: string(password), Detail: "w"}}},
		"witness stops":  {EventWitnessSilent, WitnessSilent{WitnessID: password, Name: "w", Rule: WitnessStop}, []AlertChange{{Kind: AlertWitnessSilent, Severity: SeverityCritical, Subject: string(password), Detail: "w"}}},
		"witness heard":  {EventWitnessHeard, WitnessSilent{WitnessID: password, Name: "w", Rule: WitnessAlarm}, []AlertChange{{Kind: AlertWitnessSilent, Severity: SeverityWarning, Subject: string(password), Detail: "w", Resolves: true}}},
		"a time shortened": {
			"retention.updated",
			change(FirmRetention{FirmID: password}, FirmRetention{FirmID: password, Chosen: true, RetentionDays: RetentionDays{Days: 30, From: since}}),
			[]AlertChange{{
				Kind: AlertRetention, Severity: SeverityWarning, Subject: "the firm's own time",
				Detail: "the firm's own time: 30 days from 2026-03-02T09:00:00Z on, for ever until then",
			}},
		},
		"a time made longer": {
			"retention.updated",
			change(FirmRetention{FirmID: password, Chosen: true, RetentionDays: RetentionDays{Days: 30}}, FirmRetention{FirmID: password, Chosen: true, RetentionDays: RetentionDays{Days: 60}}),
			[]AlertChange{{Kind: AlertRetention, Severity: SeverityWarning, Subject: "the firm's own time", Detail: "the firm's own time: 60 days", Resolves: true}},
		},
		"a firm gives up its own time": {
			"retention.updated",
			change(FirmRetention{FirmID: password, Chosen: true, RetentionDays: RetentionDays{Days: 90}}, FirmRetention{FirmID: password, RetentionDays: RetentionDays{From: since, Before: 90}}),
			[]AlertChange{{
				Kind: AlertRetention, Severity: SeverityWarning, Subject: "the firm's own time",
				Detail: "the firm's own time: the BPO's default from 2026-03-02T09:00:00Z on, 90 days until then",
			}},
		},
		"the BPO's rules in a firm's log": {
			"retention.updated",
			change(NewRetentionRules(), RetentionRules{
				Minimum: RetentionDays{Days: MinRetentionDays}, Default: RetentionDays{Days: 90, From: since}, Own: RetentionDays{Days: 90, From: since},
			}),
			[]AlertChange{{
				Kind: AlertRetention, Severity: SeverityWarning, Subject: "the default",
				Detail: "the default: 90 days from 2026-03-02T09:00:00Z on, for ever until then",
			}},
		},
		"a hold released": {
			"hold.released", change(Hold{ID: password}, Hold{ID: password, Reason: "case 7", ReleasedAt: since}),
			[]AlertChange{{Kind: AlertHoldReleased, Severity: SeverityWarning, Subject: string(password), Detail: "kept until 2026-03-09T09:00:00Z: case 7"}},
		},
		"a type of none": {EventMessageOpen, MessageOpen{Folder: hostile}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(test.data)
			if err != nil {
				t.Fatal(err)
			}
			for _, data := range []any{test.data, json.RawMessage(raw), (*json.RawMessage)(&raw)} {
				e := &Event{Type: test.typ, FirmID: NewID(), MailboxID: mailbox, AgentID: agent, WorkstationID: workstation, Data: data}
				got, err := AlertChanges(e)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("from %T (-want +got):\n%s", data, diff)
				}
				for _, c := range got {
					if strings.Contains(c.Subject, "hostile") {
						t.Errorf("the subject %q is a stranger's word", c.Subject)
					}
					if spec := AlertKindSpec(c.Kind); spec.Meaning == "" || spec.Action == "" {
						t.Errorf("nothing says what to do about %s", c.Kind)
					}
				}
			}
		})
	}
	if _, err := AlertChanges(&Event{Type: EventDrift, Data: QuotaReached{}}); err == nil {
		t.Error("another type's data was taken for a drift")
	}
	rules := RetentionRules{Own: RetentionDays{Days: 60, From: since, Before: 90}, Default: RetentionDays{Days: 60, From: since, Before: 90}}
	got, err := AlertChanges(&Event{Type: "retention.updated", Data: change(NewRetentionRules(), rules)})
	if err != nil || len(got) != 1 || got[0].Subject != "the BPO's own log" || got[0].Resolves {
		t.Errorf("the BPO's rules in its own log: %+v, %v", got, err)
	}
	if got, err := AlertChanges(&Event{Type: "lock.created", AgentID: agent, Data: StateChange{After: after}}); err != nil || len(got) > 0 {
		t.Errorf("a lock in the BPO's log: %+v, %v", got, err)
	}
}

// TestAlertKinds: each is documented, once, and severities have an order.
func TestAlertKinds(t *testing.T) {
	seen := map[AlertKind]bool{}
	for _, spec := range AlertKinds() {
		if seen[spec.Kind] || spec.Meaning == "" || spec.Action == "" || spec.Severity.Above(SeverityCritical) {
			t.Errorf("%+v", spec)
		}
		seen[spec.Kind] = true
	}
	if !SeverityCritical.Above(SeverityWarning) || !SeverityWarning.Above(SeverityInfo) || SeverityInfo.Above(SeverityInfo) || !Severity("dire").Above(SeverityCritical) {
		t.Error("the order of severities")
	}
}
