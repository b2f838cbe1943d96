// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// TestAStrangeNameBlindsNothing: a folder whose name is not as the protocol has it
// does not keep the others from being looked at.
func TestAStrangeNameBlindsNothing(t *testing.T) {
	for _, line := range []string{
		`() "/" R&D`, `() "/" "R&D"`, "() \"/\" {3}\r\nR&D", "() \"/\" \"M\xfcller\"", `() "/" "Müller"`, `() "/" "&AOQ-&AOQ-"`,
		`() "/" "&4"`, `() "/" ""`, "() \"/\" {0}\r\n", "() \"/\" {4}\r\na\r\nb", `() NIL a"b`, `() NIL "a\"b" ("CHILDINFO" ("SUBSCRIBED"))`,
		`() "/" "open`, `() "/" "\`, `(\Sent "/" x`, `() "/`, `() "/" `, `()`, ``,
	} {
		t.Run(line, func(t *testing.T) {
			server := &mailServer{
				folders: map[string]*mailFolder{"INBOX": {validity: 1, modSeq: 1, messages: []message{{1, "", "<a@b.example>"}}}},
				names:   []string{line},
			}
			w := newWatcher(t, server)
			server.folders["INBOX"].modSeq++
			server.folders["INBOX"].messages[0].flags = `\Seen`
			w.look()
			w.wantFound(`seen: 1 in INBOX (\seen) 1`)
			if w.watch.Outcome != broker.WatchOK {
				t.Errorf("found %s: %s", w.watch.Outcome, w.watch.Detail)
			}
		})
	}
}

// TestEndlessNamesAreCutOff: a server that lists folders without an end, or one
// whose name has none, is hung up on.
func TestEndlessNamesAreCutOff(t *testing.T) {
	for name, say := range map[string]string{
		"many":       "* LIST () NIL a\r\n",
		"attributes": `* LIST (` + strings.Repeat(`\A `, 500) + ") NIL a\r\n",
		"a line":     `* LIST (` + strings.Repeat(`\A `, 500),
		"a literal":  "* LIST () NIL {4000000000}\r\n",
		"others":     "* 5 EXISTS\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			server := &mailServer{folders: map[string]*mailFolder{"INBOX": {validity: 1}}}
			said := 0
			server.answer = func(c net.Conn, _, command string) bool {
				for strings.HasPrefix(command, "LIST") {
					n, err := fmt.Fprint(c, say)
					if said += n; err != nil {
						break
					}
				}
				return false
			}
			w := newWatcher(t, server)
			server.serving.Wait()
			if w.watch.Outcome != broker.WatchUnavailable || said > 2*maxNamesRead {
				t.Errorf("found %s: %s, after %d octets", w.watch.Outcome, w.watch.Detail, said)
			}
		})
	}
}
