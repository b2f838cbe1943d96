// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/postern-mail/postern/broker/sealed"
)

// inSealed are credentials in a file, for which nothing must be done.
type inSealed struct{ *sealed.Store }

// Run waits.
func (inSealed) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func openSealed(c *SealedConfig) (credentials, error) {
	config := sealed.Config{Path: c.File, IdentityFile: c.IdentityFile}
	if c.PassphraseFile != "" {
		config.Passphrase = sealed.PassphraseFile(c.PassphraseFile)
	}
	s, err := sealed.Open(config)
	if err != nil {
		return nil, keyError("credentials.sealed", err)
	}
	return inSealed{s}, nil
}
