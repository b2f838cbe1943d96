// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"github.com/google/uuid"
)

// ID names a thing: a UUIDv7 (RFC 9562 §5.7) in its canonical lower-case form
// of 36 octets. Only ids that ParseID accepted may become parts of paths.
type ID string

// NewID makes an id. It panics only when the system has no randomness.
func NewID() ID { return ID(uuid.Must(uuid.NewV7()).String()) }

// ParseID accepts the canonical form of a UUID alone; the error is Invalid.
func ParseID(s string) (ID, error) {
	u, err := uuid.Parse(s)
	if err != nil || u.String() != s {
		return "", InvalidField("id", "not an id (a UUID in lower case)")
	}
	return ID(s), nil
}
