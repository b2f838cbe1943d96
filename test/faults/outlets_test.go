// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/test/e2e"
)

// secret is a credential with a mark in it that nothing else holds.
type secret struct {
	user, text, mark string
	forms            map[string][]byte
}

// newSecret makes one: around the mark stands what must be quoted in an IMAP
// string, in JSON and in a URL, where the credential may have it.
func newSecret(t testing.TB, user, before string) *secret {
	t.Helper()
	m := mark(t) + mark(t)
	s := &secret{user: user, text: before + m, mark: m}
	s.forms = spellings(user, s.text)
	return s
}

// spellings are the forms in which a credential goes upstream or may be
// repeated, whole.
func spellings(user, text string) map[string][]byte {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text)
	inJSON, _ := json.Marshal(text) // a string has a JSON form
	forms := map[string]string{
		"plain": text, "quoted": quoted, "JSON": strings.Trim(string(inJSON), `"`), "Go": strings.Trim(strconv.Quote(text), `"`),
		"hex": hex.EncodeToString([]byte(text)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(text))), "URL": url.QueryEscape(text),
		"SASL PLAIN":       base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + text)),
		"SASL LOGIN":       base64.StdEncoding.EncodeToString([]byte(text)),
		"SASL OAUTHBEARER": base64.StdEncoding.EncodeToString([]byte("n,a=" + user + ",\x01auth=Bearer " + text + "\x01\x01")),
		"SASL XOAUTH2":     base64.StdEncoding.EncodeToString([]byte("user=" + user + "\x01auth=Bearer " + text + "\x01\x01")),
	}
	all := make(map[string][]byte)
	for name, form := range forms {
		all[name] = []byte(form)
	}
	return all
}

// window is how much of the mark is a find: the rest may have been cut off.
const window = 14

// find returns in which form b holds the secret, or a part of its mark, plain,
// in hex, or in base64 at any alignment; "": in none.
func (s *secret) find(b []byte) string {
	for name, form := range s.forms {
		if bytes.Contains(b, form) {
			return name
		}
	}
	for i := 0; i+window <= len(s.mark); i++ {
		part := s.mark[i : i+window]
		if bytes.Contains(b, []byte(part)) {
			return "a part of it"
		}
		if bytes.Contains(bytes.ToLower(b), []byte(hex.EncodeToString([]byte(part)))) {
			return "a part of it in hex"
		}
		for before := range 3 {
			encoded := base64.StdEncoding.EncodeToString(append(make([]byte, before), part...))
			// The first and the last characters depend on the neighbours.
			begin, end := (before*8+5)/6, (before+len(part))*8/6
			if bytes.Contains(b, []byte(encoded[begin:end])) {
				return "a part of it in base64"
			}
		}
	}
	return ""
}

// outlets gathers all that leaves the process.
type outlets struct {
	t       testing.TB
	secrets []*secret
	clients []*e2e.Conn
	octets  int
	checked int
}

// check looks at what left somewhere.
func (o *outlets) check(where string, b []byte) {
	o.t.Helper()
	o.octets += len(b)
	o.checked++
	for _, s := range o.secrets {
		if form := s.find(b); form != "" {
			o.t.Errorf("%s holds the credential of %s: %s", where, s.user, form)
		}
	}
}

// client notes a connection, which is looked at when it is over.
func (o *outlets) client(c *e2e.Conn) *e2e.Conn {
	o.clients = append(o.clients, c)
	return c
}

func (o *outlets) checkClients() {
	o.t.Helper()
	for _, c := range o.clients {
		o.check("what a client received", c.Seen())
	}
	o.clients = nil
}

// cli runs a command, whatever comes of it, and looks at what it prints.
func (o *outlets) cli(p *e2e.Postern, stdin string, args ...string) string {
	o.t.Helper()
	stdout, stderr, _ := p.TryCLI(stdin, args...)
	name := "postern " + strings.Join(args[:min(2, len(args))], " ")
	o.check("what "+name+" prints", []byte(stdout+stderr))
	return stdout + stderr
}

// api makes a request over the socket, and looks at the whole answer.
func (o *outlets) api(p *e2e.Postern, method, path, contentType, body string) int {
	o.t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", p.Socket)
		},
	}}
	req, err := http.NewRequest(method, "http://postern"+path, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := client.Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	var whole bytes.Buffer
	if err := resp.Header.Write(&whole); err != nil {
		o.t.Fatal(err)
	}
	if _, err := io.Copy(&whole, resp.Body); err != nil {
		o.t.Fatal(err)
	}
	o.check(method+" "+path, whole.Bytes())
	return resp.StatusCode
}

// pages are what the server tells whoever asks over HTTP.
func (o *outlets) pages(w *e2e.World) {
	o.t.Helper()
	for _, page := range []string{"/metrics", "/healthz", "/readyz", "/"} {
		resp, err := http.Get(w.Postern.MetricsURL + page)
		if err != nil {
			o.t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			o.t.Fatal(err)
		}
		o.check("the page "+page, b)
	}
	for _, path := range []string{
		"openapi.json", "firms", "mailboxes", "mailboxes/" + sales, "mailboxes/" + support, "agents", "workstations", "sites", "delegations?all=true", "assignments?all=true",
		"app-passwords?all=true", "sessions?all=true", "locks", "events", "events?firm=" + url.QueryEscape(e2e.FirmName) + "&limit=10000",
	} {
		if status := o.api(w.Postern, http.MethodGet, "/v1/"+path, "", ""); status != http.StatusOK {
			o.t.Errorf("GET %s: %d", path, status)
		}
	}
}

// everyCommand is what the command line shows.
func (o *outlets) everyCommand(w *e2e.World) {
	for _, command := range []string{
		"firm list", "mailbox list", "mailbox show " + sales, "mailbox show " + support, "agent list", "workstation list", "site list", "delegation list --all",
		"assignment list --all", "app-password list --all", "session list --all", "lock list", "log events", "log events --firm Acme~Pumps", "log catalogue",
		"mailbox set-credential nobody@client.example", "help", "mailbox help set-credential",
	} {
		args := strings.Fields(command)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "~", " ")
		}
		o.cli(w.Postern, o.secrets[0].text+"\n", args...)
		o.cli(w.Postern, o.secrets[0].text+"\n", append([]string{"--json"}, args...)...)
	}
}

// files are the log, the database and whatever else lies in the server's data,
// and what the system shows of its process.
func (o *outlets) files(w *e2e.World) {
	o.t.Helper()
	o.check("the log", w.Postern.Logs())
	databases := w.Postern.DatabaseFiles()
	if len(databases) == 0 {
		o.t.Error("there is no database")
	}
	err := filepath.WalkDir(w.Postern.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		o.check(filepath.Base(path), b)
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	for _, name := range []string{"environ", "cmdline", "status"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", w.Postern.PID(), name))
		if err != nil {
			o.t.Fatal(err)
		}
		o.check("/proc/PID/"+name, b)
	}
}
