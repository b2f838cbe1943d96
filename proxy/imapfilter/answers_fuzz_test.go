// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy"
	"github.com/postern-mail/postern/proxy/imapwire/wiretest"
)

// maxRecordedSection is where the record cuts a section's name off, in octets:
// imapwire.FetchScanner.
const maxRecordedSection = 512

// answered is what a client hears of what an upstream answers to a FETCH, and
// what is recorded of it.
type answered struct {
	heard  []byte
	opened []broker.OpenedMessage
}

// answer lets an upstream answer the client's "b UID FETCH" and "c NOOP" with
// the octets given, and close.
func answer(t *testing.T, octets []byte) *answered {
	t.Helper()
	near, far := net.Pipe()
	client, server := net.Pipe()
	gate := &fakeGate{decision: policy.Decision{Actions: policy.All}, dial: func(context.Context) (*broker.IMAPConn, error) {
		return &broker.IMAPConn{Conn: near, Capabilities: []string{"IMAP4rev1", "UNSELECT"}}, nil
	}}
	filter, err := New(Config{Gate: gate, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		defer far.Close()
		r := bufio.NewReader(far)
		for line := ""; !strings.HasPrefix(line, "c "); {
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
			if strings.HasPrefix(line, "a ") {
				_, _ = io.WriteString(far, "* OK [UIDVALIDITY 7] ok\r\na OK ready\r\n")
			}
		}
		go func() { _, _ = io.Copy(io.Discard, r) }()
		_, _ = far.Write(octets)
	})
	all.Go(func() {
		filter.ServeConn(context.Background(), proxy.NewConn(server, proxy.ConnConfig{IsTLS: true}))
		server.Close()
		near.Close()
	})
	go func() {
		_, _ = io.WriteString(client, "l LOGIN box secret\r\na SELECT x\r\nb UID FETCH 1:* (UID BODY[])\r\nc NOOP\r\n")
	}()
	_ = client.SetReadDeadline(time.Now().Add(20 * time.Second))
	heard, err := io.ReadAll(client)
	if err != nil {
		t.Fatalf("%q: stuck: %v", octets, err)
	}
	client.Close()
	all.Wait()
	_, heard, found := bytes.Cut(heard, []byte("a OK ready\r\n"))
	if !found {
		t.Fatalf("the session did not begin: %q", heard)
	}
	out := &answered{heard: heard}
	for _, e := range gate.last().recorded(broker.EventMessageOpen) {
		out.opened = append(out.opened, e.(broker.MessageOpen).Messages...)
	}
	return out
}

// FuzzAnswers: whatever an upstream answers, the client hears responses of its
// as they are and in their order, or statuses that say nothing of what Postern
// keeps back; and every body is recorded.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		"b OK done\r\nc OK done\r\n", "c OK done\r\n* 1 EXISTS\r\nb NO [REFERRAL imap://x/] {3}\r\n", "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN IDLE] x\r\n",
		"* CAPABILITY IDLE {16}\r\n* 1 EXISTS\r\nabc\r\n", "* NO [REFERRAL x] [CAPABILITY STARTTLS]\r\n", "* LIST () NIL {3}\r\na\r\n {0}\r\n\r\n",
		"* 1 FETCH (BODY[TEXT] \"abc\" UID 9)\r\n* 1 FETCH (X-NEW {3}\r\nabc)\r\nb OK\r\n", "* PREAUTH hi\r\n", "+ go\r\n", "* BYE [REFERRAL imap://x/] off\r\nb OK\r\n",
		"* 1 FETCH (BODY[HEADER] {3}\r\na: RFC822 {2}\r\nxy UID 8)\r\nb OK\r\n", "* 2 FETCH (BODY[] {2}\r\nxy)\r\n* 2 FETCH (UID 8)\r\nb OK x\r\nc OK\r\n",
		"* OK [X \"]\" [CAPABILITY STARTTLS]] y\r\n", "* OK  [REFERRAL x\r\n", "* ok [referral x] y\r\n", "b OK [COPYUID 1 2 3] x\r\nb OK again\r\n", "pn0123456789-1 OK\r\n",
		"* OK\t[REFERRAL x] y\r\n", "* OK(\r\n", "* FETCH\r\n* 0 FETCH (FLAGS ())\r\n", "* 1 FETCH (UID 4294967297 BODY[] {1}\r\nx)\r\nb OK\r\n",
	} {
		f.Add([]byte(s))
	}
	for _, e := range wiretest.Servers() {
		f.Add(e.Octets)
		f.Add(append(bytes.Clone(e.Octets), "b OK done\r\nc OK done\r\n"...))
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		if len(octets) > 8<<10 {
			return
		}
		got := answer(t, octets)
		given, _ := wiretest.Responses(octets)
		heard, whole := wiretest.Responses(got.heard)
		for i, r := range heard {
			var fault string
			switch {
			case bytes.HasPrefix(r, []byte("+")):
				fault = "nobody waits for a continuation"
			case wiretest.Status(r):
				fault = faultOfStatus(r, i == len(heard)-1 && whole)
			case listsWords.Match(r):
				fault = faultOfWords(listsWords.ReplaceAllString(string(r), ""))
			default:
				n := slices.IndexFunc(given, func(g []byte) bool { return bytes.Equal(g, r) })
				if n < 0 {
					fault = "the upstream gave no such response after the last"
					break
				}
				given = given[n+1:]
				fault = got.unrecorded(r)
			}
			if fault != "" {
				t.Fatalf("%q: heard %q in %q: %s", octets, r, got.heard, fault)
			}
		}
	})
}

var (
	listsWords = regexp.MustCompile(`(?i)^\* +(CAPABILITY|ENABLED)[\x00-\x20(]`)
	statusText = regexp.MustCompile(`(?i)^(\S+) +(OK|NO|BAD|BYE|PREAUTH)[\x00-\x20]*(.*)\r\n$`)
	codeOf     = regexp.MustCompile(`^\[[\x00-\x20]*([^]\x00-\x20]*)[\x00-\x20]*(.*)`)
	fetchHead  = regexp.MustCompile(`(?i)^\* +([0-9]+) +FETCH`)
	headerName = regexp.MustCompile(`^BODY\[(HEADER|[0-9.]+MIME\])`)
)

// faultOfStatus says what is wrong with a status that a client hears.
func faultOfStatus(r []byte, last bool) string {
	m := statusText.FindStringSubmatch(string(r))
	if m == nil {
		return "no status"
	}
	tag, word, text := m[1], strings.ToUpper(m[2]), m[3]
	switch {
	case word == "PREAUTH":
		return "nobody is let in twice"
	case word == "BYE" && (!last || text != "[UNAVAILABLE] the mail server closed the connection"):
		return "this goodbye is not Postern's"
	case tag != "*" && tag != "b" && tag != "c":
		return "the client gave no such tag"
	}
	if c := codeOf.FindStringSubmatch(text); c != nil {
		if strings.EqualFold(c[1], "CAPABILITY") {
			words, _, _ := strings.Cut(c[2], "]")
			return faultOfWords(words)
		}
		if strings.EqualFold(c[1], "REFERRAL") || !slices.Contains(passedCodes, strings.ToUpper(c[1])) {
			return "the code is kept back"
		}
	}
	return ""
}

// faultOfWords: some of the capabilities that are never offered.
func faultOfWords(words string) string {
	for _, w := range strings.Fields(strings.ToUpper(words)) {
		for _, never := range []string{
			"AUTH=", "STARTTLS", "LOGINDISABLED", "COMPRESS", "ACL", "RIGHTS", "METADATA", "URLAUTH", "UNAUTHENTICATE", "REFERRAL",
			"LOGIN-REFERRALS", "MAILBOX-REFERRALS", "QUOTASET", "MULTISEARCH", "FILTERS", "LANGUAGE", "ANNOTATE", "CONVERT", "JMAPACCESS", "{",
		} {
			if strings.HasPrefix(w, never) {
				return w + " is not offered"
			}
		}
	}
	return ""
}

// unrecorded says which body of a FETCH response has no record.
func (a *answered) unrecorded(r []byte) string {
	head := fetchHead.FindSubmatch(r)
	if head == nil {
		return ""
	}
	items, used := wiretest.Fetch(r[len(head[0]):])
	seq, err := strconv.ParseUint(string(head[1]), 10, 32)
	if used == 0 || err != nil {
		return ""
	}
	for _, item := range items {
		name := strings.ToUpper(item.Name)
		body := strings.HasPrefix(name, "BODY[") && !headerName.MatchString(name) || strings.HasPrefix(name, "BINARY[") || name == "RFC822" || name == "RFC822.TEXT"
		if !body || !item.Str || item.Size == 0 {
			continue
		}
		if !slices.ContainsFunc(a.opened, func(m broker.OpenedMessage) bool {
			return uint64(m.Seq) == seq && strings.EqualFold(m.Section, item.Name[:min(len(item.Name), maxRecordedSection)]) && m.Octets == int64(item.Size)
		}) {
			return fmt.Sprintf("%s of %d octets is not recorded: %+v", item.Name, item.Size, a.opened)
		}
	}
	return ""
}
