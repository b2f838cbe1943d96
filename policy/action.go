// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Actions is a set of things that a session may do in a mailbox. The zero
// value is the empty set.
type Actions uint16

// The actions, one bit each.
const (
	// List is seeing folders: LIST, STATUS, SELECT and their like.
	List Actions = 1 << iota
	// Headers is reading envelopes, header fields, structure and previews.
	Headers
	// Read is reading bodies, and searching in them, which is an oracle.
	Read
	// Flag is changing flags other than \Deleted.
	Flag
	// File is APPEND, COPY, and MOVE between folders other than Trash.
	File
	// Delete is \Deleted, EXPUNGE, moving to Trash, and REPLACE.
	Delete
	// Folders is creating, renaming, deleting and subscribing folders.
	Folders
	// Send is submission, and APPEND to Sent and Drafts.
	Send
)

// All holds every action.
const All = List | Headers | Read | Flag | File | Delete | Folders | Send

var actionNames = [...]string{"list", "headers", "read", "flag", "file", "delete", "folders", "send"}

// Has reports whether every action of want is in the set.
func (a Actions) Has(want Actions) bool { return a&want == want }

// Names returns the actions' names in their fixed order.
func (a Actions) Names() []string {
	names := make([]string, 0, len(actionNames))
	for i, name := range actionNames {
		if a&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// String returns the names joined by commas.
func (a Actions) String() string { return strings.Join(a.Names(), ",") }

// ParseActions reads a set from action names; "all" stands for every action.
// The error names the first unknown one and lists those that exist.
func ParseActions(names []string) (Actions, error) {
	var set Actions
next:
	for _, name := range names {
		if name == "all" {
			set |= All
			continue
		}
		for i, known := range actionNames {
			if name == known {
				set |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("unknown action %q: use all, %s", name, strings.Join(actionNames[:], ", "))
	}
	return set, nil
}

// MarshalJSON writes the set as an array of names.
func (a Actions) MarshalJSON() ([]byte, error) { return json.Marshal(a.Names()) }

// UnmarshalJSON reads what MarshalJSON writes.
func (a *Actions) UnmarshalJSON(b []byte) error {
	var names []string
	if err := json.Unmarshal(b, &names); err != nil {
		return err
	}
	set, err := ParseActions(names)
	if err != nil {
		return err
	}
	*a = set
	return nil
}
