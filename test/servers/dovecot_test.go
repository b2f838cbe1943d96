// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"fmt"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2/imapclient"
)

const sales = "sales@client.example"

func message(id string) []byte {
	return []byte("From: a@client.example\r\nTo: b@client.example\r\nMessage-ID: <" + id + "@client.example>\r\nSubject: hello\r\n\r\nbody\r\n")
}

func login(d *Dovecot, user, password string) error {
	c, err := imapclient.DialInsecure(address(d.IMAPPort), nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Login(user, password).Wait()
}

func TestDovecotServesAndSurvives(t *testing.T) {
	d := StartDovecot(t)
	d.Deliver(sales, "", message("one"))
	d.Fill(sales, "Archive", 3, func(i int) []byte { return message(fmt.Sprint("fill", i)) })
	uids := d.Messages(sales, "INBOX", "HEADER Message-ID <one@client.example>")
	if len(uids) != 1 {
		t.Fatalf("found %v", uids)
	}
	if got := d.Message(sales, "INBOX", uids[0]); string(got) != string(message("one")) {
		t.Fatalf("message came back as %q", got)
	}
	d.Kill()
	if err := login(d, sales, "secret"); err == nil {
		t.Fatal("a killed server answered")
	}
	d.Restart()
	if got := d.Messages(sales, "Archive", "ALL"); len(got) != 3 {
		t.Fatalf("after a restart Archive holds %v", got)
	}
}

func TestDovecotPasswordChanges(t *testing.T) {
	d := StartDovecot(t, WithUser(sales, "first"))
	for _, next := range []string{"other", `we:ird "\ pässword`, "third"} {
		old := d.Password(sales)
		if err := login(d, sales, old); err != nil {
			t.Fatalf("%q is refused: %v", old, err)
		}
		d.SetPassword(sales, next)
		if err := login(d, sales, next); err != nil {
			t.Fatalf("%q is refused: %v", next, err)
		}
		if err := login(d, sales, old); err == nil || !strings.Contains(err.Error(), "AUTHENTICATIONFAILED") {
			t.Fatalf("the old password: %v", err)
		}
	}
}

func TestDovecotMdbox(t *testing.T) {
	d := StartDovecot(t, WithMailFormat("mdbox"))
	d.Deliver(sales, "Sent", message("one"))
	if got := d.Messages(sales, "Sent", "ALL"); len(got) != 1 {
		t.Fatalf("Sent holds %v", got)
	}
}
