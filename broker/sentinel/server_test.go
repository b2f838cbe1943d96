// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// message is a message of a server of the tests.
type message struct {
	uid       uint32
	flags, id string
}

// mailFolder is a folder of it.
type mailFolder struct {
	attributes string
	validity   uint32
	modSeq     uint64
	messages   []message
}

// mailServer is an IMAP server with one mailbox that does as a test tells it.
type mailServer struct {
	broker.Upstream
	folders      map[string]*mailFolder
	capabilities []string
	// names are listed beside them, as the wire has them.
	names []string
	// answer is asked first, with a command without its tag; nil, or not ok: it
	// answers as servers do.
	answer func(c net.Conn, tag, command string) (ok bool)
	// refuse is how submission refuses the credential of a version; nil: it is
	// not refused.
	refuse func(version int) error

	serving sync.WaitGroup
	mu      sync.Mutex
	heard   []string
}

func (m *mailServer) OpenIMAP(context.Context, *broker.Mailbox, *broker.Credential) (*broker.IMAPConn, error) {
	client, server := net.Pipe()
	m.serving.Go(func() {
		defer func() { _ = server.Close() }()
		m.serve(server)
	})
	return &broker.IMAPConn{Conn: client, Capabilities: m.capabilities}, nil
}

func (m *mailServer) OpenSubmission(_ context.Context, _ *broker.Mailbox, c *broker.Credential) (*broker.SubmissionConn, error) {
	if m.refuse != nil {
		if err := m.refuse(c.Version); err != nil {
			return nil, err
		}
	}
	client, server := net.Pipe()
	m.serving.Go(func() { _, _ = io.Copy(io.Discard, server) })
	return &broker.SubmissionConn{Conn: client}, nil
}

func (m *mailServer) serve(c net.Conn) {
	lines := bufio.NewReader(c)
	var open *mailFolder
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		tag, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		m.mu.Lock()
		m.heard = append(m.heard, command)
		m.mu.Unlock()
		if m.answer != nil && m.answer(c, tag, command) {
			continue
		}
		say := func(format string, args ...any) { _, _ = fmt.Fprintf(c, format+"\r\n", args...) }
		name, args, _ := strings.Cut(command, " ")
		quoted, _, _ := strings.Cut(args, " (")
		named := m.folders[strings.Trim(quoted, `"`)]
		if (name == "STATUS" || name == "EXAMINE") && named == nil {
			say("%s NO there is none", tag)
			continue
		}
		switch name {
		case "CAPABILITY":
			say("* CAPABILITY IMAP4rev1 CONDSTORE")
		case "LIST":
			say("* NO a warning\r\n* 5 EXISTS")
			for _, line := range m.names {
				say("* LIST %s", line)
			}
			for _, name := range slices.Sorted(maps.Keys(m.folders)) {
				say(`* LIST (%s) "/" "%s"`, m.folders[name].attributes, name)
			}
		case "STATUS":
			say(`* STATUS %s (MESSAGES %d UIDNEXT %d UIDVALIDITY %d HIGHESTMODSEQ %d)`,
				quoted, len(named.messages), named.next(), named.validity, named.modSeq)
		case "EXAMINE":
			open = named
			say("* %d EXISTS\r\n* OK [UIDVALIDITY %d]", len(open.messages), open.validity)
		case "FETCH":
			for i, x := range open.messages {
				say("* %d FETCH (UID %d FLAGS (%s))", i+1, x.uid, x.flags)
			}
		case "UID": // FETCH
			set, _ := parseUIDs(strings.Fields(args)[1])
			for i, x := range open.messages {
				if header := "Message-ID: " + x.id + "\r\n\r\n"; set.has(x.uid) {
					if strings.HasSuffix(args, "]<0.512>)") {
						header = header[:min(len(header), 512)]
					}
					say("* %d FETCH (UID %d BODY[HEADER.FIELDS (Message-ID)]<0> {%d}\r\n%s)", i+1, x.uid, len(header), header)
				}
			}
		}
		say("%s OK", tag)
	}
}

func (f *mailFolder) next() uint32 {
	if len(f.messages) == 0 {
		return 1
	}
	return f.messages[len(f.messages)-1].uid + 1
}

// commands are those that were heard, by their first words.
func (m *mailServer) commands(name string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.heard {
		if strings.HasPrefix(c, name) {
			n++
		}
	}
	return n
}

// watcher looks at one mailbox, with a state that is as small as can be.
type watcher struct {
	State
	*testing.T
	sentinel *Sentinel
	mailbox  *broker.Mailbox
	watch    broker.Watch
	folders  map[string][]byte
	log      []*broker.StoredEvent
	now      time.Time
	// credential is the stored one's version; 0: there is none.
	credential int
	// found are the findings of all looks.
	found []string
}

// newWatcher has looked at what the server has.
func newWatcher(t *testing.T, server *mailServer) *watcher {
	w := &watcher{
		T: t, folders: make(map[string][]byte), now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), credential: 1,
		mailbox: &broker.Mailbox{
			ID: broker.NewID(), FirmID: broker.NewID(), Address: "sales@acme.example",
			IMAP: broker.Endpoint{Host: "imap.acme.example", Port: 993, TLS: broker.TLSImplicit},
		},
	}
	w.watch = broker.Watch{MailboxID: w.mailbox.ID, FirmID: w.mailbox.FirmID}
	var err error
	w.sentinel, err = New(Config{
		State: w, Credentials: credentials{w: w}, Upstream: server, Node: "node", Logger: zap.NewNop(), Now: func() time.Time { return w.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.serving.Wait)
	w.look()
	return w
}

func (w *watcher) LogEnd(context.Context, broker.ID) (int64, error) { return int64(len(w.log)), nil }

func (w *watcher) WatchedFolders(context.Context, broker.ID) (map[string][]byte, error) {
	return maps.Clone(w.folders), nil
}

func (w *watcher) Mailbox(context.Context, broker.ID) (*broker.Mailbox, error) { return w.mailbox, nil }

func (w *watcher) PendingRotation(context.Context, broker.ID) (*broker.Rotation, error) {
	return nil, nil //nolint:nilnil // there is none
}

func (w *watcher) Events(_ context.Context, q broker.EventQuery) ([]*broker.StoredEvent, error) {
	return w.log[q.After:], nil
}

// credentials are those of a watcher's mailbox.
type credentials struct {
	broker.Credentials
	w *watcher
}

func (c credentials) Credential(context.Context, broker.ID, broker.ID) (*broker.Credential, error) {
	if c.w.credential == 0 {
		return nil, broker.Errorf(broker.NotFound, "no credential")
	}
	return &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte("secret")), Version: c.w.credential}, nil
}

// did notes that something was done through Postern.
func (w *watcher) did(kind broker.EventType, data any) {
	w.log = append(w.log, &broker.StoredEvent{Event: broker.Event{Seq: int64(len(w.log)) + 1, Type: kind, Data: data}})
}

// look looks, ten minutes later, and keeps what came of it.
func (w *watcher) look() *broker.WatchResult {
	w.now = w.now.Add(10 * time.Minute)
	w.sentinel.places <- struct{}{}
	l := w.sentinel.look(w.Context(), w.watch)
	<-w.sentinel.places
	w.watch = l.result.Watch
	for name, kept := range l.result.Folders {
		if kept == nil {
			delete(w.folders, name)
		} else {
			w.folders[name] = kept
		}
	}
	for _, e := range l.result.Events {
		if b, ok := e.Data.(broker.Bypassed); ok {
			w.found = append(w.found, strings.TrimSpace(b.String()+" "+b.UIDs))
		}
	}
	return &l.result
}

// wantFound says what was found in all looks, after what waits has been judged.
func (w *watcher) wantFound(want ...string) {
	w.Helper()
	w.look()
	if !slices.Equal(w.found, want) {
		w.Errorf("found %q, want %q", w.found, want)
	}
}
