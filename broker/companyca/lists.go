// SPDX-License-Identifier: Apache-2.0

package companyca

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Revocation is how it is known what an authority's CAs have revoked.
type Revocation struct {
	// Files and URLs are where their lists are; of each CA the newest counts.
	Files, URLs []string
	// Interval is how often a URL is asked.
	Interval time.Duration
	// AllowStale lets certificates pass when the list is out of date, or there is
	// none.
	AllowStale bool
	// Directory keeps the lists that came from URLs, so that a restart does not
	// fall back behind them.
	Directory string
}

// source is a place that lists come from.
type source struct {
	authority *Authority
	// path is the file, or for a URL where its last list is kept.
	path, url string
	// seen is what was last made of its content.
	seen [sha256.Size]byte
	err  error
}

func (c *source) String() string {
	if c.url != "" {
		return c.url
	}
	return c.path
}

// standing is what is known of one CA's list.
type standing struct {
	list *list
	// told is what was last said of it.
	told broker.ListState
}

// lists are those in use, by issuer.
type lists struct {
	mu  sync.RWMutex
	all map[[sha256.Size]byte]standing
}

func (l *lists) of(id [sha256.Size]byte) standing {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.all[id]
}

func (l *lists) put(id [sha256.Size]byte, s standing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = make(map[[sha256.Size]byte]standing)
	}
	l.all[id] = s
}

func newSources(authorities []Authority) []*source {
	var all []*source
	for i := range authorities {
		a := &authorities[i]
		if a.Revocation == nil {
			continue
		}
		for _, file := range a.Revocation.Files {
			all = append(all, &source{authority: a, path: file})
		}
		for _, url := range a.Revocation.URLs {
			sum := sha256.Sum256([]byte(a.Name + "\x00" + url))
			all = append(all, &source{authority: a, url: url, path: filepath.Join(a.Revocation.Directory, hex.EncodeToString(sum[:8])+".crl")})
		}
	}
	return all
}

// readLists takes over what is new in files, and the first time what was kept of
// URLs. The error is about all that cannot be used as they are. s.mu is held.
func (s *CAs) readLists(first bool) error {
	var wrong []error
	for _, c := range s.sources {
		if c.url != "" && !first {
			continue
		}
		b, err := readList(c.path, s.config.MaxList)
		if c.url != "" && errors.Is(err, os.ErrNotExist) {
			continue // nothing was fetched yet
		}
		if err == nil {
			err = s.take(c, b)
		} else {
			if c.err == nil || c.err.Error() != err.Error() {
				s.refused(c, err)
			}
			c.seen = [sha256.Size]byte{}
		}
		if c.err = err; err != nil {
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

// readList reads a file, no further than just beyond what a list may have.
func readList(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// take takes over the lists in b, where they are newer. s.mu is held. What was
// looked at before gets the same answer, and no record.
func (s *CAs) take(c *source, b []byte) error {
	sum := sha256.Sum256(b)
	if sum == c.seen {
		return c.err
	}
	c.seen = sum
	c.err = s.takeNew(c, b)
	if c.err != nil {
		c.err = fmt.Errorf("the revocation list from %s %w", c, c.err)
		s.refused(c, c.err)
	}
	return c.err
}

func (s *CAs) takeNew(c *source, b []byte) error {
	parsed, err := parseLists(b, s.config.MaxList)
	if err != nil {
		return err
	}
	g := s.current.Load()
	for _, rl := range parsed {
		var of *issuer
		var found *list
		err := fmt.Errorf("is of %q, which is no CA of %s", rl.Issuer, c.authority.Name)
		for _, i := range g.bySubject[string(rl.RawIssuer)] {
			if i.authority != c.authority {
				continue
			}
			if found, err = i.listOf(rl, s.now()); err == nil {
				of = i
				break
			}
		}
		if err != nil {
			return err
		}
		newer, err := found.follows(s.lists.of(of.id).list)
		if err != nil {
			return err
		}
		if newer {
			s.lists.put(of.id, standing{list: found})
			s.tell(of, c.String(), broker.ListTaken)
			s.compare(of)
		}
	}
	return nil
}

// refused tells that a list cannot be used.
func (s *CAs) refused(c *source, err error) {
	s.metrics.failures.WithLabelValues(c.authority.Name).Inc()
	s.logger.Error("a revocation list cannot be used; the one before stays", zap.String("authority", c.authority.Name), zap.Error(err))
	s.record(broker.AuthorityList{Authority: c.authority.Name, State: broker.ListRefused, Source: c.String(), Detail: err.Error()})
}

// tell notes, logs and records what has become of a CA's list, and tells the
// subscribers, who may find certificates to be good no more.
func (s *CAs) tell(i *issuer, from string, state broker.ListState) {
	now := s.lists.of(i.id)
	now.told = state
	s.lists.put(i.id, now)
	told := broker.AuthorityList{Authority: i.authority.Name, Issuer: i.certificates[0].Subject.String(), State: state, Source: from}
	fields := []zap.Field{zap.String("authority", told.Authority), zap.String("issuer", told.Issuer)}
	if l := now.list; l != nil {
		told.ThisUpdate, told.NextUpdate, told.Revoked = l.thisUpdate.UTC(), l.nextUpdate.UTC(), len(l.revoked)
		if l.number != nil {
			told.Number = l.number.String()
		}
		fields = append(fields, zap.Time("next_update", told.NextUpdate), zap.Int("revoked", told.Revoked))
	}
	switch refuses := !i.authority.Revocation.AllowStale; {
	case state == broker.ListTaken:
		s.logger.Info("a revocation list was taken over", fields...)
	case state == broker.ListExpiring:
		s.logger.Warn("a revocation list is about to be out of date, and none newer has come", fields...)
	case refuses:
		s.logger.Error("what a company's CA has revoked is not known: its certificates open nothing", fields...)
	default:
		s.logger.Error("what a company's CA has revoked is not known: its certificates are let in, as the configuration says", fields...)
	}
	s.record(told)
	s.gauge()
	s.subscribers.call()
}

func (s *CAs) record(told broker.AuthorityList) {
	if s.config.Record != nil {
		s.config.Record(told)
	}
}

// gauge shows for each authority when the first of its lists is out of date.
func (s *CAs) gauge() {
	first := make(map[string]*list)
	for _, i := range s.current.Load().byID {
		if i.authority.Revocation == nil {
			continue
		}
		l := s.lists.of(i.id).list
		before, there := first[i.authority.Name]
		if !there || before != nil && (l == nil || l.nextUpdate.Before(before.nextUpdate)) {
			first[i.authority.Name] = l
		}
	}
	for name, l := range first {
		var due, end float64
		if l != nil {
			due, end = float64(l.due().Unix()), float64(l.nextUpdate.Unix())
		}
		s.metrics.due.WithLabelValues(name).Set(due)
		s.metrics.nextUpdate.WithLabelValues(name).Set(end)
	}
}

// lookAtClock tells of lists that are out of date, or soon will be.
func (s *CAs) lookAtClock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.current.Load().byID {
		if i.authority.Revocation != nil {
			s.compare(i)
		}
	}
}

// compare compares one CA's list with the clock. s.mu is held.
func (s *CAs) compare(i *issuer) {
	known := s.lists.of(i.id)
	if state := stateOf(known.list, s.now()); state != known.told && state != broker.ListTaken {
		s.tell(i, "", state)
	}
}

// due is when a list is about to be out of date: in the last twentieth of its
// life. AD CS, for one, publishes the next one a tenth of it ahead.
func (l *list) due() time.Time { return l.nextUpdate.Add(-l.nextUpdate.Sub(l.thisUpdate) / 20) }

// stateOf says what time has made of a list.
func stateOf(l *list, now time.Time) broker.ListState {
	switch {
	case l == nil:
		return broker.ListMissing
	case !now.Before(l.nextUpdate):
		return broker.ListStale
	case !now.Before(l.due()):
		return broker.ListExpiring
	}
	return broker.ListTaken
}

// revoked returns an error for a certificate that is on its CA's list, and for
// every one when there is no list to go by.
func (s *CAs) revoked(a *Authority, c *broker.CompanyCertificate, now time.Time) error {
	if a.Revocation == nil {
		return nil
	}
	l := s.lists.of(c.Issuer).list
	if l != nil {
		if _, there := l.revoked[c.Serial]; there {
			return denied(reasonRevoked, "its CA has revoked it")
		}
	}
	if state := stateOf(l, now); (state == broker.ListMissing || state == broker.ListStale) && !a.Revocation.AllowStale {
		err := broker.Errorf(broker.Unavailable, "what %s has revoked is not known: its list is %s", a.Name, state)
		err.Reason = reasonUnknown
		return err
	}
	return nil
}

// keep writes what came from a URL where the next start finds it.
func (c *source) keep(b []byte, limit int64) error {
	if old, err := readList(c.path, limit); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(c.path), "*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), c.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
