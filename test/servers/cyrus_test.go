// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// dialCyrus logs in over implicit TLS or STARTTLS.
func dialCyrus(t *testing.T, c *Cyrus, port uint16, password string) (*imapclient.Client, error) {
	t.Helper()
	options := &imapclient.Options{TLSConfig: &tls.Config{RootCAs: c.CA.Pool(), ServerName: "localhost"}}
	dial := imapclient.DialTLS
	if port == c.IMAPPort {
		dial = imapclient.DialStartTLS
	}
	client, err := dial(address(port), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, client.Login(sales, password).Wait()
}

func TestCyrusServesAndSurvives(t *testing.T) {
	c := StartCyrus(t)
	c.Deliver(sales, message("one"))
	c.Fill(sales, "Archive", 3, func(i int) []byte { return message(fmt.Sprint("fill", i)) })
	c.Kill()
	if conn, err := net.Dial("tcp", address(c.IMAPPort)); err == nil {
		conn.Close()
		t.Fatal("a killed server answered")
	}
	c.Restart()
	for _, port := range []uint16{c.IMAPSPort, c.IMAPPort} {
		client, err := dialCyrus(t, c, port, "secret")
		if err != nil {
			t.Fatal(err)
		}
		for folder, want := range map[string]uint32{"INBOX": 1, "Archive": 3, "Sent": 0} {
			if got, err := client.Select(folder, nil).Wait(); err != nil || got.NumMessages != want {
				t.Errorf("%s: %+v, %v; it must hold %d messages", folder, got, err, want)
			}
		}
	}
}

func TestCyrusFoldersHaveTheirUses(t *testing.T) {
	c := StartCyrus(t)
	client, err := dialCyrus(t, c, c.IMAPSPort, "secret")
	if err != nil {
		t.Fatal(err)
	}
	folders, err := client.List("", "*", nil).Collect()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]imap.MailboxAttr{
		"INBOX": "", "Sent": imap.MailboxAttrSent, "Drafts": imap.MailboxAttrDrafts, "Trash": imap.MailboxAttrTrash,
		"Junk": imap.MailboxAttrJunk, "Archive": imap.MailboxAttrArchive,
	}
	if len(folders) != len(want) {
		t.Errorf("%d folders, want %d", len(folders), len(want))
	}
	for _, folder := range folders {
		use, known := want[folder.Mailbox]
		if !known || folder.Delim != '/' || use != "" && !slices.Contains(folder.Attrs, use) {
			t.Errorf("%q, separated by %q: %v", folder.Mailbox, folder.Delim, folder.Attrs)
		}
	}
}

func TestCyrusPasswordChanges(t *testing.T) {
	c := StartCyrus(t)
	c.SetPassword(sales, `we:ird "\ pässword`)
	if _, err := dialCyrus(t, c, c.IMAPSPort, `we:ird "\ pässword`); err != nil {
		t.Fatal(err)
	}
	if _, err := dialCyrus(t, c, c.IMAPSPort, "secret"); err == nil {
		t.Fatal("the old password is still good")
	}
}
