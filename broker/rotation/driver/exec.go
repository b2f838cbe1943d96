// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/redact"
)

// Exec changes passwords by a program of the operator's.
//
// The program gets one JSON document on file descriptor 3:
//
//	{"action": "set", "address": "…", "username": "…", "old": "…", "new": "…",
//	 "account": {"username": "…", "secret": "…"}, "settings": {…}}
//
// with the passwords as strings, which must be UTF-8; "settings" are the
// mailbox's, of whoever runs the firm, and must be believed as little as an
// address. Its environment and its standard input are empty, its folder is /.
// For actions kick and inspect, where Program names them, there is no "new".
//
// It ends with an exit status, and may write {"words": "…"} to its standard
// output, of 64 KB at most; inspect's is a broker.Inspection.
//
//	0   done                      12  unavailable, nothing changed
//	10  the account was refused   13  misconfigured
//	11  the password was refused  14  no such mailbox
//
// Any other status, a signal among them, leaves an unknown outcome. With the
// context the program ends, and all processes of its group.
type Exec struct{ config Config }

var (
	_ broker.Driver    = (*Exec)(nil)
	_ broker.Kicker    = (*Exec)(nil)
	_ broker.Inspector = (*Exec)(nil)
)

// Actions of a program.
const (
	actionSet     = "set"
	actionKick    = "kick"
	actionInspect = "inspect"
)

const (
	// maxOutput bounds what is read of a program's output, in octets.
	maxOutput = 64 << 10
	// exitGrace is for a program's output to end after the program.
	exitGrace = time.Second
)

// exitReasons are by exit status; each leaves the password as it was.
func exitReasons() map[int]broker.DriverReason {
	return map[int]broker.DriverReason{
		10: broker.DriverAccountRefused, 11: broker.DriverPasswordPolicy, 12: broker.DriverUnavailable,
		13: broker.DriverMisconfigured, 14: broker.DriverUnknownMailbox,
	}
}

// execProvider is the settings of a provider.
type execProvider struct {
	// Program is a name of the server's configuration.
	Program string `json:"program"`
}

// Check reports what is wrong with settings; a mailbox's are the program's.
func (d *Exec) Check(provider, mailbox json.RawMessage) error {
	_, err := d.settings(provider, mailbox)
	return err
}

func (d *Exec) settings(provider, mailbox json.RawMessage) (*Program, error) {
	var p execProvider
	if err := decode(fieldProvider, provider, &p); err != nil {
		return nil, err
	}
	var object map[string]json.RawMessage
	if err := decode(fieldMailbox, mailbox, &object); err != nil {
		return nil, err
	}
	program, ok := d.config.Programs[p.Program]
	if !ok {
		return nil, broker.InvalidField("provider.program", "the server's configuration names no such program")
	}
	return &program, nil
}

// Set changes the password.
func (d *Exec) Set(ctx context.Context, c *broker.PasswordChange) error {
	_, err := d.run(ctx, actionSet, c)
	return err
}

// Kick ends sessions, if the program can.
func (d *Exec) Kick(ctx context.Context, c *broker.PasswordChange) error {
	_, err := d.run(ctx, actionKick, c)
	return err
}

// Inspect lists what else leads into the mailbox, if the program can.
func (d *Exec) Inspect(ctx context.Context, c *broker.PasswordChange) (*broker.Inspection, error) {
	output, err := d.run(ctx, actionInspect, c)
	if err != nil {
		return nil, err
	}
	var i broker.Inspection
	if err := json.Unmarshal(output, &i); err != nil {
		return nil, &broker.DriverError{Outcome: broker.NotApplied, Reason: broker.DriverMisconfigured, Words: "the program's answer is no inspection"}
	}
	a := &attempt{}
	defer a.done()
	a.hide(c.Old.Reveal(), c.New.Reveal())
	if c.Account != nil {
		a.hide(c.Account.Secret.Reveal())
	}
	for _, names := range []*[]string{&i.AppPasswords, &i.Delegates, &i.ForwardingRules} {
		*names = (*names)[:min(len(*names), maxListed)]
		for n, name := range *names {
			(*names)[n] = redact.Words([]byte(name), maxListName, a.hidden)
		}
	}
	return &i, nil
}

// run runs the program for an action and returns its output.
func (d *Exec) run(ctx context.Context, action string, c *broker.PasswordChange) ([]byte, error) {
	asked := *c
	if action != actionSet {
		asked.New = broker.NewSecret([]byte("-")) // not told
	}
	a, err := newAttempt(&asked)
	defer a.done()
	if err != nil {
		return nil, err
	}
	program, err := d.settings(c.Provider, c.Settings)
	switch {
	case err != nil:
		return nil, a.misconfigured(err)
	case action != actionSet && !slices.Contains(program.Actions, action):
		return nil, a.misconfigured(fmt.Errorf("the program cannot %s", action))
	case len(program.Firms) > 0 && !slices.Contains(program.Firms, c.Mailbox.FirmID):
		return nil, a.misconfigured(errors.New("the program is not for this firm"))
	}
	// Somebody may have written to it since the start.
	if err := program.check(); err != nil {
		return nil, a.misconfigured(err)
	}
	document, err := tell(action, a)
	if err != nil {
		return nil, a.misconfigured(err)
	}
	defer clear(document)
	ctx, cancel := context.WithTimeout(ctx, d.config.Timeout)
	defer cancel()
	if ctx.Err() != nil {
		return nil, a.unreached(ctx, context.Cause(ctx))
	}
	return a.execute(ctx, program, document)
}

// tell makes the document for the program, which the caller wipes.
func tell(action string, a *attempt) ([]byte, error) {
	type account struct {
		Username string     `json:"username"`
		Secret   secretText `json:"secret"`
	}
	document := struct {
		Action   string          `json:"action"`
		Address  string          `json:"address"`
		Username string          `json:"username"`
		Old      secretText      `json:"old,omitempty"`
		New      secretText      `json:"new,omitempty"`
		Account  *account        `json:"account,omitempty"`
		Settings json.RawMessage `json:"settings,omitempty"`
	}{Action: action, Address: a.names[nameAddress], Username: a.Username, Old: a.Old.Reveal(), Settings: a.Settings}
	if action == actionSet {
		document.New = a.New.Reveal()
	}
	if a.Account != nil {
		document.Account = &account{a.Account.Username, a.Account.Secret.Reveal()}
	}
	return json.Marshal(document)
}

// execute runs the program to its end.
func (a *attempt) execute(ctx context.Context, program *Program, document []byte) ([]byte, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, a.unreached(ctx, err)
	}
	defer writer.Close()
	output := &boundedBuffer{left: maxOutput}
	cmd := exec.CommandContext(ctx, program.Path, program.Args...)
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.Stdout = output
	cmd.ExtraFiles = []*os.File{reader}
	cmd.WaitDelay = exitGrace
	ownGroup(cmd)
	err = cmd.Start()
	reader.Close()
	if err != nil {
		return nil, a.failed(broker.NotApplied, broker.DriverMisconfigured, "", err)
	}
	// A program that does not read must not hold anybody up.
	written := make(chan struct{})
	go func() {
		defer close(written)
		writer.Write(document) // one that has ended says so by its status
		writer.Close()
	}()
	err = cmd.Wait()
	endGroup(cmd)
	writer.Close()
	<-written
	return a.judge(ctx, cmd.ProcessState, output, err)
}

// judge makes of a program's end what is known.
func (a *attempt) judge(ctx context.Context, state *os.ProcessState, output *boundedBuffer, err error) ([]byte, error) {
	var said struct {
		Words string `json:"words"`
	}
	if json.Unmarshal(output.kept.Bytes(), &said) != nil {
		said.Words = output.kept.String()
	}
	status := state.ExitCode()
	reason, refused := exitReasons()[status]
	switch {
	case output.left < 0:
		return nil, a.unanswered(ctx, errors.New("the program says too much"))
	case status == 0:
		return output.kept.Bytes(), nil
	case refused:
		return nil, a.failed(broker.NotApplied, reason, said.Words, fmt.Errorf("exit status %d", status))
	}
	return nil, a.failed(broker.OutcomeUnknown, broker.DriverUnavailable, said.Words, because(ctx, err))
}

// boundedBuffer keeps what fits; left is negative when something did not. It is
// no bytes.Buffer itself, which would read on without asking.
type boundedBuffer struct {
	kept bytes.Buffer
	left int
}

// Write keeps b, or fails, which ends the writer.
func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errSaysTooMuch
	}
	return b.kept.Write(p)
}

// secretText is a secret that is told: as a JSON string.
type secretText []byte

// MarshalJSON writes the secret, which must be UTF-8: encoding/json would put
// another character in place of what is not.
func (s secretText) MarshalJSON() ([]byte, error) {
	return appendJSONString(make([]byte, 0, 2+len(s)), s)
}
