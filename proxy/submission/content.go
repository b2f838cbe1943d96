// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// inspect has the message inspected as it streams, where the terms have a rule
// for what is in it.
func (m *message) inspect() *reply {
	s := m.session
	sending := &s.live.Decision().Sending
	if !sending.NoAttachments && len(sending.Content) == 0 {
		return nil
	}
	if s.content == nil {
		rules, err := newContentRules(sending)
		if err != nil { // policy has validated it
			s.log.Error("a content rule cannot be compiled; nothing was sent", zap.Error(err))
			return replyInternal
		}
		s.content = rules
	}
	m.inspector = newInspector(s.content)
	return nil
}

// uninspected refuses a message by the rule that blocks it, or, where it cannot
// be inspected, by the first rule that depends on that.
func (m *message) uninspected(err error) *reply {
	found := &m.inspector.found
	var attachment errAttachment
	switch {
	case errors.Is(err, errBlocked):
		where := ""
		for i := range found.rules.rules {
			if &found.rules.rules[i] == found.blocked {
				where = found.where[i]
			}
		}
		return m.refuse(refusal(550, "5.7.1", ruleTermsContent, fmt.Sprintf(
			"the terms of this mailbox block this message: %s matches %q (rule terms-content)", where, found.blocked.Name)))
	case errors.As(err, &attachment):
		return m.refuse(refusal(550, "5.7.1", ruleTermsAttachments,
			"the terms of this mailbox allow no attachments (rule terms-no-attachments): "+attachment.what))
	}
	rule := ruleTermsContent
	if len(found.rules.rules) == 0 {
		rule = ruleTermsAttachments
	}
	return m.refuse(refusal(554, "5.6.0", rule, fmt.Sprintf(
		"the terms of this mailbox demand that messages are inspected (rule %s), and this one cannot be: %v", rule, err)))
}

// flag records which rules that flag the message matches. flagged waits for it.
func (m *message) flag(sub *submission) {
	if m.inspector == nil {
		return
	}
	m.flags = nil
	for i, where := range m.inspector.found.where {
		if where != "" {
			m.flags = append(m.flags, m.session.live.Submit(broker.EventSendFlagged, &broker.SendFlagged{
				Intent: sub.intent, MessageID: m.header.messageID, Rule: m.inspector.found.rules.rules[i].Name, Where: where,
			}))
		}
	}
}

// flagged returns nil when what flag recorded is durable. It was queued before
// send.intent, so that mostly there is nothing to wait for.
func (m *message) flagged() error {
	if len(m.flags) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(m.session.ctx, m.session.gateway.limits.RecordTimeout)
	defer cancel()
	for _, receipt := range m.flags {
		if err := receipt.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}
