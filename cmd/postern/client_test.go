// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// lying is a client of a server that answers everything with the same body.
func lying(t *testing.T, body string) *app {
	t.Helper()
	a := &app{socket: filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, body)
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-ended })
	return a
}

// TestLyingServer: whatever a server answers, the client says what is wrong with it.
func TestLyingServer(t *testing.T) {
	run := func(body string, do func(*cobra.Command, *app) error) error {
		cmd := new(cobra.Command)
		cmd.SetContext(t.Context())
		var out bytes.Buffer
		cmd.SetOut(&out)
		err := do(cmd, lying(t, body))
		if strings.ContainsRune(out.String(), '\x1b') {
			t.Errorf("%q drives the terminal", body)
		}
		return err
	}
	entries := func(cmd *cobra.Command, a *app) error {
		_, err := logSource{a, ""}.Entries(cmd.Context(), 0)
		return err
	}
	entry := func(cmd *cobra.Command, a *app) error {
		_, err := logSource{a, ""}.Entry(cmd.Context(), 0)
		return err
	}
	list := func(cmd *cobra.Command, a *app) error {
		_, _, err := call[httpapi.List[*broker.Firm]](cmd, a, http.MethodGet, path("firms"), nil)
		return err
	}
	checkpoint := func(cmd *cobra.Command, a *app) error {
		c := newLogCheckpointCommand(a)
		c.SetContext(cmd.Context())
		c.SetOut(cmd.OutOrStdout())
		return c.RunE(c, nil)
	}
	for _, test := range []struct {
		body string
		do   func(*cobra.Command, *app) error
		want string
	}{
		{`{"items":[null]}`, entries, "nothing in them"},
		{`{"items":[null]}`, entry, "nothing in them"},
		{`{"items":[]}`, entry, "does not have event 0"},
		{`{"items":[null]}`, list, "nothing in them"},
		{`{"items":[{},null],"next":"x"}`, list, "nothing in them"},
		{strings.Repeat("x", maxLogAnswer+1), entries, "more than"},
		{"\x1b[2J", checkpoint, "no checkpoint"},
	} {
		if err := run(test.body, test.do); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.40q: %v, want %q", test.body, err, test.want)
		}
	}
}
