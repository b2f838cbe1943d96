// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/test/servers"
)

// clientTimeout is for one run of a mail client.
const clientTimeout = 2 * time.Minute

// TestClients runs real mail clients through Postern, each in a mailbox of
// its own, until their work is done. Every client presents its workstation's
// certificate, and verifies the server's.
func TestClients(t *testing.T) {
	servers.NeedPrograms(t, map[string]string{
		"mbsync": "isync", "curl": "curl", "neomutt": "neomutt", "tmux": "tmux",
		"fetchmail": "fetchmail", "msmtp": "msmtp", "swaks": "swaks",
	})
	clients := []struct {
		name string
		run  func(t *testing.T, w *World, mailbox string)
	}{
		{"mbsync", testMbsync},
		{"curl", testCurl},
		{"neomutt", testNeomutt},
		{"fetchmail", testFetchmail},
		{"msmtp", testMsmtp},
		{"swaks", testSwaks},
	}
	mailboxes := []string{buyer}
	for _, c := range clients {
		mailboxes = append(mailboxes, c.name+"@client.example")
	}
	w := NewWorld(t, WorldOptions{Mailboxes: mailboxes})
	t.Run("each", func(t *testing.T) {
		for _, c := range clients {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(t, w.For(t), c.name+"@client.example")
			})
		}
	})
	w.CheckNothingLeaked()
}

// buyer is who the clients write to.
const buyer = "buyer@market.example"

// home is a client's home folder.
type home struct {
	t   *testing.T
	dir string
}

func newHome(t *testing.T) *home {
	t.Helper()
	return &home{t, servers.TempDir(t)}
}

func (h *home) path(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}

func (h *home) write(name, content string) string {
	h.t.Helper()
	path := h.path(name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// env is the environment of a person who logged in here.
func (h *home) env() []string {
	return append(os.Environ(), "HOME="+h.dir, "LC_ALL=C.UTF-8", "TZ=UTC", "MAILDIR=", "MAIL=", "EMAIL=")
}

// run runs a program that must succeed, and returns its standard output.
func (h *home) run(stdin, name string, args ...string) string {
	h.t.Helper()
	out, problems, err := h.try(stdin, name, args...)
	if err != nil {
		h.t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, problems)
	}
	return out
}

func (h *home) try(stdin, name string, args ...string) (stdout, stderr string, err error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = h.dir, h.env()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &problems
	err = cmd.Run()
	return out.String(), problems.String(), err
}
