// SPDX-License-Identifier: Apache-2.0

package policy

import "time"

// Terms say what may be done in a mailbox. A delegation has terms, and an
// assignment has terms that are equal or narrower.
//
// Folder patterns, slices, quotas, sending rules and hours have their place
// here: each new field needs a rule in Narrow and in Decide.
type Terms struct {
	// Actions that are granted.
	Actions Actions `json:"actions"`
	// NotBefore is when the terms begin to hold; zero: at once.
	NotBefore time.Time `json:"not_before,omitzero"`
	// NotAfter is when they end; zero: until revoked.
	NotAfter time.Time `json:"not_after,omitzero"`
	// Sites are the ids of the sites that may be used; empty: any.
	Sites []string `json:"sites,omitempty"`
	// HardwareKey demands a workstation of class hardware.
	HardwareKey bool `json:"hardware_key,omitempty"`
}
