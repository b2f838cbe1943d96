// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/policy"
)

// scriptedView logs an agent in to a scripted upstream with a view.
func scriptedView(t *testing.T, d policy.Decision, capabilities ...string) (c, u *peer) {
	t.Helper()
	gate, upstreams := scripted(t, capabilities...)
	d.Actions = policy.All
	gate.decision = d
	return newRig(t, gate).login(), <-upstreams
}

// tells answers an own LIST and the LSUB behind it.
func tells(u *peer, list, lsub string) {
	u.t.Helper()
	for _, answer := range []string{list, lsub} {
		line := u.line()
		tag, command, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(tag, "pn") || !strings.Contains(command, `"*"`) {
			u.t.Fatalf("got %q, want an own LIST", line)
		}
		u.raw(answer + tag + " OK done\r\n")
	}
}

// TestNever2ViewVirtualFolders: folders whose messages lie in others are
// hidden, whatever the patterns say.
func TestNever2ViewVirtualFolders(t *testing.T) {
	c, u := scriptedView(t, hides("Nothing"), "IMAP4rev1", "SPECIAL-USE", "UNSELECT")
	const list = "* LIST (\\HasNoChildren) \"/\" INBOX\r\n* LIST (\\All \\HasNoChildren) \"/\" \"[Gmail]/All Mail\"\r\n* LIST (\\flagged) \"/\" Starred\r\n" +
		"* LIST (\\Important) \"/\" Important\r\n* LIST (\\Sent) \"/\" \"[Gmail]/Sent\"\r\n* LIST (\\Noselect \\HasChildren) \"/\" \"[Gmail]\"\r\n"
	c.send(`a LIST "" *`)
	tells(u, list, "* LSUB () \"/\" Starred\r\n")
	for _, want := range []string{`* LIST (\HasNoChildren) "/" "INBOX"`, `* LIST (\Noselect \HasChildren) "/" "[Gmail]"`, `* LIST (\Sent \HasNoChildren) "/" "[Gmail]/Sent"`, "a OK done"} {
		if got := c.line(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, command := range []string{"STATUS Starred (MESSAGES)", "SUBSCRIBE Important", "DELETE Starred", `STATUS "[Gmail]" (MESSAGES)`, "CREATE Starred", `RENAME "[Gmail]/All Mail" x`} {
		c.send("b %s", command)
		if !strings.HasPrefix(command, "STATUS") {
			tells(u, list, "")
		}
		c.expect("b NO")
	}
	c.send(`c LSUB "" *`)
	tells(u, list, "* LSUB () \"/\" Starred\r\n")
	c.expect("c OK")
}

// TestNever2ViewOfAnUpstreamThatTellsTooMuch: data that nobody asked for, or
// that the view does not know, does not pass.
func TestNever2ViewOfAnUpstreamThatTellsTooMuch(t *testing.T) {
	c, u := scriptedView(t, shows("INBOX", "Work"), "IMAP4rev1", "NAMESPACE", "UNSELECT")
	u.raw("* LIST () \"/\" Secret\r\n* STATUS Secret (MESSAGES 5)\r\n* XYZZY Secret {6}\r\nSecret x\r\n* LIST () \"/\" {6}\r\nSecret\r\n* METADATA Secret (/comment x)\r\n")
	c.send("a NOOP")
	u.expect("a NOOP")
	u.raw("* STATUS INBOX (MESSAGES 1)\r\n* QUOTAROOT Secret x\r\n* OK [MAILBOXID (x)] fine\r\na OK [REFERRAL imap://x/] done\r\n")
	c.expect("* OK fine")
	c.expect("a OK done")

	c.send("b STATUS inbox (MESSAGES)")
	tells(u, "* LIST () \"/\" inbox\r\n* LIST () \"/\" {6}\r\nSecret\r\n* LIST () \"a\" xay\r\n* LIST () \"/\" \"Wo\\\"rk\"\r\n* LIST () NIL &bad\r\n* LIST (\\Noselect) \"/\" Work\r\n", "")
	u.expect(`b STATUS "inbox" (MESSAGES)`)
	u.raw("* STATUS Secret (MESSAGES 7)\r\n* STATUS {6}\r\nSecret (MESSAGES 7)\r\n* STATUS \"inbox\" (MESSAGES 8)\r\nb OK done\r\n")
	c.expect(`* STATUS "inbox" (MESSAGES 8)`)
	c.expect("b OK")

	c.send("c NAMESPACE")
	u.expect("c NAMESPACE")
	u.raw("* NAMESPACE ((\"\" \"/\")(\"x\" \"/\" \"P\" (\"y\"))) ((\"~Secret\" \"/\")) NIL\r\nc OK done\r\n")
	c.expect(`* NAMESPACE (("" "/")("x" "/" "P" ("y"))) NIL NIL`)
	c.expect("c OK")

	// What the server has against a folder could tell of hidden ones below it.
	c.send("d DELETE inbox")
	tells(u, "* LIST () \"/\" INBOX\r\n* LIST () \"/\" INBOX/Secret\r\n", "")
	own := u.line()
	if !strings.HasSuffix(own, ` DELETE "INBOX"`) {
		t.Errorf("got %q", own)
	}
	tag, _, _ := strings.Cut(own, " ")
	u.raw(tag + " NO [HASCHILDREN] INBOX/Secret is in the way\r\n")
	tells(u, "* LIST () \"/\" INBOX\r\n", "")
	c.expect("d NO [CANNOT] the mail server refuses")
}

// TestViewOfAnUpstreamThatDoesNotList: no list of folders, no session.
func TestViewOfAnUpstreamThatDoesNotList(t *testing.T) {
	c, u := scriptedView(t, shows("INBOX"), "IMAP4rev1")
	c.send("a SELECT INBOX")
	tag, _, _ := strings.Cut(u.line(), " ")
	u.raw(tag + " NO not now\r\n")
	c.expect("* BYE [UNAVAILABLE]")
	c.closed()
}
