// SPDX-License-Identifier: Apache-2.0

package broker

import "github.com/postern-mail/postern/policy"

// CommandRefused is the data of command.refused.
type CommandRefused struct {
	Command string         `json:"command"`
	Needs   policy.Actions `json:"needs"`
	Folder  string         `json:"folder,omitempty"`
}

// QuotaReached is the data of quota.reached: which quota, as "octets.day".
type QuotaReached struct {
	Quota  string `json:"quota"`
	Folder string `json:"folder"`
}

// FoldersUnmatched is the data of folders.unmatched.
type FoldersUnmatched struct {
	Patterns []string `json:"patterns"`
}

// MessageOpen is the data of message.open: the messages of one folder whose
// bodies were relayed, gathered within the bound of 1 MiB.
type MessageOpen struct {
	Folder      string          `json:"folder"`
	UIDValidity uint32          `json:"uid_validity"`
	Messages    []OpenedMessage `json:"messages"`
	// Sync says that they were opened faster than a person reads: see
	// SyncMessages. What a mail client downloads for its cache looks so, and an
	// export does.
	Sync bool `json:"sync,omitempty"`
}

// OpenedMessage is one body that was relayed.
type OpenedMessage struct {
	// UID is 0 when the upstream told it only after the octets: then a second
	// entry with the same Seq and with Continues set tells it.
	UID uint32 `json:"uid"`
	// Seq is the message sequence number in the response.
	Seq uint32 `json:"seq"`
	// Section is the FETCH item's, such as "BODY[]" or "BODY[1.2]<0>".
	Section string `json:"section"`
	// Octets is the announced size of what was relayed.
	Octets    int64  `json:"octets"`
	MessageID string `json:"message_id,omitempty"`
	Continues bool   `json:"continues,omitempty"`
}

// MessageIdentify is the data of message.identify.
type MessageIdentify struct {
	Folder      string `json:"folder"`
	UIDValidity uint32 `json:"uid_validity"`
	UID         uint32 `json:"uid"`
	MessageID   string `json:"message_id"`
}

// MessageChange is the data of message.flag, copy, move and expunge: written
// when the upstream's tagged OK has come, or when it is not to come.
type MessageChange struct {
	Folder      string `json:"folder"`
	UIDValidity uint32 `json:"uid_validity"`
	// Set is the client's message set; UIDs says whether it holds UIDs.
	Set  string `json:"set"`
	UIDs bool   `json:"uids"`
	// Target is the other folder; Flags what STORE did, such as "+FLAGS (\Seen)".
	Target string `json:"target,omitempty"`
	Flags  string `json:"flags,omitempty"`
	// CopyUID is the COPYUID or EXPUNGE answer where there is one.
	CopyUID string `json:"copy_uid,omitempty"`
	// Outcome is empty when it was carried out; see ChangeRefused.
	Outcome ChangeOutcome `json:"outcome,omitempty"`
}

// ChangeOutcome says of a change that it is not known to be carried out.
type ChangeOutcome string

// The outcomes that are not the upstream's OK.
const (
	// ChangeRefused: it answered NO, and may have changed a part.
	ChangeRefused ChangeOutcome = "refused"
	// ChangeUnanswered: the session ended first.
	ChangeUnanswered ChangeOutcome = "unanswered"
)

// MessageAppend is the data of message.append.
type MessageAppend struct {
	Folder    string `json:"folder"`
	Octets    int64  `json:"octets"`
	SHA256    string `json:"sha256"`
	MessageID string `json:"message_id,omitempty"`
	AppendUID string `json:"append_uid,omitempty"`
	// Outcome is empty, or ChangeUnanswered.
	Outcome ChangeOutcome `json:"outcome,omitempty"`
}

// MessageFiling is the data of message.filing.
type MessageFiling struct {
	Folder    string `json:"folder"`
	MessageID string `json:"message_id"`
}

// FolderChange is the data of folder.change.
type FolderChange struct {
	Command string `json:"command"`
	Folder  string `json:"folder"`
	Target  string `json:"target,omitempty"`
}

// SendIntent is the data of send.intent.
type SendIntent struct {
	// Intent names this submission; its send.result bears the same.
	Intent     ID       `json:"intent"`
	MailFrom   string   `json:"mail_from"`
	HeaderFrom string   `json:"header_from"`
	Recipients []string `json:"recipients"`
	MessageID  string   `json:"message_id"`
	Octets     int64    `json:"octets"`
	SHA256     string   `json:"sha256"`
}

// SendFlagged is the data of send.flagged.
type SendFlagged struct {
	// Intent is the one in the send.intent event.
	Intent    ID     `json:"intent"`
	MessageID string `json:"message_id"`
	// Rule is the content rule's name, Where the place in which it matched
	// first: "the text", "a file name", "the header field subject". What it
	// matched is not told.
	Rule  string `json:"rule"`
	Where string `json:"where"`
}

// SendResult is the data of send.result.
type SendResult struct {
	// Intent is the one in the send.intent event.
	Intent    ID     `json:"intent"`
	MessageID string `json:"message_id"`
	// Outcome is "accepted", "refused", "not-sent" or "unknown".
	Outcome string `json:"outcome"`
	// Answer is the upstream's, code and text, on one line.
	Answer string `json:"answer,omitempty"`
	// FoundInSent says that an unknown outcome was settled by finding it.
	FoundInSent bool `json:"found_in_sent,omitempty"`
}

// SendRefused is the data of send.refused.
type SendRefused struct {
	// Rule is the rule's name: "own-address", "header-from", "malformed-address", …
	Rule    string `json:"rule"`
	Address string `json:"address,omitempty"`
	Text    string `json:"text"`
}
