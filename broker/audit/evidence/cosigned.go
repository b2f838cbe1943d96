// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker/translog"
)

// Cosigned is that a witness has cosigned one of a bundle's checkpoints.
type Cosigned struct {
	Witness string `json:"witness"`
	// Size is how many of the log's events it has cosigned, At when, by its clock.
	Size int64     `json:"size"`
	At   time.Time `json:"at"`
	// Verified says that a witness did, whose key was given. Without, anybody may
	// have put it there.
	Verified bool `json:"verified"`
}

// claims lists what is cosigned by its own word: the largest checkpoint first.
func claims(all []*held) ([]Cosigned, error) {
	var list []Cosigned
	for _, h := range all {
		some, err := translog.Claims(h.note)
		if err != nil {
			return nil, err
		}
		for _, c := range some {
			list = append(list, Cosigned{Witness: c.Name, Size: h.Size, At: c.At})
		}
	}
	slices.SortStableFunc(list, func(a, b Cosigned) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), strings.Compare(a.Witness, b.Witness))
	})
	return list, nil
}

// witnesses finds what was cosigned. Each witness whose key was given must have
// cosigned a checkpoint that covers the last of the bundle's events: else its
// end could have been rewritten without that witness's knowing. And where that is
// the checkpoint's last too, it must have done so after the period: else what
// followed could have been left out.
func (v *verification) witnesses() error {
	for _, w := range v.trust.Witnesses {
		reach, until := int64(0), time.Time{}
		for _, h := range v.held {
			some, err := translog.Claims(h.note)
			if err != nil {
				return &Fault{err}
			}
			if !slices.ContainsFunc(some, func(c translog.Claim) bool { return c.Name == w.Name() && c.Hash == w.KeyHash() }) {
				continue
			}
			at, err := w.Cosignature(h.note)
			if err != nil {
				return fault("the checkpoint of %d events bears a false cosignature of %s: %w", h.Size, w.Name(), err)
			}
			if reach = max(reach, h.Size); h.Size > v.Manifest.Last && at.After(until) {
				until = at
			}
			v.Cosigned = append(v.Cosigned, Cosigned{w.Name(), h.Size, at, true})
		}
		switch {
		case reach == 0:
			return fault("the witness %s, whose key was given, has cosigned none of its checkpoints", w.Name())
		case reach <= v.Manifest.Last:
			return fault("the witness %s has cosigned %d events of the log, and the bundle goes on to event %d: what follows could have been rewritten without its knowing. Have one made with 'postern evidence make --witness'", w.Name(), reach, v.Manifest.Last)
		case v.Manifest.open() && until.Add(Margin).Before(v.Manifest.Until):
			return fault("the witness %s has cosigned the log as it was at %s, and the period ends at %s: what was recorded in between may not be here. Have one made of a period that ends before, or of the log as it is", w.Name(), until.Format(time.RFC3339), v.Manifest.Until.Format(time.RFC3339))
		}
	}
	others, err := claims(v.held)
	if err != nil {
		return &Fault{err}
	}
	for _, c := range others {
		if !slices.ContainsFunc(v.Cosigned, func(k Cosigned) bool { return k.Witness == c.Witness && k.Size == c.Size }) {
			v.Cosigned = append(v.Cosigned, c)
		}
	}
	return nil
}
