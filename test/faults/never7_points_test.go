// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"net/http"
	"slices"
	"strings"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// place is where a rotation reaches out of the process.
type place string

const (
	// atVault is a request to Vault: see point.method and point.path.
	atVault place = "vault"
	// atProvider is the connection that asks the provider for the new password.
	atProvider place = "provider"
	// atLogins are a login to IMAP and one to submission.
	atLogins place = "logins"
)

// when is on which side of the step the rotator dies.
type when string

const (
	// before: the journal's entry is written, and nobody has heard of the step.
	before when = "before"
	// answered: it was done, and its answer has not arrived.
	answered when = "answered"
	// unwritten: it was done and answered, and the next entry is not written:
	// the test holds the state's one write lock.
	unwritten when = "unwritten"
)

// point is an instant in the life of a rotation: the last entry of its journal,
// the outward step that follows it, and the side of that step. What is held at
// gates in front of Vault, the provider and the mail servers is provably there.
type point struct {
	state broker.RotationState
	place place
	when  when
	// method and path are those of a request to Vault: the path is what stands
	// after the mount, of the firm's secrets its kind ("data/…/mailboxes").
	method, path string
	// twice says that a rotation which was cut off before the provider had heard
	// of it is here a second time: now with a password that the provider has.
	twice bool
}

func (p point) String() string {
	words := []string{string(p.state), string(p.place)}
	if p.place == atVault {
		words = append(words, p.method, p.path)
	}
	if p.twice {
		words = append(words, "again")
	}
	return strings.Join(append(words, string(p.when)), " ")
}

// points are in the order in which one rotation can die at each of them.
var points = []point{
	{state: broker.RotationRequested, place: atVault, method: http.MethodGet, path: "data mailboxes", when: before},
	{state: broker.RotationRequested, place: atVault, method: http.MethodPut, path: "data pending", when: before},
	{state: broker.RotationRequested, place: atVault, method: http.MethodPut, path: "data pending", when: answered},
	{state: broker.RotationPrepared, place: atVault, method: http.MethodGet, path: "data providers", when: before},
	{state: broker.RotationAsking, place: atProvider, when: before},
	{state: broker.RotationAsked, place: atLogins, when: before},
	{state: broker.RotationAsked, place: atLogins, when: unwritten},
	{state: broker.RotationDoubted, place: atLogins, when: before},
	{state: broker.RotationDoubted, place: atLogins, when: unwritten},
	{state: broker.RotationAsking, place: atProvider, when: unwritten},
	{state: broker.RotationAsked, place: atLogins, when: before, twice: true},
	{state: broker.RotationAsked, place: atLogins, when: unwritten, twice: true},
	{state: broker.RotationVerified, place: atLogins, when: before},
	{state: broker.RotationVerified, place: atLogins, when: unwritten},
	{state: broker.RotationOldDead, place: atVault, method: http.MethodPut, path: "data mailboxes", when: before},
	{state: broker.RotationOldDead, place: atVault, method: http.MethodPut, path: "data mailboxes", when: answered},
	{state: broker.RotationCommitted, place: atVault, method: http.MethodGet, path: "data providers", when: before},
	{state: broker.RotationCommitted, place: atVault, method: http.MethodGet, path: "data providers", when: unwritten},
	{state: broker.RotationEnded, place: atVault, method: http.MethodPut, path: "destroy mailboxes", when: before},
	{state: broker.RotationEnded, place: atVault, method: http.MethodPut, path: "destroy mailboxes", when: answered},
	{state: broker.RotationEnded, place: atVault, method: http.MethodDelete, path: "metadata pending", when: before},
	{state: broker.RotationEnded, place: atVault, method: http.MethodDelete, path: "metadata pending", when: answered},
}

// needsDoubt reports whether a rotation comes there only after it was cut off
// before the provider had heard of it.
func (p point) needsDoubt() bool {
	return p.twice || p.state == broker.RotationDoubted || p.state == broker.RotationAsking && p.when == unwritten
}

// aim is a mailbox whose rotation is to be held at a point.
type aim struct {
	*rotatedMailbox
	point
	holds []*servers.Hold
}

// take has what the mailbox's rotation does next kept waiting when it is at the
// point.
func (r *rotated) take(m *rotatedMailbox, p point) *aim {
	r.t.Helper()
	a := &aim{rotatedMailbox: m, point: p}
	there := func() bool {
		j := r.journal(m)
		return j != nil && j.State == p.state
	}
	switch p.place {
	case atProvider:
		a.holds = append(a.holds, m.provider.Hold(there))
	case atLogins:
		a.holds = append(a.holds, m.imap.Hold(there), m.submission.Hold(there))
	default:
		part, kind, _ := strings.Cut(p.path, " ")
		id := m.ID
		if kind == "providers" {
			id = m.Rotation.ProviderID
		}
		begins := "postern/" + part + "/firms/" + string(m.FirmID) + "/" + kind + "/" + string(id)
		a.holds = append(a.holds, r.gate.Hold(func(method, path string) bool {
			return method == p.method && strings.HasPrefix(path, begins) && there()
		}, p.when == answered))
	}
	return a
}

// held reports whether the rotation waits at the point.
func (a *aim) held() bool {
	return !slices.ContainsFunc(a.holds, func(h *servers.Hold) bool { return h.Waiting() == 0 })
}

// crossed reports whether all that was let go on has ended.
func (a *aim) crossed() bool {
	return !slices.ContainsFunc(a.holds, func(h *servers.Hold) bool { return h.Crossing() > 0 })
}

func (a *aim) release() {
	for _, h := range a.holds {
		h.Release()
	}
}

func (a *aim) drop() {
	for _, h := range a.holds {
		h.Drop()
	}
}
