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

// TestNever2ViewSliceOfAnUpstreamThatTellsTooMuch: an upstream that pushes,
// miscounts, or answers with other messages than were asked for tells nothing of
// hidden ones.
func TestNever2ViewSliceOfAnUpstreamThatTellsTooMuch(t *testing.T) {
	open := func() (c, u *peer) {
		c, u = scriptedView(t, slice("UNKEYWORD x"), "IMAP4rev1", "UIDPLUS", "UNSELECT")
		c.send("a SELECT INBOX")
		tells(u, "* LIST () \"/\" INBOX\r\n", "")
		own(u, `SELECT "INBOX"`, "* 3 EXISTS\r\n* 3 RECENT\r\n* OK [UNSEEN 2] x\r\n* OK [UIDVALIDITY 9] x\r\n* SEARCH 2\r\n")
		own(u, "UID SEARCH ALL", "* SEARCH 10 20 30\r\n")
		own(u, "UID SEARCH (UNKEYWORD x)", "* SEARCH 30 10\r\n")
		for _, want := range []string{"* OK [UIDVALIDITY 9] x", "* 2 EXISTS", "* 0 RECENT", "a OK done"} {
			c.expect(want)
		}
		return c, u
	}
	c, u := open()
	c.send("b UID FETCH 1:* (UID)")
	own(u, "UID FETCH 10,30 (UID)", "* 2 FETCH (UID 20 BODY[] {6}\r\nsecret FLAGS (x))\r\n* 3 FETCH (UID 30)\r\n* 9 FETCH (FLAGS (secret))\r\n* 0 FETCH (FLAGS ())\r\n"+
		"* ESEARCH (TAG \"b\") UID ALL 20\r\n* THREAD (20)\r\n* 4 EXISTS\r\n* 4 FETCH (BODY[] \"secret\")\r\n")
	c.expect("* 2 FETCH (UID 30)")
	c.expect("b OK")
	// One more has come, and flags have changed: both are asked for before
	// anything else is said.
	c.send("c UID FETCH 40 (FLAGS)")
	own(u, "UID SEARCH (UNKEYWORD x)", "* SEARCH 10 30\r\n")
	own(u, "UID SEARCH UID 31:*", "* SEARCH 40\r\n")
	own(u, "UID SEARCH UID 31:* (UNKEYWORD x)", "* SEARCH 30\r\n")
	c.expect("c OK done")

	for _, says := range []string{
		"* VANISHED 20\r\n",                           // numbers would mean other messages
		"* 3 FETCH (UID 20 BODY[] {6}\r\nsecret)\r\n", // that is another message
		"* 1 EXISTS\r\n",                              // fewer without EXPUNGE
		"* SEARCH 1 {3}\r\nabc\r\n* 0 EXISTS\r\n",
	} {
		c, u := open()
		c.send("b NOOP")
		u.line()
		u.raw(says)
		for _, line := range c.closed() {
			if strings.Contains(line, "secret") {
				t.Errorf("%q: %q", says, line)
			}
		}
	}

	// No answer of which messages there are, no folder.
	c, u = scriptedView(t, slice("UNKEYWORD x"), "IMAP4rev1", "UNSELECT")
	c.send("a SELECT INBOX")
	tells(u, "* LIST () \"/\" INBOX\r\n", "")
	own(u, `SELECT "INBOX"`, "* 3 EXISTS\r\n")
	own(u, "UID SEARCH ALL", "* SEARCH 1 2 x3\r\n")
	own(u, "UID SEARCH (UNKEYWORD x)", "* SEARCH 1 2\r\n")
	own(u, "UNSELECT", "")
	c.expect("a NO [UNAVAILABLE]")
	c.send("b FETCH 1 FLAGS")
	c.expect("b BAD")
}

// own expects a command of Postern's own, and answers it.
func own(u *peer, command, answer string) {
	u.t.Helper()
	tag, rest, _ := strings.Cut(u.line(), " ")
	if rest != command || !strings.HasPrefix(tag, "pn") {
		u.t.Fatalf("got %q, want %q", rest, command)
	}
	u.raw(answer + tag + " OK done\r\n")
}
