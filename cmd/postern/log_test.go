// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/httpapi/httpapitest"
)

// What `log events --json` prints can be verified: each leaf hash covers the
// record's octets as they stand there.
func TestLogEventsVerifyAsPrinted(t *testing.T) {
	server, err := httpapitest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	cli := func(args ...string) []byte {
		var out, errs bytes.Buffer
		args = append([]string{"--socket", server.Socket, "--json"}, args...)
		if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code != exitOK {
			t.Fatalf("%v: exit %d: %s", args, code, errs.String())
		}
		return out.Bytes()
	}
	cli("firm", "create", `Müller <& Söhne> "KG"`, "--contact", "it@mueller.example")
	var page httpapi.LogPage
	if err := json.Unmarshal(cli("log", "events", "--firm", `Müller <& Söhne> "KG"`), &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Items) == 0 {
		t.Fatal("there are no events")
	}
	for _, e := range page.Items {
		salt, err := hex.DecodeString(e.Salt)
		if err != nil {
			t.Fatal(err)
		}
		leaf := tlog.RecordHash(append(salt, e.Record...))
		if hex.EncodeToString(leaf[:]) != e.Leaf {
			t.Errorf("event %d does not verify: %s", e.Seq, e.Record)
		}
	}
}
