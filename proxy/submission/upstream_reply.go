// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

// This file reads what the mail server behind answers.
// upstreamReply is a reply as the server gave it, its text cleaned.
type upstreamReply struct {
	code     int
	enhanced smtp.EnhancedCode // zero: it gave none
	text     string
}

var errReply = errors.New("submission: the mail server's reply is malformed")

// readReply reads one reply (RFC 5321 §4.2.1), strictly and within limits.
func (u *upstream) readReply() (*upstreamReply, error) {
	r := &upstreamReply{}
	var texts []string
	for n := 0; n < maxReplyLines; n++ {
		line, err := u.reader.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				err = errReply
			}
			return nil, err
		}
		code, text, last, err := parseReplyLine(line)
		if err != nil || n > 0 && code != r.code {
			return nil, errReply
		}
		r.code = code
		if first, rest, _ := strings.Cut(text, " "); code/100 != 3 {
			if e, ok := parseEnhanced(first, code/100); ok {
				r.enhanced, text = e, rest
			}
		}
		if text = cleanText(text, false); len(text) > maxRelayedText {
			text = text[:maxRelayedText]
		}
		if len(texts) < maxRelayedLines {
			texts = append(texts, text)
		}
		if last {
			r.text = strings.Join(texts, "\n")
			return r, nil
		}
	}
	return nil, errReply
}

func parseReplyLine(line []byte) (code int, text string, last bool, err error) {
	line, ok := bytes.CutSuffix(line, crlf)
	if !ok || len(line) < 3 || line[0] < '2' || line[0] > '5' || line[1] < '0' || line[1] > '5' || line[2] < '0' || line[2] > '9' {
		return 0, "", false, errReply
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	switch {
	case len(line) == 3:
		return code, "", true, nil
	case line[3] == ' ', line[3] == '-':
		return code, string(line[4:]), line[3] == ' ', nil
	}
	return 0, "", false, errReply
}

func first(replies []*upstreamReply) *upstreamReply {
	if len(replies) == 0 {
		return nil
	}
	return replies[0]
}

// relay makes of the server's refusal what the client is told: the same code
// and enhanced code. Codes that speak of the connection or of its login are
// about ours and would mislead the client about its own.
func (r *upstreamReply) relay() *reply {
	out := &reply{code: r.code, enhanced: r.enhanced, text: r.text}
	switch {
	case r.code == 421:
		out.code, out.enhanced = 451, smtp.EnhancedCode{4, 3, 2}
	case r.code == 454:
		out.code, out.enhanced = 451, smtp.EnhancedCode{4, 7, 0}
	case r.code/10 == 53 || r.code/10 == 52:
		out.code, out.enhanced = 554, smtp.EnhancedCode{5, 7, 0}
	case r.code/100 == 3:
		return replyUpstream
	}
	if out.enhanced == (smtp.EnhancedCode{}) {
		out.enhanced = smtp.EnhancedCode{out.code / 100, 0, 0}
	}
	return out
}

// line is the reply on one line, for the record.
func (r *upstreamReply) line() string {
	s := strconv.Itoa(r.code)
	if r.enhanced != (smtp.EnhancedCode{}) {
		s += fmt.Sprintf(" %d.%d.%d", r.enhanced[0], r.enhanced[1], r.enhanced[2])
	}
	return s + " " + strings.ReplaceAll(r.text, "\n", " ")
}
