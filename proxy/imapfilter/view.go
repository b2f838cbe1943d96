// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/policy"
)

// view is what a session is shown whose decision hides folders or messages, or
// counts what is opened. What is not
// visible does not exist: names are looked up among those that the upstream
// lists, and answers about folders are made of the visible ones alone, so that
// they cannot depend on a hidden one. A name that is hidden and one that nobody
// bears get the same answer, which costs the upstream the same.
//
// The list of folders belongs to the client's goroutine. Sessions that are
// shown everything have no view.
type view struct {
	decision *policy.Decision
	list     folderList
	// listed says that the list was read, stale that it is to be read again
	// before the next command that allows it.
	listed, stale bool
	// lists are the upstream's commands that tell its folders.
	lists [2]string
	// answer gathers what the own command under way is answered, until it is.
	answer atomic.Pointer[ownAnswer]
	// programs are the slices; empty: every message is visible. flags are those
	// that they look at, relative says that they change from day to day, and day
	// is the one that they were last asked for.
	programs []*policy.Program
	flags    []string
	relative bool
	day      time.Time
	// touched says that flags have changed since the slices were asked for.
	touched atomic.Bool
	// opened and headed are the messages of the selected folder that were
	// counted: their bodies, or their headers.
	opened, headed map[uint32]struct{}
	mail           mailMap
	// examined says that the selected folder is, uidPlus that the upstream can
	// expunge by UID.
	examined, uidPlus bool
	folder            string
	// shown are the names of visible folders, as the upstream writes them.
	shown atomic.Pointer[map[string]*listed]
}

// sliced reports whether messages are hidden, or counted, so that all commands
// about them are the view's.
func (v *view) sliced() bool { return v != nil && (len(v.programs) > 0 || v.counted()) }

// counted reports whether there are quotas on what is opened.
func (v *view) counted() bool { return v != nil && !v.decision.Quotas.IsZero() }

// newView returns the view that a decision calls for; nil: it hides nothing. It
// fails where a slice cannot be read.
func newView(d *policy.Decision, capabilities []string) (*view, error) {
	if !d.Restricted() && d.Quotas.IsZero() {
		return nil, nil
	}
	v := &view{decision: d, uidPlus: onListOf(capabilities, "UIDPLUS"), lists: [2]string{`LIST "" "*"`, `LSUB "" "*"`}}
	switch {
	case onListOf(capabilities, "SPECIAL-USE"):
		v.lists[0] += " RETURN (SPECIAL-USE)"
	case onListOf(capabilities, "XLIST"):
		v.lists[0] = `XLIST "" "*"`
	}
	for _, slice := range d.Slices {
		p, err := slice.Parse()
		if err != nil {
			return nil, err
		}
		v.programs = append(v.programs, p)
		v.flags = append(v.flags, p.Flags()...)
		v.relative = v.relative || p.Relative()
	}
	return v, nil
}

// viewExtensions are what a view models of the command table's extensions. The
// others are withheld: they would tell of hidden folders and messages, or need
// Postern to model more than is worth while.
var viewExtensions = []string{
	"IMAP4REV1", "IDLE", "CONDSTORE", "ENABLE", "MOVE", "UIDPLUS", "UNSELECT", "NAMESPACE", "CHILDREN", "ID",
	"LIST-EXTENDED", "SPECIAL-USE", "ESEARCH", "ESORT", "SORT", "SORT=DISPLAY", "THREAD=*", "WITHIN",
	"I18NLEVEL=*", "MULTIAPPEND", "BINARY", "LITERAL+", "LITERAL-", "SASL-IR", "PREVIEW", "PREVIEW=*",
	"SNIPPET", "SNIPPET=*", "SAVEDATE", "STATUS=SIZE", "APPENDLIMIT", "APPENDLIMIT=*",
}

// sliceExtensions are those that are modelled where messages are hidden too: the
// modification sequences are the whole folder's, and threads are made of
// messages that may be hidden.
var sliceExtensions = []string{
	"IMAP4REV1", "IDLE", "ENABLE", "MOVE", "UIDPLUS", "UNSELECT", "NAMESPACE", "CHILDREN", "ID",
	"LIST-EXTENDED", "SPECIAL-USE", "ESEARCH", "ESORT", "SORT", "SORT=DISPLAY", "WITHIN",
	"I18NLEVEL=*", "MULTIAPPEND", "BINARY", "LITERAL+", "LITERAL-", "SASL-IR", "PREVIEW", "PREVIEW=*",
	"SNIPPET", "SNIPPET=*", "SAVEDATE", "STATUS=SIZE", "APPENDLIMIT", "APPENDLIMIT=*",
}

// viewCommands are commands that a view withholds.
var viewCommands = map[string]bool{
	"XLIST": true, "NOTIFY": true, "CANCELUPDATE": true, "REPLACE": true, "UID REPLACE": true, "GETQUOTA": true, "GETQUOTAROOT": true,
}

// viewCodes are response codes that a view withholds, beyond those that never
// pass.
var viewCodes = []string{"MAILBOXID", "BADURL", "HASCHILDREN", "NOTIFICATIONOVERFLOW", "BADEVENT", "NOUPDATE", "NOTSAVED"}

// sliceCodes are those that tell of hidden messages.
var sliceCodes = []string{"UNSEEN", "HIGHESTMODSEQ", "NOMODSEQ", "MODIFIED", "EXPUNGEISSUED"}

// extensions returns what the session is offered of what its upstream has.
func (v *view) extensions() []string {
	switch {
	case v == nil:
		return offeredExtensions
	case v.sliced():
		return sliceExtensions
	}
	return viewExtensions
}

// passesCode reports whether a response code may reach the client.
func (v *view) passesCode(name []byte) bool {
	return onList(passedCodes, name) && (v == nil || !onList(viewCodes, name) && !(v.sliced() && onList(sliceCodes, name)))
}

// enableable returns what ENABLE may name.
func (v *view) enableable() []string {
	switch {
	case v == nil:
		return enableable
	case v.sliced():
		return nil
	}
	return []string{"CONDSTORE"}
}

// ownAnswer is what the upstream answers a command of Postern's own.
type ownAnswer struct {
	// lines are its data, each with its literals.
	lines [][]byte
	// numbers are what a search found; broken says that they were none.
	numbers []uint32
	// sizes, where it is not nil, takes the sizes that a FETCH tells.
	sizes  map[uint32]int64
	broken bool
	good   bool
	// status, code, args and text are those of the tagged answer.
	status, code, args, text string
}

func onListOf(capabilities []string, name string) bool {
	for _, c := range capabilities {
		if onList([]string{name}, []byte(c)) {
			return true
		}
	}
	return false
}
