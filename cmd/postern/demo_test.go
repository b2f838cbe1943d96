// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
)

// runDemo runs `postern demo --once` with faults and returns what it printed.
func runDemo(t *testing.T, faults demoFaults) (string, error) {
	t.Helper()
	var out bytes.Buffer
	d := &demo{out: &out, imaps: "127.0.0.1:0", smtps: "127.0.0.1:0", faults: faults}
	err := d.run(t.Context(), true)
	return out.String(), err
}

func TestDemoOnce(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"demo", "--once"}, strings.NewReader(""), &out, &errs); code != exitOK {
		t.Fatalf("exit %d\n%s\n%s", code, out.String(), errs.String())
	}
}

// Each of the demo's claims is broken in turn: it notices, and says where.
func TestDemoNoticesABrokenClaim(t *testing.T) {
	for _, tc := range []struct {
		name   string
		faults demoFaults
		step   string
	}{
		{"a leaked password", demoFaults{leak: true}, "have received no octet of the mailbox's password"},
		{"a forbidden command let through", demoFaults{grantDelete: true}, "be refused what the firm did not grant"},
		{"a revoke that does not cut", demoFaults{keepSession: true}, "be cut off in IDLE by a revoke"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := runDemo(t, tc.faults)
			if err == nil || !strings.Contains(err.Error(), tc.step) {
				t.Fatalf("error %v\n%s", err, out)
			}
			if exitCode(err) != exitFailed {
				t.Fatalf("exit %d", exitCode(err))
			}
		})
	}
}

func TestSecretForms(t *testing.T) {
	const password = "upstream-ABCDEFGHIJKLMNOP"
	for _, text := range []string{password, "AHNhbGVzQGFjbWUuZXhhbXBsZQB1cHN0cmVhbS1BQkNERUZHSElKS0xNTk9Q", "dXBzdHJlYW0tQUJDREVGR0hJSktMTU5PUA=="} {
		if (&demo{password: password}).checkSecrecy([]byte("before "+text+" behind")) == nil {
			t.Errorf("%q was not found", text)
		}
	}
	if err := (&demo{password: password}).checkSecrecy([]byte("nothing here")); err != nil {
		t.Error(err)
	}
}
