// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"io"
	"strings"
	"testing"

	"github.com/postern-mail/postern/policy"
)

// loginWith logs in with a part of the actions; folders are what the upstream
// tells of its special folders.
func loginWith(t *testing.T, actions policy.Actions, folders string) (c, u *peer) {
	t.Helper()
	gate, upstreams := scripted(t)
	gate.decision = policy.Decision{Actions: actions}
	c = newRig(t, gate).connect()
	c.send("l LOGIN box@firm.example secret")
	u = <-upstreams
	tag, _, _ := strings.Cut(u.line(), " ")
	u.raw(folders + tag + " OK\r\n")
	c.expect("l OK")
	return c, u
}

// What NOTIFY has the upstream push is judged, and bears a UID for the record.
func TestNotifyIsRewritten(t *testing.T) {
	const all = policy.List | policy.Headers | policy.Read
	for _, tc := range []struct {
		actions   policy.Actions
		says, out string
	}{
		{
			policy.All, "NOTIFY SET (selected (MessageNew (BODY.PEEK[]) MessageExpunge))",
			"NOTIFY SET (selected (MessageNew (UID BODY.PEEK[]) MessageExpunge))",
		},
		{
			policy.All, "NOTIFY SET STATUS (selected-delayed (MessageNew (FLAGS BODY[TEXT]) MessageExpunge)) (inboxes (MessageNew (RFC822 UID) MessageExpunge)) (subtree x (MessageNew (BODY[1]) MessageExpunge))",
			"NOTIFY SET STATUS (selected-delayed (MessageNew (UID FLAGS BODY[TEXT]) MessageExpunge)) (inboxes (MessageNew (RFC822 UID) MessageExpunge)) (subtree x (MessageNew (UID BODY[1]) MessageExpunge))",
		},
		{
			all, "NOTIFY SET (selected (MessageNew (UID BODY[]) MessageExpunge)) (personal (MessageNew (BODY[HEADER] BINARY[1]) MessageExpunge))",
			"NOTIFY SET (selected (MessageNew (UID BODY.PEEK[]) MessageExpunge)) (personal (MessageNew (UID BODY.PEEK[HEADER] BINARY.PEEK[1]) MessageExpunge))",
		},
		{all, "NOTIFY SET (selected (MessageNew (RFC822) MessageExpunge)) (personal (MessageNew (UID) MessageExpunge))", ""},
		{all, "NOTIFY SET (selected (MessageNew (RFC822.TEXT) MessageExpunge)) (personal (MessageNew (BODY[]) MessageExpunge))", ""},
		{policy.List, "NOTIFY SET (selected (MessageNew (ENVELOPE) MessageExpunge)) (personal (MessageNew (UID) MessageExpunge))", ""},
	} {
		gate, upstreams := scripted(t)
		gate.decision.Actions = tc.actions
		c := newRig(t, gate).connect()
		c.send("l LOGIN box@firm.example secret")
		u := <-upstreams
		if tc.actions != policy.All {
			tag, _, _ := strings.Cut(u.line(), " ")
			u.raw(tag + " OK\r\n")
		}
		c.expect("l OK")
		c.send("a %s", tc.says)
		if tc.out == "" {
			c.expect("a NO [NOPERM]")
			nothingBut(t, c, u)
		} else if got := u.line(); got != "a "+tc.out {
			t.Errorf("%s went upstream as %q", tc.says, got)
		}
	}
}

// TestNever2CatenateIsNoWayToRead: what an agent may not read he could copy
// into the header of a new message, whose headers he may read.
func TestNever2CatenateIsNoWayToRead(t *testing.T) {
	c, u := loginWith(t, policy.List|policy.Headers|policy.File, "")
	c.raw("a APPEND Work CATENATE (URL \"/INBOX;UIDVALIDITY=1/;UID=1/;SECTION=TEXT\" TEXT {3+}\r\nabc)\r\n")
	c.expect("a NO [NOPERM]")
	nothingBut(t, c, u)
	// A URL behind a text comes to light when the text is upstream.
	c.raw("b APPEND Work CATENATE (TEXT {9+}\r\nSubject: URL \"/INBOX;UIDVALIDITY=1/;UID=1/;SECTION=TEXT\")\r\n")
	u.expect("b APPEND Work CATENATE (TEXT {9}")
	u.raw("+ go\r\n")
	c.expect("b BAD ")
	c.expect("* BYE")
	if rest, _ := io.ReadAll(u.r); string(rest) != "Subject: " {
		t.Fatalf("the upstream got %q", rest)
	}
}

// TestNever2DeletedFlagOfALaterMessage: each message of an APPEND is judged.
func TestNever2DeletedFlagOfALaterMessage(t *testing.T) {
	c, u := loginWith(t, policy.List|policy.File, "")
	c.raw("a APPEND Work {3+}\r\nabc (\\Deleted) {3+}\r\nabc\r\n")
	u.expect("a APPEND Work {3}")
	u.raw("+ go\r\n")
	c.expect("a BAD ")
	c.expect("* BYE")
	if rest, _ := io.ReadAll(u.r); string(rest) != "abc" {
		t.Fatalf("the upstream got %q", rest)
	}
}

// TestNever2TrashByAnyPath: moving to Trash takes delete, by whatever name the
// upstream would find it.
func TestNever2TrashByAnyPath(t *testing.T) {
	folders := "* LIST (\\Trash) \".\" INBOX.Verworfen\r\n"
	for _, tc := range []struct {
		actions policy.Actions
		target  string
		allowed bool
	}{
		{policy.File, "Work", true},
		{policy.File, "INBOX.Verworfen", false},
		{policy.File, "inbox.verworfen", false},
		{policy.File, "Verworfen", false},
		{policy.File, "mail/Verworfen", false},
		{policy.File, "INBOX.Verworfen.2026", false},
		{policy.File, "{15+}\r\nINBOX.Verworfen", false},
		{policy.File, "Trash", false},
		{policy.File, "INBOX.&VgBxFw-", true},
		{policy.File, "INBOX.&AFY-erworfen", false},
		{policy.Delete, "INBOX.Verworfen", true},
		{policy.Delete, "Work", false},
		{policy.Delete, "Work.Trash", false},
		{policy.Delete, "&AFY-erworfen", false},
	} {
		c, u := loginWith(t, policy.List|tc.actions, folders)
		for _, command := range []string{"MOVE 1", "UID MOVE 1", "COPY 1", "UID COPY 1"} {
			c.send("a %s %s", command, tc.target)
			if tc.allowed {
				u.expect("a " + command)
				u.raw("a OK\r\n")
				c.expect("a OK")
			} else {
				c.expect("a NO [NOPERM]")
			}
		}
	}
}

// APPEND to Sent and Drafts is a part of sending; elsewhere it is filing.
func TestSendMayAppendToSentAndDrafts(t *testing.T) {
	folders := "* LIST (\\Sent) \"/\" Gesendet\r\n* LIST (\\Drafts) \"/\" {9}\r\nEntw\"urfe\r\n"
	c, u := loginWith(t, policy.List|policy.Send, folders)
	for target, allowed := range map[string]bool{
		"Gesendet": true, "{9+}\r\nEntw\"urfe": true, "Sent": false, "INBOX": false, "Gesendet/x": false, "&AEc-esendet": false,
	} {
		c.raw("a APPEND " + target + " {3+}\r\nabc\r\n")
		if !allowed {
			if got := c.line(); !strings.HasPrefix(got, "a NO [NOPERM]") {
				t.Errorf("%s: %s", target, got)
			}
			continue
		}
		u.expect("a APPEND ")
		u.raw("+ go\r\n")
		u.expect("abc")
		u.raw("a OK\r\n")
		c.expect("a OK")
	}
	c.raw("a APPEND Gesendet (\\Deleted) {3+}\r\nabc\r\n")
	c.expect("a NO [NOPERM]")
	nothingBut(t, c, u)
}
