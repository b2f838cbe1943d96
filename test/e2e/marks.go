// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/base64"
	"os"
	"testing"
)

// Spellings returns the forms in which a secret could leave: as it is, and in
// base64 by itself and inside SASL PLAIN and XOAUTH2 responses, whatever stands
// before it there.
func Spellings(secret string) [][]byte {
	all := [][]byte{[]byte(secret)}
	for before := range 3 {
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, before), secret...))
		// The first and the last characters depend on the neighbours.
		begin := (before*8 + 5) / 6
		end := (before + len(secret)) * 8 / 6
		all = append(all, []byte(encoded[begin:end]))
	}
	return all
}

// Leaks returns which of the secrets stand in b, in any spelling.
func Leaks(b []byte, secrets []string) []string {
	var found []string
	for _, secret := range secrets {
		for _, spelling := range Spellings(secret) {
			if bytes.Contains(b, spelling) {
				found = append(found, secret)
				break
			}
		}
	}
	return found
}

// CheckNothingLeaked fails the test when a mailbox's password stands in the
// server's log, in its database, or in what any of the connections received.
func (w *World) CheckNothingLeaked(connections ...*Conn) {
	w.t.Helper()
	secrets := w.Passwords()
	check := func(what string, b []byte) {
		w.t.Helper()
		if found := Leaks(b, secrets); len(found) > 0 {
			w.t.Errorf("%s holds passwords of mailboxes: %q", what, found)
		}
	}
	check("the server's log", w.Postern.Logs())
	for _, file := range w.Postern.DatabaseFiles() {
		check(file, readFile(w.t, file))
	}
	for _, c := range connections {
		check("what a client received", c.Seen())
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
