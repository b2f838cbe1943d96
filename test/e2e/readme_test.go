// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// TestREADME types what the README says, line by line, from `postern init` to
// the first mail that an agent reads, and to its record. What the reader has
// instead is put in its place: the provider's servers, and ports that are free
// here. What he is asked for, he reads off what was printed before.
func TestREADME(t *testing.T) {
	servers.NeedPrograms(t, map[string]string{"curl": "curl"})
	const sales = "sales@acme.example" // as the README has it
	password := markedPassword(t)
	bin := servers.BuildPostern(t)
	dovecot := servers.StartDovecot(t, servers.WithUser(sales, password))
	postfix := servers.StartPostfix(t, dovecot.CA, dovecot, servers.WithSenderLogins(map[string]string{sales: sales}))
	dovecot.Fill(sales, "", 1, func(int) []byte { return []byte(message("buyer@market.example", sales, "first", "typed as written")) })
	r := &reader{t: t, dir: servers.TempDir(t), env: os.Environ(), answers: map[string]func() string{}}
	if err := os.Symlink(bin, filepath.Join(r.dir, "postern")); err != nil {
		t.Fatal(err)
	}
	port := func() string { return fmt.Sprint(servers.FreePort(t)) }
	imaps, submissions, api, imap, submission := port(), port(), port(), port(), port()
	provider := func(e broker.Endpoint) string {
		return fmt.Sprintf("%s:%d --ca-file %s", e.Host, e.Port, dovecot.CA.File)
	}
	r.replace = strings.NewReplacer(
		"go build -o postern ./cmd/postern", "true",
		"imap.provider.example", provider(dovecot.IMAP(broker.TLSImplicit)),
		"smtp.provider.example", strings.TrimSuffix(provider(postfix.Submission(broker.TLSImplicit)), " --ca-file "+dovecot.CA.File),
		"localhost:8443", "localhost:"+api,
		"workstation connect", "workstation connect --imap-server localhost:"+imaps+" --submission-server localhost:"+submissions+
			" --listen-imap 127.0.0.1:"+imap+" --listen-submission 127.0.0.1:"+submission,
		"127.0.0.1:1143", "127.0.0.1:"+imap,
	)
	r.after = map[string]func(){"init": func() {
		config := filepath.Join(r.dir, "trial/postern.yaml")
		b, err := os.ReadFile(config)
		if err != nil {
			t.Fatal(err)
		}
		b = []byte(strings.NewReplacer(`":993"`, `"127.0.0.1:`+imaps+`"`, `":465"`, `"127.0.0.1:`+submissions+`"`, `":8443"`, `"127.0.0.1:`+api+`"`).Replace(string(b)))
		if err := os.WriteFile(config, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}}
	r.answers["claim"] = func() string { return r.printed(`(?m)^Claim:\s+(\S+)$`) }
	r.answers["set-credential"] = func() string { return password }
	r.answers["enrol"] = func() string { return r.printed(`(?m)^Code:\s+(\S+)$`) }
	r.answers["curl"] = func() string { return r.printed(`(?m)^App password:\s+(\S+)$`) }

	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```sh typed\n(.*?)^```$").FindAllSubmatch(b, -1)
	if len(blocks) != 4 {
		t.Fatalf("the README has %d blocks to type", len(blocks))
	}
	for _, block := range blocks {
		for line := range strings.Lines(string(block[1])) {
			r.typeIn(strings.TrimSpace(line))
		}
	}
	if !strings.Contains(r.screen.String(), "typed as written") {
		t.Errorf("the mail was not read:\n%s", &r.screen)
	}
	if last := r.last; !strings.Contains(last, "message.open") || !strings.Contains(last, "asha") {
		t.Errorf("the record says:\n%s", last)
	}
}

// reader is who follows the README.
type reader struct {
	t       *testing.T
	dir     string
	env     []string
	replace *strings.Replacer
	// answers are what is typed when a command asks, by one of its words; after
	// is what happens behind the reader's back.
	answers map[string]func() string
	after   map[string]func()
	screen  bytes.Buffer
	last    string
}

// printed finds what was printed before.
func (r *reader) printed(pattern string) string {
	r.t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(r.screen.String())
	if found == nil {
		r.t.Fatalf("nothing like %s was printed:\n%s", pattern, &r.screen)
	}
	return found[1]
}

// typeIn runs one line.
func (r *reader) typeIn(line string) {
	r.t.Helper()
	words := strings.Fields(line)
	switch words[0] {
	case "export":
		r.env = append(r.env, words[1])
		return
	case "unset":
		r.env = append(r.env, words[1]+"=")
		return
	}
	script := r.replace.Replace(line)
	if command, background := strings.CutSuffix(script, "&"); background {
		r.begin(command)
		return
	}
	var typed string
	for _, word := range words {
		if answer := r.answers[word]; answer != nil {
			typed = answer()
			break
		}
	}
	if words[0] == "curl" { // it asks at a terminal alone
		script, typed = script+":"+typed, ""
	}
	c := exec.Command("bash", "-c", script)
	c.Dir, c.Env, c.Stdin = r.dir, r.env, strings.NewReader(typed+"\n")
	out, err := c.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	r.last = string(out)
	r.screen.Write(out)
	for _, word := range words {
		if after := r.after[word]; after != nil {
			after()
		}
	}
}

// begin runs a line that goes on, until the test is over. Whoever types it sees
// that it is ready before he goes on.
func (r *reader) begin(command string) {
	r.t.Helper()
	log := filepath.Join(r.dir, fmt.Sprintf("%d.log", r.screen.Len()))
	child, err := servers.StartChild(log, r.env, "bash", "-c", "cd "+r.dir+" && exec "+command)
	if err != nil {
		r.t.Fatal(err)
	}
	text := func() string {
		b, err := os.ReadFile(log)
		if err != nil {
			r.t.Fatal(err)
		}
		return string(b)
	}
	r.t.Cleanup(func() {
		if err := child.Stop(); err != nil {
			r.t.Errorf("%s did not stop in order: %v", command, err)
		}
		if r.t.Failed() {
			r.t.Logf("%s:\n%s", command, text())
		}
	})
	servers.WaitFor(r.t, readyTimeout, func() bool {
		if child.Ended() {
			r.t.Fatalf("%s ended:\n%s", command, text())
		}
		return regexp.MustCompile(`"msg":"serving"|(?m)^submission `).MatchString(text())
	}, command+" to be ready")
}
