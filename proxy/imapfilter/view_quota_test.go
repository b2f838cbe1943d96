// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// fakeCounts keeps quotas of an hour, in memory.
type fakeCounts struct {
	mu                        sync.Mutex
	messages, octets, headers int64
	down                      bool
}

func (c *fakeCounts) ReserveOpening(_ context.Context, r *broker.OpeningReservation) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return broker.Errorf(broker.Unavailable, "the state cannot be written")
	}
	for _, q := range []struct {
		name                 string
		counted, more, limit int64
	}{
		{"messages", c.messages, r.Messages, r.Quotas.Messages.Hour},
		{"octets", c.octets, r.Octets, r.Quotas.Octets.Hour},
		{"headers", c.headers, r.Headers, r.Quotas.Headers.Hour},
	} {
		if q.limit > 0 && q.more > 0 && q.counted+q.more > q.limit {
			err := broker.Errorf(broker.Limit, "the limit of %s opened in one hour is reached", q.name)
			err.Reason = q.name + ".hour"
			return err
		}
	}
	c.messages, c.octets, c.headers = c.messages+r.Messages, c.octets+r.Octets, c.headers+r.Headers
	return nil
}

// newCounted is newViewed with quotas.
func newCounted(t *testing.T, server realServer, q policy.Quotas, owner ...string) (*viewed, *fakeCounts) {
	t.Helper()
	v := newViewed(t, server, policy.Decision{}, owner...)
	v.rig.gate.decision.Quotas = q
	counts := &fakeCounts{}
	f, err := New(Config{Gate: v.rig.gate, Counts: counts, Hostname: "postern.test", Logger: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	v.rig.filter = f
	v.agent = v.rig.login()
	return v, counts
}

func fetched(heard []string) (n int) {
	for _, line := range heard {
		if fetchLine.MatchString(line) {
			n++
		}
	}
	return n
}

// TestNever2ViewQuotaOfMessages: no more messages are opened than the quota
// allows, over all sessions; what was opened can be read again, and the session
// goes on.
func TestNever2ViewQuotaOfMessages(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		var mail []string
		for i := 1; i <= 60; i++ {
			mail = append(mail, "APPEND INBOX "+nonSync(message(i)))
		}
		v, counts := newCounted(t, server, policy.Quotas{Messages: policy.Rate{Hour: 55}, Headers: policy.Rate{Hour: 60}}, mail...)
		v.expect("SELECT INBOX", "OK")
		if n := fetched(v.expect("FETCH 1:* (FLAGS RFC822.SIZE)", "OK")); n != 60 {
			t.Errorf("%d answers", n)
		}
		if n := fetched(v.expect("FETCH 1:* (ENVELOPE)", "OK")); n != 60 {
			t.Errorf("%d answers", n)
		}
		if n := fetched(v.expect("FETCH 1:3 (BODY.PEEK[TEXT]<0.2>)", "OK")); n != 3 {
			t.Errorf("%d answers", n)
		}
		if n := fetched(v.expect("UID FETCH 1:* (BODY.PEEK[])", "NO [LIMIT]")); n != 55 {
			t.Errorf("%d answers", n)
		}
		if n := fetched(v.expect("FETCH 1:55 (BODY.PEEK[])", "OK")); n != 55 {
			t.Errorf("%d answers", n)
		}
		for _, command := range []string{"FETCH 56 (BODY.PEEK[TEXT])", "UID FETCH 60 RFC822.TEXT", "FETCH 60 BODY[1]", "FETCH 60 (BINARY.PEEK[1])", "FETCH 60 RFC822"} {
			if n := fetched(v.expect(command, "NO [LIMIT]")); n != 0 {
				t.Errorf("%q: %d answers", command, n)
			}
		}
		v.expect("NOOP", "OK")
		if events := v.rig.gate.last().recorded(broker.EventQuotaReached); len(events) != 1 || events[0] != any(broker.QuotaReached{Quota: "messages.hour", Folder: "INBOX"}) {
			t.Errorf("recorded %+v", events)
		}
		if counts.messages != 55 || counts.headers != 60 {
			t.Errorf("counted %d messages and %d headers", counts.messages, counts.headers)
		}
		// Another session of the same assignment.
		v.agent = v.rig.login()
		v.expect("SELECT INBOX", "OK")
		v.expect("FETCH 1 BODY.PEEK[]", "NO [LIMIT]")
		v.expect("FETCH 1 ENVELOPE", "NO [LIMIT]")
		v.expect("FETCH 1 FLAGS", "OK")
	})
}

// TestNever2ViewQuotaOfOctets: a message that is larger than what is left is not
// begun.
func TestNever2ViewQuotaOfOctets(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		large := message(1) + strings.Repeat("x\r\n", 1000)
		v, counts := newCounted(t, server, policy.Quotas{Octets: policy.Rate{Hour: 1000}},
			"APPEND INBOX "+nonSync(message(1)), "APPEND INBOX "+nonSync(large), "APPEND INBOX "+nonSync(message(3)))
		v.expect("SELECT INBOX", "OK")
		heard := v.expect("FETCH 1:* (BODY.PEEK[])", "NO [LIMIT]")
		if fetched(heard) != 1 || !strings.Contains(strings.Join(heard, "\n"), "body 1") {
			t.Errorf("%q", heard)
		}
		v.expect("FETCH 2 (BODY.PEEK[]<0.1>)", "NO [LIMIT]")
		v.expect("FETCH 3 (BODY.PEEK[])", "OK")
		if want := int64(len(message(1)) + len(message(3))); counts.octets != want {
			t.Errorf("%d octets were counted, want %d", counts.octets, want)
		}
		counts.down = true
		v.expect("FETCH 1 (BODY.PEEK[])", "OK")
		v.expect("FETCH 2 (BODY.PEEK[])", "NO [UNAVAILABLE]")
		v.expect("LOGOUT", "OK")
	})
}

// TestNever2ViewQuotaNeedsACounter: where nothing counts nobody is let in.
func TestNever2ViewQuotaNeedsACounter(t *testing.T) {
	gate, _ := scripted(t)
	gate.decision = policy.Decision{Actions: policy.All, Quotas: policy.Quotas{Messages: policy.Rate{Day: 1}}}
	c := newRig(t, gate).connect()
	c.send("l LOGIN box@firm.example secret")
	c.expect("l NO")
}

// TestNever2ViewOfHeadersAlone, and of one that may only be read: what the actions
// do not grant is refused whatever way it is asked for.
func TestNever2ViewOfHeadersAlone(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		d := slice(notPrivileged)
		d.Actions = policy.List | policy.Headers
		v := newViewed(t, server, d, append(secretMail(), "CREATE Work")...)
		v.expect("SELECT INBOX", "OK")
		for _, items := range []string{
			"BODY[]", "BODY.PEEK[]", "BODY[TEXT]", "BODY.PEEK[1]", "BODY.PEEK[1.1]<0.10>", "RFC822", "RFC822.TEXT", "BINARY[1]", "BINARY.PEEK[1]<0.5>", "(ENVELOPE BODY.PEEK[])", "BODY[]<0.1>",
		} {
			v.silent(items, v.expect("FETCH 1 "+items, "NO"), "body 1")
			v.silent(items, v.expect("UID FETCH 1:* "+items, "NO"), "body 1")
		}
		for _, command := range []string{
			`SEARCH BODY "body"`, `SEARCH TEXT "body"`, `UID SEARCH NOT BODY "body"`, `SEARCH OR SUBJECT x BODY y`, `SEARCH RETURN (COUNT) BODY "x"`, `SORT (SUBJECT) UTF-8 BODY x`,
			`STORE 1 +FLAGS (\Seen)`, `UID STORE 1:* FLAGS ()`, "COPY 1 Work", "UID MOVE 1 Work", "EXPUNGE", "UID EXPUNGE 1", "CREATE New", "DELETE Work", "RENAME Work New", "SUBSCRIBE Work",
			"APPEND INBOX " + nonSync(message(1)), `STORE 1 +FLAGS (\Deleted)`,
		} {
			v.expect(command, "NO")
		}
		for _, items := range []string{"ENVELOPE", "BODYSTRUCTURE", "BODY.PEEK[HEADER]", "BODY[HEADER.FIELDS (SUBJECT)]", "RFC822.HEADER", "(FLAGS INTERNALDATE)"} {
			v.silent(items, v.expect("FETCH 1:* "+items, "OK"), append(secrets, "body ")...)
		}
		before := fmt.Sprint(v.own("STATUS INBOX (MESSAGES UNSEEN)")[0])
		v.expect("CLOSE", "OK")
		if after := fmt.Sprint(v.own("STATUS INBOX (MESSAGES UNSEEN)")[0]); before != after || !strings.Contains(after, "MESSAGES 10 UNSEEN 10") {
			t.Errorf("before %q, after %q", before, after)
		}
	})
}

// TestNever2ViewThatIsReadOnly: reading changes nothing, not even \Seen.
func TestNever2ViewThatIsReadOnly(t *testing.T) {
	onEachServer(t, func(t *testing.T, server realServer) {
		d := slice(notPrivileged)
		d.Actions = policy.List | policy.Headers | policy.Read
		v := newViewed(t, server, d, append(secretMail(), "CREATE Work")...)
		v.expect("SELECT INBOX", "OK")
		for _, items := range []string{"BODY[]", "(BODY[TEXT] BODY[1])", "BINARY[1]", "(BODY[HEADER] BODY[]<0.5>)"} {
			if n := fetched(v.expect("UID FETCH 1:* "+items, "OK")); n != 5 {
				t.Errorf("%q: %d answers", items, n)
			}
		}
		for _, command := range []string{"FETCH 1 RFC822", "FETCH 1 RFC822.TEXT", `STORE 1 +FLAGS (\Seen)`, "UID COPY 1 Work", "MOVE 1 Work", "UID EXPUNGE 1", "APPEND Work " + nonSync(message(1))} {
			v.expect(command, "NO")
		}
		v.expect("CLOSE", "OK")
		if heard := v.own("STATUS INBOX (MESSAGES UNSEEN)"); !strings.Contains(heard[0], "MESSAGES 10 UNSEEN 10") {
			t.Errorf("%q", heard)
		}
	})
}
