// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/httpapi/httpapitest"
)

// TestMain lets scripts run this program as postern.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"postern": main})
}

type worldKey struct{}

// TestScripts runs the command line against a management server whose
// upstream, credentials and sessions the scripts steer.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			w, err := httpapitest.Start(filepath.Join(env.WorkDir, ".world"))
			if err != nil {
				return err
			}
			env.Defer(func() {
				if err := w.Close(); err != nil {
					env.T().Log("closing the server: ", err)
				}
			})
			env.Values[worldKey{}] = w
			env.Setenv("POSTERN_SOCKET", w.Socket)
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "json": scriptJSON, "accept": scriptAccept, "outage": scriptOutage,
			"stored": scriptStored, "live": scriptLive, "deaf": scriptDeaf, "downloaded": scriptDownloaded,
		},
	})
}

func world(ts *testscript.TestScript) *httpapitest.World {
	return ts.Value(worldKey{}).(*httpapitest.World)
}

// exits CODE COMMAND...: the command ends with that exit code.
func scriptExits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		code = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s\n%s%s", code, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// json MEMBER[.MEMBER...] VARIABLE: puts a member of what the last command
// printed into a variable.
func scriptJSON(ts *testscript.TestScript, _ bool, args []string) {
	var value any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &value))
	for step := range strings.SplitSeq(args[0], ".") {
		if i, err := strconv.Atoi(step); err == nil {
			value = value.([]any)[i]
		} else {
			value = value.(map[string]any)[step]
		}
	}
	ts.Setenv(args[1], value.(string))
}

// accept SECRET: the upstream takes this secret.
func scriptAccept(ts *testscript.TestScript, _ bool, args []string) {
	world(ts).Upstream.Accept(args[0])
}

// outage [off]: the credential storage is out of reach.
func scriptOutage(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) > 0 {
		world(ts).Credentials.Fail(nil)
		return
	}
	world(ts).Credentials.Fail(broker.Errorf(broker.Unavailable, "the credential storage is sealed"))
}

// stored MAILBOX SECRET KIND USERNAME: that is what is stored.
func scriptStored(ts *testscript.TestScript, _ bool, args []string) {
	w := world(ts)
	m, err := w.Store.MailboxByAddress(context.Background(), args[0])
	ts.Check(err)
	c, err := w.Credentials.Credential(context.Background(), m.FirmID, m.ID)
	ts.Check(err)
	if got := []string{string(c.Secret.Reveal()), string(c.Kind), c.Username}; strings.Join(got, "|") != strings.Join(args[1:], "|") {
		ts.Fatalf("stored is %q", got)
	}
}

// live VARIABLE [WORKSTATION]: opens a session on the first assignment that
// stands (if any does), from the workstation, and puts its id into a variable.
func scriptLive(ts *testscript.TestScript, _ bool, args []string) {
	w := world(ts)
	assignments, err := w.Store.Assignments(context.Background())
	ts.Check(err)
	passwords, err := w.Store.AppPasswords(context.Background())
	ts.Check(err)
	a, password := assignments[0], passwords[0]
	if i := slices.IndexFunc(assignments, func(x *broker.Assignment) bool { return x.RevokedAt.IsZero() }); i >= 0 {
		a = assignments[i]
	}
	for _, p := range passwords {
		if p.AgentID == a.AgentID && p.RevokedAt.IsZero() {
			password = p
		}
	}
	s := &broker.Session{
		ID: broker.NewID(), Protocol: broker.ProtocolIMAP, FirmID: a.FirmID, MailboxID: a.MailboxID, AgentID: a.AgentID,
		DelegationID: a.DelegationID, AssignmentID: a.ID, AppPasswordID: password.ID, Authentication: broker.AuthAppPassword,
		RemoteAddr: "192.0.2.7:50000", Node: "test", OpenedAt: time.Now().UTC(),
	}
	if len(args) > 1 {
		machines, err := w.Store.Workstations(context.Background())
		ts.Check(err)
		for _, m := range machines {
			if m.Name == args[1] {
				s.WorkstationID = m.ID
			}
		}
		if s.WorkstationID == "" {
			ts.Fatalf("no workstation %s", args[1])
		}
	}
	ts.Check(w.Sessions.Open(context.Background(), s))
	ts.Setenv(args[0], string(s.ID))
}

// downloaded SESSION SECTION UID...: that section of these messages went to the
// session's client.
func scriptDownloaded(ts *testscript.TestScript, _ bool, args []string) {
	w := world(ts)
	var s *broker.Session
	live, err := w.Store.Sessions(context.Background(), true, 0)
	ts.Check(err)
	for _, x := range live {
		if string(x.ID) == args[0] {
			s = x
		}
	}
	if s == nil {
		ts.Fatalf("no live session %s", args[0])
	}
	opened := broker.MessageOpen{Folder: "INBOX", UIDValidity: 7}
	for _, uid := range args[2:] {
		n, err := strconv.ParseUint(uid, 10, 32)
		ts.Check(err)
		opened.Messages = append(opened.Messages, broker.OpenedMessage{UID: uint32(n), Section: args[1], Octets: 1000})
	}
	agent, err := w.Store.Agent(context.Background(), s.AgentID)
	ts.Check(err)
	ts.Check(w.Store.AppendEvents(context.Background(), []*broker.Event{{
		Type: broker.EventMessageOpen, Time: time.Now(), FirmID: s.FirmID, Actor: broker.Actor{Kind: "agent", Name: agent.Name, ID: s.AgentID},
		SessionID: s.ID, AgentID: s.AgentID, WorkstationID: s.WorkstationID, MailboxID: s.MailboxID, Data: opened,
	}}))
}

// deaf: sessions outlive what should end them.
func scriptDeaf(ts *testscript.TestScript, _ bool, _ []string) { world(ts).Sessions.IgnoreChanges() }

func TestEveryCommandIsDocumented(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.RunE == nil {
			t.Errorf("%s: Short %q, RunE missing: %v", cmd.CommandPath(), cmd.Short, cmd.RunE == nil)
		}
		if !cmd.HasSubCommands() && cmd.Args == nil {
			t.Errorf("%s does not check its arguments", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newCommand())
}

func TestExitCodes(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{errors.New("plain"), exitFailed},
		{usagef("wrong"), exitUsage},
		{broker.Errorf(broker.Internal, "x"), exitFailed},
		{broker.Errorf(broker.Unavailable, "x"), exitUnavailable},
		{&httpapi.Problem{Code: broker.Invalid}, exitUsage},
		{&httpapi.Problem{Code: broker.NotFound}, exitNotFound},
		{&httpapi.Problem{Code: broker.Conflict}, exitRefused},
		{&httpapi.Problem{Code: broker.CredentialRefused}, exitRefused},
		{&httpapi.Problem{Code: broker.Denied}, exitRefused},
		{&httpapi.Problem{Code: broker.Unavailable}, exitUnavailable},
		{&httpapi.Problem{Code: broker.Internal}, exitFailed},
	} {
		if got := exitCode(test.err); got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}

// TestTerminalIsNotDriven: what strangers wrote reaches a terminal as text.
func TestTerminalIsNotDriven(t *testing.T) {
	for in, want := range map[string]string{
		"plain Söhne 😀":     "plain Söhne 😀",
		"\x1b[2Jx":          `\x1b[2Jx`,
		"a\nb\tc\r":         `a\nb\tc\r`,
		"\u009b31m":         `\u009b31m`,
		"safe\u202egnp.exe": `safe\u202egnp.exe`,
		"a\xffb":            "a\uFFFDb",
	} {
		if got := printable(in, false); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
	if got := printable("a\n\x1bb", true); got != "a\n\\x1bb" {
		t.Errorf("with lines: %q", got)
	}
}

func TestSplitEndpoint(t *testing.T) {
	for _, test := range []struct {
		in, host string
		port     uint16
		bad      bool
	}{
		{in: "imap.example", host: "imap.example"},
		{in: "imap.example:1993", host: "imap.example", port: 1993},
		{in: "192.0.2.1:993", host: "192.0.2.1", port: 993},
		{in: "2001:db8::1", host: "2001:db8::1"},
		{in: "[2001:db8::1]", host: "2001:db8::1"},
		{in: "[2001:db8::1]:993", host: "2001:db8::1", port: 993},
		{in: "", bad: true},
		{in: ":993", bad: true},
		{in: "imap.example:", bad: true},
		{in: "imap.example:0", bad: true},
		{in: "imap.example:65536", bad: true},
		{in: "imap.example:imaps", bad: true},
		{in: "[2001:db8::1", bad: true},
	} {
		host, port, err := splitEndpoint("imap", test.in)
		if (err != nil) != test.bad || err == nil && (host != test.host || port != test.port) {
			t.Errorf("%q: %q, %d, %v", test.in, host, port, err)
		}
	}
}

func TestParseTime(t *testing.T) {
	day := time.Date(2026, 12, 31, 0, 0, 0, 0, time.Local)
	for _, test := range []struct {
		in   string
		end  bool
		want time.Time
	}{
		{"2026-12-31", false, day},
		{"2026-12-31", true, time.Date(2027, 1, 1, 0, 0, 0, 0, time.Local)},
		{"2026-12-31T18:00:00+05:30", true, time.Date(2026, 12, 31, 12, 30, 0, 0, time.UTC)},
	} {
		got, err := parseTime("until", test.in, test.end)
		if err != nil || !got.Equal(test.want) {
			t.Errorf("%q: %v, %v", test.in, got, err)
		}
	}
	for _, bad := range []string{"tomorrow", "2026-13-01", "31.12.2026"} {
		if got, err := parseTime("until", bad, true); err == nil || exitCode(err) != exitUsage {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
	if got, err := parseTime("until", "", true); got != nil || err != nil {
		t.Errorf("nothing: %v, %v", got, err)
	}
}
