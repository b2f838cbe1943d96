// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi/httpapitest"
)

// terminal is a pseudo-terminal: what is written to it is typed, what is read
// from it was shown.
type terminal struct {
	*os.File
	// line is the side that a program has as its terminal.
	line *os.File
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keys.Close() })
	if err := unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	line, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = line.Close() })
	return &terminal{keys, line}
}

// readUntil returns all that is shown up to and with what.
func (w *terminal) readUntil(t *testing.T, what string) string {
	t.Helper()
	var shown bytes.Buffer
	b := make([]byte, 1)
	for !strings.HasSuffix(shown.String(), what) {
		if _, err := w.Read(b); err != nil {
			t.Fatalf("waiting for %q: %v after %q", what, err, shown.String())
		}
		shown.Write(b)
	}
	return shown.String()
}

// echoes reports whether the terminal shows what is typed.
func (w *terminal) echoes(t *testing.T) bool {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(w.line.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return mode.Lflag&unix.ECHO != 0
}

// setCredential starts the command on a terminal of its own, and returns when
// it asks.
func setCredential(t *testing.T, socket string) (*terminal, *exec.Cmd) {
	t.Helper()
	screen := openTerminal(t)
	cmd := exec.CommandContext(t.Context(), "postern", "--socket", socket, "mailbox", "set-credential", "sales@acme.example")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = screen.line, screen.line, screen.line
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	screen.readUntil(t, "password of sales@acme.example: ")
	// The prompt comes just before the echo is switched off.
	for deadline := time.Now().Add(30 * time.Second); screen.echoes(t); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the terminal still echoes")
		}
	}
	return screen, cmd
}

func startWithMailbox(t *testing.T) *httpapitest.World {
	t.Helper()
	w, err := httpapitest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &broker.Firm{Name: "Acme"}
	if err := w.Store.CreateFirm(t.Context(), httpapitest.Admin, f); err != nil {
		t.Fatal(err)
	}
	endpoint := broker.Endpoint{Host: "mail.acme.example", Port: 993, TLS: broker.TLSImplicit}
	if err := w.Store.CreateMailbox(t.Context(), httpapitest.Admin, &broker.Mailbox{
		FirmID: f.ID, Address: "sales@acme.example", IMAP: endpoint, Submission: endpoint,
	}); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestNever1SecretIsNotEchoed(t *testing.T) {
	w := startWithMailbox(t)
	w.Upstream.Accept("open sesame")
	screen, cmd := setCredential(t, w.Socket)
	if _, err := screen.WriteString("open sesame\n"); err != nil {
		t.Fatal(err)
	}
	if shown := screen.readUntil(t, "(version 1)"); strings.Contains(shown, "sesame") {
		t.Errorf("shown: %q", shown)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if !screen.echoes(t) {
		t.Error("the terminal is left without echo")
	}
}

func TestInterruptAtThePromptEndsItAndRestoresTheTerminal(t *testing.T) {
	w := startWithMailbox(t)
	screen, cmd := setCredential(t, w.Socket)
	if _, err := screen.WriteString("half a sec\x03"); err != nil { // control-C
		t.Fatal(err)
	}
	screen.readUntil(t, "interrupted")
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != exitFailed {
		t.Errorf("exit code %d, %v", cmd.ProcessState.ExitCode(), err)
	}
	if !screen.echoes(t) {
		t.Error("the terminal is left without echo")
	}
	if probed := w.Upstream.Probed(); len(probed) > 0 {
		t.Errorf("half a secret was tried: %+v", probed)
	}
}
