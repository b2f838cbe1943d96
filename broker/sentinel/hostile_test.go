// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// TestManyFoldersHideNone: whoever makes folders, whatever he calls them, does not
// have one that is watched forgotten.
func TestManyFoldersHideNone(t *testing.T) {
	var watched []broker.WatchedFolder
	var there []listed
	for _, name := range []string{"INBOX", "Board", "Zebra"} {
		watched = append(watched, broker.WatchedFolder{Name: name})
		there = append(there, listed{name: name, rank: len(uses()) + 1})
	}
	there[0].rank = 0
	for i := range 2 * maxFolders {
		there = append(there, listed{name: fmt.Sprintf("A%d", i), rank: len(uses()) + 1}, listed{name: fmt.Sprintf("a%d/sent", i), rank: 1, own: true})
	}
	got := foremost(there, watched)
	if len(got) != maxFolders {
		t.Errorf("%d folders are looked at", len(got))
	}
	for _, w := range watched {
		if !slices.ContainsFunc(got, func(f listed) bool { return f.name == w.Name }) {
			t.Errorf("%s is forgotten", w.Name)
		}
	}
}

// TestMadeUpKeywordsHideNothing: many keywords, set on every second message, leave
// what is kept of a folder readable, with the system's own flags in it, and do not
// crowd out what waits to be explained.
func TestMadeUpKeywordsHideNothing(t *testing.T) {
	k := newKept()
	const big = 4_000_000_000
	for i := range uint32(maxMessages) {
		k.all.add(big + 2*i)
	}
	for i := range 500 {
		k.flags[fmt.Sprintf("$a%d", i)] = k.all
	}
	k.flags[seen], k.flags[`\deleted`] = k.all, k.all
	k.cutFlags()
	b, err := k.encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := decodeKept(b)
	if err != nil {
		t.Fatalf("what was kept is not understood: %v", err)
	}
	if len(back.flags) != maxFlags || back.flags[seen].len() != maxMessages || back.flags[`\deleted`].len() != maxMessages {
		t.Errorf("%d flags are kept, %d messages are seen", len(back.flags), back.flags[seen].len())
	}

	var all []broker.Suspect
	for i := range 2 * maxSuspects {
		all = append(all, broker.Suspect{Bypassed: broker.Bypassed{What: broker.BypassFlags, Flag: fmt.Sprintf("$a%d", i)}})
	}
	others := slices.DeleteFunc(broker.Bypasses(), func(b broker.Bypass) bool { return b == broker.BypassFlags })
	for _, what := range others {
		all = append(all, broker.Suspect{Bypassed: broker.Bypassed{What: what, Folder: "Board"}})
	}
	all = gravest(all)
	if len(all) != maxSuspects {
		t.Errorf("%d wait", len(all))
	}
	for _, what := range others {
		if !slices.ContainsFunc(all, func(s broker.Suspect) bool { return s.What == what }) {
			t.Errorf("%s was crowded out", what)
		}
	}
}

// TestEndlessAnswersAreCutOff: a server that says more of its messages than it was
// asked for is hung up on.
func TestEndlessAnswersAreCutOff(t *testing.T) {
	for name, x := range map[string]struct{ begin, repeat string }{
		"one message again and again": {"", "* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n"},
		"flags without an end":        {"* 1 FETCH (UID 1 FLAGS (", "$a "},
		"other things":                {"", "* 1 EXISTS\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			server := &mailServer{folders: map[string]*mailFolder{"INBOX": {validity: 1, messages: []message{{1, "", "<a@b.example>"}}}}}
			said, block := 0, strings.Repeat(x.repeat, 1000)
			server.answer = func(c net.Conn, _, command string) bool {
				if !strings.HasPrefix(command, "FETCH") {
					return false
				}
				_, err := fmt.Fprint(c, x.begin)
				for err == nil {
					var n int
					n, err = fmt.Fprint(c, block)
					said += n
				}
				return true
			}
			w := newWatcher(t, server)
			server.serving.Wait()
			if w.watch.Outcome != broker.WatchUnavailable || said > 2*baseRead {
				t.Errorf("found %s: %s, after %d octets", w.watch.Outcome, w.watch.Detail, said)
			}
		})
	}
}

// TestALongMessageIDBlindsNothing: whoever sends a message with a Message-ID of many
// octets does not keep its folder from being looked at.
func TestALongMessageIDBlindsNothing(t *testing.T) {
	server := &mailServer{folders: map[string]*mailFolder{"INBOX": {validity: 1}}}
	for uid := range uint32(50) {
		server.folders["INBOX"].messages = append(server.folders["INBOX"].messages, message{uid + 1, "", strings.Repeat("x", maxLine)})
	}
	w := newWatcher(t, server)
	if w.watch.Outcome != broker.WatchOK || len(w.watch.Folders) != 1 {
		t.Errorf("found %s: %s, in %d folders", w.watch.Outcome, w.watch.Detail, len(w.watch.Folders))
	}
}

// TestFindingsAreShort: keywords that are made up on every second message fill
// neither what is kept of a mailbox nor the log.
func TestFindingsAreShort(t *testing.T) {
	inbox := &mailFolder{validity: 1}
	const big = 4_000_000_000
	for i := range uint32(maxMessages) {
		inbox.messages = append(inbox.messages, message{big + i, "", "<a@b.example>"})
	}
	w := newWatcher(t, &mailServer{folders: map[string]*mailFolder{"INBOX": inbox}})
	var keywords []string
	for i := range maxFlags {
		keywords = append(keywords, fmt.Sprintf("$a%d", i))
	}
	for i := 0; i < maxMessages; i += 2 {
		inbox.messages[i].flags = strings.Join(keywords, " ")
	}
	octets := 0
	for _, s := range w.look().Watch.Suspects {
		octets += len(s.UIDs) + len(s.Deleted)
	}
	if octets == 0 || octets > maxSuspectUIDs {
		t.Errorf("%d octets of UIDs are kept", octets)
	}
	r := w.look()
	for _, e := range r.Events {
		b, _ := e.Data.(broker.Bypassed)
		if len(b.UIDs) > maxFoundUIDs+len(",…") || b.Count != maxMessages/2 || len(b.Messages) != maxFetched {
			t.Errorf("%d octets of UIDs are recorded of %d messages, %d named", len(b.UIDs), b.Count, len(b.Messages))
		}
	}
	if len(r.Events) == 0 {
		t.Error("nothing is found")
	}
}
