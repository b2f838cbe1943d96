// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// TestAFolderThatHadOthersBelowIsMissed: of a folder that is deleted and has others
// below it servers leave the name, which nothing lies under any more.
func TestAFolderThatHadOthersBelowIsMissed(t *testing.T) {
	for _, left := range []string{`\Noselect`, `\NonExistent`} {
		server := &mailServer{folders: map[string]*mailFolder{
			"INBOX":     {validity: 1, modSeq: 1},
			"Clients":   {validity: 2, modSeq: 1, messages: []message{{1, "", "<a@b.example>"}}},
			"Clients/A": {validity: 3, modSeq: 1},
		}}
		w := newWatcher(t, server)
		server.folders["Clients"] = &mailFolder{attributes: left}
		w.look()
		w.wantFound("folder: Clients")
	}
}

// TestAFolderThatIsListedAndRefusedIsMissed: so Dovecot does where one was deleted that
// has others below it. Once, or for a while, is no loss.
func TestAFolderThatIsListedAndRefusedIsMissed(t *testing.T) {
	for answer, want := range map[string][]string{
		"Mailbox doesn't exist": {"folder: Clients"}, "[NONEXISTENT] no": {"folder: Clients"}, "[UNAVAILABLE] later": nil, "[INUSE] later": nil,
	} {
		server := &mailServer{folders: map[string]*mailFolder{"INBOX": {validity: 1}, "Clients": {validity: 2}}}
		w := newWatcher(t, server)
		server.answer = func(c net.Conn, tag, command string) bool {
			if !strings.HasPrefix(command, "STATUS Clients") && !strings.HasPrefix(command, `STATUS "Clients"`) {
				return false
			}
			_, _ = fmt.Fprintf(c, "%s NO %s\r\n", tag, answer)
			return true
		}
		w.look()
		w.wantFound()
		w.wantFound(want...)
	}
}

// TestAConnectionThatIsCutLosesNoChange: what has changed in a folder is found at the
// next look when this one is cut, or told NO, before it knows all of it.
func TestAConnectionThatIsCutLosesNoChange(t *testing.T) {
	for name, refuse := range map[string]func(c net.Conn, tag string){
		"cut": func(c net.Conn, _ string) { _ = c.Close() },
		"NO":  func(c net.Conn, tag string) { _, _ = fmt.Fprintf(c, "%s NO later\r\n", tag) },
	} {
		t.Run(name, func(t *testing.T) {
			server := &mailServer{folders: map[string]*mailFolder{"INBOX": {validity: 1, modSeq: 1}}}
			inbox := server.folders["INBOX"]
			for uid := range uint32(maxNamed + 2) { // the first ones' Message-IDs are not kept
				inbox.messages = append(inbox.messages, message{uid + 1, "", fmt.Sprintf("<%d@a.example>", uid+1)})
			}
			w := newWatcher(t, server)
			inbox.modSeq++
			inbox.messages[0].flags = `\Seen \Flagged`
			refusals := 0
			server.answer = func(c net.Conn, tag, command string) bool {
				if !strings.HasPrefix(command, "UID FETCH 1 ") {
					return false
				}
				if refusals++; refusals != 2 { // after one of the two changes is known
					return false
				}
				refuse(c, tag)
				return true
			}
			w.look()
			if refusals != 2 {
				t.Fatalf("asked %d times", refusals)
			}
			w.look()
			w.wantFound(`flags: 1 in INBOX (\flagged) 1`, `seen: 1 in INBOX (\seen) 1`)
		})
	}
}

// TestALookReadsTheMailboxOnce: a credential that is replaced in the midst of a look
// is tried anew, and the mailbox is not compared with itself.
func TestALookReadsTheMailboxOnce(t *testing.T) {
	server := &mailServer{folders: map[string]*mailFolder{"INBOX": {validity: 1, modSeq: 1}}}
	w := newWatcher(t, server)
	inbox := server.folders["INBOX"]
	inbox.modSeq++
	inbox.messages = []message{{1, "", "<a@b.example>"}}
	server.refuse = func(version int) error {
		if version > 1 {
			return nil
		}
		w.credential = 2 // a rotation has just ended
		return broker.Errorf(broker.CredentialRefused, "refused")
	}
	before := server.commands("LIST")
	if r := w.look(); r.Watch.Outcome != broker.WatchOK {
		t.Fatalf("found %s: %s", r.Watch.Outcome, r.Watch.Detail)
	}
	if n := server.commands("LIST") - before; n != 1 {
		t.Errorf("the mailbox is read %d times", n)
	}
	// What was done through Postern before that look explains nothing after it.
	w.did(broker.EventMessageOpen, broker.MessageOpen{Folder: "INBOX", UIDValidity: 1, Messages: []broker.OpenedMessage{{UID: 1}}})
	w.look()
	inbox.modSeq++
	inbox.messages[0].flags = `\Seen`
	w.look()
	w.wantFound(`seen: 1 in INBOX (\seen) 1`)
}

// TestSubscribingExplainsNoDeletion: that an agent made a folder, subscribed to it or
// had another named after it does not explain that it is gone, with those below it.
func TestSubscribingExplainsNoDeletion(t *testing.T) {
	for command, explains := range map[string]bool{"SUBSCRIBE": false, "UNSUBSCRIBE": false, "CREATE": false, "DELETE": true, "RENAME": true} {
		server := &mailServer{folders: map[string]*mailFolder{"INBOX": {validity: 1}, "Clients": {validity: 2}}}
		w := newWatcher(t, server)
		w.did(broker.EventFolderChange, broker.FolderChange{Command: command, Folder: "Clients", Target: "x"})
		delete(server.folders, "Clients")
		w.look()
		if explains {
			w.wantFound()
		} else {
			w.wantFound("folder: Clients")
		}
	}
}

// TestEqualUIDValiditiesExplainNothing: what an agent reads in one folder does not
// explain what is read in another, of the same UIDVALIDITY. A name that is not listed
// may lead to it all the same.
func TestEqualUIDValiditiesExplainNothing(t *testing.T) {
	for folder, want := range map[string][]string{"Archive": {`seen: 1 in INBOX (\seen) 1`}, "INBOX": nil, "user/sales": nil} {
		server := &mailServer{folders: map[string]*mailFolder{"INBOX": {validity: 7, messages: []message{{1, "", "<a@b.example>"}}}, "Archive": {validity: 7}}}
		w := newWatcher(t, server)
		w.did(broker.EventMessageOpen, broker.MessageOpen{Folder: folder, UIDValidity: 7, Messages: []broker.OpenedMessage{{UID: 1}}})
		server.folders["INBOX"].messages[0].flags = `\Seen`
		w.look()
		w.wantFound(want...)
	}
}

// TestGmailRemovesWhatIsMarked: Gmail removes a message from a folder as soon as it is
// marked as deleted, without EXPUNGE; other servers do not.
func TestGmailRemovesWhatIsMarked(t *testing.T) {
	for capability, want := range map[string][]string{"X-GM-EXT-1": nil, "IDLE": {"removed: 1 in INBOX 1"}} {
		server := &mailServer{
			folders:      map[string]*mailFolder{"INBOX": {validity: 7, messages: []message{{1, "", "<a@b.example>"}}}},
			capabilities: []string{capability},
		}
		w := newWatcher(t, server)
		w.did(broker.EventMessageFlag, broker.MessageChange{Folder: "INBOX", UIDValidity: 7, Set: "1", UIDs: true, Flags: `+FLAGS (\Deleted)`})
		server.folders["INBOX"].messages = nil
		w.look()
		w.wantFound(want...)
	}
}

// TestAnotherAccountIsNotCompared: where a mailbox is looked at as somebody else, or
// anew after the firm did not want it looked at, nothing that is known of its folders
// counts.
func TestAnotherAccountIsNotCompared(t *testing.T) {
	for name, change := range map[string]func(w *watcher){
		"another login name": func(w *watcher) { w.mailbox.Username = "else" },
		"another server":     func(w *watcher) { w.mailbox.IMAP.Host = "imap2.acme.example" },
		"not wanted meanwhile": func(w *watcher) {
			w.mailbox.Watch = &broker.WatchTerms{Off: true}
			w.look()
			w.mailbox.Watch = nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			inbox := &mailFolder{validity: 1, messages: []message{{1, "", "<a@b.example>"}}}
			server := &mailServer{folders: map[string]*mailFolder{"INBOX": inbox, "Clients": {validity: 2}}}
			w := newWatcher(t, server)
			delete(server.folders, "Clients")
			inbox.messages[0].flags = `\Seen`
			change(w)
			w.look()
			w.wantFound()
			if len(w.folders) != 1 {
				t.Errorf("%d folders are kept", len(w.folders))
			}
			inbox.messages[0].flags = `\Seen \Flagged`
			w.look()
			w.wantFound(`flags: 1 in INBOX (\flagged) 1`)
		})
	}
}

// TestARefusedVersionIsNotTakenForAnother: versions begin anew when a credential is
// removed, and one that is good is not left untried for the sake of its number.
func TestARefusedVersionIsNotTakenForAnother(t *testing.T) {
	for name, change := range map[string]func(w *watcher){
		"removed":        func(w *watcher) { w.credential = 0; w.look(); w.credential = 1 },
		"another server": func(w *watcher) { w.mailbox.IMAP.Host = "imap2.acme.example" },
	} {
		t.Run(name, func(t *testing.T) {
			server := &mailServer{folders: map[string]*mailFolder{"INBOX": {validity: 1}}}
			server.refuse = func(int) error { return broker.Errorf(broker.CredentialRefused, "refused") }
			w := newWatcher(t, server)
			for range maxRefusals {
				w.look()
			}
			if w.watch.Refusals != maxRefusals {
				t.Fatalf("refused %d times", w.watch.Refusals)
			}
			server.refuse = nil
			change(w)
			if r := w.look(); r.Watch.Outcome != broker.WatchOK {
				t.Errorf("found %s: %s", r.Watch.Outcome, r.Watch.Detail)
			}
		})
	}
}
