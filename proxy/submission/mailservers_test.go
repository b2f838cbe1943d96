// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// mailServer is a real IMAP server with the agent's mailbox, in the hands of the
// mailbox's owner.
type mailServer struct {
	t    testing.TB
	addr string
}

// onEachServer runs a test against all real IMAP servers.
func onEachServer(t *testing.T, run func(*testing.T, *mailServer)) {
	at := func(t *testing.T, port uint16) *mailServer {
		return &mailServer{t, fmt.Sprintf("127.0.0.1:%d", port)}
	}
	t.Run("dovecot", func(t *testing.T) {
		run(t, at(t, servers.StartDovecot(t, servers.WithUser(ownAddress, "secret")).IMAPPort))
	})
	t.Run("cyrus", func(t *testing.T) {
		run(t, at(t, servers.StartCyrus(t, servers.WithCyrusUser(ownAddress, "secret")).IMAPPort))
	})
}

// owner runs f as the mailbox's owner.
func (m *mailServer) owner(f func(*imapclient.Client) error) {
	m.t.Helper()
	c, err := imapclient.DialInsecure(m.addr, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	if err = c.Login(ownAddress, "secret").Wait(); err == nil {
		err = f(c)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// deliver puts a message into a folder.
func (m *mailServer) deliver(folder, message string) {
	m.t.Helper()
	m.owner(func(c *imapclient.Client) error {
		appending := c.Append(folder, int64(len(message)), nil)
		if _, err := appending.Write([]byte(message)); err != nil {
			return err
		}
		if err := appending.Close(); err != nil {
			return err
		}
		_, err := appending.Wait()
		return err
	})
}

// create makes folders that are not there.
func (m *mailServer) create(folders ...string) {
	m.t.Helper()
	m.owner(func(c *imapclient.Client) error {
		for _, f := range folders {
			if there, err := c.List("", f, nil).Collect(); err != nil {
				return err
			} else if len(there) > 0 {
				continue
			}
			if err := c.Create(f, nil).Wait(); err != nil {
				return err
			}
		}
		return nil
	})
}

// count returns how many messages a folder holds.
func (m *mailServer) count(folder string) (n int) {
	m.t.Helper()
	m.owner(func(c *imapclient.Client) error {
		data, err := c.Select(folder, nil).Wait()
		if err == nil {
			n = int(data.NumMessages)
		}
		return err
	})
	return n
}

// dial logs in as broker/upstream does.
func (m *mailServer) dial(ctx context.Context) (*broker.IMAPConn, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", m.addr)
	if err != nil {
		return nil, err
	}
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		return nil, err
	}
	fmt.Fprintf(c, "a LOGIN %s secret\r\n", ownAddress)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if rest, ok := strings.CutPrefix(line, "a OK [CAPABILITY "); ok {
			capabilities, _, _ := strings.Cut(rest, "]")
			return &broker.IMAPConn{Conn: c, Capabilities: strings.Fields(capabilities)}, nil
		}
		if strings.HasPrefix(line, "a ") {
			return nil, errors.New(line)
		}
	}
}
