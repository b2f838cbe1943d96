// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// TermsInput says what may be done. In an assignment, what is left out is as
// the delegation has it now.
type TermsInput struct {
	Actions       []Action       `json:"actions,omitempty" nullable:"false" doc:"What may be done; without it, all."`
	NotBefore     *time.Time     `json:"not_before,omitempty" doc:"When the terms begin to hold; without it, at once."`
	NotAfter      *time.Time     `json:"not_after,omitempty" doc:"When they end; without it, when revoked."`
	Sites         []string       `json:"sites,omitempty" nullable:"false" doc:"Sites that may be used, by id or name; without it, any."`
	HardwareKey   bool           `json:"hardware_key,omitempty" doc:"Demands a workstation of class hardware."`
	NeedsPassword bool           `json:"needs_password,omitempty" doc:"Demands a password beside the workstation: its certificate alone is not enough."`
	Hours         *HoursInput    `json:"hours,omitempty" doc:"The week's shifts; without it, any time."`
	Folders       *PatternsInput `json:"folders,omitempty" doc:"Which folders are visible, by name; in a pattern / separates levels, * stands for anything and % for anything within a level. Without it, all."`
	Slice         string         `json:"slice,omitempty" doc:"Which messages are visible: an IMAP search program, in which @-30d is the date thirty days ago. Without it, all."`
	Recovery      RecoveryMail   `json:"recovery_mail,omitempty" doc:"Whether mail for account recovery and one-time codes is visible; without it, what is known to come from the mailbox's provider is hidden."`
	Quotas        *QuotasInput   `json:"quotas,omitempty" doc:"Limits on what is opened; without it, none."`
	Sending       *SendingInput  `json:"sending,omitempty" doc:"Rules for what is sent; without it, none."`
	MaxAgents     int            `json:"max_agents,omitempty" minimum:"0" doc:"How many agents may be assigned at a time: a delegation's alone; 0 or without it, any number."`
}

// RecoveryMail is policy's, whose empty value is called default.
type RecoveryMail string

// Schema lists the values (huma.SchemaProvider).
func (RecoveryMail) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: []any{"hidden", "shown", "default"}}
}

func (r RecoveryMail) policy() policy.RecoveryMail {
	if r == "default" {
		return policy.RecoveryDefault
	}
	return policy.RecoveryMail(r)
}

// Hours are policy's, in a form that huma describes.
type HoursInput struct {
	Zone   string       `json:"zone,omitempty" doc:"A time zone's name, such as Asia/Kolkata."`
	Shifts []ShiftInput `json:"shifts,omitempty" nullable:"false"`
}

// Shift is a time of day on some days of the week.
type ShiftInput struct {
	Days []string `json:"days" nullable:"false" doc:"mon, tue, wed, thu, fri, sat, sun: when it begins."`
	From string   `json:"from" doc:"A time of day, hh:mm."`
	To   string   `json:"to" doc:"A time of day, hh:mm, to 24:00; one that is not later than from is the next day's."`
}

// Patterns allow and deny.
type PatternsInput struct {
	Allow []string `json:"allow,omitempty" nullable:"false" doc:"Without any, all."`
	Deny  []string `json:"deny,omitempty" nullable:"false" doc:"Whatever allow says; a denied folder takes those below it along."`
}

// Quotas limit what is opened; 0 is no limit.
type QuotasInput struct {
	Messages RateInput `json:"messages,omitzero" required:"false" doc:"Messages whose bodies are opened."`
	Octets   RateInput `json:"octets,omitzero" required:"false" doc:"Octets of those bodies."`
	Headers  RateInput `json:"headers,omitzero" required:"false" doc:"Messages of which header fields alone are read."`
}

// Rate is a limit for an hour and one for a day.
type RateInput struct {
	Hour int64 `json:"hour,omitempty"`
	Day  int64 `json:"day,omitempty"`
}

// Sending are the rules for what is sent; 0 is no limit.
type SendingInput struct {
	Recipients        PatternsInput      `json:"recipients,omitzero" required:"false" doc:"Addresses, in which * stands for anything on its side of the @."`
	ReplyOnly         bool               `json:"reply_only,omitempty" doc:"Each recipient must stand in a message of the mailbox."`
	MaxRecipients     int                `json:"max_recipients,omitempty" doc:"For one message."`
	MessagesPerHour   int                `json:"messages_per_hour,omitempty"`
	RecipientsPerHour int                `json:"recipients_per_hour,omitempty"`
	MaxOctets         int64              `json:"max_octets,omitempty" doc:"A message's size."`
	NoAttachments     bool               `json:"no_attachments,omitempty"`
	Content           []ContentRuleInput `json:"content,omitempty" nullable:"false"`
}

// ContentRule flags or blocks messages by what is in them.
type ContentRuleInput struct {
	Name    string `json:"name"`
	Pattern string `json:"pattern" doc:"A regular expression of RE2."`
	Block   bool   `json:"block,omitempty" doc:"Refuses the message; otherwise an event tells of it."`
}

// TermsPatch changes terms; what is left out stays as it is.
type TermsPatch struct {
	Actions       *[]Action      `json:"actions,omitempty" minItems:"1" nullable:"false" doc:"What may be done, in place of all before."`
	NotBefore     Instant        `json:"not_before,omitzero" required:"false" doc:"When the terms begin to hold; null: at once (in an assignment: with the delegation)."`
	NotAfter      Instant        `json:"not_after,omitzero" required:"false" doc:"When they end; null: when revoked (in an assignment: with the delegation)."`
	Sites         *[]string      `json:"sites,omitempty" nullable:"false" doc:"Sites that may be used, by id or name, in place of all before; empty: any (in an assignment: the delegation's)."`
	HardwareKey   *bool          `json:"hardware_key,omitempty" doc:"Demands a workstation of class hardware, or no longer."`
	NeedsPassword *bool          `json:"needs_password,omitempty" doc:"Demands a password beside the workstation, or no longer."`
	Hours         *HoursInput    `json:"hours,omitempty" doc:"The week's shifts, in place of all before; {}: any time (in an assignment: the delegation's)."`
	Folders       *PatternsInput `json:"folders,omitempty" doc:"Patterns in place of all before; {}: all folders (in an assignment: the delegation's)."`
	Slice         *string        `json:"slice,omitempty" doc:"In place of the one before; empty: all messages (in an assignment: the delegation's)."`
	Recovery      *RecoveryMail  `json:"recovery_mail,omitempty" doc:"Whether mail for account recovery and one-time codes is visible; default: what is known to come from the mailbox's provider is hidden (in an assignment: as the delegation has it)."`
	Quotas        *QuotasInput   `json:"quotas,omitempty" doc:"In place of all before; {}: none (in an assignment: the delegation's)."`
	Sending       *SendingInput  `json:"sending,omitempty" doc:"Rules in place of all before; {}: none (in an assignment: the delegation's)."`
	MaxAgents     *int           `json:"max_agents,omitempty" minimum:"0" doc:"How many agents may be assigned at a time; 0: any number."`
}

func (h *HoursInput) policy() policy.Hours {
	t := policy.Hours{Zone: h.Zone}
	for _, s := range h.Shifts {
		t.Shifts = append(t.Shifts, policy.Shift(s))
	}
	return t
}

func (p *PatternsInput) folders() policy.FolderPatterns { return policy.FolderPatterns(*p) }

func (q *QuotasInput) policy() policy.Quotas {
	return policy.Quotas{Messages: policy.Rate(q.Messages), Octets: policy.Rate(q.Octets), Headers: policy.Rate(q.Headers)}
}

func (s *SendingInput) policy() policy.Sending {
	t := policy.Sending{
		Recipients: policy.RecipientPatterns(s.Recipients), ReplyOnly: s.ReplyOnly, MaxRecipients: s.MaxRecipients,
		MessagesPerHour: s.MessagesPerHour, RecipientsPerHour: s.RecipientsPerHour, MaxOctets: s.MaxOctets,
		NoAttachments: s.NoAttachments,
	}
	for _, c := range s.Content {
		t.Content = append(t.Content, policy.ContentRule(c))
	}
	return t
}

// GrantPatch changes a delegation or an assignment.
type GrantPatch struct {
	Terms TermsPatch `json:"terms"`
}

// Instant is a time in a patch. One that is left out changes nothing, whereas
// null takes the time away (RFC 7396 §1).
type Instant struct {
	// Given says that it was not left out.
	Given bool
	// Time is nil for null.
	Time *time.Time
}

// IsZero says that it is left out (encoding/json, omitzero).
func (i Instant) IsZero() bool { return !i.Given }

// MarshalJSON writes the time or null.
func (i Instant) MarshalJSON() ([]byte, error) { return json.Marshal(i.Time) }

// UnmarshalJSON reads a time or null. It is not called for what is left out.
func (i *Instant) UnmarshalJSON(b []byte) error {
	i.Given = true
	return json.Unmarshal(b, &i.Time)
}

// Schema is a time's or null (huma.SchemaProvider).
func (Instant) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time", Nullable: true}
}

// terms reads terms. What in leaves out is as in base; a hardware key or a
// password that base demands stays demanded.
func (a *api) terms(ctx context.Context, in *TermsInput, base policy.Terms) (t policy.Terms, err error) {
	t = base
	t.HardwareKey = base.HardwareKey || in.HardwareKey
	t.NeedsPassword = base.NeedsPassword || in.NeedsPassword
	if len(in.Actions) > 0 {
		if t.Actions, err = actions("terms.actions", in.Actions); err != nil {
			return t, err
		}
	}
	if in.NotBefore != nil {
		t.NotBefore = in.NotBefore.UTC()
	}
	if in.NotAfter != nil {
		if t.NotAfter, err = a.end("terms.not_after", *in.NotAfter); err != nil {
			return t, err
		}
	}
	if in.Hours != nil {
		t.Hours = in.Hours.policy()
	}
	if in.Folders != nil {
		t.Folders = in.Folders.folders()
	}
	if in.Slice != "" {
		t.Slice = policy.Slice(in.Slice)
	}
	if in.Recovery != "" {
		t.RecoveryMail = in.Recovery.policy()
	}
	if in.Quotas != nil {
		t.Quotas = in.Quotas.policy()
	}
	if in.Sending != nil {
		t.Sending = in.Sending.policy()
	}
	t.MaxAgents = in.MaxAgents
	if len(in.Sites) > 0 {
		t.Sites, err = a.siteIDs(ctx, "terms.sites", in.Sites)
	}
	return t, err
}

// patchTerms applies in to the terms that there are. What it takes away
// becomes as in open.
func (a *api) patchTerms(ctx context.Context, in *TermsPatch, t, open policy.Terms) (policy.Terms, error) {
	var err error
	if in.Actions != nil {
		if t.Actions, err = actions("terms.actions", *in.Actions); err != nil {
			return t, err
		}
	}
	switch {
	case in.NotBefore.Given && in.NotBefore.Time == nil:
		t.NotBefore = open.NotBefore
	case in.NotBefore.Given:
		t.NotBefore = in.NotBefore.Time.UTC()
	}
	switch {
	case in.NotAfter.Given && in.NotAfter.Time == nil:
		t.NotAfter = open.NotAfter
	case in.NotAfter.Given:
		if t.NotAfter, err = a.end("terms.not_after", *in.NotAfter.Time); err != nil {
			return t, err
		}
	}
	switch {
	case in.Sites != nil && len(*in.Sites) == 0:
		t.Sites = open.Sites
	case in.Sites != nil:
		if t.Sites, err = a.siteIDs(ctx, "terms.sites", *in.Sites); err != nil {
			return t, err
		}
	}
	if in.HardwareKey != nil {
		t.HardwareKey = *in.HardwareKey || open.HardwareKey
	}
	if in.NeedsPassword != nil {
		t.NeedsPassword = *in.NeedsPassword || open.NeedsPassword
	}
	patch(&t.Hours, in.Hours, (*HoursInput).policy, policy.Hours.IsZero, open.Hours)
	patch(&t.Folders, in.Folders, (*PatternsInput).folders, policy.FolderPatterns.IsZero, open.Folders)
	patch(&t.Slice, in.Slice, func(s *string) policy.Slice { return policy.Slice(*s) }, func(s policy.Slice) bool { return s == "" }, open.Slice)
	patch(&t.RecoveryMail, in.Recovery, func(r *RecoveryMail) policy.RecoveryMail { return r.policy() },
		func(r policy.RecoveryMail) bool { return r == policy.RecoveryDefault }, open.RecoveryMail)
	patch(&t.Quotas, in.Quotas, (*QuotasInput).policy, policy.Quotas.IsZero, open.Quotas)
	patch(&t.Sending, in.Sending, (*SendingInput).policy, policy.Sending.IsZero, open.Sending)
	if in.MaxAgents != nil {
		t.MaxAgents = *in.MaxAgents
	}
	return t, nil
}

// patch puts what in says in the place of a field; nothing there: what is open.
func patch[In, T any](field *T, in *In, read func(*In) T, none func(T) bool, open T) {
	if in == nil {
		return
	}
	if *field = read(in); none(*field) {
		*field = open
	}
}

func actions(field string, names []Action) (policy.Actions, error) {
	texts := make([]string, len(names))
	for i, name := range names {
		texts[i] = string(name)
	}
	set, err := policy.ParseActions(texts)
	if err != nil {
		return 0, broker.InvalidField(field, "%s", err.Error())
	}
	return set, nil
}

// end reads an end that somebody sets now: one that has passed is a slip, or a
// revoke in a form that can be undone.
func (a *api) end(field string, t time.Time) (time.Time, error) {
	if !t.After(a.Now()) {
		return t, broker.InvalidField(field, "has passed already")
	}
	return t.UTC(), nil
}

func (a *api) siteIDs(ctx context.Context, field string, refs []string) ([]string, error) {
	ids := make([]string, len(refs))
	for i, ref := range refs {
		s, err := a.findSite(ctx, fmt.Sprintf("%s[%d]", field, i), ref)
		if err != nil {
			return nil, err
		}
		ids[i] = string(s.ID)
	}
	return ids, nil
}
