// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"slices"
)

// This file holds what the two goroutines of a relay do with the state they
// share; each method takes the mutex for a few instructions.

func (r *relay) nothingUnderWay() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending) == 0
}

// admits reports whether there is room for a command upstream, and whether
// none with its tag is under way.
func (r *relay) admits(tag []byte) (room, unique bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.pending {
		if r.pending[i].is(tag) {
			return roomToPipeline(r), false
		}
	}
	return roomToPipeline(r), true
}

// completed takes the command out that the upstream's tag completes. Until
// answered is called, the client's goroutine does not take it for answered.
func (r *relay) completed(tag []byte) (inFlight, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.pending {
		if !r.pending[i].is(tag) {
			continue
		}
		c := r.pending[i]
		r.pending = slices.Delete(r.pending, i, i+1)
		r.answering = true
		if len(r.pending) == 0 {
			r.expect = expectNothing
			if cap(r.pending) > 8 {
				r.pending = nil
			}
		}
		return c, true
	}
	return inFlight{}, false
}

// answered ends what completed began, after the answer has gone out, or was
// handed over, and wakes the client's goroutine.
func (r *relay) answered() {
	r.mu.Lock()
	r.answering = false
	r.signalLocked()
	r.mu.Unlock()
}

// continuationFor tells what a continuation request is for.
func (r *relay) continuationFor() expectation {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.granted {
		return expectNothing
	}
	return r.expect
}

func (r *relay) grant() {
	r.mu.Lock()
	r.granted = true
	r.expect = expectNothing
	r.signalLocked()
	r.mu.Unlock()
}

func (r *relay) loggingOut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.pending, func(c inFlight) bool { return c.kind == logout })
}

// selectingFolder returns the folder that a SELECT under way selects.
func (r *relay) selectingFolder() (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.pending {
		if r.pending[i].kind == selecting {
			return r.pending[i].change.folder, true
		}
	}
	return "", false
}

// setIdling begins or ends the client's IDLE; the upstream's goroutine then
// arms or disarms its keep-alive.
func (r *relay) setIdling(idling bool) {
	r.mu.Lock()
	if r.idling.Load() != idling {
		r.idling.Store(idling)
		r.wakeLocked()
	}
	r.mu.Unlock()
}

// idleOver reports whether the upstream has ended IDLE by itself.
func (r *relay) idleOver() bool { return r.nothingUnderWay() }

// doneSent notes that DONE goes upstream. When the upstream has ended IDLE by
// itself just before, it takes that DONE for a command of that tag.
func (r *relay) doneSent() {
	r.mu.Lock()
	r.doneCrossed = true
	r.mu.Unlock()
}

// strayDone reports whether an answer to a command tagged DONE is the answer
// to one that crossed the end of IDLE.
func (r *relay) strayDone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	stray := r.doneCrossed
	r.doneCrossed = false
	return stray
}

// hideIdleAnswer makes the answer to the IDLE under way Postern's own; false:
// there is none under way any more.
func (r *relay) hideIdleAnswer() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pending) == 0 {
		return false
	}
	r.pending[0].kind = hidden
	return true
}

// sayChanges is say behind what has changed in the folder of a view. From then on
// numbered counts as the client will.
func (r *relay) sayChanges(expunge bool, format string, args ...any) {
	r.mu.Lock()
	r.local = fmt.Appendf(r.view.mail.tell(r.local, expunge), format, args...)
	r.wakeLocked()
	r.mu.Unlock()
}

// numbered returns the client's number and the UID of a message by the upstream's
// number, and the words that the client must have read for that number to mean it.
func (r *relay) numbered(n uint32) (seq, uid uint32, words []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if words, r.local = r.local, nil; words != nil {
		r.signalLocked()
	}
	seq, uid = r.view.mail.number(n)
	return seq, uid, words
}

// wantIdentified queues a message whose Message-ID is not known yet.
func (r *relay) wantIdentified(uid uint32) {
	r.mu.Lock()
	if len(r.identify) < maxIdentified {
		r.identify = append(r.identify, uid)
	}
	r.mu.Unlock()
}

// wantsIdentify reports whether it is time to ask for Message-IDs: when the
// client pauses, or many have come together.
func (r *relay) wantsIdentify() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.identify) >= maxIdentifyBatch || (len(r.identify) > 0 && nothingPending(r))
}

// takeIdentify takes up to one batch from the queue.
func (r *relay) takeIdentify() []uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.identify), maxIdentifyBatch)
	batch := slices.Clone(r.identify[:n])
	if r.identify = r.identify[n:]; len(r.identify) == 0 {
		r.identify = nil
	}
	return batch
}

// forgetIdentify empties the queue: its folder is no longer selected.
func (r *relay) forgetIdentify() {
	r.mu.Lock()
	r.identify = nil
	r.mu.Unlock()
}
