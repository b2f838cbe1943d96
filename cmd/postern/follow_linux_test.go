// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/httpapi/httpapitest"
)

// drifted records that the first mailbox's password is refused.
func drifted(t *testing.T, w *httpapitest.World) {
	t.Helper()
	m, err := w.Store.MailboxByAddress(t.Context(), "sales@acme.example")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Store.AppendEvents(t.Context(), []*broker.Event{{
		Type: broker.EventDrift, FirmID: m.FirmID, MailboxID: m.ID, Actor: broker.Actor{Kind: "system", Name: "node"},
		Data: broker.Drift{Protocol: broker.ProtocolIMAP, Answer: "NO no"},
	}}); err != nil {
		t.Fatal(err)
	}
}

// interruptedBySignal ends a command as a person does, and wants it to have ended well.
func interruptedBySignal(t *testing.T, cmd *exec.Cmd, code int) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the code tells
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
}

// TestAlertWatch: what is open is told at once, what is raised later when it is,
// what repeats is not told again, and what is raised anew is.
func TestAlertWatch(t *testing.T) {
	w := startWithMailbox(t)
	drifted(t, w)
	for _, asJSON := range []bool{false, true} {
		args := []string{"--socket", w.Socket, "alert", "watch", "--severity", "warning"}
		if asJSON {
			args = append(args, "--json")
		}
		cmd := exec.CommandContext(t.Context(), "postern", args...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		next := func() httpapi.Alert {
			t.Helper()
			if !lines.Scan() {
				t.Fatalf("it ended: %v", lines.Err())
			}
			var x httpapi.Alert
			if asJSON {
				if err := json.Unmarshal(lines.Bytes(), &x); err != nil {
					t.Fatalf("%v: %s", err, lines.Text())
				}
				return x
			}
			if !strings.Contains(lines.Text(), "critical drift sales@acme.example: the mail server refuses") {
				t.Errorf("told %q", lines.Text())
			}
			return x
		}
		first := next()
		drifted(t, w) // one more of the same, of which it says nothing
		all, err := w.Store.Alerts(t.Context(), broker.AlertQuery{Kind: broker.AlertDrift})
		if err != nil || len(all) != 1 || asJSON && first.ID != all[0].ID {
			t.Fatalf("told of %s; alerts %+v, %v", first.ID, all, err)
		}
		if _, err := w.Store.ResolveAlert(t.Context(), httpapitest.Admin, all[0].ID, ""); err != nil {
			t.Fatal(err)
		}
		drifted(t, w)
		again := next() // it is the next that is told
		if asJSON && (again.ID != first.ID || again.Count != first.Count+2 || !again.OpenedAt.After(first.OpenedAt)) {
			t.Errorf("told %+v after %+v", again, first)
		}
		interruptedBySignal(t, cmd, 0)
	}
}

// TestRotateTellsOnATerminal: below what ends and what waits, a terminal shows how
// many there are in a line that is written over, and that is gone at the end.
func TestRotateTellsOnATerminal(t *testing.T) {
	w := startWithMailbox(t)
	sales, err := w.Store.MailboxByAddress(t.Context(), "sales@acme.example")
	if err != nil {
		t.Fatal(err)
	}
	p := &broker.Provider{FirmID: sales.FirmID, Name: "panel", Driver: "test"}
	if err := w.Store.CreateProvider(t.Context(), httpapitest.Admin, p); err != nil {
		t.Fatal(err)
	}
	info := *sales
	info.ID, info.Address, info.CreatedAt = "", "info@acme.example", time.Time{}
	info.Rotation = &broker.RotationMethod{ProviderID: p.ID}
	if err := w.Store.CreateMailbox(t.Context(), httpapitest.Admin, &info); err != nil {
		t.Fatal(err)
	}
	sales.Rotation = info.Rotation
	if err := w.Store.UpdateMailbox(t.Context(), httpapitest.Admin, sales); err != nil {
		t.Fatal(err)
	}
	start := func() (*terminal, *exec.Cmd) {
		screen := openTerminal(t)
		cmd := exec.CommandContext(t.Context(), "postern", "--socket", w.Socket, "rotate", "sales@acme.example", "info@acme.example")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = screen.line, screen.line, screen.line
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return screen, cmd
	}
	claim := broker.RotationClaim{Node: "node", Holder: broker.NewID(), Lasts: time.Hour}
	end := func(outcome broker.RotationOutcome) {
		t.Helper()
		r, err := w.Store.ClaimRotation(t.Context(), claim)
		if err != nil || r == nil {
			t.Fatalf("claimed %+v, %v", r, err)
		}
		r.State, r.Outcome, r.Words = broker.RotationEnded, outcome, "as \x1b[31mthe panel says"
		if err := w.Store.AdvanceRotation(t.Context(), claim, r); err != nil {
			t.Fatal(err)
		}
	}
	screen, cmd := start()
	screen.readUntil(t, "0 of 2 ended, 0 under way")
	end(broker.RotationKeptOld)
	shown := screen.readUntil(t, "1 of 2 ended, 0 under way")
	if i := strings.Index(shown, "\r\x1b[K"); i < 0 || !strings.Contains(shown[i:], "@acme.example: kept-old (as \\x1b[31mthe panel says)\r\n") {
		t.Errorf("shown: %q", shown)
	}
	end(broker.RotationDone)
	shown = screen.readUntil(t, "did not end well\r\n")
	if i := strings.LastIndex(shown, "\r\x1b[K"); i < 0 || strings.Contains(shown[i:], "of 2 ended") || !strings.Contains(shown[i:], "1 mailbox rotated, 1 NOT AS WANTED") {
		t.Errorf("at the end: %q", shown)
	}
	_ = cmd.Wait() // the code tells
	if cmd.ProcessState.ExitCode() == 0 {
		t.Error("it ended as if all were well")
	}

	// Interrupted, it takes its line away and says that they go on.
	screen, cmd = start()
	screen.readUntil(t, "0 of 2 ended, 0 under way")
	interruptedBySignal(t, cmd, exitFailed)
	if shown := screen.readUntil(t, "postern rotation list'\r\n"); !strings.Contains(shown, "\r\x1b[K") || !strings.Contains(shown, "the rotations go on") {
		t.Errorf("interrupted: %q", shown)
	}
	open, err := w.Store.Rotations(t.Context(), broker.RotationQuery{Open: true})
	if err != nil || len(open) != 2 {
		t.Errorf("%d go on, %v", len(open), err)
	}
}
