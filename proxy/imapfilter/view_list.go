// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"sort"
	"strings"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// listOptions is what a LIST or LSUB asks for (RFC 5258 §3).
type listOptions struct {
	lsub                           bool
	subscribed, recursive, special bool
	returnSubscribed               bool
	reference                      []byte
	patterns                       [][]byte
}

// readListOptions reads the arguments of a LIST or LSUB that was judged.
func readListOptions(cmd *imapwire.Command, lsub bool) listOptions {
	o := listOptions{lsub: lsub}
	p := parser{}
	p.begin(cmd)
	p.words(func(w []byte) bool {
		switch string(w) {
		case "SUBSCRIBED":
			o.subscribed = true
		case "RECURSIVEMATCH":
			o.recursive = true
		case "SPECIAL-USE":
			o.special = true
		}
		return true
	})
	o.reference, _ = p.astring()
	if p.take(imapwire.Open) {
		for !p.take(imapwire.Close) {
			o.patterns = append(o.patterns, cmd.Value(p.toks[p.pos]))
			p.pos++
		}
	} else {
		o.patterns = append(o.patterns, cmd.Value(p.toks[p.pos]))
		p.pos++
	}
	if p.is("RETURN") {
		p.words(func(w []byte) bool {
			o.returnSubscribed = o.returnSubscribed || string(w) == "SUBSCRIBED"
			return true
		})
	}
	return o
}

// tree returns the visible folders with those that stand above them, by name. A
// folder that cannot be opened and has nothing visible below it would tell of
// what is hidden there, and is left out.
func (l *folderList) tree(include func(*listed) bool) []*listed {
	nodes := make(map[string]*listed)
	for _, f := range l.all {
		if f.visible && include(f) {
			nodes[f.name] = f
		}
	}
	for _, f := range l.all {
		if !f.visible || !include(f) || f.delimiter == 0 || (f.exists && !f.selectable()) {
			continue
		}
		for raw := f.raw; ; {
			i := strings.LastIndexByte(raw, f.delimiter)
			if i <= 0 {
				break
			}
			raw = raw[:i]
			name, ok := folderName([]byte(raw), f.delimiter)
			if !ok || nodes[name] != nil {
				continue
			}
			nodes[name] = &listed{raw: raw, name: name, delimiter: f.delimiter, flags: []string{`\Noselect`}, made: true}
		}
	}
	all := make([]*listed, 0, len(nodes))
	for _, f := range nodes {
		all = append(all, f)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })
	kept := all[:0]
	for _, f := range all {
		if !f.exists || f.selectable() || hasBelow(all, f, (*listed).selectable) {
			kept = append(kept, f)
		}
	}
	return kept
}

// hasBelow reports whether one that is so stands below a folder.
func hasBelow(all []*listed, f *listed, so func(*listed) bool) bool {
	if f.delimiter == 0 {
		return false
	}
	prefix := f.name + string(rune(f.delimiter))
	i := sort.Search(len(all), func(i int) bool { return all[i].name >= prefix })
	for ; i < len(all) && strings.HasPrefix(all[i].name, prefix); i++ {
		if so(all[i]) {
			return true
		}
	}
	return false
}

// appendList appends the answer to a LIST or LSUB.
func (l *folderList) appendList(dst []byte, o *listOptions) []byte {
	keyword := "LIST"
	include := func(f *listed) bool { return f.exists }
	isSubscribed := func(f *listed) bool { return f.subscribed }
	switch {
	case o.lsub:
		keyword, include = "LSUB", isSubscribed
	case o.subscribed:
		include = func(f *listed) bool { return f.exists || f.subscribed }
	}
	if len(o.patterns) == 1 && len(o.patterns[0]) == 0 && !o.lsub { // RFC 9051 §6.3.9
		return appendListed(dst, keyword, []string{`\Noselect`}, l.delimiter, "", "")
	}
	all := l.tree(include)
	for _, f := range all {
		if !l.matches(f, o) {
			continue
		}
		info := ""
		chosen := !o.subscribed || f.subscribed
		if o.recursive && hasBelow(all, f, isSubscribed) {
			info = ` ("CHILDINFO" ("SUBSCRIBED"))`
			chosen = true
		}
		if o.special && !hasSpecialUse(f) {
			chosen = false
		}
		if o.lsub && f.made && !endsInPercent(o.patterns) {
			chosen = false
		}
		if chosen {
			dst = appendListed(dst, keyword, l.shownFlags(all, f, o), f.delimiter, f.raw, info)
		}
	}
	return dst
}

// endsInPercent: LSUB tells what stands above a subscribed folder only where the
// pattern ends in % (RFC 3501 §6.3.9).
func endsInPercent(patterns [][]byte) bool { return bytes.HasSuffix(patterns[0], []byte("%")) }

var specialUses = []string{`\Archive`, `\Drafts`, `\Junk`, `\Sent`, `\Trash`, `\Spam`, `\Inbox`}

func hasSpecialUse(f *listed) bool {
	for _, use := range specialUses {
		if f.has(use) {
			return true
		}
	}
	return false
}

// shownFlags returns a folder's flags as the view has them: what tells of its
// children is found out among the visible ones.
func (l *folderList) shownFlags(all []*listed, f *listed, o *listOptions) []string {
	var flags []string
	if o.lsub {
		if f.made {
			return []string{`\Noselect`}
		}
		return nil
	}
	for _, flag := range append([]string{`\Noselect`, `\Noinferiors`, `\Marked`, `\Unmarked`}, specialUses...) {
		if f.has(flag) {
			flags = append(flags, flag)
		}
	}
	if !f.exists && !f.made || f.has(`\NonExistent`) {
		flags = append(flags, `\NonExistent`)
	}
	if f.subscribed && (o.subscribed || o.returnSubscribed) {
		flags = append(flags, `\Subscribed`)
	}
	switch {
	case hasBelow(all, f, func(x *listed) bool { return x.exists || x.made }):
		flags = append(flags, `\HasChildren`)
	case !f.has(`\Noinferiors`):
		flags = append(flags, `\HasNoChildren`)
	}
	return flags
}

func appendListed(dst []byte, keyword string, flags []string, delimiter byte, raw, info string) []byte {
	dst = append(append(append(append(dst, "* "...), keyword...), " ("...), strings.Join(flags, " ")...)
	dst = append(dst, ") "...)
	if delimiter == 0 {
		dst = append(dst, "NIL"...)
	} else {
		dst = appendQuotedString(dst, string(rune(delimiter)))
	}
	dst = appendQuotedString(append(dst, ' '), raw)
	return append(append(dst, info...), '\r', '\n')
}

func appendQuotedString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}

// matches reports whether one of the patterns, behind the reference, describes a
// folder. Names are compared as they are written.
func (l *folderList) matches(f *listed, o *listOptions) bool {
	for _, p := range o.patterns {
		pattern := append(bytes.Clone(o.reference), p...)
		if matchList(inboxUpper(string(pattern), f.delimiter), inboxUpper(f.raw, f.delimiter), f.delimiter) {
			return true
		}
	}
	return false
}

func inboxUpper(s string, delimiter byte) string {
	if n := len("INBOX"); len(s) >= n && strings.EqualFold(s[:n], "INBOX") && (len(s) == n || s[n] == delimiter || s[n] == '*' || s[n] == '%') {
		return "INBOX" + s[n:]
	}
	return s
}

// matchList matches a list pattern: * is anything, % anything without the
// delimiter. Its work is bounded by the product of both lengths.
func matchList(pattern, name string, delimiter byte) bool {
	// at[j] says that the pattern so far describes name[:j].
	at := make([]bool, len(name)+1)
	at[0] = true
	for i := range len(pattern) {
		switch c := pattern[i]; c {
		case '*', '%':
			for j := 1; j <= len(name); j++ {
				at[j] = at[j] || at[j-1] && (c == '*' || delimiter == 0 || name[j-1] != delimiter)
			}
		default:
			for j := len(name); j > 0; j-- {
				at[j] = at[j-1] && name[j-1] == c
			}
			at[0] = false
		}
	}
	return at[len(name)]
}
