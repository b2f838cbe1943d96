// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/rotation/driver"
	"github.com/postern-mail/postern/broker/rotation/driver/drivertest"
	"github.com/postern-mail/postern/test/servers"
)

// asProgram is the argument by which this test's binary is the program of the
// exec driver. The one behind it is the folder with the provider's mailboxes.
const asProgram = "as-the-program"

const execPassword = "account-5ecret-of-the-program"

// program is what the exec driver runs.
func program(dir string) {
	var asked struct {
		Action, Address, Username, Old, New string
		Account                             *struct{ Username, Secret string }
		Settings                            struct{ Mode string }
	}
	document, err := io.ReadAll(os.NewFile(3, "document"))
	if err != nil || json.Unmarshal(document, &asked) != nil {
		os.Exit(13)
	}
	mailbox := filepath.Join(dir, asked.Username)
	switch asked.Settings.Mode {
	case "flood":
		for {
			fmt.Print(strings.Repeat("x", 4096))
		}
	case "hang":
		child := exec.Command(os.Args[0], asProgram, dir)
		child.Env = []string{}
		reader, _, _ := os.Pipe() // which nobody writes to
		child.ExtraFiles = []*os.File{reader}
		if err := child.Start(); err != nil {
			os.Exit(13)
		}
		os.WriteFile(mailbox+".hangs", []byte(strconv.Itoa(child.Process.Pid)), 0o600)
		child.Wait()
	case "look":
		fmt.Printf("{\"words\": %q}", fmt.Sprint(os.Environ(), len(os.Args), os.Getpid() == pgid()))
		os.Exit(13)
	}
	password, err := os.ReadFile(mailbox)
	switch {
	case asked.Action == "kick":
		os.Exit(0)
	case asked.Action == "inspect":
		fmt.Print(`{"app_passwords": ["phone"], "forwarding_rules": ["to ` + asked.New + `"], "delegates": ["` + asked.Old + `"]}`)
		os.Exit(0)
	case asked.Account == nil || asked.Account.Secret != execPassword:
		fmt.Printf("{\"words\": %q}", "who is "+asked.Account.Secret+"?")
		os.Exit(10)
	case err != nil:
		os.Exit(14)
	case asked.Old != "" && asked.Old != string(password) && asked.New != string(password):
		os.Exit(99)
	case len(asked.New) < 12:
		fmt.Print("not " + asked.New + ", it is too little")
		os.Exit(11)
	}
	os.WriteFile(mailbox, []byte(asked.New), 0o600)
	if asked.Settings.Mode == "doubt" {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	os.Exit(0)
}

func pgid() int {
	id, _ := syscall.Getpgid(0)
	return id
}

// thisProgram is this test's binary as a program.
func thisProgram(t testing.TB) driver.Program {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return driver.Program{Path: path, Args: []string{asProgram, t.TempDir()}, Actions: []string{"kick", "inspect"}}
}

func TestExec(t *testing.T) {
	p := thisProgram(t)
	other := p
	other.Firms = []broker.ID{broker.NewID()}
	setter := p
	setter.Actions = nil
	d := newDriver(t, driver.NameExec, driver.Config{Programs: map[string]driver.Program{"panel": p, "other-firm": other, "setter": setter}})
	mailbox := func(t *testing.T) *broker.PasswordChange {
		c := newChange()
		if err := os.WriteFile(filepath.Join(p.Args[1], c.Username), []byte(oldPassword), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Account = &broker.ProviderAccount{Username: "api", Secret: secret(execPassword)}
		c.Provider = encode(t, map[string]string{"program": "panel"})
		return c
	}
	mode := func(t testing.TB, c *broker.PasswordChange, m string) {
		c.Settings = encode(t, map[string]string{"mode": m})
	}
	drivertest.Run(t, func(t *testing.T) *drivertest.Provider {
		return &drivertest.Provider{
			Driver:      d,
			AnySettings: true,
			Mailbox:     mailbox,
			Opens: func(t *testing.T, c *broker.PasswordChange, password string) bool {
				got, err := os.ReadFile(filepath.Join(p.Args[1], c.Username))
				if err != nil {
					t.Fatal(err)
				}
				return string(got) == password
			},
			Refusals: map[string]drivertest.Refusal{
				"the account": {Reason: broker.DriverAccountRefused, Words: "who is [redacted]?", Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.Account.Secret = secret("another-5ecret-than-that")
				}},
				"no such mailbox": {Reason: broker.DriverUnknownMailbox, Alter: func(_ *testing.T, c *broker.PasswordChange) { c.Username = "nobody" }},
				"the password": {Reason: broker.DriverPasswordPolicy, Words: "not [redacted], it is too little", Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.New = secret("short-pw")
				}},
				"a password that is no UTF-8": {Reason: broker.DriverMisconfigured, Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.New = secret("\xff\xfe-and-more-than-that")
				}},
				"another firm's program": {Reason: broker.DriverMisconfigured, Alter: func(t *testing.T, c *broker.PasswordChange) {
					c.Provider = encode(t, map[string]string{"program": "other-firm"})
				}},
				"no environment, no arguments, a group of its own": {Reason: broker.DriverMisconfigured, Words: "[] 3 true", Alter: func(t *testing.T, c *broker.PasswordChange) {
					mode(t, c, "look")
				}},
			},
			InDoubt: func(t *testing.T, c *broker.PasswordChange) error {
				mode(t, c, "doubt")
				return d.Set(t.Context(), c)
			},
		}
	})
	t.Run("says too much", func(t *testing.T) {
		c := mailbox(t)
		mode(t, c, "flood")
		e := drivertest.WantError(t, d.Set(t.Context(), c), broker.OutcomeUnknown, broker.DriverUnavailable)
		if !strings.Contains(e.Error(), "says too much") {
			t.Errorf("it was listened to until %v", e)
		}
	})
	t.Run("hangs, with a child", func(t *testing.T) {
		c := mailbox(t)
		mode(t, c, "hang")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- d.Set(ctx, c) }()
		var child int
		servers.WaitFor(t, time.Minute, func() bool {
			b, _ := os.ReadFile(filepath.Join(p.Args[1], c.Username+".hangs"))
			child, _ = strconv.Atoi(string(b))
			return child > 0
		}, "the program to start its child")
		cancel()
		drivertest.WantError(t, <-done, broker.OutcomeUnknown, broker.DriverUnavailable)
		servers.WaitFor(t, time.Minute, func() bool { return !alive(child) }, "the child's end")
	})
	t.Run("kicks and inspects", func(t *testing.T) {
		c := mailbox(t)
		if err := d.(broker.Kicker).Kick(t.Context(), c); err != nil {
			t.Error(err)
		}
		found, err := d.(broker.Inspector).Inspect(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		// It was not told the new password.
		if len(found.AppPasswords) != 1 || found.AppPasswords[0] != "phone" || found.ForwardingRules[0] != "to " || found.Delegates[0] != "[redacted]" {
			t.Errorf("found %+v", found)
		}
		c.Provider = encode(t, map[string]string{"program": "setter"})
		drivertest.WantError(t, d.(broker.Kicker).Kick(t.Context(), c), broker.NotApplied, broker.DriverMisconfigured)
	})
}

// alive reports whether a process runs; one that is dead and not waited for
// does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

// TestExecRunsNothingThatOthersCanChange: nor a program that became so after
// the start.
func TestExecRunsNothingThatOthersCanChange(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "program")
	write := func(mode os.FileMode) {
		if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	config := func(path string) driver.Config {
		return driver.Config{Programs: map[string]driver.Program{"panel": {Path: path}}}
	}
	write(0o755)
	d := newDriver(t, driver.NameExec, config(path))
	c := newChange()
	c.Provider = encode(t, map[string]string{"program": "panel"})
	if err := d.Set(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"program", dir + "/../" + filepath.Base(dir) + "/program", dir, link, filepath.Join(dir, "away")} {
		if _, err := driver.New(config(bad)); broker.CodeOf(err) != broker.Invalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for what, change := range map[string]func(){
		"the file":  func() { write(0o777) },
		"its group": func() { write(0o775) },
		"its folder": func() {
			write(0o755)
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		},
	} {
		change()
		if _, err := driver.New(config(path)); broker.CodeOf(err) != broker.Invalid {
			t.Errorf("%s can be written by all: %v", what, err)
		}
		drivertest.WantError(t, d.Set(t.Context(), c), broker.NotApplied, broker.DriverMisconfigured)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
