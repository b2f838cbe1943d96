// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

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
}

func (c *AuthorityConfig) complete(absolute func(...*string)) {
	absolute(&c.CAFile)
	setDefault(&c.Class, string(broker.ClassSoftware))
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
	}
}

// newCompanyCAs reads the company's own CAs.
func newCompanyCAs(c *Config, logger *zap.Logger) (*companyca.CAs, error) {
	config := companyca.Config{OwnFiles: c.ownCAFiles(), Logger: logger}
	for _, a := range c.Workstations.Authorities {
		config.Authorities = append(config.Authorities, companyca.Authority{
			Name: a.Name, CAFile: a.CAFile, Rule: companyca.Rule(a.NameFrom), Class: broker.WorkstationClass(a.Class),
		})
	}
	cas, err := companyca.New(config)
	if err != nil {
		return nil, keyError("workstations.authorities", err)
	}
	return cas, nil
}
