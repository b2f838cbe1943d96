// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// smallDisk is room for the database and little else.
const smallDisk = 8 << 20

// disk is what the database is on. fill leaves it no room, free gives it back.
type disk struct {
	path       string
	fill, free func(t testing.TB, p *e2e.Postern)
}

// newDisk is a small file system of its own where one may be mounted, else a
// limit on the size of the server's files, which the kernel answers with EFBIG
// where a full disk is ENOSPC.
func newDisk(t testing.TB) disk {
	t.Helper()
	dir := servers.TempDir(t)
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", smallDisk))
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Log("no file system may be mounted here: the size of the server's files is limited instead")
		limit := func(n uint64) func(testing.TB, *e2e.Postern) {
			return func(t testing.TB, p *e2e.Postern) {
				t.Helper()
				if err := unix.Prlimit(p.PID(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: unix.RLIM_INFINITY}, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		return disk{filepath.Join(dir, "postern.db"), limit(1), limit(unix.RLIM_INFINITY)}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	return disk{
		path: filepath.Join(dir, "postern.db"),
		fill: func(t testing.TB, _ *e2e.Postern) {
			t.Helper()
			f, err := os.Create(ballast)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for chunk := make([]byte, 64<<10); len(chunk) > 0; {
				if _, err := f.Write(chunk); err != nil {
					chunk = chunk[:len(chunk)/2]
				}
			}
		},
		free: func(t testing.TB, _ *e2e.Postern) {
			t.Helper()
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// TestNever3DiskFull: without room for the record no session begins, those
// that open messages end, nothing is sent, and all comes back with the room.
func TestNever3DiskFull(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	w := newRig(t, e2e.WorldOptions{Sealed: true, Postern: e2e.Options{StorePath: d.path}})
	w.Dovecot.Fill(sales, "", 60, func(i int) []byte { return bulk(fmt.Sprintf("bulk-%d", i), bulkSize) })
	s := w.Seat(sales)
	idle, fetching, sending := s.IMAP(t), s.IMAP(t), s.Submission(t)
	idle.OK("SELECT INBOX")
	fetching.OK("SELECT INBOX")
	id := "full-" + mark(t)
	sending.Ask(250, "MAIL FROM:<%s>", sales)
	sending.Ask(250, "RCPT TO:<%s>", support)
	sending.Ask(354, "DATA")

	d.fill(t, w.Postern)
	// What is left in the files that are there is used up by events.
	used := 0
	for ; ; used++ {
		c := s.DialIMAP(t)
		_, answer := c.Cmd("LOGIN %s %s", s.Mailbox, s.Token)
		c.Close()
		if strings.HasPrefix(answer, "NO [UNAVAILABLE] ") {
			break
		}
		if !strings.HasPrefix(answer, "OK ") || used == 5000 {
			t.Fatalf("with a full disk a login is answered %q", answer)
		}
	}
	logins, from := upstreamLogins(w), len(w.smtp.Seen(servers.ToServer))
	for range 3 {
		_, answer := tryLogin(t, s)
		wantPrefix(t, "a login", answer, "NO [UNAVAILABLE] ")
		_, reply := tryAuth(t, s)
		wantPrefix(t, "a login for submission", reply, "454 ")
	}
	if n := upstreamLogins(w) - logins; n != 0 {
		t.Errorf("%d logins upstream without a record", n)
	}
	sending.Send("%s.\r\n", message(sales, support, id, "no room\r\n"))
	wantPrefix(t, "a message", sending.Reply(), "451 4.3.0 the record cannot be written, so nothing was sent")
	if n := count(w.smtp, servers.ToServer, from, "\r\n.\r\n"); n != 0 {
		t.Error("the final dot went upstream without its intent")
	}
	began, before := time.Now(), len(fetching.Seen())
	fetching.Send("f UID FETCH 1:* (UID BODY.PEEK[])\r\n")
	fetching.ExpectClosed(patience)
	passed := len(fetching.Seen()) - before
	if passed > aheadOfRecord+(64<<10) {
		t.Errorf("%d octets of bodies passed without a record", passed)
	}
	t.Logf("refused after %d more sessions; who opened messages was cut off after %v and %d octets",
		used, time.Since(began).Round(time.Millisecond), passed)
	idle.OK("NOOP")
	if _, stderr, code := w.Postern.TryCLI("", "agent", "add", "nobody-yet"); code == 0 {
		t.Error("a change was made without room for its event")
	} else {
		t.Logf("the command line says %q", strings.TrimSpace(stderr))
	}
	if ok, answer := w.Postern.Ready(); ok {
		t.Errorf("the server calls itself ready: %s", answer)
	}

	d.free(t, w.Postern)
	freed := time.Now()
	servers.WaitFor(t, patience, func() bool { ok, _ := w.Postern.Ready(); return ok }, "the server to be ready again")
	t.Logf("ready again after %v", time.Since(freed).Round(time.Millisecond))
	wantPrefix(t, "the message again", submit(t, s, message(sales, support, id, "no room\r\n")), "250")
	if n := w.settled(support, id); n != 1 {
		t.Errorf("delivered %d times", n)
	}
	idle.OK("UID FETCH 1 (UID BODY.PEEK[])")
	idle.OK("LOGOUT")
	sending.Ask(221, "QUIT")
	w.noSessions()
	checkEnds(t, s)
	awaitFollowed(t, w.Postern, askSQLite(t, w.Postern))
	events := w.Postern.Events(e2e.FirmName)
	checkSequence(t, events)
	for _, e := range events {
		if e.Type == broker.EventSendIntent {
			return
		}
	}
	t.Error("the message that was sent has no intent")
}
