// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker/filewatch"
)

// Run rereads the certificates when their files change, until ctx is
// cancelled.
func (c *Certificates) Run(ctx context.Context) error {
	return filewatch.Run(ctx, c.paths(), c.reloadAndLog, func(err error) {
		c.logger.Warn("watching certificates", zap.Error(err))
	})
}

func (c *Certificates) reloadAndLog() {
	if err := c.Reload(); err != nil {
		c.logger.Error("certificates not reloaded; the old ones stay in use", zap.Error(err))
	}
}
