// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// TestRsyslog: rsyslogd gets all events of a log in their order, those of the time
// in which it was not there as well.
func TestRsyslog(t *testing.T) {
	host := servers.StartRsyslog(t)
	s, err := NewSyslog(SyslogConfig{
		Address: fmt.Sprintf("127.0.0.1:%d", host.Port), Hostname: "mail.postern.example", Facility: DefaultSyslogFacility, Octets: DefaultSyslogOctets, Format: JSON,
		TLS: &tls.Config{RootCAs: host.CA.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{host.CA.IssueClient("postern").TLS}, MinVersion: tls.VersionTLS12},
	})
	must(t, err)
	w := newWorld(t, 1)
	w.append(w.firms[0], numbered("before", 300)...)
	w.start("a", quick(), Sink{Name: "loghost", Receiver: s, FromStart: true})
	read := func() (ids []broker.ID) {
		content, err := os.ReadFile(host.File)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for line := range bytes.Lines(content[:bytes.LastIndexByte(content, '\n')+1]) {
			_, text, found := bytes.Cut(line, []byte("] "))
			var e broker.Event
			if err := json.Unmarshal(bytes.TrimSpace(text), &e); !found || err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if !slices.Contains(ids, e.ID) {
				ids = append(ids, e.ID)
			}
		}
		return ids
	}
	soon(t, "all were written", func() bool { return len(read()) == 300 })
	host.Kill()
	w.append(w.firms[0], numbered("meanwhile", 300)...)
	if !host.Start() {
		t.Fatal("rsyslogd does not start again")
	}
	w.append(w.firms[0], numbered("after", 100)...)
	soon(t, "all were written", func() bool { return len(read()) == 700 })
	if got, want := read(), w.ids(w.firms[0]); !slices.Equal(got, want) {
		t.Error("the log host has another order")
	}
}
