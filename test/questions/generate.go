// SPDX-License-Identifier: Apache-2.0

package questions

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/policy"
)

const (
	firms            = 20
	mailboxesPerFirm = 10
	agentsPerMailbox = 3
	agents           = 250
	workstations     = 200
	// batch is how many events one transaction has.
	batch = 4000
	// eventsPerDay is what 250 agents do on a working day.
	eventsPerDay = 40000
)

// begin is when the generated events begin.
var begin = time.Date(2025, 1, 6, 3, 30, 0, 0, time.UTC)

// World is what a store was filled with.
type World struct {
	Store        *store.Store
	Firms        []broker.Firm
	Mailboxes    []broker.Mailbox
	Agents       []broker.Agent
	Workstations []broker.Workstation
	// seats are who works where.
	seats []seat
	// Alert is one that was raised in the middle, and End when the last event was.
	Alert broker.ID
	End   time.Time
	// Rates are how many events a second were made and stored, in each tenth of them.
	Rates []float64

	random  *rand.Rand
	now     time.Time
	pending []*broker.Event
	stored  int
	sent    uint64
}

type seat struct {
	agent, mailbox, workstation int
	delegation, assignment      broker.ID
}

// Now is the clock that the events are made by.
func (w *World) Now() time.Time { return w.now }

// Fill makes firms and their people, and then n events. open opens an empty store
// that goes by the clock.
func Fill(ctx context.Context, n int, open func(now func() time.Time) (*store.Store, error)) (*World, error) {
	w := &World{random: rand.New(rand.NewPCG(20250106, 7)), now: begin}
	var err error
	began, counted := time.Now(), 0
	if w.Store, err = open(w.Now); err != nil {
		return nil, err
	}
	if err := w.people(ctx); err != nil {
		return w, err
	}
	for day := 0; w.stored+len(w.pending) < n; day++ {
		if err := w.day(ctx, begin.AddDate(0, 0, day), min(eventsPerDay, n-w.stored-len(w.pending))); err != nil {
			return w, err
		}
		if w.Alert == "" && w.stored >= n/2 {
			if err := w.alarm(ctx); err != nil {
				return w, err
			}
		}
		if w.stored-counted >= n/10 {
			w.Rates = append(w.Rates, float64(w.stored-counted)/time.Since(began).Seconds())
			began, counted = time.Now(), w.stored
		}
	}
	w.End = w.now
	return w, w.flush(ctx)
}

// people makes everything that is there before the first session.
func (w *World) people(ctx context.Context) error {
	by := broker.Actor{Kind: "admin", Name: "generator"}
	s := w.Store
	for i := range firms {
		f := broker.Firm{Name: fmt.Sprintf("Firm %02d", i), Contact: "it@firm.example"}
		if err := s.CreateFirm(ctx, by, &f); err != nil {
			return err
		}
		w.Firms = append(w.Firms, f)
	}
	for i := range agents {
		a := broker.Agent{Name: fmt.Sprintf("agent-%03d", i)}
		if err := s.CreateAgent(ctx, by, &a); err != nil {
			return err
		}
		w.Agents = append(w.Agents, a)
	}
	site := broker.Site{Name: "Pune", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	if err := s.CreateSite(ctx, by, &site); err != nil {
		return err
	}
	for i := range workstations {
		x := broker.Workstation{Name: fmt.Sprintf("pune-%03d", i), Class: broker.ClassHardware, SiteID: site.ID, KeyPins: []string{fmt.Sprintf("%064x", i+1)}}
		if err := s.CreateWorkstation(ctx, by, &x); err != nil {
			return err
		}
		w.Workstations = append(w.Workstations, x)
	}
	for i := range firms * mailboxesPerFirm {
		endpoint := broker.Endpoint{Host: "imap.provider.example", Port: 993, TLS: broker.TLSImplicit}
		m := broker.Mailbox{FirmID: w.Firms[i%firms].ID, Address: fmt.Sprintf("box-%03d@firm-%02d.example", i, i%firms), IMAP: endpoint, Submission: endpoint}
		if err := s.CreateMailbox(ctx, by, &m); err != nil {
			return err
		}
		if err := s.CredentialSet(ctx, by, m.ID, 1); err != nil {
			return err
		}
		w.Mailboxes = append(w.Mailboxes, m)
		hours := policy.Hours{
			Zone: "Asia/Kolkata", Shifts: []policy.Shift{{Days: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}, From: "09:00", To: "21:00"}},
		}
		d := broker.Delegation{MailboxID: m.ID, Terms: policy.Terms{Actions: policy.All, Hours: hours}}
		if err := s.CreateDelegation(ctx, by, &d); err != nil {
			return err
		}
		for range agentsPerMailbox {
			x := seat{agent: w.random.IntN(agents), mailbox: i, workstation: w.random.IntN(workstations), delegation: d.ID}
			a := broker.Assignment{DelegationID: d.ID, AgentID: w.Agents[x.agent].ID, Terms: policy.Terms{Actions: policy.List | policy.Headers | policy.Read, Hours: hours}}
			if err := s.CreateAssignment(ctx, by, &a); broker.CodeOf(err) == broker.Conflict {
				continue // he has one
			} else if err != nil {
				return err
			}
			x.assignment = a.ID
			w.seats = append(w.seats, x)
		}
	}
	return nil
}

// day is one day's sessions.
func (w *World) day(ctx context.Context, morning time.Time, n int) error {
	// Days have eleven hours; sessions lie one after another in the log, though
	// their times overlap by some minutes.
	step := 11 * time.Hour / time.Duration(eventsPerDay)
	for done := 0; done < n; {
		w.now = morning.Add(step * time.Duration(done))
		before := w.stored + len(w.pending)
		w.session(&w.seats[w.random.IntN(len(w.seats))])
		done += w.stored + len(w.pending) - before
		if len(w.pending) >= batch {
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// session is one session: mostly some messages are read one by one, now and then
// a mail client downloads what is new, or a message is sent.
func (w *World) session(x *seat) {
	m, a := &w.Mailboxes[x.mailbox], &w.Agents[x.agent]
	s := broker.Session{
		ID: w.id(), Protocol: broker.ProtocolIMAP, FirmID: m.FirmID, MailboxID: m.ID, AgentID: a.ID, WorkstationID: w.Workstations[x.workstation].ID,
		DelegationID: x.delegation, AssignmentID: x.assignment, Authentication: broker.AuthAppPassword, RemoteAddr: "192.0.2.7:40112", Node: "one", OpenedAt: w.now,
	}
	add := func(typ broker.EventType, data any) {
		w.pending = append(w.pending, &broker.Event{
			ID: w.id(), Time: w.now, Type: typ, FirmID: m.FirmID, Actor: broker.Actor{Kind: "agent", Name: a.Name, ID: a.ID},
			SessionID: s.ID, AgentID: a.ID, MailboxID: m.ID, WorkstationID: s.WorkstationID, Data: data,
		})
		w.now = w.now.Add(time.Duration(1+w.random.IntN(20)) * time.Second)
	}
	add(broker.EventSessionOpen, broker.SessionOpen{Session: s, Decision: policy.Decision{Actions: policy.All}})
	// Mail comes in as time goes by.
	newest := 1000 + uint32(w.now.Sub(begin)/(20*time.Minute))
	var octets, opened int64
	switch kind := w.random.IntN(20); {
	case kind == 0:
		for range 1 + w.random.IntN(6) {
			first := 1 + w.random.Uint32N(newest)
			data := broker.MessageOpen{Folder: "INBOX", UIDValidity: 1700000000, Sync: true}
			for uid := first; uid < first+16; uid++ {
				data.Messages = append(data.Messages, w.message(x.mailbox, uid, "BODY[]"))
				octets += data.Messages[len(data.Messages)-1].Octets
			}
			opened += 16
			add(broker.EventMessageOpen, data)
		}
	case kind < 4:
		w.sent++
		intent := broker.SendIntent{
			Intent: w.id(), MailFrom: m.Address, HeaderFrom: m.Address, Recipients: []string{"buyer@market.example"},
			MessageID: fmt.Sprintf("<sent-%d@%s>", w.sent, domain(m.Address)), Octets: 9000, SHA256: strings.Repeat("0a", 32),
		}
		add(broker.EventSendIntent, intent)
		add(broker.EventSendResult, broker.SendResult{Intent: intent.Intent, MessageID: intent.MessageID, Outcome: "accepted", Answer: "250 2.0.0 Ok: queued"})
	default:
		for range 1 + w.random.IntN(12) {
			uid := newest - min(newest-1, w.random.Uint32N(200))
			data := broker.MessageOpen{Folder: "INBOX", UIDValidity: 1700000000, Messages: []broker.OpenedMessage{w.message(x.mailbox, uid, "BODY[]")}}
			octets, opened = octets+data.Messages[0].Octets, opened+1
			add(broker.EventMessageOpen, data)
			if w.random.IntN(3) == 0 {
				add(broker.EventMessageFlag, broker.MessageChange{Folder: "INBOX", UIDValidity: 1700000000, Set: fmt.Sprint(uid), UIDs: true, Flags: `+FLAGS (\Flagged)`})
			}
		}
	}
	add(broker.EventSessionEnd, broker.SessionEnd{Reason: broker.EndLogout, OctetsDown: octets + 4000, OctetsUp: 900, BodyOctets: octets, Opened: opened, OpenedAt: s.OpenedAt})
}

// message is one of a mailbox's messages.
func (w *World) message(mailbox int, uid uint32, section string) broker.OpenedMessage {
	return broker.OpenedMessage{UID: uid, Seq: uid, Section: section, Octets: 2000 + int64(uid*7919%40000), MessageID: MessageID(mailbox, uid)}
}

// MessageID is that of a message.
func MessageID(mailbox int, uid uint32) string {
	return fmt.Sprintf("<%d.%08x@mail.market.example>", mailbox, uint64(uid)*2654435761%(1<<32))
}

func domain(address string) string { return address[strings.IndexByte(address, '@')+1:] }

// alarm raises an alert on a mailbox, as the upstream's refusal of a credential
// does.
func (w *World) alarm(ctx context.Context) error {
	x := w.seats[7]
	if err := w.flush(ctx); err != nil {
		return err
	}
	if err := w.Store.AppendEvents(ctx, []*broker.Event{{
		Time: w.now, Type: broker.EventDrift, FirmID: w.Mailboxes[x.mailbox].FirmID, Actor: broker.Actor{Kind: "system", Name: "one"},
		MailboxID: w.Mailboxes[x.mailbox].ID, AgentID: w.Agents[x.agent].ID, WorkstationID: w.Workstations[x.workstation].ID,
		Data: broker.Drift{Protocol: broker.ProtocolIMAP, Answer: "NO [AUTHENTICATIONFAILED] refused"},
	}}); err != nil {
		return err
	}
	w.stored++
	all, err := w.Store.Alerts(ctx, broker.AlertQuery{Limit: 10})
	if err != nil {
		return err
	}
	w.Alert = all[0].ID
	return nil
}

// flush stores what was made.
func (w *World) flush(ctx context.Context) error {
	if len(w.pending) == 0 {
		return nil
	}
	if err := w.Store.AppendEvents(ctx, w.pending); err != nil {
		return err
	}
	w.stored += len(w.pending)
	w.pending = w.pending[:0]
	return nil
}

// id makes an id of the clock's time (RFC 9562 §5.7).
func (w *World) id() broker.ID {
	var u uuid.UUID
	binary.BigEndian.PutUint64(u[:8], uint64(w.now.UnixMilli())<<16|w.random.Uint64N(1<<12))
	binary.BigEndian.PutUint64(u[8:], w.random.Uint64())
	u[6], u[8] = u[6]&0x0f|0x70, u[8]&0x3f|0x80
	return broker.ID(u.String())
}
