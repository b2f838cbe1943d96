// SPDX-License-Identifier: Apache-2.0

package companyca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/filewatch"
)

// Authority is one that is trusted by configuration.
type Authority struct {
	// Name stands in workstations' records: it must never mean another CA.
	Name string
	// CAFile holds the certificates of the CAs that issue workstations'
	// certificates themselves; PEM.
	CAFile string
	// Rule is what names a workstation, and Class the best that one passes for.
	Rule  Rule
	Class broker.WorkstationClass
	// Revocation is where its lists are; nil: it is not asked what is revoked.
	Revocation *Revocation
}

// Config is what New needs.
type Config struct {
	Authorities []Authority
	// OwnFiles hold the CAs that issue certificates for Postern itself; PEM. None
	// of them can be an authority's.
	OwnFiles []string
	// MaxList takes the place of the constant when it is not 0.
	MaxList int64
	// Record takes what is to stand in the log; nil: nothing does. It must not
	// block.
	Record func(broker.AuthorityList)
	Logger *zap.Logger
	// Registerer takes the metrics; nil: they are kept and not shown.
	Registerer prometheus.Registerer
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// CAs are all authorities. Their files are read anew when they change (Run) or
// on demand (Reload); what cannot be used changes nothing.
type CAs struct {
	config Config
	logger *zap.Logger
	now    func() time.Time

	mu      sync.Mutex // one change at a time; guards files and sources
	files   [][]byte
	sources []*source
	current atomic.Pointer[generation]

	lists       lists
	metrics     metrics
	subscribers subscribers
}

var _ broker.CompanyCAs = (*CAs)(nil)

// New reads the authorities; the error names the file.
func New(config Config) (*CAs, error) {
	s := &CAs{config: config, logger: config.Logger, now: config.Now}
	if s.logger == nil {
		s.logger = zap.NewNop()
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.config.MaxList == 0 {
		s.config.MaxList = MaxList
	}
	for i, a := range config.Authorities {
		switch {
		case a.Name == "" || a.CAFile == "":
			return nil, errors.New("companyca: an authority needs a name and a file")
		case !slices.Contains(Rules(), a.Rule):
			return nil, fmt.Errorf("companyca: %s: no such rule: %q", a.Name, a.Rule)
		case a.Class != broker.ClassHardware && a.Class != broker.ClassSoftware:
			return nil, fmt.Errorf("companyca: %s: no such class: %q", a.Name, a.Class)
		case slices.ContainsFunc(config.Authorities[:i], func(b Authority) bool { return a.Name == b.Name }):
			return nil, fmt.Errorf("companyca: the name %s is there twice", a.Name)
		}
	}
	if len(config.Authorities) == 0 {
		s.config.OwnFiles = nil // there is nothing to compare them with
	}
	s.sources = newSources(s.config.Authorities)
	var err error
	if s.metrics, err = newMetrics(config.Registerer, config.Authorities); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.readCAs(); err != nil {
		return nil, err
	}
	// A list that cannot be used keeps its own authority's machines out, and
	// nobody else: it is logged, and CheckLists says so.
	_ = s.readLists(true)
	s.gauge()
	return s, nil
}

// Reload reads all files. The CAs are taken over all or nothing, and each list
// for itself; what cannot be used leaves what was there before.
func (s *CAs) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.readCAs(), s.readLists(false))
}

// CheckLists returns what is wrong with the lists, as they were last read.
func (s *CAs) CheckLists() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var wrong []error
	for _, c := range s.sources {
		wrong = append(wrong, c.err)
	}
	return errors.Join(wrong...)
}

// readCAs takes over the authorities' certificates. s.mu is held.
func (s *CAs) readCAs() error {
	var files [][]byte
	for _, path := range s.paths() {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files = append(files, b)
	}
	if s.files != nil && slices.EqualFunc(files, s.files, bytes.Equal) {
		return nil
	}
	g, err := newGeneration(&s.config, files)
	if err != nil {
		return err
	}
	s.current.Store(g)
	s.files = files
	for _, c := range s.sources {
		c.seen = [sha256.Size]byte{} // it may be of a CA that is new
	}
	s.subscribers.call()
	return nil
}

func (s *CAs) paths() []string {
	var paths []string
	for _, a := range s.config.Authorities {
		paths = append(paths, a.CAFile)
	}
	return append(paths, s.config.OwnFiles...)
}

// Run follows the files, fetches lists and looks at the clock until ctx ends.
func (s *CAs) Run(ctx context.Context) error {
	if len(s.config.Authorities) == 0 {
		<-ctx.Done()
		return nil
	}
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := s.paths()
	for _, c := range s.sources {
		if c.url != "" {
			all.Go(func() { s.fetchAll(ctx, c) })
		} else {
			watched = append(watched, c.path)
		}
	}
	all.Go(func() { every(ctx, clockInterval, s.lookAtClock) })
	err := filewatch.Run(ctx, watched, s.follow, func(err error) {
		s.logger.Warn("watching the company's CAs", zap.Error(err))
	})
	if err != nil {
		// A folder that is not there yet, or too many watches: revocations must
		// not wait for that.
		s.logger.Error("the company's CAs are not watched: their files are read every few seconds instead", zap.Error(err))
		every(ctx, pollInterval, s.follow)
	}
	return nil
}

// every calls f again and again until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// follow takes over what has changed. What is wrong with a list was logged when
// it was first seen.
func (s *CAs) follow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.readCAs(); err != nil {
		s.logger.Error("the company's CAs were not reloaded; the old ones stay in use", zap.Error(err))
	}
	_ = s.readLists(false)
}

// Identify is described at broker.CompanyCAs.
func (s *CAs) Identify(c *x509.Certificate) (*broker.CompanyCertificate, error) {
	return s.current.Load().identify(c, s.now())
}

// The reasons of refusals, for the log.
const (
	reasonUnfit     = "unfit-certificate"
	reasonExpired   = "expired-certificate"
	reasonUntrusted = "untrusted-authority"
	reasonRevoked   = "revoked-certificate"
	reasonUnknown   = "revocation-unknown"
)

func denied(reason, format string, args ...any) error {
	err := broker.Errorf(broker.Denied, format, args...)
	err.Reason = reason
	return err
}

// Standing is described at broker.CompanyCAs.
func (s *CAs) Standing(c *broker.CompanyCertificate) error {
	i := s.current.Load().byID[c.Issuer]
	if i == nil || i.authority.Name != c.Authority {
		return denied(reasonUntrusted, "its CA is no longer one of %s", c.Authority)
	}
	now := s.now()
	if now.Before(c.NotBefore) || now.After(c.NotAfter) {
		return denied(reasonExpired, "it is valid from %s to %s", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
	}
	return s.revoked(i.authority, c, now)
}

// Subscribe is described at broker.CompanyCAs.
func (s *CAs) Subscribe(f func()) (cancel func()) { return s.subscribers.add(f) }

// Named is described at broker.CompanyCAs.
func (s *CAs) Named(n broker.CertificateName) (broker.CertificateName, broker.WorkstationClass, error) {
	a, err := s.authority(n.Authority)
	if err != nil {
		return n, "", err
	}
	name, wrong := a.Rule.normal(n.Name)
	if wrong != "" {
		return n, "", broker.InvalidField("certificate_name.name", "%s", wrong)
	}
	return broker.CertificateName{Authority: a.Name, Name: name}, a.Class, nil
}

func (s *CAs) authority(name string) (*Authority, error) {
	all := s.config.Authorities
	switch {
	case len(all) == 0:
		return nil, broker.InvalidField("certificate_name.authority", "this server knows no company's CA by rule: see its configuration's workstations.authorities")
	case name == "" && len(all) == 1:
		return &all[0], nil
	}
	var names []string
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
		names = append(names, all[i].Name)
	}
	return nil, broker.InvalidField("certificate_name.authority", "there is no authority %q: use one of %q", name, names)
}

// issuerID stands for a CA: its name and its key.
func issuerID(c *x509.Certificate) [sha256.Size]byte {
	name := sha256.Sum256(c.RawSubject)
	key := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return sha256.Sum256(append(name[:], key[:]...))
}
