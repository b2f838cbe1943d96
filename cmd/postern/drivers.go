// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/rotation/driver"
)

// newDrivers makes the drivers that change passwords at providers.
func newDrivers(c *Config) (map[string]broker.Driver, error) {
	roots, err := readCAs("upstream.ca_file", c.Upstream.CAFile)
	if err != nil {
		return nil, err
	}
	programs := make(map[string]driver.Program)
	for i, p := range c.Rotation.Programs {
		key := fmt.Sprintf("rotation.programs[%d]", i)
		if _, twice := programs[p.Name]; twice || p.Name == "" {
			return nil, keyError(key, errors.New("a program needs a name of its own"))
		}
		firms := make([]broker.ID, 0, len(p.Firms))
		for _, firm := range p.Firms {
			id, err := broker.ParseID(firm)
			if err != nil {
				return nil, keyError(key, fmt.Errorf("%q is no firm's id", firm))
			}
			firms = append(firms, id)
		}
		programs[p.Name] = driver.Program{Path: p.Path, Args: p.Args, Actions: p.Actions, Firms: firms}
	}
	drivers, err := driver.New(driver.Config{RootCAs: roots, Programs: programs})
	if err != nil {
		return nil, keyError("rotation.programs", err)
	}
	return drivers, nil
}
