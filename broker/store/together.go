// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"runtime/debug"
)

// togetherKey is where the context of Together keeps its transaction. It names
// the store, so that no other takes the transaction for its own.
type togetherKey struct{ store *Store }

// Together has all that is changed and read with the context that do is given
// done in one transaction, which is committed when do returns nil. A change
// that failed may have left its half: then nothing is committed, whatever do
// returns.
//
// do runs on the goroutine that writes, and everybody who writes waits for it:
// it waits for nothing but the database, and starts no goroutine.
func (s *Store) Together(ctx context.Context, do func(context.Context) error) error {
	// What has been given up must not go on until its end.
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	return s.write(ctx, func(t *tx) (err error) {
		defer func() {
			if fault := recover(); fault != nil {
				err = internal(fmt.Errorf("store: panic: %v\n%s", fault, debug.Stack()))
			}
		}()
		if err := do(context.WithValue(ctx, togetherKey{s}, t)); err != nil {
			return err
		}
		return t.failed
	})
}

// together returns the transaction that ctx belongs to; nil: none.
func (s *Store) together(ctx context.Context) *tx {
	t, _ := ctx.Value(togetherKey{s}).(*tx)
	return t
}
