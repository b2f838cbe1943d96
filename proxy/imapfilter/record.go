// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// openedMessage is what is known of the message of the FETCH response that is
// passing.
type openedMessage struct {
	seq   uint32
	sniff headerSniffer
	// header says that header octets passed; body that body octets did.
	header, body bool
	// entries is how many entries of the recorder's batch, its last ones, are
	// this message's; submitted says that some went out without a UID,
	// unnamed that some went out before the Message-ID had passed.
	entries   int
	submitted bool
	unnamed   bool
	// paced says that it counts for the recorder's pace.
	paced   bool
	section string
	octets  int64
}

func (m *openedMessage) reset(seq uint32) {
	m.sniff.reset()
	*m = openedMessage{seq: seq, sniff: m.sniff}
}

// beginContent is called where header or body octets begin.
func (u *upstreamSide) beginContent() {
	if u.fetch.Content == imapwire.ContentNone {
		u.message.sniff.active = false
		return
	}
	if section := u.fetch.Section(); string(section) != u.section.name {
		u.section = namedSection{string(section), holdsMessageHeader(section)}
	}
	u.message.sniff.active = u.section.header
	switch u.fetch.Content {
	case imapwire.ContentHeader:
		u.message.header = true
	case imapwire.ContentBody:
		u.message.body = true
		u.record.open(u, u.section.name, u.fetch.Size)
	}
}

// namedSection is the name of a FETCH item with content, and whether that begins
// with the message's own header. The last is kept, since the messages of one
// answer have the same.
type namedSection struct {
	name   string
	header bool
}

// holdsMessageHeader reports whether a section's octets begin with the
// message's own header.
func holdsMessageHeader(section []byte) bool {
	s := strings.ToUpper(string(section))
	if i := strings.LastIndexByte(s, '<'); i > 0 && s[len(s)-1] == '>' {
		if s[i:] != "<0>" {
			return false
		}
		s = s[:i]
	}
	return s == "RFC822" || s == "RFC822.HEADER" || s == "BODY[]" || strings.HasPrefix(s, "BODY[HEADER")
}

// recorder gathers what is opened and keeps the relay within aheadOfRecord of
// the durable record. It belongs to the upstream's goroutine.
type recorder struct {
	batch broker.MessageOpen
	// from is how many body octets had passed when the batch began.
	from   int64
	passed int64
	owed   []owed
	known  map[uint32]struct{}
	// early says that openings were handed to the log before the answer to the
	// FETCH that they belong to.
	early bool
	// pace is there once something was opened: sessions at rest are many.
	pace *pace
}

// pace tells reading from a bulk synchronisation: when the latest messages were
// opened, in milliseconds; the oldest of them is at next.
type pace struct {
	last [broker.SyncMessages]int64
	next int
}

// sync notes that another message is opened, and reports whether that makes
// broker.SyncMessages within broker.SyncSpan.
func (p *pace) sync(now time.Time) bool {
	p.last[p.next] = now.UnixMilli()
	p.next = (p.next + 1) % len(p.last)
	oldest := p.last[p.next]
	return oldest != 0 && now.UnixMilli()-oldest < broker.SyncSpan.Milliseconds()
}

// owed is an event on its way to the log.
type owed struct {
	receipt *broker.Receipt
	// from is where its first octet passed; -1: it opens nothing.
	from int64
}

// open notes that a body of octets begins to pass.
func (rec *recorder) open(u *upstreamSide, section string, octets int64) {
	if !u.message.paced {
		u.message.paced = true
		if rec.pace == nil {
			rec.pace = new(pace)
		}
		if sync := rec.pace.sync(time.Now()); sync != rec.batch.Sync {
			rec.submit(u) // those before it were opened at another pace
			rec.batch.Sync = sync
		}
	}
	rec.begin(u)
	rec.batch.Messages = append(rec.batch.Messages, broker.OpenedMessage{
		UID: u.fetch.UID, Seq: u.message.seq, Section: section, Octets: octets,
	})
	u.message.entries++
	u.message.section, u.message.octets = section, octets
	u.r.opened.Add(1)
}

// begin begins a batch where there is none.
func (rec *recorder) begin(u *upstreamSide) {
	if len(rec.batch.Messages) == 0 {
		rec.from = rec.passed
		rec.batch.Folder, rec.batch.UIDValidity = u.selected.name, u.selected.uidValidity
	}
}

// pass is called before n body octets go to the client. It waits until the
// log is close enough behind.
func (rec *recorder) pass(u *upstreamSide, n int64) error {
	for {
		from, ok := rec.oldest()
		if !ok || rec.passed+n-from <= aheadOfRecord {
			break
		}
		if len(rec.owed) == 0 {
			rec.submit(u)
		}
		if err := rec.waitFirst(u); err != nil {
			return err
		}
	}
	rec.passed += n
	u.r.bodyOctets.Store(rec.passed)
	if len(rec.batch.Messages) > 0 && (rec.passed-rec.from >= submitAfter || len(rec.batch.Messages) >= maxOpenedBatch) {
		rec.submit(u)
	}
	return nil
}

// oldest returns where the oldest opening began that is not durable yet.
func (rec *recorder) oldest() (int64, bool) {
	for len(rec.owed) > 0 && rec.owed[0].from < 0 && rec.owed[0].receipt.Settled() && rec.owed[0].receipt.Wait(context.Background()) == nil {
		rec.owed = rec.owed[1:]
	}
	for _, o := range rec.owed {
		if o.from >= 0 {
			return o.from, true
		}
	}
	return rec.from, len(rec.batch.Messages) > 0
}

// submit hands the batch to the log.
func (rec *recorder) submit(u *upstreamSide) {
	if len(rec.batch.Messages) == 0 {
		return
	}
	if u.message.entries > 0 {
		id := u.message.sniff.found()
		rec.complete(u, id)
		u.message.submitted = u.message.submitted || u.fetch.UID == 0
		u.message.unnamed = u.message.unnamed || id == ""
		u.message.entries = 0
	}
	rec.owe(u.r.session.Submit(broker.EventMessageOpen, rec.batch), rec.from)
	rec.early = true
	rec.batch = broker.MessageOpen{Sync: rec.batch.Sync}
}

func (rec *recorder) owe(receipt *broker.Receipt, from int64) {
	rec.owed = append(rec.owed, owed{receipt, from})
}

// waitFirst waits for the oldest event on its way.
func (rec *recorder) waitFirst(u *upstreamSide) error {
	if err := u.flush(); err != nil {
		return err
	}
	o := rec.owed[0]
	rec.owed = rec.owed[1:]
	if !o.receipt.Settled() { // else the end of the session might be preferred
		select {
		case <-o.receipt.Done():
		case <-u.r.over: // the log may be stalled for ever
			return errOver
		}
	}
	if err := o.receipt.Wait(context.Background()); err != nil {
		return fmt.Errorf("%w: %w", errRecord, err)
	}
	return nil
}

// settle looks at what has become durable, and hands over what was gathered
// once the client waits for nothing more: in IDLE too, where what is pushed
// (RFC 5465) must not lie about until it ends.
func (rec *recorder) settle(u *upstreamSide) error {
	if len(rec.batch.Messages) > 0 && u.state == atLine && (u.r.idling.Load() || u.r.nothingUnderWay()) {
		rec.submit(u)
		rec.early = false
	}
	for len(rec.owed) > 0 && (len(rec.owed) > maxReceipts || rec.owed[0].receipt.Settled()) {
		if err := rec.waitFirst(u); err != nil {
			return err
		}
	}
	return nil
}

// flush hands over what was gathered, because the folder changes.
func (rec *recorder) flush(u *upstreamSide) {
	rec.submit(u)
	rec.known = nil
	u.r.forgetIdentify()
}

// complete fills in what the response told after the octets.
func (rec *recorder) complete(u *upstreamSide, id string) {
	for i := len(rec.batch.Messages) - u.message.entries; i < len(rec.batch.Messages); i++ {
		m := &rec.batch.Messages[i]
		m.UID, m.MessageID = u.fetch.UID, id
	}
}

// endMessage is called at the end of a FETCH response.
func (rec *recorder) endMessage(u *upstreamSide) {
	m := &u.message
	id := m.sniff.messageID()
	if m.body {
		rec.complete(u, id)
		switch {
		case u.fetch.UID == 0:
		case m.submitted:
			rec.begin(u)
			rec.batch.Messages = append(rec.batch.Messages, broker.OpenedMessage{
				UID: u.fetch.UID, Seq: m.seq, Section: m.section, Octets: m.octets, MessageID: id, Continues: true,
			})
		case m.unnamed && id != "":
			rec.identify(u, u.fetch.UID, id)
		}
	}
	m.entries = 0
	if u.fetch.UID == 0 || !m.body {
		return
	}
	if _, ok := rec.known[u.fetch.UID]; ok {
		return
	}
	rec.remember(u.fetch.UID)
	if id == "" {
		u.r.wantIdentified(u.fetch.UID)
	}
}

func (rec *recorder) remember(uid uint32) {
	if rec.known == nil || len(rec.known) >= maxIdentified {
		rec.known = make(map[uint32]struct{})
	}
	rec.known[uid] = struct{}{}
}

// identified handles the answer to an own FETCH: it records the Message-ID.
// false: nobody asked for that UID.
func (rec *recorder) identified(u *upstreamSide, uid uint32) bool {
	asked := u.r.asked.Load()
	if asked == nil || u.message.body {
		return false
	}
	if _, ok := (*asked)[uid]; !ok {
		return false
	}
	if id := u.message.sniff.messageID(); id != "" {
		rec.identify(u, uid, id)
	}
	return true
}

// identify records the Message-ID of a message that was recorded without.
func (rec *recorder) identify(u *upstreamSide, uid uint32, id string) {
	rec.owe(u.r.session.Submit(broker.EventMessageIdentify, broker.MessageIdentify{
		Folder: u.selected.name, UIDValidity: u.selected.uidValidity, UID: uid, MessageID: id,
	}), -1)
}

// finish hands over what was gathered; the session is ending.
func (rec *recorder) finish(u *upstreamSide) {
	rec.submit(u)
	for _, o := range rec.owed {
		if !o.receipt.Settled() {
			continue // the log goes on without the session
		}
		if err := o.receipt.Wait(context.Background()); err != nil {
			u.r.log().Error("the last events of a session were not recorded", zap.Error(err))
			return
		}
	}
}

// change is what a command changes, recorded when its OK has come.
type change struct {
	kind     broker.EventType
	command  string
	folder   string
	target   string
	set      string
	uids     bool
	flags    string
	messages []broker.MessageAppend
	// opening says that what it changes is told by message.open, unless that was
	// recorded before the answer, or there is none.
	opening bool
}

// changeFor returns what to record of a command; nil: nothing.
func (s *clientSide) changeFor(name string, j *judgement) *change {
	var kind broker.EventType
	switch strings.TrimPrefix(name, "UID ") {
	case "SELECT", "EXAMINE": // for the folder's name
	case "STORE":
		kind = broker.EventMessageFlag
	case "FETCH": // sets \Seen
		if !j.fetch.seen || !s.r.decision.Actions.Has(policy.Flag) || s.r.view.sliced() && s.r.view.watches(`\Seen`) {
			return nil
		}
		return &change{
			kind: broker.EventMessageFlag, set: cut(string(j.set), 2000), uids: j.uids, flags: `+FLAGS (\Seen)`, opening: j.fetch.body,
		}
	case "COPY":
		kind = broker.EventMessageCopy
	case "MOVE":
		kind = broker.EventMessageMove
	case "EXPUNGE", "CLOSE":
		kind = broker.EventMessageExpunge
	case "APPEND", "REPLACE":
		kind = broker.EventMessageAppend
	case "CREATE", "DELETE", "RENAME", "SUBSCRIBE", "UNSUBSCRIBE":
		kind = broker.EventFolderChange
	default:
		return nil
	}
	c := &change{
		kind: kind, command: name, folder: printable(j.folder), target: printable(j.target),
		set: cut(string(j.set), 2000), uids: j.uids,
	}
	if kind == broker.EventMessageFlag {
		c.flags = s.flagsText(j)
	}
	return c
}

// flagsText writes what STORE does, such as "+FLAGS (\Seen)".
func (s *clientSide) flagsText(j *judgement) string {
	var b strings.Builder
	for i, t := range s.parse.toks[j.flagsFrom:j.flagsTo] {
		switch {
		case t.Kind == imapwire.Open:
			b.WriteString(" (")
			continue
		case t.Kind == imapwire.Close:
			b.WriteByte(')')
			continue
		case i > 0 && t.Space:
			b.WriteByte(' ')
		}
		b.Write(s.parse.cmd.Value(t))
	}
	return cut(b.String(), 1000)
}

// answered records a change that the upstream has answered; code and args are
// the answer's response code.
func (rec *recorder) answered(u *upstreamSide, c *change, resp *imapwire.Response, code, args []byte) {
	told := false
	if c != nil && c.opening {
		// Openings that were recorded in the midst of a long FETCH stand before the
		// \Seen that it sets at its end.
		told = !rec.early
		rec.early = rec.early && !u.r.nothingUnderWay()
	}
	switch {
	case c == nil || told:
	case resp.Is("OK"):
		rec.change(u, c, "", code, args)
	case resp.Is("NO") && (c.kind == broker.EventMessageFlag || c.kind == broker.EventMessageMove || c.kind == broker.EventMessageExpunge):
		rec.change(u, c, broker.ChangeRefused, nil, nil)
	}
}

// unanswered records the changes under way at the session's end: they may have
// been carried out. Both goroutines have ended.
func (rec *recorder) unanswered(u *upstreamSide) {
	u.r.mu.Lock()
	var left []*change
	for _, flight := range u.r.pending {
		c := flight.change
		// A message that was not sent as a whole is not there.
		if c != nil && c.kind != "" && (c.kind != broker.EventMessageAppend || len(c.messages) > 0) {
			left = append(left, c)
		}
	}
	u.r.mu.Unlock()
	for _, c := range left {
		rec.change(u, c, broker.ChangeUnanswered, nil, nil)
	}
}

// change records what a command has changed, or may have.
func (rec *recorder) change(u *upstreamSide, c *change, outcome broker.ChangeOutcome, code, args []byte) {
	uids := u.copyUID
	u.copyUID = ""
	if bytes.EqualFold(code, []byte("COPYUID")) || bytes.EqualFold(code, []byte("APPENDUID")) {
		uids = cut(string(args), 2000)
	}
	session := u.r.session
	switch c.kind {
	case "":
	case broker.EventFolderChange:
		rec.owe(session.Submit(c.kind, broker.FolderChange{Command: c.command, Folder: c.folder, Target: c.target}), -1)
		if c.command == "RENAME" && outcome == "" {
			u.renamed(c.folder, c.target)
		}
	case broker.EventMessageAppend:
		u.r.mu.Lock() // the client's goroutine may still be adding to it
		messages := slices.Clone(c.messages)
		u.r.mu.Unlock()
		if len(messages) == 0 {
			messages = []broker.MessageAppend{{}}
		}
		for _, m := range messages {
			m.Folder, m.AppendUID, m.Outcome = c.folder, uids, outcome
			rec.owe(session.Submit(c.kind, m), -1)
		}
		if c.set != "" { // REPLACE (RFC 8508)
			rec.owe(session.Submit(broker.EventMessageExpunge, broker.MessageChange{
				Folder: u.selected.name, UIDValidity: u.selected.uidValidity, Set: c.set, UIDs: c.uids, Outcome: outcome,
			}), -1)
		}
	default:
		rec.owe(session.Submit(c.kind, broker.MessageChange{
			Folder: u.selected.name, UIDValidity: u.selected.uidValidity, Set: c.set, UIDs: c.uids,
			Target: c.target, Flags: c.flags, CopyUID: uids, Outcome: outcome,
		}), -1)
	}
}

// identifyOpened asks the upstream for the Message-IDs of messages that were
// opened without their header, before entry's command goes upstream. Nothing
// of the client's is under way.
func (s *clientSide) identifyOpened(entry *command) error {
	for !entry.numbers {
		uids := s.r.takeIdentify()
		if len(uids) == 0 {
			return nil
		}
		asked := make(map[uint32]struct{}, len(uids))
		tag := s.nextTag()
		s.out.Raw(tag + " UID FETCH ")
		for i, uid := range uids {
			asked[uid] = struct{}{}
			if i > 0 {
				s.out.Raw(",")
			}
			s.out.Raw(fmt.Sprint(uid))
		}
		s.out.Raw(" (UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])\r\n")
		s.r.asked.Store(&asked)
		s.r.push(inFlight{tag: tag, kind: identifying}, expectNothing)
		err := s.barrier()
		s.r.asked.Store(nil)
		if err != nil {
			return err
		}
	}
	return nil
}

// identifyLast asks for the Message-IDs of what was opened last when the client has
// gone: else whoever hangs up behind a body keeps it from being known. That it has
// gone ends a wait for the upstream after listenAfter.
func (s *clientSide) identifyLast() {
	s.r.mu.Lock()
	wanted := s.r.end == nil && len(s.r.identify) > 0 && len(s.r.pending) == 0
	s.r.mu.Unlock()
	if wanted {
		_ = s.identifyOpened(&command{}) // the session ends, whatever comes of it
	}
}

// printable returns a folder's name for the record: decoded where it is
// modified UTF-7, and always valid UTF-8; INBOX is in upper case, however it
// was written (RFC 9051 §5.1).
func printable(name []byte) string {
	switch {
	case len(name) == 0:
		return ""
	case bytes.EqualFold(name, []byte("INBOX")):
		return "INBOX"
	}
	return imapwire.DecodeMailbox(name)
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
