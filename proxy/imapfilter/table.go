// SPDX-License-Identifier: Apache-2.0

package imapfilter

import "github.com/postern-mail/postern/policy"

// states in which a command is valid (RFC 9051 §3). Postern itself enforces
// only what stands between before and after login; whether a folder is
// selected is the upstream's to say, so that its answers are its own.
type states uint8

const (
	before   states = 1 << iota // not authenticated: Postern answers
	after                       // authenticated
	selected                    // with a folder selected
)

// command is one entry of the command table.
type command struct {
	name   string
	states states
	// alone commands wait until all before them were answered, and all after
	// wait until they were: what they do changes what other answers mean. All
	// others are pipelined as they come.
	alone bool
	// numbers says that the arguments may hold message sequence numbers. Then
	// no command of Postern's own may come before it: its answer could hold an
	// EXPUNGE, which the client, when it chose the numbers, could not expect
	// (RFC 9051 §7.5.1).
	numbers bool
	// never says why the command is not forwarded; it is BAD.
	never string
	// judge checks the arguments and finds the actions that they need. nil:
	// never forwarded, or Postern answers it.
	judge func(p *parser, j *judgement) error
	// example holds arguments that the grammar takes, and needs the actions
	// that they take: for tests, and read by people.
	example string
	needs   policy.Actions
	// streams says that messages come as literals (APPEND, REPLACE).
	streams bool
}

const (
	neverAgain   = "you are logged in already"
	neverTLS     = "TLS is Postern's to begin and end"
	neverOffered = "Postern does not offer this extension"
	neverAccess  = "this would hand out access without Postern"
)

// newTable returns the command table: what is not in it is BAD. UID commands
// have entries of their own, under "UID <name>".
func newTable() map[string]*command {
	list := []command{
		{name: "CAPABILITY", states: before | after, judge: noArgs},
		{name: "NOOP", states: before | after, judge: noArgs},
		{name: "LOGOUT", states: before | after, alone: true, judge: noArgs},
		{name: "ID", states: before | after, judge: judgeID, example: ` ("name" "test")`},

		{name: "STARTTLS", states: before, never: neverTLS},
		{name: "AUTHENTICATE", states: before, never: neverAgain},
		{name: "LOGIN", states: before, never: neverAgain},
		{name: "COMPRESS", states: after, never: neverOffered},
		{name: "UNAUTHENTICATE", states: after, never: neverOffered},
		{name: "PROXYAUTH", states: after, never: neverAccess},
		{name: "GENURLAUTH", states: after, never: neverAccess},
		{name: "RESETKEY", states: after, never: neverAccess},
		{name: "URLFETCH", states: after, never: neverAccess},
		{name: "SETACL", states: after, never: neverAccess},
		{name: "DELETEACL", states: after, never: neverAccess},
		{name: "GETACL", states: after, never: neverOffered},
		{name: "LISTRIGHTS", states: after, never: neverOffered},
		{name: "MYRIGHTS", states: after, never: neverOffered},
		{name: "SETQUOTA", states: after, never: neverAccess},
		{name: "SETMETADATA", states: after, never: neverAccess},
		{name: "GETMETADATA", states: after, never: neverOffered},

		{name: "ENABLE", states: after, alone: true, judge: judgeEnable, example: " CONDSTORE"},
		{name: "SELECT", states: after, alone: true, judge: judgeSelect, example: " INBOX (CONDSTORE)", needs: policy.List},
		{name: "EXAMINE", states: after, alone: true, judge: judgeSelect, example: " INBOX", needs: policy.List},
		{name: "CREATE", states: after, judge: judgeCreate, example: " New (USE (\\Archive))", needs: policy.Folders},
		{name: "DELETE", states: after, alone: true, judge: judgeFolder, example: " Old", needs: policy.Folders},
		{name: "RENAME", states: after, alone: true, judge: judgeRename, example: " Old New", needs: policy.Folders},
		{name: "SUBSCRIBE", states: after, judge: judgeFolder, example: " New", needs: policy.Folders},
		{name: "UNSUBSCRIBE", states: after, judge: judgeFolder, example: " New", needs: policy.Folders},
		{name: "LIST", states: after, judge: judgeList, example: ` (SUBSCRIBED) "" ("*") RETURN (CHILDREN STATUS (MESSAGES))`, needs: policy.List},
		{name: "LSUB", states: after, judge: judgeLsub, example: ` "" *`, needs: policy.List},
		{name: "XLIST", states: after, judge: judgeLsub, example: ` "" *`, needs: policy.List},
		{name: "NAMESPACE", states: after, judge: judgeNamespace, needs: policy.List},
		{name: "STATUS", states: after, judge: judgeStatus, example: " INBOX (MESSAGES UIDNEXT)", needs: policy.List},
		{name: "APPEND", states: after, alone: true, streams: true, judge: judgeAppend, example: " Archive {5+}\r\nA: b\n", needs: policy.File},
		{name: "IDLE", states: after, alone: true, judge: noArgs},
		{name: "GETQUOTA", states: after, judge: judgeQuota, example: ` "User quota"`, needs: policy.List},
		{name: "GETQUOTAROOT", states: after, judge: judgeQuotaRoot, example: " INBOX", needs: policy.List},
		{name: "NOTIFY", states: after, alone: true, judge: judgeNotify, example: " SET (selected (MessageNew (UID BODY.PEEK[]) MessageExpunge))", needs: policy.List | policy.Headers | policy.Read},
		{name: "CANCELUPDATE", states: selected, judge: judgeCancelUpdate, example: ` "a1"`, needs: policy.List},

		{name: "CHECK", states: selected, judge: noArgs},
		{name: "CLOSE", states: selected, alone: true, judge: judgeClose, needs: policy.Delete},
		{name: "UNSELECT", states: selected, alone: true, judge: noArgs},
		{name: "EXPUNGE", states: selected, judge: judgeExpunge, needs: policy.Delete},
		{name: "UID EXPUNGE", states: selected, judge: judgeUIDExpunge, example: " 1:*", needs: policy.Delete},
	}
	both := []command{
		{name: "SEARCH", states: selected, numbers: true, judge: judgeSearch, example: " CHARSET UTF-8 BODY secret", needs: policy.List | policy.Read},
		{name: "SORT", states: selected, numbers: true, judge: judgeSort, example: " (SUBJECT) UTF-8 ALL", needs: policy.List | policy.Headers},
		{name: "THREAD", states: selected, numbers: true, judge: judgeThread, example: " REFERENCES UTF-8 ALL", needs: policy.List | policy.Headers},
		{name: "FETCH", states: selected, numbers: true, judge: judgeFetch, example: " 1:* (FLAGS BODY.PEEK[])", needs: policy.List | policy.Headers | policy.Read},
		{name: "STORE", states: selected, numbers: true, judge: judgeStore, example: ` 1 +FLAGS.SILENT (\Seen)`, needs: policy.Flag},
		{name: "COPY", states: selected, numbers: true, judge: judgeCopy, example: " 1 Archive", needs: policy.File},
		{name: "MOVE", states: selected, numbers: true, judge: judgeMove, example: " 1 Archive", needs: policy.File},
		{name: "REPLACE", states: selected, numbers: true, alone: true, streams: true, judge: judgeReplace, example: " 1 Archive {5+}\r\nA: b\n", needs: policy.File | policy.Delete},
	}
	for _, c := range both {
		list = append(list, c)
		c.name = "UID " + c.name
		// Only what SEARCH, SORT and THREAD look for may still be numbers.
		c.numbers = c.name == "UID SEARCH" || c.name == "UID SORT" || c.name == "UID THREAD"
		list = append(list, c)
	}
	table := make(map[string]*command, len(list))
	for i := range list {
		table[list[i].name] = &list[i]
	}
	return table
}
