// SPDX-License-Identifier: Apache-2.0

package sealed_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/credentialstest"
	"github.com/postern-mail/postern/broker/sealed"
)

// The test binary is also the other process: with writerEnv set it writes to
// the store until it is killed, or as often as it is told.
const writerEnv = "POSTERN_TEST_SEALED_WRITER"

func TestMain(m *testing.M) {
	if task := os.Getenv(writerEnv); task != "" {
		if err := writer(strings.Split(task, "\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// writer raises a credential's version, times times, and prints each one it
// has stored. The secret is made from the version.
func writer(task []string) error {
	path, identity, id := task[0], task[1], broker.ID(task[2])
	times, err := strconv.Atoi(task[3])
	if err != nil {
		return err
	}
	s, err := sealed.Open(sealed.Config{Path: path, IdentityFile: identity})
	if err != nil {
		return err
	}
	ctx := context.Background()
	for done := 0; done < times; {
		version, err := s.CredentialVersion(ctx, id, id)
		if err != nil {
			return err
		}
		stored, err := s.SetCredential(ctx, id, id, credentialstest.Password(secretOf(version+1), version))
		switch broker.CodeOf(err) {
		case "":
			fmt.Println(stored)
			done++
		case broker.Conflict: // the other process was first
		default:
			return err
		}
	}
	return nil
}

func secretOf(version int) string { return strings.Repeat(fmt.Sprintf("secret %d;", version), 400) }

func startWriter(t *testing.T, cfg sealed.Config, id broker.ID, times int) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerEnv+"="+strings.Join([]string{cfg.Path, cfg.IdentityFile, string(id), strconv.Itoa(times)}, "\n"))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestKilledWriter: a process killed at any moment leaves a whole file that
// holds at least what it had acknowledged, and no lock.
func TestKilledWriter(t *testing.T) {
	cfg := config(t)
	s := create(t, cfg)
	id := broker.NewID()
	for round := range 12 {
		cmd, lines := startWriter(t, cfg, id, 1<<30)
		acknowledged := 0
		for range 1 + round {
			if !lines.Scan() {
				t.Fatal("the writer ended")
			}
			acknowledged, _ = strconv.Atoi(lines.Text())
		}
		killed := time.AfterFunc(time.Duration(round)*300*time.Microsecond, func() { cmd.Process.Kill() })
		for lines.Scan() {
			acknowledged, _ = strconv.Atoi(lines.Text())
		}
		killed.Stop()
		cmd.Process.Kill()
		cmd.Wait()
		c, err := s.Credential(t.Context(), id, id)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if c.Version < acknowledged || c.Version > acknowledged+1 || string(c.Secret.Reveal()) != secretOf(c.Version) {
			t.Fatalf("round %d: version %d with %.20q, acknowledged was %d", round, c.Version, c.Secret.Reveal(), acknowledged)
		}
		if _, err := s.SetCredential(t.Context(), id, id, credentialstest.Password(secretOf(c.Version+1), c.Version)); err != nil {
			t.Fatalf("round %d: after the kill: %v", round, err)
		}
	}
}

// TestTwoProcesses: no write of either is lost or stored twice.
func TestTwoProcesses(t *testing.T) {
	cfg := config(t)
	s := create(t, cfg)
	id := broker.NewID()
	const each = 25
	seen := make(map[string]bool)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 2 {
		cmd, lines := startWriter(t, cfg, id, each)
		wg.Go(func() {
			for lines.Scan() {
				mu.Lock()
				if seen[lines.Text()] {
					t.Errorf("version %s was stored twice", lines.Text())
				}
				seen[lines.Text()] = true
				mu.Unlock()
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("a writer failed: %v", err)
			}
		})
	}
	wg.Wait()
	if version, err := s.CredentialVersion(t.Context(), id, id); err != nil || version != 2*each {
		t.Errorf("version %d, %v; want %d", version, err, 2*each)
	}
}

// TestLockIsHeld: while somebody else writes, a writer waits no longer than
// its context, and a reader does not wait.
func TestLockIsHeld(t *testing.T) {
	cfg := config(t)
	s := create(t, cfg)
	firm, mailbox := put(t, s, "kept")
	lock, err := os.OpenFile(cfg.Path+".lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = s.SetCredential(ctx, firm, mailbox, credentialstest.Password("new", 1))
	wantError(t, err, broker.Unavailable, sealed.ReasonLock)
	if _, err := s.Credential(t.Context(), firm, mailbox); err != nil {
		t.Errorf("a reader: %v", err)
	}
	written := make(chan error, 1)
	go func() {
		_, err := s.SetCredential(t.Context(), firm, mailbox, credentialstest.Password("new", 1))
		written <- err
	}()
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Errorf("once the lock is free: %v", err)
	}
}

// TestWriteFails: what keeps the new file from being made leaves the old one.
func TestWriteFails(t *testing.T) {
	cfg := config(t)
	s := create(t, cfg)
	firm, mailbox := put(t, s, "kept")
	obstacle := filepath.Join(cfg.Path+".new", "in the way")
	if err := os.MkdirAll(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := s.SetCredential(t.Context(), firm, mailbox, credentialstest.Password("new", 1))
	wantError(t, err, broker.Unavailable, sealed.ReasonFile)
	if c, err := s.Credential(t.Context(), firm, mailbox); err != nil || string(c.Secret.Reveal()) != "kept" {
		t.Errorf("%v, %v", c, err)
	}
	if err := os.RemoveAll(cfg.Path + ".new"); err != nil {
		t.Fatal(err)
	}
	write(t, cfg.Path+".new", []byte("left by a crash"))
	if _, err := s.SetCredential(t.Context(), firm, mailbox, credentialstest.Password("new", 1)); err != nil {
		t.Errorf("with a temporary file left by a crash: %v", err)
	}
	if err := os.Remove(cfg.Path); err != nil {
		t.Fatal(err)
	}
	_, err = s.SetCredential(t.Context(), firm, mailbox, credentialstest.Password("new", 0))
	wantError(t, err, broker.Unavailable, sealed.ReasonMissing)
	if _, err := os.Stat(cfg.Path); !errors.Is(err, os.ErrNotExist) {
		t.Error("a file that is gone was made anew: what was in it would seem never to have been")
	}
}
