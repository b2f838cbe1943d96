// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/policy"
)

// termsFlags say what may be done.
type termsFlags struct {
	actions, sites      []string
	notBefore, notAfter string
	hardwareKey         bool
}

func (f *termsFlags) register(cmd *cobra.Command, actionsDefault string) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.actions, "actions", nil, "what may be done, separated by commas: "+policy.All.String()+" ("+actionsDefault+")")
	flags.StringVar(&f.notBefore, "not-before", "", "when it begins to hold: a `date`, or a time in RFC 3339")
	flags.StringVar(&f.notAfter, "not-after", "", "when it ends: a `date`, whose whole day it holds, or a time in RFC 3339")
	flags.StringSliceVar(&f.sites, "site", nil, "a `site` that it may be used from; may be repeated (without it: any)")
	flags.BoolVar(&f.hardwareKey, "hardware-key", false, "demand a workstation of class hardware")
}

func (f *termsFlags) terms() (in httpapi.TermsInput, err error) {
	in = httpapi.TermsInput{Sites: f.sites, HardwareKey: f.hardwareKey}
	if _, err := policy.ParseActions(f.actions); err != nil {
		return in, usagef("--actions: %v", err)
	}
	for _, name := range f.actions {
		in.Actions = append(in.Actions, httpapi.Action(name))
	}
	if in.NotBefore, err = parseTime("not-before", f.notBefore, false); err != nil {
		return in, err
	}
	in.NotAfter, err = parseTime("not-after", f.notAfter, true)
	return in, err
}

// registerPatch registers the flags for terms that there are already.
func (f *termsFlags) registerPatch(cmd *cobra.Command, open string) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.actions, "actions", nil, "what may be done, in place of all before: "+policy.All.String()+", or all")
	flags.StringVar(&f.notBefore, "not-before", "", "when it begins to hold: a `date`, or a time in RFC 3339 (empty: "+open+")")
	flags.StringVar(&f.notAfter, "not-after", "", "when it ends: a `date`, whose whole day it holds, or a time in RFC 3339 (empty: "+open+")")
	flags.StringSliceVar(&f.sites, "site", nil, "a `site` that it may be used from, in place of all before; may be repeated (empty: "+open+")")
	flags.BoolVar(&f.hardwareKey, "hardware-key", false, "demand a workstation of class hardware (=false: no longer)")
}

// patch is what the flags that were given change.
func (f *termsFlags) patch(cmd *cobra.Command) (in httpapi.GrantPatch, err error) {
	terms, changed := &in.Terms, cmd.Flags().Changed
	given := false
	for _, flag := range []string{"actions", "not-before", "not-after", "site", "hardware-key"} {
		given = given || changed(flag)
	}
	if !given {
		return in, usagef("nothing to change: give --actions, --not-before, --not-after, --site or --hardware-key")
	}
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
	terms.NotBefore = httpapi.Instant{Given: changed("not-before"), Time: named.NotBefore}
	terms.NotAfter = httpapi.Instant{Given: changed("not-after"), Time: named.NotAfter}
	if changed("site") {
		terms.Sites = &f.sites
	}
	if changed("hardware-key") {
		terms.HardwareKey = &f.hardwareKey
	}
	return in, nil
}

// termsFields are terms for writeFields, with the names of their sites.
func termsFields(t *policy.Terms, sites []string) []string {
	return []string{
		"Actions", list(t.Actions.Names()), "Not before", stamp(t.NotBefore), "Not after", stamp(t.NotAfter),
		"Sites", list(sites), "Hardware key", yes(t.HardwareKey),
	}
}
