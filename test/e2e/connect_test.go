// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/servers"
)

// TestWorkstationConnect has mail clients that know of no TLS work through
// `postern workstation connect`.
func TestWorkstationConnect(t *testing.T) {
	servers.NeedPrograms(t, map[string]string{"mbsync": "isync", "curl": "curl", "neomutt": "neomutt", "tmux": "tmux"})
	const mbsync, neomutt, tpm, tpmToo = "mbsync@client.example", "neomutt@client.example", "tpm@client.example", "tpm2@client.example"
	w := NewWorld(t, WorldOptions{Mailboxes: []string{buyer, mbsync, neomutt, tpm, tpmToo}, Sealed: true})
	t.Run("mbsync", func(t *testing.T) {
		w := w.For(t)
		s := w.Seat(mbsync)
		mbsyncThrough(t, w, s, connectWith(t, w, "--certificate", s.CertFile, "--key", s.KeyFile, "--ca", w.Postern.CAFile))
	})
	t.Run("neomutt", func(t *testing.T) {
		w := w.For(t)
		s := w.Seat(neomutt)
		neomuttThrough(t, w, s, connectWith(t, w, "--certificate", s.CertFile, "--key", s.KeyFile, "--ca", w.Postern.CAFile))
	})
	t.Run("enrolled with a TPM", func(t *testing.T) {
		w := w.For(t)
		s := w.Seat(tpm, "all")
		f := enrolledInTPM(t, w, s, "tpm-1")
		mbsyncThrough(t, w, s, f)
		// Another agent at the same workstation.
		other := w.Seat(tpmToo)
		other.WorkstationID = s.WorkstationID
		neomuttThrough(t, w, other, f)
		// Removing it ends what is open, through the forwarder.
		c := dialPlain(t, f.imapPort)
		c.say("a LOGIN "+s.Mailbox+" "+s.Token, "a OK")
		c.say("b SELECT INBOX", "b OK")
		began := time.Now()
		w.Postern.CLI("workstation", "remove", "tpm-1")
		rest, err := io.ReadAll(c.in)
		if err != nil || !strings.Contains(string(rest), "* BYE") {
			t.Errorf("the session ended with %q, %v", rest, err)
		}
		t.Logf("from the command's start to the closed connection: %s", time.Since(began))
		d := dialPlain(t, f.imapPort)
		d.say("a LOGIN "+s.Mailbox+" "+s.Token, "a NO")
	})
	t.Run("PKCS #12", func(t *testing.T) {
		w := w.For(t)
		s := w.Seat(mbsync)
		h := newHome(t)
		const passphrase = "correct horse battery"
		file := h.path("key.p12")
		h.run(passphrase+"\n", w.Postern.Bin, "workstation", "export", "--certificate", s.CertFile, "--key", s.KeyFile, "--pkcs12", file)
		curl := h.write("curlrc", fmt.Sprintf("cert = %q\ncert-type = P12\npass = %q\ncacert = %q\nuser = %q\nmax-time = 60\n",
			file, passphrase, w.Postern.CAFile, s.Mailbox+":"+s.Token))
		url := fmt.Sprintf("imaps://localhost:%d/", w.Postern.IMAPSPort)
		if out := h.run("", "curl", "-sS", "-K", curl, url); !strings.Contains(out, "INBOX") {
			t.Errorf("curl lists %q", out)
		}
		opened := s.Events(broker.EventSessionOpen)
		if len(opened) != 1 || opened[0].WorkstationID != s.WorkstationID {
			t.Errorf("on record are %+v", opened)
		}
	})
	t.Run("another user", func(t *testing.T) {
		w := w.For(t)
		s := w.Seat(buyer)
		f := connectWith(t, w, "--certificate", s.CertFile, "--key", s.KeyFile, "--ca", w.Postern.CAFile)
		for protocol, port := range map[string]int{"imap": f.imapPort, "smtp": f.submitPort} {
			c := exec.Command("curl", "-sv", "--max-time", "30", "--user", s.Mailbox+":"+s.Token, fmt.Sprintf("%s://127.0.0.1:%d", protocol, port))
			const nobody = 65534
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			out, err := c.CombinedOutput()
			if err == nil || !bytes.Contains(out, []byte("another user of this machine")) {
				t.Errorf("%s: %v\n%s", protocol, err, out)
			}
		}
		if got := s.Events(broker.EventSessionOpen); len(got) > 0 {
			t.Errorf("%d sessions were opened", len(got))
		}
	})
	w.CheckNothingLeaked()
}

// forwarder is a running `postern workstation connect`.
type forwarder struct {
	t                    *testing.T
	child                *servers.Child
	log                  string
	imapPort, submitPort int
}

// connectWith runs `postern workstation connect` for a workstation, until the
// test is over.
func connectWith(t *testing.T, w *World, args ...string) *forwarder {
	t.Helper()
	h := newHome(t)
	f := &forwarder{t: t, log: h.path("connect.log")}
	args = append([]string{
		"workstation", "connect", "--listen-imap", "127.0.0.1:0", "--listen-submission", "127.0.0.1:0",
		"--imap-server", fmt.Sprintf("localhost:%d", w.Postern.IMAPSPort),
		"--submission-server", fmt.Sprintf("localhost:%d", w.Postern.SubmissionsPort),
	}, args...)
	var err error
	if f.child, err = servers.StartChild(f.log, nil, w.Postern.Bin, args...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.child.Stop(); err != nil {
			t.Errorf("workstation connect did not stop in order: %v", err)
		}
		if text := f.text(); t.Failed() || strings.Contains(text, "panic: ") {
			t.Logf("workstation connect:\n%s", text)
		}
	})
	servers.WaitFor(t, readyTimeout, func() bool {
		if f.child.Ended() {
			t.Fatalf("workstation connect ended:\n%s", f.text())
		}
		f.imapPort, f.submitPort = f.port("imap"), f.port("submission")
		return f.imapPort != 0 && f.submitPort != 0
	}, "workstation connect to listen")
	return f
}

func (f *forwarder) text() string {
	b, err := os.ReadFile(f.log)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b)
}

func (f *forwarder) port(protocol string) int {
	found := regexp.MustCompile(`(?m)^` + protocol + ` +127\.0\.0\.1:(\d+) -> .*\n`).FindStringSubmatch(f.text())
	if found == nil {
		return 0
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// mbsyncThrough synchronises a mailbox down and up.
func mbsyncThrough(t *testing.T, w *World, s *Seat, f *forwarder) {
	t.Helper()
	const messages = 120
	w.Dovecot.Fill(s.Mailbox, "INBOX", messages, func(i int) []byte { return synced("INBOX", i) })
	h := newHome(t)
	m := &maildir{t: t, h: h, w: w, s: s, root: h.path("mail")}
	if err := os.Mkdir(m.root, 0o700); err != nil {
		t.Fatal(err)
	}
	m.rc = h.write("mbsyncrc", fmt.Sprintf(`IMAPAccount postern
Host 127.0.0.1
Port %d
User %s
Pass %s
AuthMechs LOGIN
SSLType None

IMAPStore far
Account postern

MaildirStore near
Path %s/
Inbox %[4]s/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
`, f.imapPort, s.Mailbox, s.Token, m.root))
	m.sync()
	m.compare("after the first run")
	if got := openedUIDs(t, s, "INBOX"); len(got) != messages {
		t.Errorf("on record as opened: %d messages of INBOX", len(got))
	}
	w.Dovecot.Doveadm("expunge", "-u", s.Mailbox, "mailbox", "INBOX", "uid", "10:19")
	m.sync()
	m.compare("after others' changes")
	f.checkKnowsNothing(s)
}

// neomuttThrough reads, answers, flags and deletes.
func neomuttThrough(t *testing.T, w *World, s *Seat, f *forwarder) {
	t.Helper()
	worksInNeomutt(t, w, s, newHome(t), fmt.Sprintf(`set ssl_starttls=no ssl_force_tls=no
set folder="imap://127.0.0.1:%d/"
set smtp_url="smtp://%s@127.0.0.1:%d/" smtp_authenticators="plain"
`, f.imapPort, strings.ReplaceAll(s.Mailbox, "@", "%40"), f.submitPort))
	f.checkKnowsNothing(s)
}

// checkKnowsNothing looks into the forwarder's log for what is not its own.
func (f *forwarder) checkKnowsNothing(s *Seat) {
	f.t.Helper()
	for _, never := range []string{s.Token, s.Mailbox} {
		if strings.Contains(f.text(), never) {
			f.t.Errorf("workstation connect logged %q", never)
		}
	}
	for _, e := range s.Events(broker.EventSessionOpen) {
		if e.WorkstationID != s.WorkstationID {
			f.t.Errorf("a session of workstation %s is on record, want %s", e.WorkstationID, s.WorkstationID)
		}
	}
}

// enrolledInTPM enrols a machine with a TPM of its own, over the network, and
// runs `postern workstation connect` on it. The seat's workstation is then it.
func enrolledInTPM(t *testing.T, w *World, s *Seat, name string) *forwarder {
	t.Helper()
	h := newHome(t)
	dir, device := h.path("enrolled"), servers.StartTPM(t)
	var tpm struct{ Fingerprint string }
	if err := json.Unmarshal([]byte(h.run("", w.Postern.Bin, "workstation", "tpm", "--tpm-device", device, "--json")), &tpm); err != nil {
		t.Fatal(err)
	}
	code := decodeCLI[httpapi.EnrolmentCodeCreated](w.Postern, "workstation", "code", name, "--class", "hardware", "--tpm", tpm.Fingerprint).Code
	if _, problems, err := h.try(code+"\n", w.Postern.Bin, "workstation", "enrol", "--dir", h.path("other"), "--tpm", "--tpm-device", servers.StartTPM(t),
		"--server", fmt.Sprintf("localhost:%d", w.Postern.APIPort), "--ca", w.Postern.CAFile); err == nil || !strings.Contains(problems, "another TPM") {
		t.Errorf("another TPM's machine was enrolled: %v, %s", err, problems)
	}
	h.run(code+"\n", w.Postern.Bin, "workstation", "enrol", "--dir", dir, "--tpm", "--tpm-device", device,
		"--server", fmt.Sprintf("localhost:%d", w.Postern.APIPort), "--ca", w.Postern.CAFile)
	if _, problems, err := h.try(code+"\n", w.Postern.Bin, "workstation", "enrol", "--dir", h.path("again"), "--tpm", "--tpm-device", device,
		"--server", fmt.Sprintf("localhost:%d", w.Postern.APIPort), "--ca", w.Postern.CAFile); err == nil || !strings.Contains(problems, "used already") {
		t.Errorf("the code was used twice: %v, %s", err, problems)
	}
	if left, err := filepath.Glob(h.path(".enrolling-*")); err != nil || len(left) > 0 {
		t.Errorf("what failed left %v, %v", left, err)
	}
	key := readFile(t, filepath.Join(dir, "key.pem"))
	if bytes.Contains(key, []byte("PRIVATE KEY")) || !bytes.Contains(key, []byte("TPM WRAPPED KEY")) {
		t.Errorf("the key's file holds %s", key)
	}
	enrolled := decodeCLI[httpapi.Workstation](w.Postern, "workstation", "show", name)
	if enrolled.TPM != tpm.Fingerprint {
		t.Errorf("the TPM on record is %q", enrolled.TPM)
	}
	s.WorkstationID = enrolled.ID
	before := readFile(t, filepath.Join(dir, "certificate.pem"))
	h.run("", w.Postern.Bin, "workstation", "refresh", "--dir", dir)
	if bytes.Equal(before, readFile(t, filepath.Join(dir, "certificate.pem"))) {
		t.Error("the certificate was not renewed")
	}
	return connectWith(t, w, "--dir", dir)
}

// plain is a client without TLS.
type plain struct {
	t   *testing.T
	out net.Conn
	in  *bufio.Reader
}

func dialPlain(t *testing.T, port int) *plain {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
		t.Fatal(err)
	}
	return &plain{t, c, bufio.NewReader(c)}
}

// say sends a command and reads until its answer, which must begin so.
func (p *plain) say(command, answer string) {
	p.t.Helper()
	if _, err := io.WriteString(p.out, command+"\r\n"); err != nil {
		p.t.Fatal(err)
	}
	tag, _, _ := strings.Cut(command, " ")
	for {
		line, err := p.in.ReadString('\n')
		if err != nil {
			p.t.Fatalf("%s: %v", tag, err)
		}
		if strings.HasPrefix(line, tag+" ") {
			if !strings.HasPrefix(line, answer) {
				p.t.Fatalf("%s, want %s", line, answer)
			}
			return
		}
	}
}
