// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// settle is between the first change and the rereading: a certificate and its
// key are rarely replaced in one step.
const settle = 200 * time.Millisecond

// Run rereads the certificates when their files change, until ctx is
// cancelled. It watches directories, not files: renewals replace a file by a
// rename, and Kubernetes a symbolic link beside it (..data).
func (c *Certificates) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch certificates: %w", err)
	}
	defer watcher.Close()
	for _, path := range c.paths() {
		if err := watcher.Add(filepath.Dir(path)); err != nil {
			return fmt.Errorf("watch %s: %w", filepath.Dir(path), err)
		}
	}
	// What changed since NewCertificates, before there was a watch.
	c.reloadAndLog()
	// The first event starts the clock and later ones do not push it back: a
	// directory in which something always happens must not hold a reload off.
	var settled <-chan time.Time
	changed := func() {
		if settled == nil {
			settled = time.After(settle)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			changed()
		case err := <-watcher.Errors:
			// An overflow of the queue, in all likelihood: look for ourselves.
			c.logger.Warn("watching certificates", zap.Error(err))
			changed()
		case <-settled:
			settled = nil
			c.reloadAndLog()
		}
	}
}

func (c *Certificates) reloadAndLog() {
	if err := c.Reload(); err != nil {
		c.logger.Error("certificates not reloaded; the old ones stay in use", zap.Error(err))
	}
}
