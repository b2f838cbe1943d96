// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"strconv"
	"strings"
)

// folder is one that is or was selected, by its name for the record.
type folder struct {
	name        string
	uidValidity uint32
}

// newUIDValidity: what follows it in the answer to a SELECT belongs to the
// folder that is being selected.
func (u *upstreamSide) newUIDValidity(args []byte) {
	next := u.selected
	if name, ok := u.r.selectingFolder(); ok {
		if !u.switched {
			u.before, u.switched = u.selected, true
		}
		next.name = name
	}
	n, _ := strconv.ParseUint(string(args), 10, 32) // 0: it told none
	next.uidValidity = uint32(n)
	u.enter(next)
}

// enter takes what comes from now on for the folder's.
func (u *upstreamSide) enter(f folder) {
	if f != u.selected {
		u.record.flush(u)
		u.selected = f
	}
}

// settleSelected is called for the answer to a SELECT. When it failed, no
// folder is selected (RFC 9051 §6.3.2); what comes all the same belongs to the
// one before.
func (u *upstreamSide) settleSelected(name string, good bool) {
	switch {
	case good && !u.switched:
		u.enter(folder{name: name})
	case !good && u.switched:
		u.enter(u.before)
	}
	u.switched = false
}

// renamed follows the selected folder to its new name.
func (u *upstreamSide) renamed(from, to string) {
	rest, ok := strings.CutPrefix(u.selected.name, from)
	if !ok || strings.EqualFold(from, "INBOX") { // whose messages move, not its name
		return
	}
	if rest == "" || rest[0] == '/' || rest[0] == '.' || rest[0] == '\\' {
		u.enter(folder{name: to + rest, uidValidity: u.selected.uidValidity})
	}
}
