// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Terms say what may be done in a mailbox. A delegation has terms, and an
// assignment has terms that are equal or narrower. In every field but Actions
// and RecoveryMail the zero value restricts nothing.
//
// Each field has a rule in Validate, in Within, in Narrow and in Decide.
type Terms struct {
	// Actions that are granted.
	Actions Actions `json:"actions"`
	// NotBefore is when the terms begin to hold; zero: at once.
	NotBefore time.Time `json:"not_before,omitzero"`
	// NotAfter is when they end; zero: until revoked.
	NotAfter time.Time `json:"not_after,omitzero"`
	// Hours of the week in which they hold.
	Hours Hours `json:"hours,omitzero"`
	// Sites are the ids of the sites that may be used; empty: any.
	Sites []string `json:"sites,omitempty"`
	// HardwareKey demands a workstation of class hardware.
	HardwareKey bool `json:"hardware_key,omitempty"`
	// NeedsPassword demands an app password, or the directory's, beside the
	// workstation: its certificate alone is not enough.
	NeedsPassword bool `json:"needs_password,omitempty"`
	// Folders that are visible.
	Folders FolderPatterns `json:"folders,omitzero"`
	// Slice chooses the messages that are visible.
	Slice Slice `json:"slice,omitempty"`
	// RecoveryMail says whether mail for account recovery and one-time codes is.
	RecoveryMail RecoveryMail `json:"recovery_mail,omitempty"`
	// Quotas on what is opened.
	Quotas Quotas `json:"quotas,omitzero"`
	// Sending has the rules for what is sent; they wait while Send is not
	// among the actions.
	Sending Sending `json:"sending,omitzero"`
	// MaxAgents is how many agents may be assigned at a time; it is a
	// delegation's alone, and no decision depends on it.
	MaxAgents int `json:"max_agents,omitempty"`
}

// ParseTerms reads terms strictly: a field that does not exist, or anything
// after them, is an error that names it. It does not validate them.
func ParseTerms(b []byte) (t Terms, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return Terms{}, fmt.Errorf("terms: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Terms{}, errors.New("terms: there is more after them")
	}
	return t, nil
}

// Validate looks for terms that contradict themselves or can never hold. It
// returns the first field that is wrong, in its JSON spelling, and why; both
// are empty when the terms are sound.
func (t Terms) Validate() (field, reason string) {
	switch {
	case t.Actions == 0:
		return "actions", "at least one action must be granted"
	case t.Actions&^All != 0:
		return "actions", "there are actions that do not exist"
	case !t.NotAfter.IsZero() && !t.NotAfter.After(t.NotBefore):
		return "not_after", "must be later than not_before"
	case t.MaxAgents < 0:
		return "max_agents", "is negative"
	}
	for i, site := range t.Sites {
		if site == "" {
			return "sites", "a site's id is empty"
		}
		if slices.Contains(t.Sites[:i], site) {
			return "sites", "a site is named twice"
		}
	}
	if t.Slice != "" {
		if _, err := t.Slice.Parse(); err != nil {
			return "slice", err.Error()
		}
	}
	if reason := t.RecoveryMail.validate(); reason != "" {
		return "recovery_mail", reason
	}
	for _, part := range []struct {
		name     string
		validate func() (string, string)
	}{
		{"hours", t.Hours.validate},
		{"folders", t.Folders.validate},
		{"quotas", t.Quotas.validate},
		{"sending", t.Sending.validate},
	} {
		if field, reason := part.validate(); reason != "" {
			return part.name + "." + field, reason
		}
	}
	return "", ""
}

// Clone returns terms that share nothing with t.
func (t Terms) Clone() Terms {
	t.Sites = slices.Clone(t.Sites)
	t.Hours = t.Hours.clone()
	t.Folders = t.Folders.clone()
	t.Sending = t.Sending.clone()
	return t
}
