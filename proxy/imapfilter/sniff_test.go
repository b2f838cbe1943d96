// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// sniffed returns what a sniffer finds in a header that comes in pieces.
func sniffed(header []byte, piece int) string {
	s := headerSniffer{active: true}
	for len(header) > 0 {
		n := min(piece, len(header))
		_, _ = s.Write(header[:n])
		header = header[n:]
	}
	return s.messageID()
}

func TestHeaderSniffer(t *testing.T) {
	long := strings.Repeat("X-Long: "+strings.Repeat("y", 70)+"\r\n", maxHeaderSniff/80+1)
	for in, want := range map[string]string{
		"Message-ID: <a@b>\r\n\r\n":                             "<a@b>",
		"message-id:<a@b>":                                      "<a@b>",
		"Subject: x\r\nMESSAGE-ID:\r\n\t<a@b>\r\nTo: x\r\n":     "<a@b>",
		"Message-ID: <a\r\n @b>\r\nTo: x":                       "<a @b>",
		"Subject: Message-ID: <no>\r\n\r\n":                     "",
		"Subject: x\r\n Message-ID: <no>\r\n\r\n":               "",
		"Subject: x\r\n\r\nMessage-ID: <no>\r\n":                "",
		"Subject: x\n\nMessage-ID: <no>\n":                      "",
		"Message-ID: <1>\r\nMessage-ID: <2>\r\n\r\n":            "<1>",
		"Message-IDs: <no>\r\n\r\n":                             "",
		"Message-ID: \xff\r\n\r\n":                              "\uFFFD",
		long + "Message-ID: <too-far>\r\n\r\n" + long:           "",
		long[:maxHeaderSniff/2] + "\r\nMessage-ID: <near>\r\n":  "<near>",
		"Message-ID: " + strings.Repeat("z", 2000) + "\r\n\r\n": strings.Repeat("z", 997),
	} {
		for _, piece := range []int{1, 2, 7, 4096, 1 << 20} {
			if got := sniffed([]byte(in), piece); got != want {
				t.Errorf("%.60q by %d: %.60q, want %.60q", in, piece, got, want)
			}
		}
	}
}

// FuzzHeaderSniffer: what is found does not depend on how the header comes in
// pieces.
func FuzzHeaderSniffer(f *testing.F) {
	f.Add([]byte("Subject: x\r\nMessage-ID:\r\n <a@b>\r\nTo: x\r\n\r\nbody"), 3)
	f.Add([]byte("M\rMessage-ID: x\n\r\n"), 1)
	f.Add([]byte("Received: by x\r\n\tid y\r\nmessage-id  : <a@b>\r\n\r\nMessage-ID: <c@d>\r\n"), 7)
	f.Add([]byte("Message-ID: <a@b>\nMessage-ID: <c@d>\n\nbody"), 2)
	f.Add([]byte("\r\nMessage-ID: <body@b>\r\n"), 5)
	f.Add([]byte("Message-ID: =?utf-8?q?=3Ca=40b=3E?=\r\n \r\n <x@y>\r\n"), 4)
	f.Fuzz(func(t *testing.T, header []byte, piece int) {
		if piece < 1 || len(header) > 1<<16 {
			return
		}
		if whole, pieces := sniffed(header, len(header)+1), sniffed(header, piece); whole != pieces {
			t.Fatalf("%q by %d: %q, whole: %q", header, piece, pieces, whole)
		}
	})
}

// A batch may be handed to the log while a message's header is passing: its
// Message-ID is neither cut nor lost.
func TestMessageIDsAtTheEndOfABatch(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a SELECT Work")
	u.expect("a SELECT Work")
	u.raw("* OK [UIDVALIDITY 7] ok\r\na OK\r\n")
	c.until("a OK")
	c.send("b FETCH 1:* BODY[]")
	u.expect("b FETCH")
	for i := 1; i < maxOpenedBatch; i++ {
		u.raw(fmt.Sprintf("* %d FETCH (UID %d BODY[] {0}\r\n)\r\n", i, i))
	}
	header := "Subject: x\r\nMessage-ID: <whole@firm.example>\r\n\r\n"
	for split := range 3 {
		n := maxOpenedBatch + split*maxOpenedBatch
		u.raw(fmt.Sprintf("* %d FETCH (UID %d BODY[] {%d}\r\n", n, n, len(header)))
		cut := []int{5, 30, 45}[split]
		u.raw(header[:cut])
		c.until(fmt.Sprintf("* %d FETCH", n)) // so that it was read by itself
		u.raw(header[cut:] + ")\r\n")
		for i := 1; i < maxOpenedBatch; i++ {
			u.raw(fmt.Sprintf("* %d FETCH (UID %d BODY[] {0}\r\n)\r\n", n+i, n+i))
		}
	}
	u.raw("b OK\r\n")
	c.until("b OK")
	named := map[uint32]string{}
	for _, e := range gate.last().recorded(broker.EventMessageOpen) {
		for _, m := range e.(broker.MessageOpen).Messages {
			if m.MessageID != "" {
				named[m.UID] = m.MessageID
			}
		}
	}
	for _, e := range gate.last().recorded(broker.EventMessageIdentify) {
		named[e.(broker.MessageIdentify).UID] = e.(broker.MessageIdentify).MessageID
	}
	if want := "map[500:<whole@firm.example> 1000:<whole@firm.example> 1500:<whole@firm.example>]"; fmt.Sprint(named) != want {
		t.Fatalf("got %v, want %s", named, want)
	}
}
