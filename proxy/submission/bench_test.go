// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"strings"
	"testing"
	"time"
)

// BenchmarkSubmit12KB is one message of 12 KB on a connection that is logged
// in, without TLS, client and upstream in the same process.
func BenchmarkSubmit12KB(b *testing.B) {
	gate := newGate()
	ups := scriptedUpstream(b, gate, "PIPELINING", "8BITMIME", "SIZE 0")
	s := newSetup(b, gate, nil)
	c := s.login(b)
	_ = c.SetDeadline(time.Time{})
	u := <-ups
	_ = u.conn.SetDeadline(time.Time{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			line, err := u.r.ReadSlice('\n')
			switch {
			case err != nil:
				return
			case string(line) == "DATA\r\n":
				u.write("354 go\r\n")
				for string(line) != ".\r\n" {
					if line, err = u.r.ReadSlice('\n'); err != nil {
						return
					}
				}
			}
			u.write("250 ok\r\n")
		}
	}()
	m := stuffed(message1(strings.Repeat(strings.Repeat("x", 70)+"\r\n", 12000/72)))
	b.SetBytes(int64(len(m)))
	b.ReportAllocs()
	for b.Loop() {
		c.raw("MAIL FROM:<alice@own.example>\r\nRCPT TO:<bob@client.example>\r\nDATA\r\n")
		c.expect("250")
		c.expect("250")
		c.expect("354")
		c.raw(m)
		c.expect("250")
		gate.set(func() { gate.events = gate.events[:0] })
	}
	_ = u.conn.Close()
	<-done
}

func BenchmarkJudgeHeader(b *testing.B) {
	h := []byte("Received: x\r\nFrom: Alice <alice@own.example>\r\nTo: Bob <bob@client.example>\r\nSubject: " + strings.Repeat("s", 60) +
		"\r\nMessage-ID: <m@own.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\nDate: Mon, 1 Jan 2026 00:00:00 +0000\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, refused := judgeHeader(h, own, false); refused != nil {
			b.Fatal(refused.text)
		}
	}
}
