// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"encoding/json"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/rotation/driver"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == asProgram {
		program(os.Args[2])
	}
	goleak.VerifyTestMain(m)
}

// The passwords of all mailboxes in these tests, of the form that a rotation
// generates.
const (
	oldPassword = "Old7kQm2xWv9bTz4nRc8jLp3hYs6dFg1"
	newPassword = "New5uPe8rTy1wQa7zXs2kMn4vBc9jHg6"
)

func secret(s string) broker.Secret { return broker.NewSecret([]byte(s)) }

var mailboxes atomic.Int64

// newChange is a change for a mailbox of its own.
func newChange() *broker.PasswordChange {
	address := fmt.Sprintf("box%d@firm.example", mailboxes.Add(1))
	return &broker.PasswordChange{
		Mailbox:  &broker.Mailbox{ID: broker.NewID(), FirmID: broker.NewID(), Address: address},
		Username: address,
		Old:      secret(oldPassword),
		New:      secret(newPassword),
	}
}

// encode makes settings of v.
func encode(t testing.TB, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// with returns settings with one of them changed.
func with(t testing.TB, settings json.RawMessage, name string, value any) json.RawMessage {
	t.Helper()
	all := map[string]any{}
	if err := json.Unmarshal(settings, &all); err != nil {
		t.Fatal(err)
	}
	all[name] = value
	return encode(t, all)
}

func newDriver(t testing.TB, name string, c driver.Config) broker.Driver {
	t.Helper()
	all, err := driver.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return all[name]
}
