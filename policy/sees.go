// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// Sees says in words what an agent sees of a mailbox under the terms, for the
// people who grant them. senders are the mailbox's own: see RecoverySenders.
func (t *Terms) Sees(senders []string) string {
	if t.Actions&(List|Headers|Read) == 0 {
		return "nothing"
	}
	parts := []string{t.seesFolders(), t.seesMessages()}
	if t.Actions&(Headers|Read) == 0 {
		return strings.Join(parts, "; ")
	}
	hidden := ""
	if t.RecoveryMail != RecoveryShown && len(senders) > 0 {
		hidden = "from " + strings.Join(senders, ", ")
	}
	if t.RecoveryMail == RecoveryHidden {
		hidden = strings.TrimPrefix(hidden+", or with a subject that speaks of codes or of passwords to reset", ", or ")
	}
	if hidden != "" {
		return strings.Join(append(parts, "no mail for account recovery and one-time codes: none "+hidden), "; ")
	}
	return strings.Join(append(parts, "mail for account recovery and one-time codes as well, by which a reader may take the mailbox over"), "; ")
}

func (t *Terms) seesFolders() string {
	text := "all folders"
	if len(t.Folders.Allow) > 0 {
		text = "the folders " + strings.Join(t.Folders.Allow, ", ")
	}
	if len(t.Folders.Deny) > 0 {
		text += " but not " + strings.Join(t.Folders.Deny, ", ")
	}
	return text
}

func (t *Terms) seesMessages() string {
	text := "all messages"
	if t.Slice != "" {
		text = "messages that " + string(t.Slice) + " finds"
	}
	switch {
	case t.Actions.Has(Read):
		return text
	case t.Actions.Has(Headers):
		return "the headers of " + text
	}
	return "flags, dates and sizes of " + text
}
