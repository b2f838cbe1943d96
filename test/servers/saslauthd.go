// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"testing"
)

// passwordCheck answers Cyrus' question whether a password is right, on a Unix
// socket, as saslauthd(8) does: so passwords change at once, and nothing has
// to be installed or written to disk.
type passwordCheck struct {
	mu    sync.Mutex
	users map[string]string
}

// startPasswordCheck listens on path until the test is over.
func startPasswordCheck(t testing.TB, path string, users map[string]string) *passwordCheck {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	// Cyrus asks as a user of its own.
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	c := &passwordCheck{users: users}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				c.answer(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	return c
}

// answer reads user, password, service and realm and answers, each behind its
// length in two octets.
func (c *passwordCheck) answer(conn net.Conn) {
	var fields [4]string
	for i := range fields {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		field := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, field); err != nil {
			return
		}
		fields[i] = string(field)
	}
	user, password, realm := fields[0], fields[1], fields[3]
	if realm != "" {
		user += "@" + realm
	}
	verdict := "\x00\x02NO"
	if right, known := c.password(user); known && right == password {
		verdict = "\x00\x02OK"
	}
	// Cyrus takes a lost answer for a refusal.
	_, _ = io.WriteString(conn, verdict)
}

func (c *passwordCheck) password(user string) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	password, known := c.users[user]
	return password, known
}

func (c *passwordCheck) set(user, password string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users[user] = password
}
