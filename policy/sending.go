// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of content rules.
const (
	// MaxContentRules is how many there are.
	MaxContentRules = 32
	// MaxContentPattern is a pattern's length in octets.
	MaxContentPattern = 500
	// MaxContentName is a name's.
	MaxContentName = 60
)

// Sending are the rules for what is submitted; the zero value has none. In
// numbers 0 is no limit.
type Sending struct {
	// Recipients say to whom.
	Recipients RecipientPatterns `json:"recipients,omitzero"`
	// ReplyOnly demands that each recipient has written to the mailbox, or was
	// written to with it.
	ReplyOnly bool `json:"reply_only,omitempty"`
	// MaxRecipients is for one message.
	MaxRecipients int `json:"max_recipients,omitempty"`
	// MessagesPerHour and RecipientsPerHour are for one assignment.
	MessagesPerHour   int `json:"messages_per_hour,omitempty"`
	RecipientsPerHour int `json:"recipients_per_hour,omitempty"`
	// MaxOctets is a message's size.
	MaxOctets int64 `json:"max_octets,omitempty"`
	// NoAttachments refuses messages with attachments.
	NoAttachments bool `json:"no_attachments,omitempty"`
	// Content rules; each looks at every message.
	Content []ContentRule `json:"content,omitempty"`
}

// ContentRule flags or blocks messages by what is in them: decoded header
// fields, text parts, and file names. Each is matched by itself: a field as
// "Subject: hello", a text as it was written and as it is seen, with any white
// space as one space, and HTML without its tags. A message in which these
// cannot be read for certain is refused, whether the rule blocks or flags.
type ContentRule struct {
	// Name is what a refusal and an event call it.
	Name string `json:"name"`
	// Pattern is a regular expression of RE2. In a text of more than 128 KiB a
	// match that is longer than 32 KiB may not be found.
	Pattern string `json:"pattern"`
	// Block refuses the message; otherwise an event tells of it.
	Block bool `json:"block,omitempty"`
}

// IsZero reports whether there are no rules.
func (s Sending) IsZero() bool {
	return s.Recipients.IsZero() && !s.ReplyOnly && s.MaxRecipients == 0 && s.MessagesPerHour == 0 &&
		s.RecipientsPerHour == 0 && s.MaxOctets == 0 && !s.NoAttachments && len(s.Content) == 0
}

func (s Sending) validate() (field, reason string) {
	if field, reason := s.Recipients.validate(); reason != "" {
		return "recipients." + field, reason
	}
	switch {
	case s.MaxRecipients < 0:
		return "max_recipients", "is negative"
	case s.MessagesPerHour < 0:
		return "messages_per_hour", "is negative"
	case s.RecipientsPerHour < 0:
		return "recipients_per_hour", "is negative"
	case s.MaxOctets < 0:
		return "max_octets", "is negative"
	case s.RecipientsPerHour > 0 && s.MaxRecipients > s.RecipientsPerHour:
		return "max_recipients", "is more than recipients_per_hour"
	case s.RecipientsPerHour > 0 && s.MessagesPerHour > s.RecipientsPerHour:
		return "messages_per_hour", "is more than recipients_per_hour: each message has a recipient"
	case len(s.Content) > MaxContentRules:
		return "content", fmt.Sprintf("more than %d", MaxContentRules)
	}
	for i := range s.Content {
		if field, reason := s.Content[i].validate(); reason != "" {
			return fmt.Sprintf("content[%d].%s", i, field), reason
		}
		for _, other := range s.Content[:i] {
			if other.Name == s.Content[i].Name {
				return fmt.Sprintf("content[%d].name", i), "is there twice"
			}
		}
	}
	return "", ""
}

func (c *ContentRule) validate() (field, reason string) {
	switch {
	case c.Name == "" || len(c.Name) > MaxContentName || !utf8.ValidString(c.Name):
		return "name", fmt.Sprintf("give a name of at most %d octets", MaxContentName)
	case strings.ContainsFunc(c.Name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "name", "holds a control character"
	case c.Pattern == "":
		return "pattern", "is missing"
	case len(c.Pattern) > MaxContentPattern:
		return "pattern", fmt.Sprintf("longer than %d octets", MaxContentPattern)
	}
	parsed, err := syntax.Parse(c.Pattern, syntax.Perl)
	if err != nil {
		return "pattern", err.Error()
	}
	compiled, err := regexp.Compile(c.Pattern)
	switch {
	case err != nil:
		return "pattern", err.Error()
	case parsed.Op == syntax.OpNoMatch || (parsed.Op == syntax.OpCharClass && len(parsed.Rune) == 0):
		return "pattern", "matches nothing"
	case compiled.MatchString(""):
		return "pattern", "matches every message"
	}
	return "", ""
}

// within returns the first field in which inner is wider; "": none.
func (s Sending) within(inner Sending) (field string) {
	switch {
	case !s.Recipients.within(inner.Recipients):
		return "recipients"
	case s.ReplyOnly && !inner.ReplyOnly:
		return "reply_only"
	case !atMost(s.MaxRecipients, smaller(inner.MaxRecipients, inner.RecipientsPerHour)):
		return "max_recipients"
	case !atMost(s.MessagesPerHour, smaller(inner.MessagesPerHour, inner.RecipientsPerHour)):
		return "messages_per_hour"
	case !atMost(s.RecipientsPerHour, inner.RecipientsPerHour):
		return "recipients_per_hour"
	case !atMost(s.MaxOctets, inner.MaxOctets):
		return "max_octets"
	case s.NoAttachments && !inner.NoAttachments:
		return "no_attachments"
	}
	for _, c := range s.Content {
		if !slices.ContainsFunc(inner.Content, func(other ContentRule) bool {
			return other.Pattern == c.Pattern && (other.Block || !c.Block)
		}) {
			return "content"
		}
	}
	return ""
}

// narrow returns rules that both pass; ok is false when no recipient does.
func (s Sending) narrow(inner Sending) (both Sending, ok bool) {
	both = s.numbers(inner)
	both.Recipients, ok = s.Recipients.narrow(inner.Recipients)
	return both, ok
}

// numbers is narrow without the recipients.
func (s Sending) numbers(inner Sending) Sending {
	both := Sending{
		ReplyOnly:         s.ReplyOnly || inner.ReplyOnly,
		MaxRecipients:     smaller(s.MaxRecipients, inner.MaxRecipients),
		MessagesPerHour:   smaller(s.MessagesPerHour, inner.MessagesPerHour),
		RecipientsPerHour: smaller(s.RecipientsPerHour, inner.RecipientsPerHour),
		MaxOctets:         smaller(s.MaxOctets, inner.MaxOctets),
		NoAttachments:     s.NoAttachments || inner.NoAttachments,
	}
	if most := both.RecipientsPerHour; most > 0 {
		both.MaxRecipients = min(both.MaxRecipients, most)
		both.MessagesPerHour = min(both.MessagesPerHour, most)
	}
	both.Content = slices.Clone(s.Content)
	for _, c := range inner.Content {
		i := slices.IndexFunc(both.Content, func(other ContentRule) bool { return other.Pattern == c.Pattern })
		switch {
		case i >= 0:
			both.Content[i].Block = both.Content[i].Block || c.Block
		default:
			for slices.ContainsFunc(both.Content, func(other ContentRule) bool { return other.Name == c.Name }) {
				c.Name += "'"
			}
			both.Content = append(both.Content, c)
		}
	}
	return both
}

func (s Sending) clone() Sending {
	s.Recipients = s.Recipients.clone()
	s.Content = slices.Clone(s.Content)
	return s
}
