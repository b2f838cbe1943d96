// SPDX-License-Identifier: Apache-2.0

// Package filewatch tells when files change that others replace: certificates,
// lists of what a CA has revoked. It watches their directories, not the files:
// renewals replace a file by a rename, and Kubernetes a symbolic link beside it
// (..data). Whoever is told reads the files anew, and finds out what is new.
//
// Callers: proxy, broker/companyca.
package filewatch

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is between the first change and the call: a certificate and its key
// are rarely replaced in one step.
const settle = 200 * time.Millisecond

// Run calls changed once when it watches, for what changed before, and then
// whenever something happens in the directories of paths, until ctx is
// cancelled. trouble is told what may have hidden a change, which then counts as
// one.
func Run(ctx context.Context, paths []string, changed func(), trouble func(error)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	defer watcher.Close()
	for _, path := range paths {
		if err := watcher.Add(filepath.Dir(path)); err != nil {
			return fmt.Errorf("watch %s: %w", filepath.Dir(path), err)
		}
	}
	changed()
	// The first event starts the clock and later ones do not push it back: a
	// directory in which something always happens must not hold a reload off.
	var settled <-chan time.Time
	wait := func() {
		if settled == nil {
			settled = time.After(settle)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			wait()
		case err := <-watcher.Errors:
			// An overflow of the queue, in all likelihood: look for ourselves.
			trouble(err)
			wait()
		case <-settled:
			settled = nil
			changed()
		}
	}
}
