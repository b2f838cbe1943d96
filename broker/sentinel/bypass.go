// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

const (
	// sentMemory is how long before a message appears in Sent it may have been
	// submitted.
	sentMemory = time.Hour
	// maxSuspects bounds what waits to be explained, maxSuspectUIDs the octets of
	// their UIDs, maxFoundUIDs those of one finding.
	maxSuspects    = 200
	maxSuspectUIDs = 4 << 20
	maxFoundUIDs   = 2000
)

// reading is what one look reads of a mailbox.
type reading struct {
	*look
	conn   *broker.IMAPConn
	client *imapclient.Client
	bounds *boundedConn
	// names are the folders that are there.
	names map[string]bool
	// position is the last event before anything was read.
	position int64
	now      time.Time
	stored   map[string][]byte
	changed  []broker.Suspect
	// arrived are the folders of messages that are new, by their Message-IDs.
	arrived map[string]string
}

// watch compares the mailbox with what it was at the last look. What nothing
// explains is suspect, and what nothing has explained a while later is a
// finding. A failure leaves what is known of the folders that were not read.
func (l *look) watch(ctx context.Context, conn *broker.IMAPConn) error {
	w := &l.result.Watch
	before := *w
	r := &reading{look: l, conn: conn, now: w.ProbedAt, arrived: make(map[string]string)}
	var err error
	if r.position, err = l.State.LogEnd(ctx, w.FirmID); err != nil {
		return err
	}
	if r.stored, err = l.State.WatchedFolders(ctx, w.MailboxID); err != nil {
		return err
	}
	forgotten := l.result.Folders
	if l.result.Folders = maps.Clone(forgotten); forgotten == nil {
		l.result.Folders = make(map[string][]byte)
	}
	hangUp := func() { _ = conn.Close() } // what was to be known is known
	stop := context.AfterFunc(ctx, hangUp)
	defer stop()
	defer hangUp()
	var failed error
	l.patiently(func() { failed = r.readAll(ctx) })
	// The record is read after the mailbox: what was done in it by then is there,
	// or will be when it is looked at again.
	if err := r.judge(ctx); err != nil {
		// As if the mailbox had not been read.
		*w, l.result.Folders = before, forgotten
		return err
	}
	w.Past = append(slices.Clone(w.Past), broker.LogPosition{At: r.now, Seq: r.position})
	w.Past = thinned(w.Past, r.now)
	return failed
}

// thinned keeps positions that are minutes apart, and one that is older than
// sentMemory.
func thinned(past []broker.LogPosition, now time.Time) []broker.LogPosition {
	for len(past) > 1 && now.Sub(past[1].At) >= sentMemory {
		past = past[1:]
	}
	var out []broker.LogPosition
	for i, p := range past {
		if i == 0 || p.At.Sub(out[len(out)-1].At) >= sentMemory/12 {
			out = append(out, p)
		}
	}
	return out
}

// readAll reads what has changed.
func (r *reading) readAll(ctx context.Context) error {
	list, err := askNames(r.conn)
	if err != nil {
		return err
	}
	r.bounds = newBoundedConn(r.conn)
	r.bounds.asked(0)
	r.client = imapclient.New(r.bounds, nil)
	defer func() { _ = r.client.Close() }()
	if err := r.client.WaitGreeting(); err != nil {
		return err
	}
	w := &r.result.Watch
	folders, names := arrange(list, w.Folders)
	r.names = names
	var kept []broker.WatchedFolder // not w.Folders' own array, which is looked into
	for _, old := range w.Folders {
		if names[old.Name] {
			continue
		}
		r.result.Folders[old.Name] = nil
		r.changed = append(r.changed, folderSuspect(&old, r.now))
	}
	for _, f := range folders {
		var old *broker.WatchedFolder
		if i := slices.IndexFunc(w.Folders, func(x broker.WatchedFolder) bool { return x.Name == f.name }); i >= 0 {
			old = &w.Folders[i]
		}
		now := old
		if err == nil {
			now, err = r.readOne(ctx, f, old)
			// A folder that cannot be read does not keep the others from it.
			if answer, ok := err.(*imap.Error); ok { //nolint:errorlint // imapclient wraps none
				now, err = r.unreadable(old, answer), nil
			} else if err != nil {
				now = old
			}
		}
		if now != nil {
			kept = append(kept, *now)
		}
	}
	w.Folders = kept
	return err
}

func folderSuspect(old *broker.WatchedFolder, now time.Time) broker.Suspect {
	return broker.Suspect{
		Bypassed:  broker.Bypassed{What: broker.BypassFolder, Folder: old.Name, UIDValidity: old.UIDValidity, Since: old.At, Count: 1},
		Delimiter: old.Delimiter, After: old.After, FoundAt: now,
	}
}

// unreadable returns what is known of a folder that the server does not let be read.
// Dovecot lists one that was deleted and has others below it as if it were there: so
// one that is refused at two looks is gone.
func (r *reading) unreadable(old *broker.WatchedFolder, answer *imap.Error) *broker.WatchedFolder {
	switch {
	case old == nil || answer.Code == imap.ResponseCodeUnavailable || answer.Code == imap.ResponseCodeInUse || answer.Code == imap.ResponseCodeServerBug:
		return old
	case !old.Refused:
		again := *old
		again.Refused = true
		return &again
	}
	r.result.Folders[old.Name] = nil
	r.changed = append(r.changed, folderSuspect(old, r.now))
	return nil
}

// readOne reads a folder, unless it is as it was.
func (r *reading) readOne(ctx context.Context, f listed, old *broker.WatchedFolder) (*broker.WatchedFolder, error) {
	now, err := r.status(f)
	if err != nil {
		return nil, err
	}
	now.After, now.At = r.position, r.now
	before := newKept()
	var changed []broker.Suspect
	known := old != nil && r.stored[f.name] != nil
	if known && old.UIDValidity != now.UIDValidity {
		changed = append(changed, folderSuspect(old, r.now))
		known = false
	}
	if known {
		if now.ModSeq != 0 && old.ModSeq == now.ModSeq && old.UIDNext == now.UIDNext && old.Messages == now.Messages {
			return now, nil
		}
		if before, err = decodeKept(r.stored[f.name]); err != nil {
			// Not a reason to look at it never again.
			r.Logger.Error("what was kept of a folder cannot be understood; it is read anew", zap.String("mailbox", r.mailbox.Address), zap.Error(err))
			before, known = newKept(), false
		}
	}
	read, err := r.readFolder(ctx, now, before)
	if err != nil {
		return nil, err
	}
	if known {
		for uid := range read.all.minus(before.all).from(old.UIDNext).each() {
			if id := bareID(read.ids[uid]); id != "" {
				r.arrived[id] = f.name
			}
		}
		for _, s := range compare(old, before, read, f.own, f.trash) {
			if err := r.nameMessages(ctx, &s, before, read); err != nil {
				return nil, err
			}
			s.FoundAt, s.Until = r.now, r.now
			changed = append(changed, s)
		}
	}
	stored, err := read.encode()
	if err != nil {
		return nil, err
	}
	// Only now: what was found and what it was found by are kept together, or the
	// next look finds it again.
	r.result.Folders[f.name] = stored
	r.changed = append(r.changed, changed...)
	return now, nil
}

// nameMessages adds the Message-IDs of a change's newest messages.
func (r *reading) nameMessages(ctx context.Context, s *broker.Suspect, before, read *kept) error {
	set, _ := parseUIDs(s.UIDs)
	limit := maxFetched
	if s.What == broker.BypassAdded { // which are explained by them
		limit = maxNamed
	}
	ids := make(map[uint32]string)
	var ask uids
	for uid := range set.each() {
		if limit--; limit < 0 {
			break
		}
		id, ok := read.ids[uid]
		if !ok {
			id, ok = before.ids[uid]
		}
		ids[uid] = id
		if !ok && s.What != broker.BypassRemoved {
			ask.add(uid)
		}
	}
	if err := r.messageIDs(ctx, normal(ask), ids); err != nil {
		return err
	}
	for uid := range set.each() {
		if id, ok := ids[uid]; ok {
			s.Messages = append(s.Messages, broker.BypassedMessage{UID: uid, MessageID: id})
		}
	}
	return nil
}

// judge takes out of what has changed what is explained.
func (r *reading) judge(ctx context.Context) error {
	w := &r.result.Watch
	for i := range r.changed {
		s := &r.changed[i]
		for _, m := range s.Messages {
			if s.What == broker.BypassRemoved && s.Target == "" && m.MessageID != "" {
				s.Target = r.arrived[bareID(m.MessageID)]
			}
		}
	}
	all := slices.Concat(w.Suspects, r.changed)
	w.Suspects = nil
	if len(all) == 0 {
		return nil
	}
	after := r.position
	for _, s := range all {
		after = min(after, s.After)
		if s.What == broker.BypassAdded && len(w.Past) > 0 {
			after = min(after, w.Past[0].Seq)
		}
	}
	x, err := r.readRecord(ctx, r.mailbox, after)
	if err != nil {
		return err
	}
	x.names = r.names
	x.anywhere = holds(r.conn.Capabilities, "X-GM-EXT-1")
	for _, s := range all {
		if !r.unexplained(&s, x) {
			continue
		}
		if r.now.Sub(s.FoundAt) >= r.Settle {
			r.find(&s)
			continue
		}
		w.Suspects = append(w.Suspects, s)
	}
	w.Suspects = gravest(w.Suspects)
	if len(w.Suspects) > 0 {
		w.NextAt = earlier(w.NextAt, r.Now().UTC().Add(r.Settle))
	}
	return nil
}

// gravest leaves out what is too much to wait: first flags, which whoever makes up
// keywords can have as many changes of as he likes, to hide others behind.
func gravest(all []broker.Suspect) []broker.Suspect {
	room := func() int {
		octets := 0
		for i := range all {
			if octets += len(all[i].UIDs) + len(all[i].Deleted); i == maxSuspects || octets > maxSuspectUIDs {
				return i
			}
		}
		return len(all)
	}
	if room() == len(all) {
		return all
	}
	slices.SortStableFunc(all, func(a, b broker.Suspect) int {
		return cmp.Compare(slices.Index(graveness(), a.What), slices.Index(graveness(), b.What))
	})
	return all[:room()]
}

// graveness lists all ways, flags last.
func graveness() []broker.Bypass {
	return append(slices.DeleteFunc(broker.Bypasses(), func(b broker.Bypass) bool { return b == broker.BypassFlags }), broker.BypassFlags)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// unexplained narrows a suspect to what neither the record explains nor an
// exception, and reports whether anything is left.
func (r *reading) unexplained(s *broker.Suspect, x *explained) bool {
	if r.excepted(s) {
		return false
	}
	if s.What == broker.BypassFolder {
		return !x.folder(s.Folder, s.Delimiter)
	}
	left := x.left(s)
	if len(left) == 0 {
		return false
	}
	s.UIDs, s.Count = left.String(), left.len()
	s.Messages = slices.DeleteFunc(s.Messages, func(m broker.BypassedMessage) bool {
		return !left.has(m.UID)
	})
	return true
}

// excepted reports whether the firm has declared it.
func (r *reading) excepted(s *broker.Suspect) bool {
	if r.mailbox.Watch == nil {
		return false
	}
	var zones policy.Zones
	for _, e := range r.mailbox.Watch.Exceptions {
		switch {
		case len(e.Folders) > 0 && !(policy.FolderPatterns{Allow: e.Folders}).Visible(s.Folder, s.Delimiter):
		case len(e.Changes) > 0 && !slices.Contains(e.Changes, s.What):
		case openWithin(e.Hours, s.Since, s.FoundAt, &zones):
			return true
		}
	}
	return false
}

// openWithin reports whether hours are open at any time of a period. Shifts
// have whole minutes.
func openWithin(h policy.Hours, from, to time.Time, zones *policy.Zones) bool {
	if to.Sub(from) >= 7*24*time.Hour { // hours are a week's
		return true
	}
	for at := from; ; at = at.Add(time.Minute) {
		if at.After(to) {
			at = to
		}
		if _, open, err := h.Open(at, zones); err != nil || open {
			return err == nil
		}
		if !at.Before(to) {
			return false
		}
	}
}

// find records a finding.
func (r *reading) find(s *broker.Suspect) {
	b := s.Bypassed
	if b.Until.IsZero() {
		b.Until = s.FoundAt
	}
	b.Messages = b.Messages[:min(len(b.Messages), maxFetched)]
	if len(b.UIDs) > maxFoundUIDs { // Count says how many they are
		b.UIDs = b.UIDs[:strings.LastIndexByte(b.UIDs[:maxFoundUIDs], ',')] + ",…"
	}
	r.record(broker.EventBypassed, b)
	r.findings = append(r.findings, b.What)
	r.Logger.Warn("a mailbox was used without Postern", zap.String("mailbox", r.mailbox.Address),
		zap.String("what", string(b.What)), zap.String("folder", b.Folder), zap.Int("messages", b.Count))
}
