// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker/store/storetest"
	"go.uber.org/goleak"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a store that is closed when the test ends.
func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.Path == "" && cfg.PostgreSQL == nil {
		cfg.Path = filepath.Join(t.TempDir(), "postern.db")
	}
	cfg.Logger = zaptest.NewLogger(t, zaptest.Level(zapcore.FatalLevel))
	s, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Store { return open(t, Config{}) })
}

func TestRetention(t *testing.T) {
	storetest.RunRetention(t, func(t *testing.T, now func() time.Time) storetest.Store { return open(t, Config{Now: now}) })
}

func TestShared(t *testing.T) {
	storetest.RunShared(t, func(t *testing.T) (storetest.Store, storetest.Store) {
		path := filepath.Join(t.TempDir(), "postern.db")
		return open(t, Config{Path: path}), open(t, Config{Path: path})
	})
}
