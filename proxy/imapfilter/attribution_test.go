// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// TestOpeningsBelongToTheirFolder: under which folder and UIDVALIDITY an
// opening is recorded, whatever happened to what is selected. "C:" is what the
// client says, "U:" what the upstream does; BODY stands for a message whose
// body is opened and has the step's number for its UID.
func TestOpeningsBelongToTheirFolder(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps []string
		want  string
	}{
		{"selected", []string{"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "U:a OK", "BODY"}, "x/5/3"},
		{"inbox in any case", []string{"C:a SELECT inBox", "U:* OK [UIDVALIDITY 5]", "U:a OK", "BODY"}, "INBOX/5/3"},
		{"examined", []string{"C:a EXAMINE x", "U:* OK [UIDVALIDITY 5]", "U:a OK [READ-ONLY]", "BODY"}, "x/5/3"},
		{"without a UIDVALIDITY", []string{"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "U:a OK", "C:b SELECT y", "U:b OK", "BODY"}, "y/0/5"},
		{"in the answer", []string{"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "BODY", "U:a OK"}, "x/5/2"},
		{"of the folder before, until it is closed", []string{
			"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "U:a OK", "C:b SELECT y", "BODY",
			"U:* OK [CLOSED] was", "U:* OK [UIDVALIDITY 6]", "BODY", "U:b OK", "BODY",
		}, "x/5/4 y/6/7 y/6/9"},
		{"of the folder before, when the new one is refused", []string{
			"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "U:a OK", "C:b SELECT y", "U:b NO there is none", "BODY",
		}, "x/5/5"},
		{"of the folder before, when the new one is refused late", []string{
			"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "U:a OK", "C:b SELECT y", "U:* OK [UIDVALIDITY 6]", "U:b BAD", "BODY",
		}, "x/5/6"},
		{"of none", []string{
			"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "U:a OK", "C:b SELECT y", "U:* OK [CLOSED]", "U:b NO", "BODY",
		}, "/0/6"},
		{"a UIDVALIDITY that changes", []string{
			"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "U:a OK", "BODY", "U:* OK [UIDVALIDITY 6]", "BODY",
		}, "x/5/3 x/6/5"},
		{"renamed", []string{"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "U:a OK", "BODY", "C:b RENAME x y", "U:b OK", "BODY"}, "x/5/3 y/5/6"},
		{"parent renamed", []string{"C:a SELECT x/z", "U:* OK [UIDVALIDITY 5]", "U:a OK", "C:b RENAME x y", "U:b OK", "BODY"}, "y/z/5/5"},
		{"another renamed", []string{"C:a SELECT xz", "U:* OK [UIDVALIDITY 5]", "U:a OK", "C:b RENAME x y", "U:b OK", "BODY"}, "xz/5/5"},
		{"renaming refused", []string{"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "U:a OK", "C:b RENAME x y", "U:b NO", "BODY"}, "x/5/5"},
		{"INBOX renamed", []string{"C:a SELECT INBOX", "U:* OK [UIDVALIDITY 5]", "U:a OK", "C:b RENAME inbox y", "U:b OK", "BODY"}, "INBOX/5/5"},
		{"deleted", []string{"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "U:a OK", "C:b DELETE x", "U:b OK", "BODY"}, "x/5/5"},
		{"closed", []string{"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "U:a OK", "BODY", "C:b CLOSE", "U:b OK", "BODY"}, "x/5/3 /0/6"},
		{"not closed", []string{"C:a SELECT x", "U:* OK [UIDVALIDITY 5]", "U:a OK", "C:b UNSELECT", "U:b BAD", "BODY"}, "x/5/5"},
		{"a name that is encoded", []string{"C:a SELECT Entw&APw-rfe", "U:* OK [UIDVALIDITY 5]", "U:a OK", "BODY"}, "Entwürfe/5/3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			gate, upstreams := scripted(t)
			rig := newRig(t, gate)
			c := rig.login()
			u := <-upstreams
			for i, step := range tc.steps {
				switch side, line, _ := strings.Cut(step, ":"); side {
				case "C":
					c.send("%s", line)
					u.expect(line)
				case "U":
					u.send("%s", line)
					c.until(line[:4])
				default:
					// Its header is there, so that nothing is asked for.
					u.raw(fmt.Sprintf("* 1 FETCH (BODY[HEADER] {17}\r\nMessage-ID: <x>\r\n BODY[TEXT] {1}\r\nx UID %d)\r\n", i))
					c.until("x UID")
				}
			}
			c.conn.Close()
			<-rig.served
			var got []string
			for _, e := range gate.last().recorded(broker.EventMessageOpen) {
				o := e.(broker.MessageOpen)
				for _, m := range o.Messages {
					got = append(got, fmt.Sprintf("%s/%d/%d", o.Folder, o.UIDValidity, m.UID))
				}
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("recorded %q, want %q", strings.Join(got, " "), tc.want)
			}
		})
	}
}
