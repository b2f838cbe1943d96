// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/postern-mail/postern/broker"
)

// SentLookup looks for a message among those sent.
type SentLookup interface {
	// FindInSent reports whether the session's mailbox has a message with
	// exactly this Message-ID, brackets included, in its Sent folder. An error
	// says that it could not be told, and so does a mailbox without one.
	FindInSent(ctx context.Context, s broker.LiveSession, messageID string) (found bool, err error)
}

// IMAPSent is the SentLookup that asks the mailbox's IMAP server, on a
// connection of its own. The zero value is ready.
type IMAPSent struct{}

var _ SentLookup = IMAPSent{}

const (
	// maxLookUpOctets bounds what one look-up reads: imapclient has no limit.
	maxLookUpOctets = 4 << 20
	// maxLookUpMatches bounds what is fetched of what SEARCH found.
	maxLookUpMatches = 50
)

// sentNames are what Sent is called where no folder says that it is (RFC
// 6154), after the hierarchy's prefix, in lower case.
var sentNames = []string{"sent", "sent items", "sent messages", "sent mail"}

var errNoSent = errors.New("submission: the mailbox has no Sent folder")

// FindInSent implements SentLookup.
func (IMAPSent) FindInSent(ctx context.Context, s broker.LiveSession, messageID string) (bool, error) {
	conn, err := s.DialIMAP(ctx)
	if err != nil {
		return false, err
	}
	client := imapclient.New(newPreauthConn(conn), nil)
	// imapclient takes no context: closing the socket is what ends a call.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		stop()
		_ = client.Close() // nothing more is wanted of it
	}()
	if err := client.WaitGreeting(); err != nil {
		return false, err
	}
	folder, err := sentFolder(client)
	if err != nil {
		return false, err
	}
	return findMessageID(client, folder, messageID)
}

// sentFolder returns the folder marked \Sent, else one with a usual name.
func sentFolder(client *imapclient.Client) (string, error) {
	var options *imap.ListOptions
	if caps := client.Caps(); caps.Has(imap.CapListExtended) && caps.Has(imap.CapSpecialUse) {
		options = &imap.ListOptions{ReturnSpecialUse: true}
	}
	list, err := client.List("", "*", options).Collect()
	if err != nil {
		return "", err
	}
	named, rank := "", len(sentNames)
	for _, folder := range list {
		if slices.Contains(folder.Attrs, imap.MailboxAttrSent) {
			return folder.Mailbox, nil
		}
		name := asciiLower(folder.Mailbox)
		if folder.Delim != 0 {
			name = name[strings.LastIndex(name, string(folder.Delim))+1:]
		}
		if i := slices.Index(sentNames, name); i >= 0 && i < rank {
			named, rank = folder.Mailbox, i
		}
	}
	if named == "" {
		return "", errNoSent
	}
	return named, nil
}

// findMessageID searches, and settles on the parsed ENVELOPE: SEARCH HEADER
// matches substrings (RFC 9051 §6.4.4).
func findMessageID(client *imapclient.Client, folder, messageID string) (bool, error) {
	if _, err := client.Select(folder, &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
		return false, err
	}
	found, err := client.UIDSearch(&imap.SearchCriteria{
		Header: []imap.SearchCriteriaHeaderField{{Key: "Message-ID", Value: messageID}},
	}, nil).Wait()
	if err != nil {
		return false, err
	}
	uids := newest(found.All, maxLookUpMatches)
	if len(uids) == 0 {
		return false, nil
	}
	messages, err := client.Fetch(imap.UIDSetNum(uids...), &imap.FetchOptions{Envelope: true}).Collect()
	if err != nil {
		return false, err
	}
	want := strings.Trim(messageID, "<>")
	return slices.ContainsFunc(messages, func(m *imapclient.FetchMessageBuffer) bool {
		return m.Envelope != nil && strings.Trim(m.Envelope.MessageID, "<> ") == want
	}), nil
}

// preauthConn gives a client that expects a greeting one that says that it is
// logged in, and then what the connection holds, up to a limit.
type preauthConn struct {
	*broker.IMAPConn
	reader io.Reader
}

func newPreauthConn(c *broker.IMAPConn) *preauthConn {
	greeting := "* PREAUTH ready\r\n"
	if caps := slices.DeleteFunc(slices.Clone(c.Capabilities), func(s string) bool {
		return s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`(){%*"\]`, r) })
	}); len(caps) > 0 {
		greeting = "* PREAUTH [CAPABILITY " + strings.Join(caps, " ") + "] ready\r\n"
	}
	return &preauthConn{IMAPConn: c, reader: io.MultiReader(
		strings.NewReader(greeting), strings.NewReader(string(c.Buffered)), io.LimitReader(c.Conn, maxLookUpOctets),
	)}
}

// Read is the greeting, then the connection.
func (c *preauthConn) Read(p []byte) (int, error) { return c.reader.Read(p) }
