// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy"
)

// socketPair returns both ends of a connection that can be half closed and
// takes no port.
func socketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socketpair")
		ends[i], err = net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return ends[0], ends[1]
}

// FuzzGateway: whatever octets a client sends, the upstream gets commands of a
// closed grammar with an own address in MAIL, and messages in CR LF lines with
// an own address in their one From field. It reads as plainly as can be.
func FuzzGateway(f *testing.F) {
	whole := "MAIL FROM:<alice@own.example> SIZE=300 BODY=8BITMIME\r\nRCPT TO:<bob@client.example>\r\nDATA\r\n" + stuffed(message1("hello\r\n.\r\n")) + "QUIT\r\n"
	second := "MAIL FROM:<boss@own.example>\r\nRCPT TO:<eve@evil.example>\r\nDATA\r\nFrom: boss@own.example\r\n\r\nx\r\n.\r\nQUIT\r\n"
	for _, s := range []string{
		whole, strings.Replace(whole, "QUIT\r\n", second, 1), "RSET\r\nNOOP\r\n" + whole, "EHLO [192.0.2.9]\r\nAUTH LOGIN\r\n*\r\n" + whole,
		"MAIL FROM:<alice@own.example>\r\nRCPT TO:<\"> NOTIFY=NEVER ORCPT=rfc822;x\"@y.example>\r\nDATA\r\n" + message1("x\r\n.\r\n"),
		"MAIL FROM:<alice@own.example>\r\nDATA\r\n" + second, "MAIL FROM:<alice@own.example>\r\nRCPT TO:<b@y.example>\r\nBDAT 86 LAST\r\n" + second,
		"MAIL FROM:<alice@own.example> SMTPUTF8\r\nRCPT TO:<é@é.example>\r\nDATA\r\nFrom: sales@own.example\r\nSubject: é\r\n\r\n.\r\n", "XCLIENT ADDR=192.0.2.1\r\n" + second, "STARTTLS\r\n" + second,
		"MAIL FROM:<SALES@own.example>\r\nRCPT TO:<b@y.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+40y.example\r\nRCPT TO:<c@y.example>\r\nRSET\r\nMAIL FROM:<>\r\n" + whole,
	} {
		f.Add([]byte(s))
		for _, end := range []string{"\n.\n", "\r\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r", "\r\n.\x00\r\n", "\r\n.\r\r\n"} {
			f.Add([]byte(strings.Replace(s, "hello", "hello"+end+second, 1)))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 8<<10 {
			return
		}
		got := submit(t, in)
		if fault := unmeant(got); fault != "" {
			t.Fatalf("%q: %s, in %q", in, fault, got)
		}
	})
}

// submit sends octets behind a login, and returns what the upstream got.
func submit(t *testing.T, in []byte) []byte {
	t.Helper()
	gate := newGate()
	var got bytes.Buffer
	served := make(chan struct{})
	gate.dial = func(context.Context) (*broker.SubmissionConn, error) {
		select {
		case <-served:
			return nil, broker.Errorf(broker.Unavailable, "once is enough")
		default:
		}
		near, far := socketPair(t)
		go func() { defer close(served); defer far.Close(); serveSMTP(far, &got) }()
		return &broker.SubmissionConn{Conn: near, Extensions: map[string]string{"PIPELINING": "", "8BITMIME": "", "SMTPUTF8": "", "DSN": "", "SIZE": "100000"}}, nil
	}
	g, err := New(Config{Gate: gate, Counts: uncounted{}, Hostname: "postern.example"})
	if err != nil {
		t.Fatal(err)
	}
	client, server := socketPair(t)
	defer client.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.ServeConn(context.Background(), proxy.NewConn(server, proxy.ConnConfig{IsTLS: true}))
		server.Close()
	}()
	go func() {
		_, _ = io.WriteString(client, "EHLO client.example\r\nAUTH PLAIN "+plain("", ownAddress, token)+"\r\n"+string(in))
		_ = client.(*net.UnixConn).CloseWrite()
	}()
	_ = client.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, client); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%q: stuck", in)
	}
	<-done
	<-served
	return got.Bytes()
}

// serveSMTP says yes to everything and keeps what it is told.
func serveSMTP(c net.Conn, got *bytes.Buffer) {
	r := bufio.NewReader(io.TeeReader(c, got))
	for inData := false; ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		answer := "250 2.0.0 ok\r\n"
		switch {
		case inData && line != ".\r\n":
			continue
		case inData:
			inData = false
		case line == "DATA\r\n":
			inData, answer = true, "354 go\r\n"
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

// unmeant says what of an upstream's octets is not what Postern has to say.
func unmeant(b []byte) string {
	for len(b) > 0 {
		n := bytes.IndexByte(b, '\n') + 1
		line := string(b[:n])
		b = b[n:]
		switch m := mailLine.FindStringSubmatch(line); {
		case n == 0:
			return "the last line does not end"
		case m != nil && !strings.EqualFold(m[1], ownAddress) && !strings.EqualFold(m[1], ownAlias):
			return "MAIL from another: " + m[1]
		case m != nil, rcptLine.MatchString(line), line == "RSET\r\n", line == "QUIT\r\n":
		case line == "DATA\r\n":
			end := bytes.Index(append([]byte("\r\n"), b...), []byte("\r\n.\r\n"))
			if end < 0 {
				return "" // it was broken off, and so not sent
			}
			if fault := unmeantMessage(string(b[:end])); fault != "" {
				return fault
			}
			b = b[end+len(".\r\n"):]
		default:
			return fmt.Sprintf("no command: %q", line)
		}
	}
	return ""
}

func unmeantMessage(m string) string {
	lines := strings.Split(m, "\r\n")
	for _, line := range lines {
		if strings.ContainsAny(line, "\r\n\x00") {
			return fmt.Sprintf("a bare CR or LF, or a NUL: %q", line)
		}
	}
	head, _, _ := strings.Cut(m, "\r\n\r\n")
	from := fieldsNamed(head, "\r\n", "from")
	if len(from) != 1 {
		return fmt.Sprintf("From fields: %q", from)
	}
	parsed, err := mail.ReadMessage(strings.NewReader(head + "\r\n\r\n"))
	if err != nil {
		return ""
	}
	list, err := parsed.Header.AddressList("From")
	if err == nil && (len(list) != 1 || !strings.EqualFold(list[0].Address, ownAddress) && !strings.EqualFold(list[0].Address, ownAlias)) {
		return fmt.Sprintf("from %v", list)
	}
	return ""
}
