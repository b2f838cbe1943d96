// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"testing"
)

// TestRewritesDoNotTouchTheNextCommand: commands that Postern rewrites, one
// after another. The memory that one was rewritten in was once the memory that
// the next was read into, so that it went upstream mangled after it had been
// judged.
func TestRewritesDoNotTouchTheNextCommand(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	for _, step := range []struct{ says, reaches string }{
		{"SELECT Work", "SELECT Work"},
		{"FETCH 1 BODY.PEEK[TEXT]", "FETCH 1 (UID BODY.PEEK[TEXT])"},
		{"FETCH 1 BODY.PEEK[TEXT]", "FETCH 1 (UID BODY.PEEK[TEXT])"},
		{"FETCH 2:3 (FLAGS BODY[] INTERNALDATE) (CHANGEDSINCE 77)", "FETCH 2:3 (UID FLAGS BODY[] INTERNALDATE) (CHANGEDSINCE 77)"},
		{"ENABLE X CONDSTORE Y QRESYNC", "ENABLE CONDSTORE QRESYNC"},
		{
			"FETCH 4,5,6:* (BODY.PEEK[HEADER.FIELDS (DATE)] BODY.PEEK[1.2.TEXT]<0.10> RFC822.SIZE) (CHANGEDSINCE 78)",
			"FETCH 4,5,6:* (UID BODY.PEEK[HEADER.FIELDS (DATE)] BODY.PEEK[1.2.TEXT]<0.10> RFC822.SIZE) (CHANGEDSINCE 78)",
		},
		{"UID FETCH 7 (BODY.PEEK[TEXT] FLAGS)", "UID FETCH 7 (BODY.PEEK[TEXT] FLAGS)"},
		{"FETCH 8 BODY[]", "FETCH 8 (UID BODY[])"},
	} {
		c.send("%s", "a "+step.says)
		if got := u.line(); got != "a "+step.reaches {
			t.Fatalf("%s went upstream as %q", step.says, got)
		}
		u.raw("a OK done\r\n")
		c.until("a OK")
	}
}
