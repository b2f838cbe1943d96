// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// format is the version of the plain text, which an older Postern refuses
// rather than misreads. One that holds credentials alone is of the first, so
// that an older Postern reads it.
const (
	format      = 2
	firstFormat = 1
)

// contents are all credentials, by "<firm-id>/<mailbox-id>"; what rotations have
// made, by that and "/<pending-id>"; and provider accounts, by
// "<firm-id>/provider/<provider-id>".
type contents map[string]*entry

// entry is one credential. Its JSON form has the secret in base64, since a
// secret may be any octets; encoding/json decodes it to octets without a
// string between.
type entry struct {
	Version  int                   `json:"version"`
	Kind     broker.CredentialKind `json:"kind"`
	Username string                `json:"username,omitempty"`
	Secret   []byte                `json:"secret"`
}

func (c contents) wipe() {
	for _, e := range c {
		if e != nil { // null, in what parse refuses
			clear(e.Secret)
		}
	}
}

var (
	errNotOurs = errors.New("decrypted, but not a file of credentials")
	errNewer   = errors.New("written by a newer Postern")
)

// parse reads what marshal wrote. The errors are fixed: those of
// encoding/json quote their input.
func parse(plain []byte) (contents, error) {
	var f struct {
		Format  int      `json:"format"`
		Entries contents `json:"entries"`
	}
	refuse := func(why error) (contents, error) {
		f.Entries.wipe()
		return nil, why
	}
	if json.Unmarshal(plain, &f) != nil {
		return refuse(errNotOurs)
	}
	if f.Format > format {
		return refuse(errNewer)
	}
	if f.Format < 1 || f.Entries == nil {
		return refuse(errNotOurs)
	}
	for key, e := range f.Entries {
		if !wellFormed(key, e) {
			return refuse(errNotOurs)
		}
	}
	return f.Entries, nil
}

func wellFormed(key string, e *entry) bool {
	ids := strings.Split(key, "/")
	if e == nil || e.Version < 1 || len(ids) < 2 || len(ids) > 3 {
		return false
	}
	for i, id := range ids {
		if _, err := broker.ParseID(id); err != nil && (i != 1 || id != providerMark || len(ids) != 3) {
			return false
		}
	}
	c := broker.Credential{Kind: e.Kind, Username: e.Username, Secret: broker.NewSecret(e.Secret)}
	return c.Validate() == nil
}

// marshal is json.Marshal by hand for the secrets: encoding/json would leave
// copies of them in its pooled buffers.
func (c contents) marshal() ([]byte, error) {
	type head struct {
		Version  int                   `json:"version"`
		Kind     broker.CredentialKind `json:"kind"`
		Username string                `json:"username,omitempty"`
	}
	keys := make([]string, 0, len(c))
	heads := make(map[string][]byte, len(c))
	size, version := len(`{"format":1,"entries":{}}`), firstFormat
	for key, e := range c {
		if strings.Count(key, "/") > 1 {
			version = format
		}
		b, err := json.Marshal(head{e.Version, e.Kind, e.Username})
		if err != nil {
			return nil, err
		}
		keys, heads[key] = append(keys, key), b[:len(b)-1]
		size += len(`"":,`) + len(key) + len(b) + len(`,"secret":""`) + base64.StdEncoding.EncodedLen(len(e.Secret))
	}
	slices.Sort(keys)
	plain := append(make([]byte, 0, size), `{"format":`...)
	plain = append(strconv.AppendInt(plain, int64(version), 10), `,"entries":{`...)
	for i, key := range keys {
		if i > 0 {
			plain = append(plain, ',')
		}
		plain = append(append(append(plain, '"'), key...), `":`...) // ids need no escape
		plain = append(append(plain, heads[key]...), `,"secret":"`...)
		plain = base64.StdEncoding.AppendEncode(plain, c[key].Secret)
		plain = append(plain, `"}`...)
	}
	return append(plain, `}}`...), nil
}
