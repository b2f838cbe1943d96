// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/rotation/driver"
)

// newDrivers makes the drivers that change passwords at providers.
func newDrivers(c *Config) (map[string]broker.Driver, error) {
	roots, err := readCAs("upstream.ca_file", c.Upstream.CAFile)
	if err != nil {
		return nil, err
	}
	drivers, err := driver.New(driver.Config{RootCAs: roots})
	if err != nil {
		return nil, keyError("rotation", err)
	}
	return drivers, nil
}
