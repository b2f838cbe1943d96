// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

func slice(s ...policy.Slice) policy.Decision { return policy.Decision{Slices: s} }

// secretMail are the owner's commands for an INBOX of ten messages, of which
// the even ones are hidden.
func secretMail() (all []string) {
	for i := 1; i <= 10; i++ {
		flags := ""
		if i%2 == 0 {
			flags = "(Privileged) "
		}
		all = append(all, fmt.Sprintf(`APPEND INBOX %s"%02d-Jan-2026 10:00:00 +0000" %s`, flags, i, nonSync(message(i))))
	}
	return append(all, "CREATE Other")
}

const notPrivileged = policy.Slice("UNKEYWORD Privileged")

// secrets are words that only hidden messages hold.
var secrets = []string{"number 2", "number 4", "number 6", "number 8", "number 10", "a2@", "a4@", "a6@", "a8@", "a10@", "privileged"}

// TestNever2ViewSliceHidesMessages: every way to name messages, or to ask for
// them, reaches the visible ones alone.
func TestNever2ViewSliceHidesMessages(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		v := newViewed(t, server, slice(notPrivileged), secretMail()...)
		heard := v.expect("SELECT INBOX", "OK [READ-WRITE]")
		if !slices.Contains(heard, "* 5 EXISTS") {
			t.Errorf("SELECT: %q", heard)
		}
		v.silent("SELECT", heard, "unseen", "10 exists", "highestmodseq")
		for command, want := range map[string]string{
			"SEARCH ALL": "* SEARCH 1 2 3 4 5", "UID SEARCH ALL": "* SEARCH 1 3 5 7 9", "SEARCH *": "* SEARCH 5", "UID SEARCH UID *": "* SEARCH 9", "SEARCH UID 2:6": "* SEARCH 2 3",
			"SEARCH 2:3": "* SEARCH 2 3", "UID SEARCH 2:3": "* SEARCH 3 5", "SEARCH NOT 2:3": "* SEARCH 1 4 5", "SEARCH OR 1 5": "* SEARCH 1 5", "SEARCH (1:2 UID 3:*)": "* SEARCH 2",
			"SEARCH KEYWORD Privileged": "* SEARCH", "SEARCH SUBJECT \"number 2\"": "* SEARCH", "SEARCH TEXT \"body 4\"": "* SEARCH", "SEARCH FROM a1": "* SEARCH 1", "SEARCH UID 2": "* SEARCH",
			"SEARCH NOT SUBJECT \"number 2\"": "* SEARCH 1 2 3 4 5", "SEARCH UID 10000": "* SEARCH", "SEARCH UID 1:10,100:*": "* SEARCH 1 2 3 4 5",
			"SEARCH RETURN (MIN MAX COUNT ALL) ALL": `* ESEARCH (TAG "z") MIN 1 MAX 5 ALL 1:5 COUNT 5`, "UID SEARCH RETURN (ALL COUNT) ALL": `* ESEARCH (TAG "z") UID ALL 1,3,5,7,9 COUNT 5`,
			"UID SEARCH RETURN (MAX) ALL": `* ESEARCH (TAG "z") UID MAX 9`, "UID SEARCH RETURN (MIN COUNT) KEYWORD Privileged": `* ESEARCH (TAG "z") UID COUNT 0`, "SEARCH RETURN () 3": `* ESEARCH (TAG "z") ALL 3`,
			"SORT (REVERSE ARRIVAL) UTF-8 ALL": "* SORT 5 4 3 2 1", "UID SORT (REVERSE DATE) UTF-8 ALL": "* SORT 9 7 5 3 1", "UID SORT (SUBJECT) UTF-8 KEYWORD Privileged": "* SORT",
			"SEARCH CHARSET UTF-8 SUBJECT " + synchronising("number"): "* SEARCH 1 2 3 4 5", "SEARCH CHARSET UTF-8 SUBJECT " + nonSync("number 6"): "* SEARCH",
			"SEARCH CHARSET UTF-8 SUBJECT " + nonSync("\xc3\xb6"): "* SEARCH",
		} {
			if got := v.expect(command, "OK"); len(got) != 2 || strings.TrimSpace(got[0]) != want {
				t.Errorf("%q: %q, want %q", command, got, want)
			}
		}
		for _, command := range []string{
			"FETCH 1:* (FLAGS ENVELOPE BODY.PEEK[])", "UID FETCH 1:* (FLAGS BODY.PEEK[])", "FETCH * (BODY.PEEK[])", "UID FETCH * BODY.PEEK[HEADER]", "UID FETCH 2,4,6 BODY.PEEK[]", "UID FETCH 10:* BODY.PEEK[]",
			"FETCH 1:5,3:4,* (UID RFC822.SIZE)", "UID FETCH 10,8:2 (BODY.PEEK[])", "FETCH 1:5 FULL",
		} {
			v.silent(command, v.expect(command, "OK"), secrets...)
		}
		if got := v.expect("FETCH 2:3 (FLAGS)", "OK"); len(got) != 3 || !strings.HasPrefix(got[0], "* 2 FETCH (") || !strings.Contains(got[0], "UID 3") || !strings.HasPrefix(got[1], "* 3 FETCH (") {
			t.Errorf("FETCH 2:3: %q", got)
		}
		opened := 0
		for _, e := range v.rig.gate.last().recorded(broker.EventMessageOpen) {
			batch := e.(broker.MessageOpen)
			for _, m := range batch.Messages {
				if opened++; m.UID%2 == 0 || batch.Folder != "INBOX" || batch.UIDValidity == 0 || m.MessageID != fmt.Sprintf("<%d@firm.example>", m.UID) {
					t.Errorf("recorded in %q: %+v", batch.Folder, m)
				}
			}
		}
		if opened < 10 {
			t.Errorf("%d openings were recorded", opened)
		}
		v.expect("DELETE Other", "NO [NOPERM]")
		for _, command := range []string{"FETCH 6 FLAGS", "FETCH 1:10 FLAGS", "STORE 6 +FLAGS (x)", "COPY 6 Other", "SEARCH 6", "SEARCH 1:6", "MOVE 6 Other"} {
			v.expect(command, "BAD")
		}
		for _, command := range []string{
			"FETCH 1 (MODSEQ)", "FETCH 1:* (FLAGS) (CHANGEDSINCE 1)", "STORE 1 (UNCHANGEDSINCE 1) +FLAGS (x)", "SEARCH MODSEQ 1", "SELECT INBOX (CONDSTORE)", "STATUS INBOX (HIGHESTMODSEQ)",
			"THREAD REFERENCES UTF-8 ALL", "UID THREAD REFERENCES UTF-8 ALL",
		} {
			v.expect(command, "BAD")
		}
		v.silent("CAPABILITY", v.expect("CAPABILITY", "OK"), "CONDSTORE", "THREAD", "QRESYNC")
	})
}

// TestNever2ViewSliceChangesTheVisibleAlone: what is hidden is not changed,
// copied, moved or expunged, and not brought into view.
func TestNever2ViewSliceChangesTheVisibleAlone(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		v := newViewed(t, server, slice(notPrivileged), append(secretMail(), "SELECT INBOX", `STORE 4,6 +FLAGS (\Deleted)`)...)
		v.expect("SELECT INBOX", "OK")
		for _, command := range []string{
			"STORE 1 +FLAGS (Privileged)", "STORE 1 -FLAGS (privileged)", "UID STORE 2 -FLAGS (Privileged)", "UID STORE 1:* FLAGS ()", `STORE 1 FLAGS.SILENT (\Seen)`, `UID STORE 1 +FLAGS.SILENT (\Seen PRIVILEGED)`, "STORE 1 -FLAGS Privileged",
		} {
			v.expect(command, "NO [NOPERM]")
		}
		v.silent("STORE", v.expect(`STORE 1:* +FLAGS (\Flagged)`, "OK"), "UID 2 ", "UID 4 ", "Privileged")
		v.expect(`UID STORE 1:* +FLAGS.SILENT (Mine)`, "OK")
		if heard := v.expect("UID COPY 1:* Other", "OK"); !strings.Contains(heard[len(heard)-1], " 1,3,5,7,9 ") {
			t.Errorf("COPY: %q", heard)
		}
		v.expect("UID COPY 2 Other", "OK")
		v.expect("UID MOVE 2,4,6 Other", "OK")
		v.expect("UID EXPUNGE 4,6", "OK")
		v.expect("EXPUNGE", "OK")
		v.expect(`STORE 1 +FLAGS (\Deleted)`, "OK")
		if heard := v.expect("EXPUNGE", "OK"); heard[0] != "* 1 EXPUNGE" {
			t.Errorf("EXPUNGE: %q", heard)
		}
		if heard := v.expect("MOVE 1 Other", "OK"); !slices.Contains(heard, "* 1 EXPUNGE") { // UID 3
			t.Errorf("MOVE: %q", heard)
		}
		v.expect(`STORE 3 +FLAGS (\Deleted)`, "OK") // UID 9
		v.expect("CLOSE", "OK")
		v.expect("FETCH 1 FLAGS", "BAD")
		v.own("NOOP")
		there := v.own("UID FETCH 1:* (FLAGS)")
		for i, uid := range []int{2, 4, 5, 6, 7, 8, 10} {
			if len(there) != 8 || !strings.Contains(there[i], fmt.Sprintf("UID %d", uid)) {
				t.Fatalf("INBOX holds %q", there)
			}
			for _, flag := range []string{`\Flagged`, "Mine"} {
				if strings.Contains(there[i], flag) != (uid%2 == 1) {
					t.Errorf("%q", there[i])
				}
			}
		}
		v.own("SELECT Other")
		v.silent("Other", v.own("FETCH 1:* (ENVELOPE)"), secrets...)
		if heard := v.own("STATUS Other (MESSAGES)"); !strings.Contains(heard[0], "MESSAGES 6)") {
			t.Errorf("Other holds %q", heard)
		}
	})
}

// TestNever2ViewSliceNumbersAfterChanges: EXISTS, EXPUNGE and pushed FETCH, in
// IDLE and out of it, count visible messages alone.
func TestNever2ViewSliceNumbersAfterChanges(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		v := newViewed(t, server, slice(notPrivileged), append(secretMail(), "SELECT INBOX")...)
		v.expect("SELECT INBOX", "OK")
		v.own(`STORE 2,3 +FLAGS (\Deleted)`)
		v.own("EXPUNGE") // UIDs 2 and 3
		v.own("APPEND INBOX (Privileged) " + nonSync(message(12)))
		v.own("APPEND INBOX " + nonSync(message(13)))
		// UID 3, which is gone and was not told of: EXPUNGE must wait.
		v.silent("FETCH", v.ask("FETCH 2 (ENVELOPE)"), append(secrets, "EXPUNGE", "number 5")...)
		heard := v.expect("NOOP", "OK")
		if strings.Join(heard, "|") != "* 6 EXISTS|* 2 EXPUNGE|z OK done" && strings.Join(heard, "|") != "* 2 EXPUNGE|z OK done" {
			t.Errorf("NOOP: %q", heard)
		}
		v.silent("FETCH", v.expect("FETCH 1:* (ENVELOPE)", "OK"), append(secrets, "number 12")...)
		if heard := v.expect("UID SEARCH ALL", "OK"); heard[0] != "* SEARCH 1 5 7 9 12" {
			t.Errorf("SEARCH: %q", heard)
		}
		// In IDLE.
		v.agent.raw("i IDLE\r\n")
		v.agent.expect("+")
		v.own("APPEND INBOX (Privileged) " + nonSync(message(14)))
		v.own("APPEND INBOX " + nonSync(message(15)))
		v.agent.expect("* 6 EXISTS")
		v.own("NOOP")
		v.own(`UID STORE 4,5 +FLAGS (\Deleted)`)
		v.own("EXPUNGE")
		for {
			line := v.agent.line()
			v.silent("IDLE", []string{line}, "UID 4", "Privileged")
			if line == "* 2 EXPUNGE" {
				break
			}
			if !strings.HasPrefix(line, "* 2 FETCH") {
				t.Errorf("IDLE: %q", line)
			}
		}
		v.agent.raw("DONE\r\n")
		v.agent.expect("i OK")
		// What its owner hides is hidden from then on.
		v.own("UID STORE 7 +FLAGS (Privileged)")
		if heard := v.expect("NOOP", "OK"); !slices.Contains(heard, "* 2 EXPUNGE") {
			t.Errorf("NOOP: %q", heard)
		}
		v.silent("FETCH", v.expect("UID FETCH 1:* (ENVELOPE)", "OK"), append(secrets, "number 7", "number 14")...)
	})
}

// TestNever2ViewSliceLongSets: a set that is longer than the upstream's line is
// sent in parts, and the answers are put together.
func TestNever2ViewSliceLongSets(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of messages")
	}
	onEachServer(t, func(t *testing.T, server realServer) {
		const n = 2000
		v := newViewed(t, server, slice(notPrivileged), "CREATE Other")
		for i := 0; i < n; i += 500 {
			var b strings.Builder
			for k := i; k < i+500; k++ {
				flags := ""
				if k%2 == 1 {
					flags = "(Privileged) "
				}
				fmt.Fprintf(&b, " %s%s", flags, nonSync(message(k+1)))
			}
			v.own("APPEND INBOX" + b.String())
		}
		v.expect("SELECT INBOX", "OK")
		heard := v.expect("FETCH 1:* (FLAGS)", "OK")
		if len(heard) != n/2+1 {
			t.Fatalf("%d answers", len(heard))
		}
		for i, line := range heard[:n/2] {
			if !strings.HasPrefix(line, fmt.Sprintf("* %d FETCH", i+1)) || !strings.Contains(line, fmt.Sprintf("UID %d", 2*i+1)) {
				t.Fatalf("%q", line)
			}
		}
		heard = v.expect("UID COPY 1:* Other", "OK [COPYUID ")
		if from := strings.Fields(heard[len(heard)-1])[4]; strings.Count(from, ",") != n/2-1 {
			t.Errorf("COPYUID of %d messages", strings.Count(from, ",")+1)
		}
		if heard := v.own("STATUS Other (MESSAGES)"); !strings.Contains(heard[0], fmt.Sprintf("MESSAGES %d)", n/2)) {
			t.Errorf("Other holds %q", heard)
		}
		v.expect(`UID STORE 1:* +FLAGS.SILENT (\Deleted)`, "OK")
		if heard := v.expect("EXPUNGE", "OK"); len(heard) != n/2+1 {
			t.Errorf("%d answers", len(heard))
		}
		if heard := v.own("STATUS INBOX (MESSAGES)"); !strings.Contains(heard[0], fmt.Sprintf("MESSAGES %d)", n/2)) {
			t.Errorf("INBOX holds %q", heard)
		}
	})
}

// TestNever2ViewSlicePipelining: what is sent at once is done one by one, each
// by the numbers as they are then, and nothing gets between Postern's own
// commands.
func TestNever2ViewSlicePipelining(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		v := newViewed(t, server, slice(notPrivileged), secretMail()...)
		var all strings.Builder
		for i := range 10 {
			fmt.Fprintf(&all, "a%d SELECT INBOX\r\nb%d FETCH 1:* (FLAGS BODY.PEEK[])\r\nc%d UID FETCH 1:* ENVELOPE\r\nd%d UID SEARCH CHARSET UTF-8 TEXT {4+}\r\nbody\r\n", i, i, i, i)
			fmt.Fprintf(&all, "e%d UID COPY 2,4 Other\r\nf%d UID STORE 2 +FLAGS (x)\r\ng%d IDLE\r\nDONE\r\nh%d STATUS Other (MESSAGES)\r\ni%d UNSELECT\r\nj%d FETCH 1 BODY[]\r\n", i, i, i, i, i, i)
		}
		v.agent.raw(all.String() + "z NOOP\r\n")
		n := 0
		for _, line := range v.agent.until("z ") {
			v.silent("a pipeline", []string{line}, secrets[:len(secrets)-1]...) // FLAGS names all keywords
			if len(line) < 2 || line[0] < 'a' || line[0] > 'j' || line[1] < '0' || line[1] > '9' {
				continue
			}
			n++
			if bad := line[0] == 'j'; bad != strings.Contains(line, " BAD ") || !bad && !strings.Contains(line, " OK ") {
				t.Errorf("%q", line)
			}
		}
		if n != 100 {
			t.Errorf("%d answers", n)
		}
		if heard := v.own("STATUS Other (MESSAGES)"); !strings.Contains(heard[0], "MESSAGES 0)") {
			t.Errorf("%q", heard)
		}
	})
}
