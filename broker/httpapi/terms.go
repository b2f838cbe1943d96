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
	Actions     []Action   `json:"actions,omitempty" nullable:"false" doc:"What may be done; without it, all."`
	NotBefore   *time.Time `json:"not_before,omitempty" doc:"When the terms begin to hold; without it, at once."`
	NotAfter    *time.Time `json:"not_after,omitempty" doc:"When they end; without it, when revoked."`
	Sites       []string   `json:"sites,omitempty" nullable:"false" doc:"Sites that may be used, by id or name; without it, any."`
	HardwareKey bool       `json:"hardware_key,omitempty" doc:"Demands a workstation of class hardware."`
}

// TermsPatch changes terms; what is left out stays as it is.
type TermsPatch struct {
	Actions     *[]Action `json:"actions,omitempty" minItems:"1" nullable:"false" doc:"What may be done, in place of all before."`
	NotBefore   Instant   `json:"not_before,omitzero" required:"false" doc:"When the terms begin to hold; null: at once (in an assignment: with the delegation)."`
	NotAfter    Instant   `json:"not_after,omitzero" required:"false" doc:"When they end; null: when revoked (in an assignment: with the delegation)."`
	Sites       *[]string `json:"sites,omitempty" nullable:"false" doc:"Sites that may be used, by id or name, in place of all before; empty: any (in an assignment: the delegation's)."`
	HardwareKey *bool     `json:"hardware_key,omitempty" doc:"Demands a workstation of class hardware, or no longer."`
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

// terms reads terms. What in leaves out is as in base; a hardware key that
// base demands stays demanded.
func (a *api) terms(ctx context.Context, in *TermsInput, base policy.Terms) (t policy.Terms, err error) {
	t = base
	t.HardwareKey = base.HardwareKey || in.HardwareKey
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
	return t, nil
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
