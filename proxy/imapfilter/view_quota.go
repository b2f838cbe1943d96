// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// counts reports whether the FETCH at hand opens what there are quotas on.
func (s *clientSide) counts() bool {
	return s.r.view.counted() && (s.judged.fetch.body || s.judged.needs.Has(policy.Headers))
}

// reserve counts the first of the messages that a FETCH asks for, and returns
// those that may be fetched, and what is left for another part. Sizes are asked
// first, so that no message is cut short. A refusal says that what may be
// fetched is all there is.
//
// A message counts once while its folder is selected, and with its whole size,
// however much of it is read and however often.
func (s *clientSide) reserve(uids []uint32) (part, rest []uint32, refusal string, err error) {
	part, rest = uids[:min(len(uids), maxReserved)], uids[min(len(uids), maxReserved):]
	sizes, err := s.sizes(part)
	if err != nil {
		return nil, nil, "", err
	}
	part = slices.DeleteFunc(slices.Clone(part), func(uid uint32) bool { // it is gone
		size, fresh := sizes[uid]
		return s.judged.fetch.body && fresh && size == unknownSize
	})
	refusal = s.reserveAll(part, sizes)
	if refusal == "" || len(part) == 1 {
		if refusal != "" {
			part = nil
		}
		return part, rest, refusal, nil
	}
	for i, uid := range part { // one by one, as far as it goes
		if refusal = s.reserveAll([]uint32{uid}, sizes); refusal != "" {
			return part[:i], nil, refusal, nil
		}
	}
	return part, rest, "", nil
}

// known are the messages that were counted already as the FETCH at hand counts.
func (s *clientSide) known() *map[uint32]struct{} {
	if s.judged.fetch.body {
		return &s.r.view.opened
	}
	return &s.r.view.headed
}

// sizes asks for the sizes of messages whose bodies were not counted yet.
func (s *clientSide) sizes(uids []uint32) (map[uint32]int64, error) {
	known := *s.known()
	sizes := make(map[uint32]int64)
	var fresh []uint32
	for _, uid := range uids {
		if _, ok := known[uid]; !ok {
			fresh = append(fresh, uid)
			sizes[uid] = unknownSize
		}
	}
	if !s.judged.fetch.body {
		return sizes, nil
	}
	for _, set := range s.r.view.mail.sets(fresh) {
		if err := s.barrier(); err != nil {
			return nil, err
		}
		a, tag := s.expectAnswer()
		a.sizes = sizes
		s.out.Raw(tag + " UID FETCH " + set + " (UID RFC822.SIZE)\r\n")
		s.r.push(inFlight{tag: tag, own: true}, expectNothing)
		err := s.barrier()
		s.r.view.answer.Store(nil)
		if err != nil {
			return nil, err
		}
		if !a.good {
			return nil, errNotShown
		}
	}
	return sizes, nil
}

// reserveAll counts messages, all or none.
func (s *clientSide) reserveAll(uids []uint32, sizes map[uint32]int64) (refusal string) {
	known := s.known()
	r := broker.OpeningReservation{AssignmentID: s.r.session.Record().AssignmentID, Quotas: s.r.decision.Quotas}
	for _, uid := range uids {
		size, fresh := sizes[uid]
		if _, ok := (*known)[uid]; !fresh || ok {
			continue
		}
		if s.judged.fetch.body {
			r.Messages++
			r.Octets += size
		} else {
			r.Headers++
		}
	}
	if r.Messages+r.Headers == 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(s.r.session.Context(), reserveTimeout)
	defer cancel()
	switch err := s.f().counts.ReserveOpening(ctx, &r); {
	case err == nil:
	case broker.CodeOf(err) == broker.Limit:
		s.quotaReached(err)
		return "[LIMIT] " + clean(broker.PublicText(err))
	default:
		return "[UNAVAILABLE] what is opened cannot be counted now"
	}
	if *known == nil {
		*known = make(map[uint32]struct{})
	}
	for _, uid := range uids {
		(*known)[uid] = struct{}{}
	}
	return ""
}

// quotaReached records that a quota refused; the first of its kind in a session.
func (s *clientSide) quotaReached(err error) {
	quota := "unknown"
	if e := (*broker.Error)(nil); errors.As(err, &e) {
		quota = e.Reason
	}
	key := "quota " + quota
	if s.refused[key] {
		return
	}
	if s.refused == nil {
		s.refused = make(map[string]bool)
	}
	s.refused[key] = true
	s.r.session.Submit(broker.EventQuotaReached, broker.QuotaReached{Quota: quota, Folder: s.r.view.folder})
}

// endSize takes in the answer to a question for a size. false: it is none.
func (u *upstreamSide) endSize(a *ownAnswer, line []byte) bool {
	_, after, ok := strings.Cut(strings.ToUpper(string(line)), "RFC822.SIZE ")
	var size int64
	if n, err := fmt.Sscanf(after, "%d", &size); !ok || err != nil || n != 1 || size < 0 || u.fetch.UID == 0 {
		return false
	}
	if _, asked := a.sizes[u.fetch.UID]; asked {
		a.sizes[u.fetch.UID] = size
	}
	return true
}

const (
	// unknownSize is that of a message whose size was not told yet.
	unknownSize = -1
	// maxReserved is how many messages are counted at a time.
	maxReserved = 50
	// reserveTimeout is for one count.
	reserveTimeout = 10 * time.Second
)
