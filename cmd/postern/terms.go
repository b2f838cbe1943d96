// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/policy"
)

// termsFlags say what may be done.
type termsFlags struct {
	actions, sites      []string
	notBefore, notAfter string
	hardwareKey         bool
	needsPassword       bool
	folders, hidden     []string
	slice, file         string
	recoveryMail        string
	maxAgents           int
}

// registerRest registers the flags that create and update have alike.
func (f *termsFlags) registerRest(cmd *cobra.Command, unset string) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.folders, "folder", nil, "a `pattern` of folders that are visible; may be repeated ("+unset+")")
	flags.StringArrayVar(&f.hidden, "hide-folder", nil, "a `pattern` of folders that are not, with those below them; may be repeated")
	flags.StringVar(&f.slice, "slice", "", "an IMAP `search` that chooses the visible messages, such as 'SINCE @-30d' ("+unset+")")
	flags.StringVar(&f.recoveryMail, "recovery-mail", "",
		"mail for account recovery and one-time codes: `hidden`, also by its subject and from anybody; shown; or default, where what is known to come from the provider is hidden")
	flags.StringVar(&f.file, "terms", "", "a `file` with terms in JSON, as the API has them: for hours, quotas and sending rules; flags go before it")
	flags.IntVar(&f.maxAgents, "max-agents", 0, "how many agents may be assigned at a time; 0: any number (a delegation's alone)")
}

// readFile reads the file of --terms, strictly.
func (f *termsFlags) readFile(into any) error {
	if f.file == "" {
		return nil
	}
	b, err := os.ReadFile(f.file)
	if err != nil {
		return usagef("--terms: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return usagef("--terms: %s: %v", f.file, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return usagef("--terms: %s: there is more after the terms", f.file)
	}
	return nil
}

// patterns is what --folder and --hide-folder say; an empty one takes all away.
func (f *termsFlags) patterns() *httpapi.PatternsInput {
	empty := func(p string) bool { return p == "" }
	return &httpapi.PatternsInput{
		Allow: slices.DeleteFunc(slices.Clone(f.folders), empty), Deny: slices.DeleteFunc(slices.Clone(f.hidden), empty),
	}
}

func (f *termsFlags) register(cmd *cobra.Command, actionsDefault string) {
	f.registerRest(cmd, actionsDefault)
	flags := cmd.Flags()
	flags.StringSliceVar(&f.actions, "actions", nil, "what may be done, separated by commas: "+policy.All.String()+" ("+actionsDefault+")")
	flags.StringVar(&f.notBefore, "not-before", "", "when it begins to hold: a `date`, or a time in RFC 3339")
	flags.StringVar(&f.notAfter, "not-after", "", "when it ends: a `date`, whose whole day it holds, or a time in RFC 3339")
	flags.StringSliceVar(&f.sites, "site", nil, "a `site` that it may be used from; may be repeated (without it: any)")
	flags.BoolVar(&f.hardwareKey, "hardware-key", false, "demand a workstation of class hardware")
	flags.BoolVar(&f.needsPassword, "needs-password", false, "demand a password beside the workstation: its certificate alone is not enough")
}

func (f *termsFlags) terms() (in httpapi.TermsInput, err error) {
	if err := f.readFile(&in); err != nil {
		return in, err
	}
	if len(f.sites) > 0 {
		in.Sites = f.sites
	}
	in.HardwareKey = in.HardwareKey || f.hardwareKey
	in.NeedsPassword = in.NeedsPassword || f.needsPassword
	if len(f.folders)+len(f.hidden) > 0 {
		in.Folders = f.patterns()
	}
	if f.slice != "" {
		in.Slice = f.slice
	}
	if f.recoveryMail != "" {
		in.Recovery = httpapi.RecoveryMail(f.recoveryMail)
	}
	if f.maxAgents != 0 {
		in.MaxAgents = f.maxAgents
	}
	if len(f.actions) > 0 {
		in.Actions = nil
	}
	if _, err := policy.ParseActions(f.actions); err != nil {
		return in, usagef("--actions: %v", err)
	}
	for _, name := range f.actions {
		in.Actions = append(in.Actions, httpapi.Action(name))
	}
	begin, err := parseTime("not-before", f.notBefore, false)
	if err != nil {
		return in, err
	}
	if begin != nil {
		in.NotBefore = begin
	}
	end, err := parseTime("not-after", f.notAfter, true)
	if end != nil {
		in.NotAfter = end
	}
	return in, err
}

// registerPatch registers the flags for terms that there are already.
func (f *termsFlags) registerPatch(cmd *cobra.Command, open string) {
	f.registerRest(cmd, "empty: "+open)
	flags := cmd.Flags()
	flags.StringSliceVar(&f.actions, "actions", nil, "what may be done, in place of all before: "+policy.All.String()+", or all")
	flags.StringVar(&f.notBefore, "not-before", "", "when it begins to hold: a `date`, or a time in RFC 3339 (empty: "+open+")")
	flags.StringVar(&f.notAfter, "not-after", "", "when it ends: a `date`, whose whole day it holds, or a time in RFC 3339 (empty: "+open+")")
	flags.StringSliceVar(&f.sites, "site", nil, "a `site` that it may be used from, in place of all before; may be repeated (empty: "+open+")")
	flags.BoolVar(&f.hardwareKey, "hardware-key", false, "demand a workstation of class hardware (=false: no longer)")
	flags.BoolVar(&f.needsPassword, "needs-password", false, "demand a password beside the workstation (=false: no longer)")
}

// patch is what the flags that were given change.
func (f *termsFlags) patch(cmd *cobra.Command) (in httpapi.GrantPatch, err error) {
	terms, changed := &in.Terms, cmd.Flags().Changed
	given := false
	for _, flag := range []string{
		"actions", "not-before", "not-after", "site", "hardware-key", "needs-password", "folder", "hide-folder", "slice", "recovery-mail", "max-agents", "terms", "approve-agents",
	} {
		given = given || changed(flag)
	}
	if !given {
		return in, usagef("nothing to change: give --actions, --not-before, --not-after, --site, --hardware-key, --needs-password, --folder, --hide-folder, --slice, --recovery-mail, --max-agents or --terms")
	}
	if err := f.readFile(terms); err != nil {
		return in, err
	}
	f.file = "" // it was read
	named, err := f.terms()
	if err != nil {
		return in, err
	}
	if changed("actions") {
		if len(named.Actions) == 0 {
			return in, usagef("--actions: name at least one; to take everything away, revoke")
		}
		terms.Actions = &named.Actions
	}
	if changed("not-before") {
		terms.NotBefore = httpapi.Instant{Given: true, Time: named.NotBefore}
	}
	if changed("not-after") {
		terms.NotAfter = httpapi.Instant{Given: true, Time: named.NotAfter}
	}
	if changed("folder") || changed("hide-folder") {
		terms.Folders = f.patterns()
	}
	if changed("slice") {
		terms.Slice = &f.slice
	}
	if changed("recovery-mail") {
		terms.Recovery = &named.Recovery
	}
	if changed("max-agents") {
		terms.MaxAgents = &f.maxAgents
	}
	if changed("site") {
		terms.Sites = &f.sites
	}
	if changed("hardware-key") {
		terms.HardwareKey = &f.hardwareKey
	}
	if changed("needs-password") {
		terms.NeedsPassword = &f.needsPassword
	}
	return in, nil
}

// termsFields are terms for writeFields, with the names of their sites.
func termsFields(t *policy.Terms, sites []string) []string {
	shifts := make([]string, len(t.Hours.Shifts))
	for i, s := range t.Hours.Shifts {
		shifts[i] = strings.Join(s.Days, ",") + " " + s.From + "-" + s.To
	}
	hours := strings.TrimSpace(strings.Join(shifts, "; ") + " " + t.Hours.Zone)
	agents := ""
	if t.MaxAgents > 0 {
		agents = strconv.Itoa(t.MaxAgents)
	}
	return []string{
		"Actions", list(t.Actions.Names()), "Not before", stamp(t.NotBefore), "Not after", stamp(t.NotAfter),
		"Sites", list(sites), "Hardware key", yes(t.HardwareKey),
		"Needs password", yes(t.NeedsPassword), "Hours", hours,
		"Folders", list(t.Folders.Allow), "Hidden folders", list(t.Folders.Deny), "Slice", string(t.Slice), "Recovery mail", string(t.RecoveryMail),
		"Quotas", rules(t.Quotas.IsZero(), t.Quotas), "Sending", rules(t.Sending.IsZero(), t.Sending), "Max agents", agents,
	}
}

// rules shows what has no words of its own as the file of --terms has it.
func rules(none bool, of any) string {
	if none {
		return ""
	}
	b, err := json.Marshal(of)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
