// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"sync"

	"github.com/postern-mail/postern/broker"
)

// unmatched remembers the patterns that the record has as describing no folder,
// so that sessions which come and go do not fill it with them.
type unmatched struct {
	mu   sync.Mutex
	seen map[[2]string]struct{} // mailbox and pattern
}

// maxUnmatched is how many are remembered; with more, all are forgotten.
const maxUnmatched = 10_000

// first reports whether the pattern was not seen in the mailbox yet.
func (u *unmatched) first(mailbox broker.ID, pattern string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	key := [2]string{string(mailbox), pattern}
	if _, seen := u.seen[key]; seen {
		return false
	}
	if u.seen == nil || len(u.seen) >= maxUnmatched {
		u.seen = make(map[[2]string]struct{})
	}
	u.seen[key] = struct{}{}
	return true
}

// tellUnmatched records the patterns of the terms that describe no folder of the
// upstream's: what was meant to be visible is not, or what was to be hidden is.
func (s *clientSide) tellUnmatched(list *folderList) {
	var patterns []string
	for _, f := range s.r.view.decision.Folders {
		for _, p := range f.Unmatched(list.names) {
			if s.f().unmatched.first(s.r.session.Mailbox().ID, p) {
				patterns = append(patterns, p)
			}
		}
	}
	if len(patterns) > 0 {
		s.r.session.Submit(broker.EventFoldersUnmatched, broker.FoldersUnmatched{Patterns: patterns})
	}
}

// names yields the folders that there are.
func (l *folderList) names(yield func(name string, delimiter byte) bool) {
	for _, f := range l.all {
		if f.exists && !yield(f.name, f.delimiter) {
			return
		}
	}
}
