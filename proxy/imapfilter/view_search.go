// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// searchReturn is what a SEARCH or SORT wants to be told (RFC 4731, RFC 5267).
type searchReturn struct {
	extended, min, max, all, count bool
	// from is the index of the first token behind the options.
	from int
}

func readSearchReturn(cmd *imapwire.Command, from int) (o searchReturn) {
	p := parser{}
	p.begin(cmd)
	p.pos = from
	if p.is("RETURN") {
		o.extended = true
		p.words(func(w []byte) bool {
			switch string(w) {
			case "MIN":
				o.min = true
			case "MAX":
				o.max = true
			case "ALL":
				o.all = true
			case "COUNT":
				o.count = true
			}
			return true
		})
		o.all = o.all || !o.min && !o.max && !o.count
	}
	o.from = p.pos
	return o
}

// slicedSearch runs a client's SEARCH or SORT as it is, with its numbers turned
// into UIDs, and answers with what is visible of what was found.
func (s *clientSide) slicedSearch(keyword string, skip int) error {
	cmd := s.lexer.Command()
	o := readSearchReturn(cmd, skip)
	args, none, refusal := s.searchArgs(cmd, keyword, o.from)
	if refusal != "" {
		return s.answer("BAD", refusal)
	}
	var found []uint32
	if !none {
		cmd.SetName("UID")
		cmd.SetArgs(args)
		answer, err := s.askCommand(cmd, nil)
		if err != nil {
			return err
		}
		if !answer.good {
			return s.answerAs(answer)
		}
		found = answer.numbers
	}
	m := &s.r.view.mail
	if keyword == "SEARCH" {
		slices.Sort(found)
		found = slices.Compact(found)
	}
	found = m.visible(found)
	if skip == 0 {
		found = m.numbers(found)
	}
	s.r.say("%s", appendFound(nil, keyword, s.tag(), o, skip > 0, found))
	return s.settled("OK", "done", skip > 0)
}

// searchArgs returns the arguments of the search as it goes upstream. none: it
// can find nothing that is visible.
func (s *clientSide) searchArgs(cmd *imapwire.Command, keyword string, from int) (args []imapwire.Token, none bool, refusal string) {
	args = append(args, cmd.NewAtom(keyword, true))
	sets := s.judged.sets
	for i := from; i < len(cmd.Args()); i++ {
		t := cmd.Args()[i]
		k := slices.IndexFunc(sets, func(x setAt) bool { return x.index == i })
		if k < 0 {
			args = append(args, t)
			continue
		}
		spans, ok := s.r.view.mail.spans(cmd.Value(t), sets[k].uid)
		if !ok {
			return nil, false, errNumbers
		}
		set := s.r.view.mail.searchSet(spans)
		switch {
		case set == "": // no message, which cannot be written as a set
			if sets[k].uid {
				args = args[:len(args)-1]
			}
			args = append(args, cmd.NewAtom("NOT", t.Space || sets[k].uid && spaceBefore(cmd, i)), cmd.NewAtom("ALL", true))
		case sets[k].uid:
			args = append(args, cmd.NewAtom(set, true))
		default:
			args = append(args, cmd.NewAtom("UID", t.Space), cmd.NewAtom(set, true))
		}
	}
	s.r.view.mail.mu.Lock()
	defer s.r.view.mail.mu.Unlock()
	return args, len(s.r.view.mail.client) == 0, ""
}

// spaceBefore reports whether a space stands before the UID at whose set i is.
func spaceBefore(cmd *imapwire.Command, i int) bool { return cmd.Args()[i-1].Space }

// appendFound writes the answer to a search.
func appendFound(dst []byte, keyword string, tag []byte, o searchReturn, uid bool, found []uint32) []byte {
	if !o.extended {
		dst = append(append(dst, "* "...), keyword...)
		for _, n := range found {
			dst = strconv.AppendUint(append(dst, ' '), uint64(n), 10)
		}
		return append(dst, '\r', '\n')
	}
	dst = fmt.Appendf(dst, "* ESEARCH (TAG %q)", tag)
	if uid {
		dst = append(dst, " UID"...)
	}
	if len(found) > 0 {
		if o.min {
			dst = fmt.Appendf(dst, " MIN %d", found[0])
		}
		if o.max {
			dst = fmt.Appendf(dst, " MAX %d", found[len(found)-1])
		}
		if o.all {
			dst = appendSet(append(dst, " ALL "...), found)
		}
	}
	if o.count {
		dst = fmt.Appendf(dst, " COUNT %d", len(found))
	}
	return append(dst, '\r', '\n')
}

// answerAs gives the client the upstream's own words to a command.
func (s *clientSide) answerAs(a *ownAnswer) error {
	status := a.status
	if status == "OK" {
		status = "NO"
	}
	text := a.text
	if a.code != "" && s.r.view.passesCode([]byte(a.code)) {
		text = "[" + strings.TrimSpace(a.code+" "+a.args) + "] " + text
	}
	if text == "" {
		text = "failed"
	}
	return s.answer(status, text)
}
