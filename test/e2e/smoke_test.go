// SPDX-License-Identifier: Apache-2.0

package e2e

import "testing"

func TestSmoke(t *testing.T) {
	w := NewWorld(t, WorldOptions{Mailboxes: []string{"sales@client.example"}})
	s := w.Seat("sales@client.example")
	c := s.IMAP(t)
	for _, l := range c.OK(`LIST "" *`) {
		t.Log(l)
	}
	c.Cmd("LOGOUT")
	m := s.Submission(t)
	m.Ask(221, "QUIT")
	for _, e := range s.Events() {
		t.Log(e.Type, string(e.Data))
	}
}
