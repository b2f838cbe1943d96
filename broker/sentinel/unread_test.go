// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"net"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// TestAMailboxThatCannotBeReadIsTold: whoever has the password and sees to it that the
// mailbox cannot be read is not unseen for good: a person is told once, whatever
// submission says meanwhile, and when it is over.
func TestAMailboxThatCannotBeReadIsTold(t *testing.T) {
	for name, end := range map[string]func(w *watcher, server *mailServer){
		"read again": func(_ *watcher, server *mailServer) { server.answer = nil },
		"off":        func(w *watcher, _ *mailServer) { w.mailbox.Watch = &broker.WatchTerms{Off: true} },
		"elsewhere": func(w *watcher, server *mailServer) {
			w.mailbox.IMAP.Host, server.answer = "imap.bolt.example", nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := &mailServer{folders: map[string]*mailFolder{"INBOX": {validity: 1, modSeq: 1}}}
			w := newWatcher(t, server)
			looks := func(n int) (told []broker.AlertChange) {
				for range n {
					for _, e := range w.look().Events {
						e.MailboxID = w.mailbox.ID
						changes, err := broker.AlertChanges(e)
						if err != nil || e.Type != broker.EventUnwatched || len(changes) != 1 {
							t.Fatalf("%s: %+v, %v", e.Type, changes, err)
						}
						told = append(told, changes...)
					}
				}
				return told
			}
			cut := func(c net.Conn, _, command string) bool {
				if strings.HasPrefix(command, "LIST") {
					_ = c.Close()
					return true
				}
				return false
			}
			server.answer = cut
			if told := looks(maxUnread - 1); told != nil {
				t.Fatalf("too early: %+v", told)
			}
			server.answer = nil
			if told := looks(1); told != nil {
				t.Fatalf("it was read in between: %+v", told)
			}
			server.answer = cut
			server.refuse = func(int) error { return broker.Errorf(broker.Unavailable, "no answer") }
			told := looks(2 * maxUnread)
			if len(told) != 1 || told[0].Kind != broker.AlertUnwatched || told[0].Resolves || told[0].Subject != string(w.mailbox.ID) {
				t.Fatalf("told %+v", told)
			}
			end(w, server)
			if told := looks(2); len(told) != 1 || !told[0].Resolves {
				t.Fatalf("at the end told %+v", told)
			}
		})
	}
}
