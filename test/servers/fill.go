// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"testing"

	"github.com/emersion/go-imap/v2/imapclient"
)

// dialIMAP logs in with the LOGIN command, in the clear.
func dialIMAP(port uint16, user, password string) (*imapclient.Client, error) {
	client, err := imapclient.DialInsecure(address(port), nil)
	if err != nil {
		return nil, err
	}
	if err := client.Login(user, password).Wait(); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// fill appends n messages to a folder, INBOX if empty, and logs out.
func fill(t testing.TB, client *imapclient.Client, folder string, n int, message func(i int) []byte) {
	t.Helper()
	defer client.Close()
	if folder == "" {
		folder = "INBOX"
	}
	for i := range n {
		b := message(i)
		appending := client.Append(folder, int64(len(b)), nil)
		if _, err := appending.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := appending.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := appending.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.Logout().Wait(); err != nil {
		t.Fatal(err)
	}
}
