// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/postern-mail/postern/broker"
)

// kept is a folder as it was read: what the next look is compared with.
type kept struct {
	all uids
	// flags are the messages that have each flag.
	flags map[string]uids
	// ids are the Message-IDs of the newest messages.
	ids map[uint32]string
}

// keptJSON is its stored form.
type keptJSON struct {
	All   string            `json:"all"`
	Flags map[string]string `json:"flags,omitempty"`
	IDs   map[string]string `json:"ids,omitempty"`
}

const (
	// maxFlags is how many flags of a folder are kept, the system's own first:
	// keywords can be made up without an end.
	maxFlags = 100
	// maxKept bounds what is kept of a folder, in octets of JSON: it is more than
	// maxFlags sets of maxMessages UIDs, in decimal with a comma.
	maxKept = 16 << 20
)

// add notes a message as it stands; after the last comes order.
func (k *kept) add(uid uint32, flags []imap.Flag) {
	k.all.add(uid)
	for _, flag := range flags {
		name := strings.ToLower(string(flag))
		set := k.flags[name]
		set.add(uid)
		k.flags[name] = set
	}
	if len(k.flags) > 2*maxFlags { // none is left out here that would not be at the end
		k.cutFlags()
	}
}

// order ends the adding of messages.
func (k *kept) order() {
	k.cutFlags()
	k.all = normal(k.all)
	for name, set := range k.flags {
		k.flags[name] = normal(set)
	}
}

// cutFlags leaves maxFlags flags.
func (k *kept) cutFlags() {
	if len(k.flags) <= maxFlags {
		return
	}
	names := slices.SortedFunc(maps.Keys(k.flags), func(a, b string) int {
		own := func(s string) int {
			if strings.HasPrefix(s, `\`) {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(own(a), own(b)), strings.Compare(a, b))
	})
	for _, name := range names[maxFlags:] {
		delete(k.flags, name)
	}
}

func (k *kept) encode() ([]byte, error) {
	j := keptJSON{All: k.all.String(), Flags: map[string]string{}, IDs: map[string]string{}}
	for f, set := range k.flags {
		j.Flags[f] = set.String()
	}
	for uid, id := range k.ids {
		j.IDs[strconv.FormatUint(uint64(uid), 10)] = id
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := json.NewEncoder(z).Encode(j); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func decodeKept(b []byte) (*kept, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	var j keptJSON
	if err := json.NewDecoder(io.LimitReader(z, maxKept)).Decode(&j); err != nil {
		return nil, err
	}
	k := newKept()
	k.all, _ = parseUIDs(j.All) // empty: there is none
	for f, text := range j.Flags {
		k.flags[f], _ = parseUIDs(text)
	}
	for text, id := range j.IDs {
		if uid, ok := parseUID(text); ok {
			k.ids[uid] = id
		}
	}
	return k, nil
}

func newKept() *kept { return &kept{flags: make(map[string]uids), ids: make(map[uint32]string)} }

// seen is the flag that reading sets, as kept has it.
const seen = `\seen`

// ignored are flags that servers set by themselves.
func ignored(flag string) bool {
	return flag == `\recent` || flag == "$hasattachment" || flag == "$hasnoattachment"
}

// compare returns what has changed in a folder that was old. What is new there
// was delivered, with whatever flags, unless own says that nobody delivers there.
func compare(f *broker.WatchedFolder, old, now *kept, own, trash bool) []broker.Suspect {
	suspect := func(what broker.Bypass, set uids, flag string, cleared bool) broker.Suspect {
		s := broker.Suspect{
			Bypassed: broker.Bypassed{
				What: what, Folder: f.Name, UIDValidity: f.UIDValidity, Flag: flag, Cleared: cleared, UIDs: set.String(), Count: set.len(), Since: f.At,
			},
			Delimiter: f.Delimiter, After: f.After,
		}
		if what == broker.BypassRemoved {
			s.Deleted = old.flags[`\deleted`].String()
		}
		return s
	}
	var found []broker.Suspect
	// Of a large folder the newest messages are kept: below that nothing is known.
	var lowest uint32
	if len(old.all) > 0 && len(now.all) > 0 {
		lowest = max(old.all[0].from, now.all[0].from)
		if old.all.len() < maxMessages && now.all.len() < maxMessages {
			lowest = 0
		}
	}
	both := old.all.and(now.all)
	names := slices.Sorted(maps.Keys(now.flags))
	for name := range old.flags {
		if now.flags[name] == nil {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if ignored(name) {
			continue
		}
		was, is := old.flags[name].and(both), now.flags[name].and(both)
		if set := is.minus(was); len(set) > 0 {
			what := broker.BypassFlags
			if name == seen {
				what = broker.BypassSeen
			}
			found = append(found, suspect(what, set, name, false))
		}
		if set := was.minus(is); len(set) > 0 {
			found = append(found, suspect(broker.BypassFlags, set, name, true))
		}
	}
	// Of Trash and Junk, servers remove what is old by themselves.
	if set := old.all.minus(now.all).from(lowest); len(set) > 0 && !trash {
		found = append(found, suspect(broker.BypassRemoved, set, "", false))
	}
	if set := now.all.minus(old.all).from(f.UIDNext); len(set) > 0 && own {
		found = append(found, suspect(broker.BypassAdded, set, "", false))
	}
	return found
}
