// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/companyca"
)

// AuthorityConfig is broker/companyca's: a company's own CA whose certificates
// name workstations.
type AuthorityConfig struct {
	Name     string `yaml:"name"`
	CAFile   string `yaml:"ca_file"`
	NameFrom string `yaml:"name_from"`
	Class    string `yaml:"class"`
	// Revocation is where the CA's revocation lists are.
	Revocation *RevocationConfig `yaml:"revocation"`
}

// RevocationConfig says how it is known what a company's CA has revoked.
type RevocationConfig struct {
	Files     []string `yaml:"files"`
	URLs      []string `yaml:"urls"`
	Interval  duration `yaml:"interval"`
	WhenStale string   `yaml:"when_stale"`
}

// What happens when a list is out of date.
const (
	staleRefuse = "refuse"
	staleAllow  = "allow"
)

func (c *AuthorityConfig) complete(absolute func(...*string)) {
	absolute(&c.CAFile)
	setDefault(&c.Class, string(broker.ClassSoftware))
	if r := c.Revocation; r != nil {
		for i := range r.Files {
			absolute(&r.Files[i])
		}
		setDefault(&r.Interval, duration(companyca.DefaultInterval))
		setDefault(&r.WhenStale, staleRefuse)
	}
}

func (v *validator) authorities(all []AuthorityConfig) {
	var rules []string
	for _, r := range companyca.Rules() {
		rules = append(rules, string(r))
	}
	for i, a := range all {
		key := fmt.Sprintf("workstations.authorities[%d]", i)
		v.check(broker.ValidCertificateName(a.Name), key+".name", "give the authority a name that stands in workstations' records, and keep it")
		v.check(!slices.ContainsFunc(all[:i], func(b AuthorityConfig) bool { return a.Name == b.Name }), key+".name", "%s is there twice", a.Name)
		v.check(a.CAFile != "", key+".ca_file", "name the PEM file with the CA that issues the workstations' certificates itself")
		v.check(slices.Contains(rules, a.NameFrom), key+".name_from", "say what in a certificate names its workstation: %s", strings.Join(rules, ", "))
		v.check(a.Class == string(broker.ClassHardware) || a.Class == string(broker.ClassSoftware), key+".class", "give hardware or software")
		if a.Revocation != nil {
			v.revocation(key+".revocation", a.Revocation)
		}
	}
}

func (v *validator) revocation(key string, c *RevocationConfig) {
	v.check(len(c.Files)+len(c.URLs) > 0, key, "give files or urls, or both")
	for i, file := range c.Files {
		v.check(file != "", fmt.Sprintf("%s.files[%d]", key, i), "name a file, in DER or PEM")
	}
	for i, text := range c.URLs {
		u, err := url.Parse(text)
		v.check(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil,
			fmt.Sprintf("%s.urls[%d]", key, i), `give a URL such as "http://pki.corp.example/issuing-ca.crl"`)
	}
	v.between(key+".interval", c.Interval, time.Second, 24*time.Hour)
	v.check(c.WhenStale == staleRefuse || c.WhenStale == staleAllow, key+".when_stale", "give refuse or allow")
}

// newCompanyCAs reads the company's own CAs.
func newCompanyCAs(c *Config, record func(broker.AuthorityList), logger *zap.Logger, registry prometheus.Registerer) (*companyca.CAs, error) {
	config := companyca.Config{OwnFiles: c.ownCAFiles(), Record: record, Logger: logger, Registerer: registry}
	for _, a := range c.Workstations.Authorities {
		authority := companyca.Authority{
			Name: a.Name, CAFile: a.CAFile, Rule: companyca.Rule(a.NameFrom), Class: broker.WorkstationClass(a.Class),
		}
		if r := a.Revocation; r != nil {
			authority.Revocation = &companyca.Revocation{
				Files: r.Files, URLs: r.URLs, Interval: time.Duration(r.Interval), AllowStale: r.WhenStale == staleAllow,
				Directory: filepath.Join(c.DataDir, revocationDir),
			}
		}
		config.Authorities = append(config.Authorities, authority)
	}
	cas, err := companyca.New(config)
	if err != nil {
		return nil, keyError("workstations.authorities", err)
	}
	return cas, nil
}

// openCompanyCAs reads them for the server, whose log has what becomes of their
// lists.
func (s *server) openCompanyCAs() (err error) {
	s.companyCAs, err = newCompanyCAs(s.config, func(told broker.AuthorityList) {
		receipt := s.log.Submit(&broker.Event{
			Type: broker.EventAuthorityList, Actor: broker.Actor{Kind: "system", Name: s.config.Node}, Data: told,
		})
		if receipt.Settled() {
			if err := receipt.Wait(context.Background()); err != nil {
				s.logger.Error("an event was not recorded", zap.String("type", string(broker.EventAuthorityList)), zap.Error(err))
			}
		}
	}, s.logger.Named("company-ca"), s.registry)
	return err
}
