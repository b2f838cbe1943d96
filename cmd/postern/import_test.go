// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/httpapi/httpapitest"
)

// TestImportReadsWhatSpreadsheetsWrite: a byte order mark, CRLF, spaces and
// empty lines at the end are borne; line numbers are the file's.
func TestImportReadsWhatSpreadsheetsWrite(t *testing.T) {
	columns := []importColumn{{name: "name", required: true}, {name: "note"}}
	faults := &importFaults{}
	rows, err := parseImport([]byte("\ufeffname, note\r\n asha ,\"two\r\nlines\"\r\nravi,x;y\r\n,\r\n\r\n"), columns, faults)
	if err != nil || !faults.none() || len(rows) != 2 {
		t.Fatalf("%d rows, %v, %v", len(rows), faults.list, err)
	}
	if rows[0].values["name"] != "asha" || rows[0].values["note"] != "two\nlines" || rows[1].line != 4 || strings.Join(rows[1].list("note"), "|") != "x|y" {
		t.Errorf("rows %+v, %+v", rows[0], rows[1])
	}
	for text, want := range map[string]string{
		"name\nS\xf6hne\n": "not UTF-8",
		"name,name\n":      "twice",
		"\xef\xbb\xbf":     "no header",
		"name\n":           "no rows",
		"name\n" + strings.Repeat("x\n", maxImportRows+1): "split it",
	} {
		if _, err := parseImport([]byte(text), columns, &importFaults{}); err == nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

// TestImportInSeveralRequests: a file of more rows than one request takes is
// checked as a whole before its first row is stored.
func TestImportInSeveralRequests(t *testing.T) {
	w, err := httpapitest.Start(shortDir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(t.TempDir(), "agents.csv")
	const rows = 2*httpapi.MaxImportRows + 3
	write := func(last string) {
		var text bytes.Buffer
		text.WriteString("name\n")
		for i := range rows - 1 {
			fmt.Fprintf(&text, "agent-%d\n", i)
		}
		text.WriteString(last + "\n")
		if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	agents := func() int {
		all, err := w.Store.Agents(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	write("a slip/")
	code, _, stderr := postern(t, "import", "agents", file, "--socket", w.Socket)
	if code != exitUsage || !strings.Contains(stderr, fmt.Sprintf("line %d, name: ", rows+1)) || agents() != 0 {
		t.Errorf("with a slip in the last row: exit code %d, %d agents: %s", code, agents(), stderr)
	}
	write("last")
	code, stdout, stderr := postern(t, "import", "agents", file, "--socket", w.Socket)
	if code != exitOK || agents() != rows || !strings.Contains(stderr, fmt.Sprintf("stored %d of %d rows", rows, rows)) {
		t.Errorf("exit code %d, %d agents: %s%s", code, agents(), stdout, stderr)
	}
}
