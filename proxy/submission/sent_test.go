// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// imapUpstream is a memory server whose user has the given folders, and
// returns what logs in to it.
func imapUpstream(t *testing.T, folders map[string][]imap.MailboxAttr, messages map[string][]string) func(context.Context) (*broker.IMAPConn, error) {
	t.Helper()
	user := imapmemserver.NewUser("alice", "password")
	for name, attrs := range folders {
		if err := user.Create(name, &imap.CreateOptions{SpecialUse: attrs}); err != nil {
			t.Fatal(err)
		}
		for _, m := range messages[name] {
			if _, err := user.Append(name, literal{strings.NewReader(m)}, &imap.AppendOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	memory := imapmemserver.New()
	memory.AddUser(user)
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return memory.NewSession(), nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}},
		InsecureAuth: true,
	})
	l := listen(t)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _, _ = server.Close(), l.Close(); <-done })
	return func(context.Context) (*broker.IMAPConn, error) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		buf := make([]byte, 4096)
		if _, err := c.Read(buf); err != nil {
			return nil, err
		}
		if _, err := c.Write([]byte("a LOGIN alice password\r\n")); err != nil {
			return nil, err
		}
		for n := 0; !strings.Contains(string(buf[:n]), "a OK"); {
			m, err := c.Read(buf[n:])
			if err != nil {
				return nil, err
			}
			n += m
		}
		return &broker.IMAPConn{Conn: c, Capabilities: []string{"IMAP4rev1", "IMAP4rev2"}}, nil
	}
}

type literal struct{ *strings.Reader }

func (l literal) Size() int64 { return l.Reader.Size() }

func TestFindInSent(t *testing.T) {
	sent := func(id string) string { return "Message-ID: " + id + "\r\nFrom: a@own.example\r\n\r\nx\r\n" }
	for name, tt := range map[string]struct {
		folders  map[string][]imap.MailboxAttr
		messages map[string][]string
		found    bool
		err      error
	}{
		"there":          {map[string][]imap.MailboxAttr{"Sent": nil}, map[string][]string{"Sent": {sent("<other@x>"), sent(messageID)}}, true, nil},
		"another name":   {map[string][]imap.MailboxAttr{"INBOX/Sent Items": nil}, map[string][]string{"INBOX/Sent Items": {sent(messageID)}}, true, nil},
		"not there":      {map[string][]imap.MailboxAttr{"Sent": nil}, map[string][]string{"Sent": {sent("<other@x>")}}, false, nil},
		"as a substring": {map[string][]imap.MailboxAttr{"Sent": nil}, map[string][]string{"Sent": {sent("<x" + strings.Trim(messageID, "<>") + ">")}}, false, nil},
		"elsewhere":      {map[string][]imap.MailboxAttr{"Sent": nil, "Drafts": nil}, map[string][]string{"Drafts": {sent(messageID)}}, false, nil},
		"no Sent":        {map[string][]imap.MailboxAttr{"Drafts": nil}, map[string][]string{"Drafts": {sent(messageID)}}, false, errNoSent},
	} {
		t.Run(name, func(t *testing.T) {
			gate := newGate()
			gate.dialIMAP = imapUpstream(t, tt.folders, tt.messages)
			live, err := gate.Open(t.Context(), broker.Login{Token: broker.NewSecret([]byte(token))})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			found, err := IMAPSent{}.FindInSent(ctx, live, messageID)
			if found != tt.found || !errors.Is(err, tt.err) {
				t.Errorf("found %v (%v), want %v (%v)", found, err, tt.found, tt.err)
			}
		})
	}
}

func TestFindInSentDoesNotWaitForASilentServer(t *testing.T) {
	gate := newGate()
	near, far := net.Pipe()
	defer far.Close()
	gate.dialIMAP = func(context.Context) (*broker.IMAPConn, error) {
		return &broker.IMAPConn{Conn: near, Capabilities: []string{"IMAP4rev1", "bad\r\n* BYE"}}, nil
	}
	live, err := gate.Open(t.Context(), broker.Login{Token: broker.NewSecret([]byte(token))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	watch := servers.StartStopwatch(t)
	if found, err := (IMAPSent{}).FindInSent(ctx, live, messageID); found || err == nil {
		t.Errorf("found %v, %v", found, err)
	}
	watch.Within(t, "the look", 2*time.Second)
}

// An upstream may answer a search with all messages that could ever be: what
// is looked at of them is bounded, and so is what is held of them.
func TestFindInSentTakesNoEndlessAnswer(t *testing.T) {
	gate := newGate()
	near, far := net.Pipe()
	defer far.Close()
	gate.dialIMAP = func(context.Context) (*broker.IMAPConn, error) {
		return &broker.IMAPConn{Conn: near, Capabilities: []string{"IMAP4rev1", "ESEARCH", "SPECIAL-USE"}}, nil
	}
	asked := make(chan string, 1)
	go func() {
		defer close(asked)
		lines := bufio.NewScanner(far)
		for lines.Scan() {
			tag, command, _ := strings.Cut(lines.Text(), " ")
			answer := ""
			switch {
			case strings.HasPrefix(command, "LIST"):
				answer = "* LIST (\\Sent) \"/\" Sent\r\n"
			case strings.HasPrefix(command, "EXAMINE"):
				answer = "* 3 EXISTS\r\n"
			case strings.HasPrefix(command, "UID SEARCH"):
				answer = "* ESEARCH (TAG \"" + tag + "\") UID ALL 1:4294967295\r\n"
			case strings.HasPrefix(command, "UID FETCH"):
				asked <- command
			}
			if _, err := far.Write([]byte(answer + tag + " OK done\r\n")); err != nil {
				return
			}
		}
	}()
	live, err := gate.Open(t.Context(), broker.Login{Token: broker.NewSecret([]byte(token))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if found, err := (IMAPSent{}).FindInSent(ctx, live, messageID); found || err != nil {
		t.Errorf("found %v, %v", found, err)
	}
	if fetch, more := <-asked; !more || len(fetch) > 1000 {
		t.Errorf("asked for %.100q", fetch)
	}
}
