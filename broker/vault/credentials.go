// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/postern-mail/postern/broker"
)

// place is where something lies below the mount's parts: data, metadata,
// subkeys or destroy.
type place string

// below makes a place from fixed names and ids, which alternate.
func below(firm broker.ID, kind string, ids ...broker.ID) (place, error) {
	if _, err := broker.ParseID(string(firm)); err != nil {
		return "", err
	}
	p := "/firms/" + string(firm) + "/" + kind
	for _, id := range ids {
		if _, err := broker.ParseID(string(id)); err != nil {
			return "", err
		}
		p += "/" + string(id)
	}
	return place(p), nil
}

func (c *Client) path(part string, p place) string { return c.mount + "/" + part + string(p) }

// Credential reads it from Vault, now. An operator's deletion in Vault is
// NotFound.
func (c *Client) Credential(ctx context.Context, firm, mailbox broker.ID) (*broker.Credential, error) {
	p, err := below(firm, "mailboxes", mailbox)
	if err != nil {
		return nil, err
	}
	return c.get(ctx, p)
}

func (c *Client) get(ctx context.Context, p place) (*broker.Credential, error) {
	path := c.path("data", p)
	var found *broker.Credential
	err := c.call(ctx, c.reader, "get", func(ctx context.Context, client *api.Client) error {
		answer, err := read(ctx, client, path, nil)
		if err != nil {
			return err
		}
		defer clear(answer)
		found, err = decodeCredential(answer)
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// SetCredential writes with check-and-set. When it returns Unavailable the
// write may have been done all the same: CredentialVersion tells. c stays the
// caller's.
func (c *Client) SetCredential(ctx context.Context, firm, mailbox broker.ID, cred *broker.Credential) (int, error) {
	p, err := below(firm, "mailboxes", mailbox)
	if err != nil {
		return 0, err
	}
	return c.set(ctx, p, cred)
}

func (c *Client) set(ctx context.Context, p place, cred *broker.Credential) (int, error) {
	if err := cred.Validate(); err != nil {
		return 0, err
	}
	if cred.Version < 0 {
		return 0, broker.InvalidField("version", "must not be negative")
	}
	paths := make(map[string]string)
	for _, part := range []string{"data", "metadata", "subkeys"} {
		paths[part] = c.path(part, p)
	}
	w := write{paths: paths, credential: cred, cas: cred.Version, marker: string(broker.NewID())}
	var version int
	err := c.call(ctx, c.writer, "set", func(ctx context.Context, client *api.Client) (err error) {
		version, err = w.try(ctx, client)
		return err
	})
	if err != nil {
		return 0, err
	}
	return version, nil
}

// write is one SetCredential.
type write struct {
	paths      map[string]string
	credential *broker.Credential
	cas        int
	marker     string
	// unsure says that an earlier try may have been done.
	unsure bool
}

// try writes once, and settles a conflict that is none: with an earlier try
// whose answer was lost, or with a version that an operator has deleted.
func (w *write) try(ctx context.Context, client *api.Client) (int, error) {
	version, err := w.put(ctx, client)
	if err == nil {
		return version, nil
	}
	f := failureOf(err)
	if f.err.Code != broker.Conflict {
		w.unsure = w.unsure || f.outage
		return 0, f
	}
	if w.unsure {
		ours, lookErr := w.done(ctx, client)
		if ours || lookErr != nil {
			return w.cas + 1, lookErr
		}
	}
	if w.cas == 0 {
		about, lookErr := readMetadata(ctx, client, w.paths["metadata"])
		if lookErr == nil && !about.exists(time.Now()) {
			w.cas = about.CurrentVersion
			return w.put(ctx, client)
		}
	}
	return 0, f
}

func (w *write) put(ctx context.Context, client *api.Client) (int, error) {
	body, err := encodeCredential(w.credential, w.cas, w.marker)
	if err != nil {
		return 0, &failure{err: broker.Errorf(broker.Internal, "the credential cannot be encoded")}
	}
	answer, err := client.Logical().WriteRawWithContext(ctx, w.paths["data"], body)
	b, err := readAnswer(answer, err)
	if err != nil {
		// body is left to the collector: net/http may still be reading it, and
		// to wipe it under its hands could send octets that nobody wrote.
		return 0, err
	}
	clear(body)
	var a struct {
		Data struct {
			Version int `json:"version"`
		} `json:"data"`
	}
	if json.Unmarshal(b, &a) != nil || a.Data.Version <= 0 {
		return 0, outage(ReasonAnswer, errors.New("the answer to a write is not KV version 2's"), false)
	}
	return a.Data.Version, nil
}

// done reports whether the version after cas is this write's own. It reads
// the names of the stored fields, not their values.
func (w *write) done(ctx context.Context, client *api.Client) (bool, error) {
	b, err := read(ctx, client, w.paths["subkeys"], map[string][]string{"version": {strconv.Itoa(w.cas + 1)}})
	if err != nil {
		f := failureOf(err)
		if f.err.Code == broker.NotFound {
			return false, nil
		}
		return false, f
	}
	var a struct {
		Data struct {
			Subkeys struct {
				Write map[string]any `json:"write"`
			} `json:"subkeys"`
		} `json:"data"`
	}
	if json.Unmarshal(b, &a) != nil {
		return false, nil // somebody else's data
	}
	_, ours := a.Data.Subkeys.Write[w.marker]
	return ours, nil
}

// CredentialVersion asks for the metadata alone. A version that an operator
// has deleted counts as none.
func (c *Client) CredentialVersion(ctx context.Context, firm, mailbox broker.ID) (int, error) {
	p, err := below(firm, "mailboxes", mailbox)
	if err != nil {
		return 0, err
	}
	return c.version(ctx, p)
}

func (c *Client) version(ctx context.Context, p place) (int, error) {
	path := c.path("metadata", p)
	var version int
	err := c.call(ctx, c.writer, "version", func(ctx context.Context, client *api.Client) error {
		about, err := readMetadata(ctx, client, path)
		if err == nil && about.exists(time.Now()) {
			version = about.CurrentVersion
		}
		return err
	})
	if broker.CodeOf(err) == broker.NotFound {
		return 0, nil
	}
	return version, err
}

// DeleteCredential removes the metadata, and every version with it.
func (c *Client) DeleteCredential(ctx context.Context, firm, mailbox broker.ID) error {
	p, err := below(firm, "mailboxes", mailbox)
	if err != nil {
		return err
	}
	return c.remove(ctx, p)
}

func (c *Client) remove(ctx context.Context, p place) error {
	path := c.path("metadata", p)
	err := c.call(ctx, c.writer, "delete", func(ctx context.Context, client *api.Client) error {
		_, err := client.Logical().DeleteWithContext(ctx, path)
		return err
	})
	if broker.CodeOf(err) == broker.NotFound {
		return nil
	}
	return err
}

func readMetadata(ctx context.Context, client *api.Client, path string) (*metadata, error) {
	b, err := read(ctx, client, path, nil)
	if err != nil {
		return nil, err
	}
	var a struct {
		Data metadata `json:"data"`
	}
	if json.Unmarshal(b, &a) != nil {
		return nil, outage(ReasonAnswer, errors.New("the metadata is not KV version 2's"), false)
	}
	return &a.Data, nil
}

// exists reports whether the current version has data.
func (m *metadata) exists(now time.Time) bool {
	return m.CurrentVersion > 0 && m.live(strconv.Itoa(m.CurrentVersion), now)
}

// read returns the body of an answer, which the caller wipes if it may hold a
// secret.
func read(ctx context.Context, client *api.Client, path string, params map[string][]string) ([]byte, error) {
	return readAnswer(client.Logical().ReadRawWithDataWithContext(ctx, path, params))
}

func readAnswer(answer *api.Response, err error) ([]byte, error) {
	if answer != nil {
		defer answer.Body.Close()
	}
	if err != nil {
		return nil, err
	}
	if answer.StatusCode >= 300 {
		return nil, failureOfAnswer(&api.ResponseError{StatusCode: answer.StatusCode})
	}
	if answer.ContentLength > maxAnswer {
		return nil, outage(ReasonAnswer, errTooLong, false)
	}
	size := 4 << 10
	if answer.ContentLength >= 0 {
		size = int(answer.ContentLength) + 1 // one more, to see the end without growing
	}
	b := make([]byte, 0, size)
	for {
		n, err := answer.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			clear(b)
			return nil, err
		case len(b) > maxAnswer:
			clear(b)
			return nil, outage(ReasonAnswer, errTooLong, false)
		case len(b) == cap(b):
			grown := make([]byte, len(b), 2*cap(b))
			copy(grown, b)
			clear(b)
			b = grown
		}
	}
}

var errTooLong = errors.New("the answer is longer than any credential")
